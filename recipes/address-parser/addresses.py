"""US addresses as usaddress labels them: its XML read into rows, each row's kind and state, and its split."""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgeml.errors import EdgemlError

Row = dict[str, Any]

SEED = "edgeml address parser 1"  # another seed gives other splits
TEST_SHARE, DEV_SHARE = 0.25, 0.10
FEWEST_IN_A_STATE = 25  # hand-labelled addresses; states with fewer are one slice, `other`
KINDS: Mapping[str, frozenset[str]] = {  # the first that a row has a label of
    "rural_route": frozenset({"USPSBoxGroupType", "USPSBoxGroupID"}),
    "po_box": frozenset({"USPSBoxType", "USPSBoxID"}),
    "intersection": frozenset({"IntersectionSeparator", "CornerOf"}),
    "occupancy": frozenset({"OccupancyType", "OccupancyIdentifier", "SubaddressType", "SubaddressIdentifier"}),
    "named": frozenset({"Recipient", "BuildingName", "LandmarkName"}),
}
_STATES = """AL Alabama;AK Alaska;AZ Arizona;AR Arkansas;CA California;CO Colorado;CT Connecticut;DE Delaware;
DC District of Columbia;FL Florida;GA Georgia;HI Hawaii;ID Idaho;IL Illinois;IN Indiana;IA Iowa;KS Kansas;KY Kentucky;
LA Louisiana;ME Maine;MD Maryland;MA Massachusetts;MI Michigan;MN Minnesota;MS Mississippi;MO Missouri;MT Montana;
NE Nebraska;NV Nevada;NH New Hampshire;NJ New Jersey;NM New Mexico;NY New York;NC North Carolina;ND North Dakota;
OH Ohio;OK Oklahoma;OR Oregon;PA Pennsylvania;RI Rhode Island;SC South Carolina;SD South Dakota;TN Tennessee;TX Texas;
UT Utah;VT Vermont;VA Virginia;WA Washington;WV West Virginia;WI Wisconsin;WY Wyoming;PR Puerto Rico"""
STATES = {name.lower(): code for code, _, name in (state.strip().partition(" ") for state in _STATES.split(";"))}


def read_xml(content: bytes, where: str) -> list[Row]:
    """The rows of a labelled file: `tokens` with their `tags`, one tag a word.

    Refused are files that declare a document type, so that no entity is ever expanded, and files that are no XML.
    Left out are addresses with text that has no label, other than the comma or the semicolon after a word, which is
    put to its word as usaddress itself cuts addresses.
    """
    try:
        text = content.decode("utf-8")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise EdgemlError(f"{where} declares a document type", hint="labelled addresses need none")
        root = ET.fromstring(text)
    except (UnicodeDecodeError, ET.ParseError) as error:
        raise EdgemlError(f"{where} is no XML: {error}", hint="fetch the archive again") from error
    return [row for one in root if (row := _row(one))]


def _row(address: ET.Element) -> Row | None:
    tokens: list[str] = []
    tags: list[str] = []
    if (address.text or "").strip():
        return None
    for part in address:
        words, rest = (part.text or "").split(), (part.tail or "").strip()
        if not words or rest not in ("", ",", ";"):
            return None
        words[-1] += rest
        tokens += words
        tags += [part.tag] * len(words)
    return {"tokens": tokens, "tags": tags} if tokens else None


def plain(tokens: Iterable[str]) -> str:
    """An address without case and punctuation: two that are alike here are one address."""
    return " ".join(re.sub(r"[^a-z0-9 ]", "", " ".join(tokens).lower()).split())


def family(tokens: Iterable[str]) -> str:
    """`plain`, with every number alike: addresses that differ only in their numbers are one family, in one split."""
    return re.sub(r"\d+", "0", plain(tokens))


def split_of(tokens: Iterable[str]) -> str:
    """`test`, `dev` or `train`, by the digest of the seed and the address's family."""
    digest = hashlib.sha256(f"{SEED}\n{family(tokens)}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < TEST_SHARE:
        return "test"
    return "dev" if place < TEST_SHARE + DEV_SHARE else "train"


def kind_of(tags: Iterable[str]) -> str:
    """`rural_route`, `po_box`, `intersection`, `occupancy` (a unit, floor or room), `named`, or else `plain`."""
    present = set(tags)
    return next((kind for kind, labels in KINDS.items() if labels & present), "plain")


def state_of(row: Row) -> str:
    """The two letters of the state that a row names, `none` where it names none, `other` for what is no state."""
    words = [token for token, tag in zip(row["tokens"], row["tags"], strict=True) if tag == "StateName"]
    name = " ".join(re.sub(r"[^a-z ]", "", " ".join(words).lower()).split())
    if not name:
        return "none"
    code = name.upper() if name.upper() in STATES.values() else STATES.get(name)
    return code or "other"


def without_duplicates(rows: Iterable[Row], *, seen: set[str]) -> list[Row]:
    """The first row of each address that is not in `seen`, which grows."""
    kept = []
    for row in rows:
        key = plain(row["tokens"])
        if key and key not in seen:
            seen.add(key)
            kept.append(row)
    return kept


def with_slices(rows: Sequence[Row]) -> list[Row]:
    """The rows with `kind` and `state`; states with few of these rows are `other`."""
    states = [state_of(row) for row in rows]
    counts = {state: states.count(state) for state in set(states)}
    return [
        {
            **row,
            "kind": kind_of(row["tags"]),
            "state": state if counts[state] >= FEWEST_IN_A_STATE else "other",
        }
        for row, state in zip(rows, states, strict=True)
    ]

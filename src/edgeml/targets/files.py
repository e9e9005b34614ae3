"""Profiles as files: those that edgeml has, one's own, and what makes either wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml.targets.types import Fact, Profile
from edgeml.types import Scheme
from edgeml.yaml_files import parse_yaml, read_yaml
from edgeml_runtime.errors import unknown
from edgeml_runtime.meters import NAMES
from edgeml_runtime.records import build

_TEMPLATE = "template.yaml"
_FOLDER = files("edgeml.targets") / "profiles"
_HINT = "compare it with one that works: edgeml targets --template"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_WHEELS = {  # how wheels for a machine end; for any other, with its own name
    "aarch64": ("_aarch64", "_arm64_v8a"),
    "arm64": ("_arm64",),
    "x86_64": ("_x86_64", "_amd64"),
}


@cache
def shipped() -> tuple[Profile, ...]:
    """Every profile that edgeml has, by name."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in _FOLDER.iterdir() if path.name.endswith(".yaml")}
    names = sorted(texts.keys() - {_TEMPLATE})
    return tuple(_checked(build(parse_yaml(texts[name]), Profile, where=name), name) for name in names)


def template(name: str | None = None) -> str:
    """A profile to fill in, with a word on each key; or the file of one that edgeml has."""
    if name is None:
        return (_FOLDER / _TEMPLATE).read_text(encoding="utf-8")
    known = {word: found.name for found in shipped() for word in (found.name, *found.aliases)}
    if name not in known:
        raise unknown("target", name, sorted(known), plural="targets")
    return (_FOLDER / f"{known[name]}.yaml").read_text(encoding="utf-8")


def own(path: Path) -> Profile:
    """One's own profile; an unknown key or name in it is refused with its place and the nearest known one."""
    plain = read_yaml(path, missing="write one with: edgeml targets --template > mine.yaml", hint=_HINT)
    found = _checked(build(plain, Profile, where=str(path)), str(path))
    if any(found.name in (other.name, *other.aliases) for other in shipped()):
        raise EdgemlError(f"{path}: {found.name} is a target of edgeml's own", hint="give yours another name")
    if found.chosen_gb or found.chosen_chip or found.file:
        what = f"{path}: chosen_gb, chosen_chip and file do not stand in a file"
        raise EdgemlError(what, hint=f"choose when you use it, such as: --target {path}:4gb")
    return Profile(**{name: getattr(found, name) for name in found.__struct_fields__} | {"file": str(path)})


def _checked(found: Profile, where: str) -> Profile:
    """The profile, if what it says can be true."""
    for trouble in _troubles(found):
        raise EdgemlError(f"{where}: {trouble}", hint=_HINT)
    for key, names in (("schemes_encoder", found.schemes_encoder), ("schemes_decoder", found.schemes_decoder)):
        for name in names:
            _known_scheme(name, f"{where}: {key}")
    for meter in found.meters:
        if meter not in NAMES:
            refusal = unknown("energy meter", meter, NAMES, plural="energy meters")
            raise EdgemlError(f"{where}: {refusal.message}", hint=refusal.hint)
    return found


def _known_scheme(name: str, where: str) -> None:
    try:
        Scheme.parse(name)
    except EdgemlError as error:
        raise EdgemlError(f"{where}: {error.message}", hint=error.hint) from error


def _troubles(found: Profile) -> Iterator[str]:
    if not _NAME.fullmatch(found.name):
        yield f"{found.name!r} cannot be a target's name: use lower-case letters, digits and dashes"
    if not (found.wheel_platforms and found.python and found.schemes_encoder and found.schemes_decoder):
        yield "wheel_platforms, python, schemes_encoder and schemes_decoder must name at least one each"
    ends = _WHEELS.get(found.machine, (f"_{found.machine}",))
    for name in found.wheel_platforms:
        if not name.endswith(ends):
            yield f"wheels for {name} do not run on {found.machine}"
    for version in found.python:
        if not re.fullmatch(r"3\.\d+", version):
            yield f"python {version!r} is no version such as '3.11'"
    if found.emulated_cpu and not (found.cpu_part and found.cpu_features):
        yield "emulated_cpu needs cpu_part and cpu_features beside it"
    if found.cpu_part and not re.fullmatch(r"0x[0-9a-f]+", found.cpu_part):
        yield f"cpu_part {found.cpu_part!r} is no number such as '0xd0b'"
    if any(size <= 0 for size in (*found.memory_gb, *(gb for chip in found.chips.values() for gb in chip.memory_gb))):
        yield "a size of memory_gb is not above 0"
    yield from (f"{place}: {trouble}" for place, fact in facts(found) for trouble in _untrue(fact))


def _untrue(fact: Fact) -> Iterator[str]:
    low = fact.value if fact.low is None else fact.low
    high = fact.value if fact.high is None else fact.high
    if not low <= fact.value <= high:
        yield f"the value {fact.value:g} is not between low {low:g} and high {high:g}"
    if low < 0:
        yield f"{low:g} is below 0"
    if not fact.source.strip() or not fact.date.strip():
        yield "it needs a source and a date"


def facts(found: Profile) -> Iterator[tuple[str, Fact]]:
    """Every fact of a profile, with its key; those of its chips with the chip's: `m2.idle_w`."""
    for key in ("cores", "system_gb", "idle_w", "busy_w"):
        if fact := getattr(found, key):
            yield key, fact
    yield from ((f"bandwidth_gb_s.{how}", fact) for how, fact in found.bandwidth_gb_s.items())
    yield from ((f"compute_gop_s.{how}", fact) for how, fact in found.compute_gop_s.items())
    for name, chip in found.chips.items():
        for key in ("bandwidth_gb_s", "decode_gb_s", "idle_w", "busy_w"):
            if fact := getattr(chip, key):
                yield f"{name}.{key}", fact

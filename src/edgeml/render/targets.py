"""Targets as text: a table of all, or one with every fact and where it stands."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from edgeml.render.tables import Column, table
from edgeml.targets.types import Fact, Profile, memory_words

_NAMES = {  # of a fact's key: what a person calls it, and its unit
    "cores": ("cores", ""),
    "system_gb": ("its system keeps", "GB"),
    "bandwidth_gb_s": ("bandwidth", "GB/s"),
    "decode_gb_s": ("bandwidth, decode", "GB/s"),
    "compute_gop_s": ("compute", "GOP/s"),
    "idle_w": ("idle", "W"),
    "busy_w": ("busy", "W"),
}
_NARROWEST = 30  # characters in which a source is still readable


def profiles(found: Sequence[Profile], width: int) -> list[str]:
    """One target whole, or several in a table."""
    return _whole(found[0], width) if len(found) == 1 else [_all(found, width)]


def _all(found: Sequence[Profile], width: int) -> str:
    from edgeml.targets.ways import ways  # reads files that no other table needs

    columns = [
        Column(title="target", cells=tuple(" = ".join((one.name, *one.aliases[:1])) for one in found)),
        Column(title="also", cells=tuple(" ".join(one.aliases[1:]) for one in found), rank=5),
        Column(title="what", cells=tuple(one.title for one in found), rank=4),
        Column(title="processor", cells=tuple(one.cpu or one.machine for one in found), rank=1),
        Column(title="memory", cells=tuple(_sizes(one) for one in found), rank=2),
        Column(title="meters", cells=tuple(" ".join(one.meters) for one in found), rank=3),
        Column(title="from this machine", cells=tuple(", ".join(ways(one)) for one in found)),
    ]
    return table(columns, width)


def _sizes(one: Profile) -> str:
    sizes = sorted(one.memory_gb)
    return " to ".join(dict.fromkeys(memory_words(size) for size in (sizes[0], sizes[-1]))) if sizes else ""


def _whole(one: Profile, width: int) -> list[str]:
    title = f"{' = '.join((one.name, *one.aliases))}: {one.title}"
    notes = [_wrapped(f"- {note}", width, "  ") for note in one.notes]
    return [
        "\n".join(_wrapped(line, width, " " * 18) for line in (title, *_lines(one))),
        _facts(one, width),
        *(["\n".join(notes)] if notes else []),
        "\n".join(_wrapped(line, width, "  ") for line in _reached(one)),
    ]


def _lines(one: Profile) -> list[str]:
    chosen = f", {memory_words(one.chosen_gb)} chosen" if one.chosen_gb else ""
    sizes = ", ".join(map(memory_words, sorted(one.memory_gb)))
    chip = one.chips[one.chosen_chip].title if one.chosen_chip else None
    rows = {
        "processor": f"{chip or one.cpu or 'not stated'} ({one.machine})",
        "features": " ".join(one.cpu_features),
        "emulated as": one.emulated_cpu,
        "memory": f"{sizes}{chosen}" if sizes else None,
        "chips": None if chip else ", ".join(one.chips),
        "meters of energy": ", ".join(one.meters),
        "Python": ", ".join(one.python),
        "wheels": ", ".join(one.wheel_platforms),
        "encoders become": " ".join(one.schemes_encoder),
        "decoders become": " ".join(one.schemes_decoder),
        "hardware": one.hardware,
        "file": one.file,
    }
    return [f"{name:<18}{text}" for name, text in rows.items() if text]


def _facts(one: Profile, width: int) -> str:
    from edgeml.targets.files import facts

    found = [(key, fact) for key, fact in facts(one) if not (one.chosen_chip and key.split(".")[0] in one.chips)]
    if not found:
        return "no figures of it are known"
    names = [_name(key) for key, _ in found]
    cells = [(*name, f"{fact.value:g}", _range(fact)) for name, (_, fact) in zip(names, found, strict=True)]
    widths = [max(len(row[place]) for row in cells) for place in range(4)]
    room = max(_NARROWEST, width - sum(widths) - 8 - len("unit"))
    rows = [
        (*(row if not place else ("", "", "", "")), line)
        for row, (_, fact) in zip(cells, found, strict=True)
        for place, line in enumerate(textwrap.wrap(f"{fact.source}; {fact.date}", room))
    ]
    fact, unit, value, span, source = zip(*rows, strict=True)
    columns = [
        Column(title="fact", cells=fact),
        Column(title="value", cells=value, right=True),
        Column(title="range", cells=span, rank=1),
        Column(title="unit", cells=unit),
        Column(title="source; its date", cells=source),
    ]
    return table(columns, width)


def _name(key: str) -> tuple[str, str]:
    """A fact's name and unit, by its key such as `bandwidth_gb_s.read` or `m2.idle_w`."""
    first, _, rest = key.partition(".")
    if first in _NAMES:
        name, unit = _NAMES[first]
        return f"{name}, {rest.replace('_', ' ')}" if rest else name, unit
    name, unit = _NAMES[rest]
    return f"{first}: {name}", unit


def _range(fact: Fact) -> str:
    if fact.low is None and fact.high is None:
        return ""
    low, high = (fact.value if end is None else end for end in (fact.low, fact.high))
    return f"{low:g} to {high:g}"


def _reached(one: Profile) -> list[str]:
    from edgeml.targets.ways import instead, ways

    if ways(one) == ("here",):
        return ["This machine is one: edgeml bench measures on it."]
    return [
        f"With one at hand: edgeml bench --target {one.asked} --host user@address",
        "Without one at hand:",
        *(f"- {line}" for line in instead(one)),
    ]


def _wrapped(text: str, width: int, indent: str) -> str:
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)

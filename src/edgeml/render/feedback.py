"""Feedback as text. Inputs are shown where somebody asked for the items themselves, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Sequence

from edgeml.pulled import POOLS, Export, Pull, Pulled, Tally
from edgeml.render.tables import Column, table
from edgeml.stats import Interval
from edgeml.threshold import Threshold
from edgeml_runtime.errors import counted
from edgeml_runtime.types import Absent


def pulls(found: Sequence[Pull], width: int) -> list[str]:  # noqa: ARG001 - one signature for all
    """What came, in sentences."""
    return ["\n".join(line for one in found for line in _pull(one))]


def _pull(one: Pull) -> list[str]:
    pools = ", ".join(f"{one.pools[pool]} for {pool}" for pool in POOLS if pool in one.pools)
    items = counted(one.items, "item")
    lines = [f"{one.device}: {items} in {one.file}, {one.new} of them new{f': {pools}' if pools else ''}"]
    return lines + ([f"{one.device}: {counted(one.removed, 'item')} removed there"] if one.removed else [])


def tallies(found: Sequence[Tally], width: int) -> list[str]:
    """A table of counts."""
    columns = [
        Column(title="model", cells=tuple(one.model for one in found)),
        Column(title="task", cells=tuple(one.task for one in found), rank=2),
        Column(title="pool", cells=tuple(one.pool for one in found)),
        Column(title="kind", cells=tuple(one.kind for one in found)),
        Column(title="device", cells=tuple(one.device for one in found), rank=1),
        Column(title="right", cells=tuple(one.label or "" for one in found)),
        Column(title="items", cells=tuple(str(one.count) for one in found), right=True),
    ]
    return [table(columns, width)]


def items(found: Sequence[Pulled], width: int) -> list[str]:  # noqa: ARG001 - one signature for all
    """Every item with all its texts."""
    return ["\n\n".join("\n".join(f"{name:<12}{text}" for name, text in _item(one)) for one in found)]


def _item(one: Pulled) -> list[tuple[str, str]]:
    item = one.item
    sure = [] if item.confidence is None else [("confidence", f"{item.confidence:.3f}")]
    right = [] if item.correction is None else [("right", _json(item.correction))]
    return [
        ("item", item.id),
        ("from", f"{one.device}, {item.model}, {item.time} by its clock, number {item.sequence}"),
        ("pool", f"{one.pool}, {item.kind}"),
        ("input", _json(item.input)),
        ("answer", _json(item.answer)),
        *sure,
        *right,
    ]


def exports(found: Sequence[Export], width: int) -> list[str]:  # noqa: ARG001 - one signature for all
    """What was written, and what was not."""
    return ["\n".join(line for one in found for line in _export(one))]


def _export(one: Export) -> list[str]:
    lines = [f"{one.file}: {counted(one.rows, 'row')} of {one.model} for {one.pool} ({one.task})"]
    lines += [f"left out: {count} {reason}" for reason, count in one.left_out.items()]
    return lines + ([f"they contradict: {', '.join(one.conflicting)}"] if one.conflicting else [])


def thresholds(found: Sequence[Threshold], width: int) -> list[str]:
    """What each threshold would keep."""
    columns = [
        Column(title="low_confidence", cells=tuple(f"{one.threshold:g}" for one in found), right=True),
        Column(title="of wrong answers", cells=tuple(_share(one.caught) for one in found), right=True),
        Column(title="of all answers", cells=tuple(_share(one.kept) for one in found), right=True),
    ]
    first = found[0]
    title = f"{first.variant}, {first.task}: {first.wrong} of {first.rows} answers were wrong ({first.run})"
    return [f"{title}\n{table(columns, width)}"]


def absences(found: Sequence[Absent], width: int) -> list[str]:  # noqa: ARG001 - one signature for all
    """Why there is no figure."""
    return ["\n".join(f"no threshold: {one.reason}\n-> {one.hint}" for one in found)]


def _share(one: Interval) -> str:
    bounds = f" [{one.low:.1%}, {one.high:.1%}]" if one.low is not None and one.high is not None else ""
    return f"{one.value:.1%}{bounds}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)

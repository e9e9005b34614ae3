"""A page put together from findings: verdicts first, then everything about each task and target."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from edgeml.page.blocks import Block, Document, Part, Section, Text
from edgeml.page.charts import latencies, tradeoffs
from edgeml.page.earlier import earlier
from edgeml.page.examples import examples
from edgeml.page.figures import figures, slices
from edgeml.page.finding import Finding
from edgeml.page.provenance import missing, provenance
from edgeml.page.verdicts import verdicts
from edgeml.page.words import day
from edgeml_runtime import __version__

_OPEN = "This page shows texts of the data and answers to them: pass it on only to people who may read those."
_CLOSED = "It shows neither texts of the data nor answers to them."
_CUT = "\N{HORIZONTAL ELLIPSIS}"
# A path from the root, the home or this folder, but for those of the kernel's own files, which are the same everywhere.
_PATH = re.compile(
    r"(?:(?<=file://)|(?<![\w./<]))(?:~|\.\.?)?/(?!(?:sys|proc|dev)/)(?:[^\s/'\",:;()]+/)+([^\s/'\",:;()]*)"
)


def document(model: str, findings: Sequence[Finding], *, private: Sequence[str], drawn: bool = True) -> Document:
    """The page of a model. `private` are folders whose names must not be seen; without `drawn` it has no plots."""
    shows = any(one.inputs is not None for one in findings)
    made = f"Made by edgeml {__version__} from what edgeml bench measured. Nothing on it is fetched from anywhere."
    page = Document(
        title=model,
        summary="; ".join(map(_summary, findings)),
        verdicts=Section(title="Verdicts", blocks=tuple(_verdicts(findings))),
        parts=tuple(_part(one, f"p{number}", drawn=drawn) for number, one in enumerate(findings, 1)),
        footer=made if shows else f"{made} {_CLOSED}",
        warning=_OPEN if shows else "",
    )
    return msgspec.convert(_without_paths(msgspec.to_builtins(page), private), Document)


def without_paths(text: str, private: Sequence[str]) -> str:
    """The text with every path cut to its last name, and with what else is said of `private` folders left out."""
    for folder in sorted(filter(lambda one: len(one) > 1, private), key=len, reverse=True):
        text = text.replace(folder, _CUT)
    return _PATH.sub(f"{_CUT}/\\1", text).replace(_CUT * 2, _CUT)


def _summary(finding: Finding) -> str:
    first = finding.first
    data = first.provenance.get("dataset", "data without a name")
    return f"{first.task} on {data}, {first.how} on {finding.device} on {day(finding.report.started)}"


def _verdicts(findings: Sequence[Finding]) -> list[Block]:
    blocks: list[Block] = []
    for one in findings:
        if len(findings) > 1:
            blocks.append(Text(text=f"{one.title}:"))
        blocks += verdicts(one)
    return blocks


def _part(finding: Finding, name: str, *, drawn: bool) -> Part:
    sections = (
        ("Quality against cost", tradeoffs(finding, f"{name}-quality", drawn=drawn)),
        ("All figures", figures(finding)),
        ("Slices", slices(finding)),
        ("Latency of single inferences", latencies(finding, f"{name}-latency", drawn=drawn)),
        ("Examples", examples(finding)),
        ("Compared with earlier runs", earlier(finding)),
        ("Not measured, and warnings", missing(finding)),
        ("Provenance", provenance(finding)),
    )
    kept = tuple(Section(title=title, blocks=tuple(blocks)) for title, blocks in sections if blocks)
    return Part(title=finding.title, sections=kept)


def _without_paths(value: Any, private: Sequence[str]) -> Any:
    """Plain values with their texts cleaned; plots hold only names and numbers, quoted text is shown on purpose."""
    if isinstance(value, dict):
        kept = {key: item if key == "svg" else _without_paths(item, private) for key, item in value.items()}
        return value if value.get("quoted") else kept
    if isinstance(value, (list, tuple)):
        return [_without_paths(item, private) for item in value]
    return without_paths(value, private) if isinstance(value, str) else value

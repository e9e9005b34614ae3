"""What the same variant measured earlier, where data, question and machine were the same."""

from __future__ import annotations

from msgspec.structs import replace

from edgeml.comparable import differing_machine, differing_question
from edgeml.page.blocks import Block, Listing
from edgeml.page.figures import headline
from edgeml.page.finding import Finding, Past, find, run_of
from edgeml.page.words import day, measured_text, title
from edgeml.types import Run
from edgeml_runtime.types import Generate


def earlier(finding: Finding) -> list[Block]:
    """A sentence for each variant that was measured before; of runs that differ, what differs is named."""
    sentences = [sentence for name in finding.variants if (sentence := _compared(name, finding))]
    return [Listing(items=tuple(sentences))] if sentences else []


def _compared(variant: str, finding: Finding) -> str | None:
    ours = finding.run_of(variant)
    if ours is None:
        return None
    refused = None
    for past in finding.past:
        theirs = run_of(past.report, past.runs, variant)
        if theirs is None or theirs.file_name == ours.file_name:
            continue
        differing = _differing(ours, theirs)
        if not differing:
            return _sentence(variant, past, finding)
        refused = refused or f"{_when(past)}: {'; '.join(differing)}"
    return f"{finding.short(variant)}: not compared with the run of {refused}" if refused else None


def _differing(ours: Run, theirs: Run) -> list[str]:
    weights = [] if ours.variant_sha256 == theirs.variant_sha256 else ["other weights under the same name"]
    machine = differing_machine(ours.outcome.environment, theirs.outcome.environment)
    return [*weights, *_question(ours, theirs), *machine]


def _question(ours: Run, theirs: Run) -> list[str]:
    """What the two were asked differently; by name alone where it is in words, which may quote the data."""
    asked = differing_question(*(replace(run, generate=Generate(), columns={}) for run in (ours, theirs)))
    options = [name for name in Generate.__struct_fields__ if _differ(ours.generate, theirs.generate, name)]
    columns = ["other columns"] if ours.columns != theirs.columns else []
    return [*asked, *(f"another {name}" for name in options), *columns]


def _differ(ours: Generate, theirs: Generate, name: str) -> bool:
    return bool(getattr(ours, name) != getattr(theirs, name))


def _sentence(variant: str, past: Past, finding: Finding) -> str:
    said = []
    for one in headline(finding, variant):
        other = find(past.report, variant, one.metric)
        if other and one.metric != "size":  # the same weights have the same size
            said.append(f"{title(one.metric, one.statistic)} {measured_text(one)}, it was {measured_text(other)}")
    return f"{finding.short(variant)}, against {_when(past)}: {'; '.join(said)}"


def _when(past: Past) -> str:
    return f"{day(past.report.started)} {past.report.started[11:16]}".strip()

"""Values to text: the only module that formats numbers for people, and the line format that programs read."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

from edgeml.bundles.verification import Verification
from edgeml.doctor import Capability
from edgeml.inventory import Deployment, Installed
from edgeml.pulled import Export, Pull, Pulled, Tally
from edgeml.render import feedback
from edgeml.render.choices import chosen_of
from edgeml.render.deployments import deployments, installed
from edgeml.render.devices import devices, probes
from edgeml.render.figures import FIGURES, Figure
from edgeml.render.reports import reports
from edgeml.render.tables import WIDTH, Column, short, size, table
from edgeml.render.targets import profiles
from edgeml.render.verification import verifications
from edgeml.targets.types import Device, Probe, Profile, Runtime
from edgeml.threshold import Threshold
from edgeml.types import Model, Page, Report, Variant
from edgeml_runtime.bundle import Bundle
from edgeml_runtime.records import encode
from edgeml_runtime.types import Absent, Record

__all__ = ["FIGURES", "WIDTH", "Column", "Figure", "as_json", "as_text", "size", "table"]


def as_json(value: Any) -> list[str]:
    """One JSON object a line; a report is its measurements, verdicts, differences, absences and examples."""
    if isinstance(value, Report):
        parts: list[Record] = [*value.measurements, *value.verdicts, *value.differences, *value.absent]
        parts += [*value.fits, *value.examples]
        return [encode(part) for part in parts]
    return [encode(value.manifest if isinstance(value, Variant) else value)]


def as_text(values: Iterable[Any], width: int = WIDTH) -> str:
    """What a person reads: like values share a table, at most `width` wide where that is possible."""
    groups: dict[type, list[Any]] = {}
    for value in values:
        groups.setdefault(type(value), []).append(value)
    blocks = [block for kind, members in groups.items() for block in _BLOCKS[kind](members, width)]
    return "\n\n".join(blocks)


def _models(models: Sequence[Model], width: int) -> list[str]:
    columns = [
        Column(title="model", cells=tuple(model.name for model in models)),
        Column(title="from", cells=tuple(model.ref for model in models), rank=1),
        Column(title="format", cells=tuple(model.format for model in models), rank=3),
        Column(title="size", cells=tuple(size(model.size_bytes) for model in models), right=True),
        Column(title="licence", cells=tuple(model.licence or "not stated" for model in models), rank=2),
    ]
    return [table(columns, width)]


def _variants(variants: Sequence[Variant], width: int) -> list[str]:
    by_model = groupby(variants, key=lambda one: one.name.partition("/")[0])
    return [f"{model}\n{_variants_of(list(members), width)}" for model, members in by_model]


def _variants_of(variants: Sequence[Variant], width: int) -> str:
    audits = [variant.manifest.audit for variant in variants]
    columns = [
        Column(title="variant", cells=tuple(short(variant.name) for variant in variants)),
        Column(title="size", cells=tuple(size(one.manifest.size_bytes) for one in variants), right=True),
        Column(title="bits/weight", cells=tuple(f"{audit.bits_per_weight:.2f}" for audit in audits), right=True),
        Column(title="quantized", cells=tuple(f"{audit.share_quantized:.0%}" for audit in audits), rank=1, right=True),
        Column(title="tensor types", cells=tuple(_tensor_types(audit.tensor_types) for audit in audits), rank=2),
        Column(title="label", cells=tuple("earned" if audit.earned else "not earned" for audit in audits)),
    ]
    notes = [
        f"{short(one.name)}: {text}"
        for one in variants
        for text in (*one.manifest.audit.shortfalls, *one.manifest.notes, *_source(one))
    ]
    notes += [line for one in variants for line in chosen_of(one)]
    return "\n".join([table(columns, width), *notes])


def _tensor_types(counts: dict[str, int]) -> str:
    largest = sorted(counts.items(), key=lambda item: -item[1])[:3]
    return " ".join(f"{name} {count / sum(counts.values()):.0%}" for name, count in largest)


def _source(variant: Variant) -> list[str]:
    quantized = variant.manifest.source_quantized
    return [f"its source was already {quantized}; no full precision to compare with"] if quantized else []


def _bundles(bundles: Sequence[Bundle], width: int) -> list[str]:
    totals = [sum(file.size_bytes for file in bundle.files) for bundle in bundles]
    columns = [
        Column(title="bundle", cells=tuple(bundle.name for bundle in bundles)),
        Column(title="kind", cells=tuple(bundle.kind for bundle in bundles)),
        Column(title="target", cells=tuple(bundle.target for bundle in bundles), rank=1),
        Column(title="files", cells=tuple(str(len(bundle.files)) for bundle in bundles), rank=2, right=True),
        Column(title="unpacked", cells=tuple(map(size, totals)), right=True),
    ]
    return [table(columns, width)]


def _runtimes(runtimes: Sequence[Runtime], width: int) -> list[str]:
    columns = [
        Column(title="runtime", cells=tuple(f"{one.package} {one.version}" for one in runtimes)),
        Column(title="for", cells=tuple(" ".join(one.targets) for one in runtimes)),
        Column(title="size", cells=tuple(size(one.size_bytes) for one in runtimes), right=True),
        Column(title="kernels for", cells=tuple(" ".join(one.cpus) or "one CPU" for one in runtimes), rank=1),
        Column(title="dot products", cells=tuple(str(one.dot_products) for one in runtimes), rank=2, right=True),
        Column(title="glibc", cells=tuple(f"{one.glibc}+" if one.glibc else "" for one in runtimes), rank=3),
    ]
    return ["\n".join([table(columns, width), *(f"warning: {text}" for one in runtimes for text in one.warnings)])]


def _capabilities(found: Sequence[Capability], width: int) -> list[str]:
    margin = max(len(one.name) for one in found) + 7
    lines: list[str] = []
    for one in found:
        start = f"{'yes' if one.available else 'no':<5}{one.name:<{margin - 5}}"
        lines += textwrap.wrap(one.detail, width, initial_indent=start, subsequent_indent=" " * margin)
        if one.hint:
            lines += textwrap.wrap(
                one.hint, width, initial_indent=" " * margin + "-> ", subsequent_indent=" " * (margin + 3)
            )
    return ["\n".join(lines)]


def _pages(pages: Sequence[Page], width: int) -> list[str]:  # noqa: ARG001 - a path is not to be cut
    return ["\n".join(path for page in pages for path in (page.html, page.markdown) if path)]


_BLOCKS: dict[type, Callable[[Sequence[Any], int], list[str]]] = {
    Model: _models,
    Variant: _variants,
    Report: reports,
    Bundle: _bundles,
    Runtime: _runtimes,
    Capability: _capabilities,
    Profile: profiles,
    Page: _pages,
    Device: devices,
    Probe: probes,
    Deployment: deployments,
    Installed: installed,
    Verification: verifications,
    Pull: feedback.pulls,
    Tally: feedback.tallies,
    Pulled: feedback.items,
    Export: feedback.exports,
    Threshold: feedback.thresholds,
    Absent: feedback.absences,
}

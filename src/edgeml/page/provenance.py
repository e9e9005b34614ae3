"""Where the figures come from, what is missing, and what to know of them."""

from __future__ import annotations

import msgspec

from edgeml.page.blocks import Block, Cell, Listing, Table
from edgeml.page.finding import Finding
from edgeml.page.words import listed, title, value_text
from edgeml.types import Measurement
from edgeml_runtime.errors import counted
from edgeml_runtime.types import Environment

_DIGEST = 12  # characters of a SHA-256 that are shown of weights; the data's is shown in full


def missing(finding: Finding) -> list[Block]:
    """What was not measured and why, each reason once; then the warnings."""
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for one in finding.report.absent:
        reasons.setdefault((one.metric, one.reason, one.hint), []).append(finding.short(one.variant or ""))
    everywhere = len(finding.variants)
    items = [
        f"{title(metric)}{'' if len(names) >= everywhere else _of(names)}: not measured, {reason} (to do: {hint})"
        for (metric, reason, hint), names in reasons.items()
    ]
    items += [f"Warning: {text}" for text in dict.fromkeys(finding.report.warnings)]
    return [Listing(items=tuple(items))] if items else []


def provenance(finding: Finding) -> list[Block]:
    """Machine and versions, data and seed, runs, and how each figure was had."""
    runs = [_runs(finding)] if any("run" in one.provenance for one in finding.report.measurements) else []
    return [*_machines(finding), _data(finding), *runs, _methods(finding)]


def _of(names: list[str]) -> str:
    known = [name for name in names if name]
    return f" of {listed(known)}" if known else ""


def _machines(finding: Finding) -> list[Block]:
    """One table, or one for each group of variants where they ran on machines or threads that differ."""
    groups: dict[str, tuple[Environment, list[str]]] = {}
    for one in finding.report.measurements:
        if one.environment is None:  # nothing ran where the figure is of
            continue
        key = msgspec.json.encode(one.environment).decode()
        groups.setdefault(key, (one.environment, []))[1].append(finding.short(one.variant))
    tables: list[Block] = []
    for here, names in groups.values():
        whose = "" if len(groups) == 1 else f" of {listed(list(dict.fromkeys(names)))}"
        rows = tuple((Cell(text=key), Cell(text=value)) for key, value in _facts(here))
        tables.append(Table(caption=f"Machine and software{whose}", titles=("what", "is"), rows=rows, numbers_from=2))
    return tables


def _facts(here: Environment) -> list[tuple[str, str]]:
    memory = value_text(here.memory_bytes / 2**30, "GiB") if here.memory_bytes else None
    known = (
        ("device", here.device),
        ("processor", here.cpu or here.machine),
        ("instruction sets", ", ".join(here.cpu_features) or None),
        ("cores, threads", f"{_cores(here)}, {counted(here.threads, 'thread')} used"),
        ("GPU", here.accelerator),
        ("memory", memory),
        ("frequency governor", here.governor),
        ("system", f"{here.system}, {here.machine}"),
        ("emulated by", here.emulator),
        ("Python", here.python),
        *here.libraries.items(),
    )
    return [(key, value) for key, value in known if value]


def _cores(here: Environment) -> str:
    if here.performance_cores is None or here.efficiency_cores is None:
        return counted(here.cores, "core")
    return f"{here.performance_cores} performance and {here.efficiency_cores} efficiency cores"


def _data(finding: Finding) -> Table:
    said = finding.first.provenance
    rows = ("data", "dataset"), ("SHA-256 of the data", "dataset_sha256"), ("seed", "seed")
    cells = tuple((Cell(text=name), Cell(text=said[key])) for name, key in rows if key in said)
    return Table(caption="Data and seed", titles=("what", "is"), rows=cells, numbers_from=2)


def _runs(finding: Finding) -> Table:
    rows = []
    for variant in finding.variants:
        said = next(one for one in finding.report.measurements if one.variant == variant).provenance
        started = f"{said.get('started', '')[:19].replace('T', ' ')} UTC"
        cells = (finding.short(variant), started, said.get("variant_sha256", "")[:_DIGEST], said.get("run", ""))
        rows.append(tuple(Cell(text=text) for text in cells))
    titles = ("variant", "measured at", "SHA-256 of the weights", "file of raw samples")
    return Table(caption="Runs", titles=titles, rows=tuple(rows), numbers_from=len(titles))


def _methods(finding: Finding) -> Table:
    found: dict[tuple[str, str], Measurement] = {}
    for one in finding.report.measurements:
        found.setdefault((one.metric, one.provenance.get("method", "")), one)
    rows = tuple(
        (Cell(text=title(metric)), Cell(text=metric), Cell(text=one.how), Cell(text=str(one.n)), Cell(text=method))
        for (metric, method), one in found.items()
    )
    titles = ("figure", "name", "how", "samples", "method")
    return Table(caption="How each figure was had", titles=titles, rows=rows, numbers_from=len(titles))

"""Model cards: what a variant is, what its file really holds, what was measured, and what was not. Measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from edgeml.formats.onnx.int8 import misfit
from edgeml.metrics import METRICS
from edgeml.papers.evidence import Evidence, is_accuracy
from edgeml.papers.markdown import bounds, facts, table
from edgeml.papers.own import CARD, CardNotes
from edgeml.targets.types import Profile
from edgeml.types import Difference, Measurement, ModelRef
from edgeml_runtime.session import kind_of
from edgeml_runtime.types import VariantManifest

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_HOW = {
    "measured": "measured",
    "emulated": "emulated: its instructions ran under an emulator",
    "estimated": "estimated",
}

_Changes = dict[tuple[str, str, str | None], Difference]


def model_card(
    manifest: VariantManifest,
    profile: Profile,
    *,
    found: Evidence | None = None,
    notes: CardNotes | None = None,
) -> str:
    """Markdown with the Hub's metadata block on top; every figure says how and where it was had."""
    from huggingface_hub import ModelCard

    found, notes = found or Evidence(), notes or CardNotes()
    parts = [
        *_opening(manifest, profile),
        *_uses(notes),
        *_audit(manifest),
        *_measured(found, profile),
        *_slices(found),
        *_compared(found),
        *_energy(found),
        *_not_measured(found, profile),
        *_limits(manifest, profile),
        *_files(manifest),
    ]
    return str(ModelCard(f"---\n{_metadata(manifest, profile, found, notes)}\n---\n\n" + "\n".join(parts))) + "\n"


def _metadata(manifest: VariantManifest, profile: Profile, found: Evidence, notes: CardNotes) -> str:
    from huggingface_hub import ModelCardData

    ref = ModelRef.parse(manifest.model) if manifest.model.startswith("hf:") else None
    whole = [one for one in found.measurements if one.slice is None and one.how == "measured"]
    results = [_result(one) for one in whole if is_accuracy(one.metric)]
    data = ModelCardData(
        license=manifest.licence.lower() if manifest.licence else None,  # as the Hub writes it
        language=list(notes.languages) or None,
        base_model=ref.id if ref else None,
        pipeline_tag=manifest.task,
        library_name="edgeml",
        tags=["edgeml", *manifest.scheme.split(":"), profile.name],
        model_name=manifest.name if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _opening(manifest: VariantManifest, profile: Profile) -> list[str]:
    return [
        f"# {manifest.name}",
        "",
        f"`{manifest.model}` stored as `{manifest.scheme}`, to run without a network on: {profile.title}.",
        "",
        *facts(
            [
                ("source, pinned", f"`{manifest.model}`"),
                ("architecture", manifest.architecture),
                ("task", manifest.task),
                ("licence", manifest.licence or "not stated by the source"),
                ("size", f"{manifest.size_bytes / 1e6:.2f} MB in {len(manifest.files)} files"),
                _answer(manifest),
                (
                    "calibration data",
                    f"SHA-256 `{manifest.calibration_sha256}`" if manifest.calibration_sha256 else "none",
                ),
                ("changed", f"quantized or converted from the source by edgeml to `{manifest.scheme}`"),
                (
                    "made with",
                    ", ".join(f"{name} {version}" for name, version in sorted(manifest.tools.items())) or "-",
                ),
            ]
        ),
        "`sh run.sh selftest` proves that it works on a device; `sh run.sh predict --input FILE` uses it.",
        "",
    ]


def _audit(manifest: VariantManifest) -> list[str]:
    audit = manifest.audit
    kinds = sorted(audit.tensor_types.items(), key=lambda item: (-item[1], item[0]))
    earned = "The label is earned." if audit.earned else f"**The label `{manifest.scheme}` is not earned:**"
    return [
        "## What the weight file holds",
        "",
        f"{earned} Read from the file itself: {audit.bits_per_weight:.2f} bits a weight over {audit.parameters} "
        f"parameters, of which {audit.share_quantized:.1%} are quantized.",
        "",
        *(f"- {text}" for text in audit.shortfalls),
        *([""] if audit.shortfalls else []),
        "| stored as | parameters |",
        "|---|---:|",
        *(f"| {name} | {count} |" for name, count in kinds),
        "",
    ]


def _uses(notes: CardNotes) -> list[str]:
    """What only the user can say; what they did not is named."""
    said = [
        ("Intended use", notes.intended_use),
        ("Out of scope", notes.out_of_scope),
        ("Users", notes.users),
        ("Risks", notes.risks),
        ("Contact", notes.contact),
    ]
    missing = ", ".join(name.lower() for name, text in said if not text)
    left = [f"Not stated: {missing}. Who ships this writes it into `{CARD}` beside the model.", ""] if missing else []
    return ["## Use", "", *(line for name, text in said if text for line in (f"**{name}.** {text.strip()}", "")), *left]


def _measured(found: Evidence, profile: Profile) -> list[str]:
    """One table a target and way: figures of an emulator, or estimated ones, are never among measured ones."""
    whole = [one for one in found.measurements if one.slice is None]
    if not whole:
        return ["## Measurements", "", "None were taken.", ""]
    ways = ["measured", "emulated", "estimated"]

    def place(one: Measurement) -> tuple[int, bool, str]:
        return ways.index(one.how), one.target != profile.name, one.target

    groups = groupby(sorted(whole, key=place), key=place)
    return ["## Measurements", "", *(line for _, group in groups for line in _group(list(group), profile))]


def _group(group: Sequence[Measurement], profile: Profile) -> Iterator[str]:
    first = group[0]
    yield from (f"### {first.target}, {_HOW[first.how]}", "")
    if first.target != profile.name:
        yield from (f"Those on {first.target} say nothing of speed or memory on: {profile.title}.", "")
    if first.how == "estimated":
        sources = dict.fromkeys(one.provenance.get("sources", "") for one in group)
        yield from (f"Nothing ran: calculated from published figures ({'; '.join(filter(None, sources))}).", "")
    titles = ("metric", "value", "interval", "unit", "statistic", "n", "target", "how", "data")
    yield from table(titles, map(_row, group), right=("value", "n"))
    yield from (f"- {one.metric}, {one.statistic}: in doubt, {'; '.join(one.marks)}" for one in group if one.marks)
    if any(one.marks for one in group):
        yield ""


def _row(one: Measurement) -> list[object]:
    data = one.provenance.get("dataset", "") if is_accuracy(one.metric) else ""
    interval = bounds(one.low, one.high, one.level)
    return [one.metric, f"{one.value:.6g}", interval, one.unit, one.statistic, one.n, one.target, one.how, data]


def _slices(found: Evidence) -> list[str]:
    """The groups of rows that were asked for, each metric's worst one named."""
    judged = [one for one in found.measurements if one.slice is not None and is_accuracy(one.metric)]
    if not judged:
        return []
    changes: _Changes = {(one.target, one.metric, one.slice): one for one in found.differences}
    worst = _worst(judged, changes)
    rows = [_slice(one, changes, is_worst=one in worst) for one in judged]
    titles = ("metric", "slice", "value", "interval", "against the baseline", "n", "target")
    return ["## Slices", "", *table(titles, rows, right=("value", "n"))]


def _slice(one: Measurement, changes: _Changes, *, is_worst: bool) -> list[object]:
    name = f"{one.slice}{' (worst)' if is_worst else ''}"
    change = _change(changes.get((one.target, one.metric, one.slice)))
    return [one.metric, name, f"{one.value:.6g}", bounds(one.low, one.high, one.level), change, one.n, one.target]


def _worst(judged: Sequence[Measurement], changes: _Changes) -> list[Measurement]:
    """Of each metric and target the slice that lost most against the baseline, or without one has the least."""
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for one in judged:
        groups.setdefault((one.target, one.metric), []).append(one)

    def goodness(one: Measurement) -> float:
        change = changes.get((one.target, one.metric, one.slice))
        value = change.difference if change else one.value
        return -value if _less_is_better(one.metric) else value

    return [min(group, key=goodness) for group in groups.values() if len(group) > 1]


def _less_is_better(metric: str) -> bool:
    return any(one.less for one in METRICS if one.name == metric)


def _change(one: Difference | None) -> str:
    return "" if one is None else f"{one.difference:+.6g} {bounds(one.low, one.high, one.level)}".rstrip()


def _compared(found: Evidence) -> list[str]:
    """Drops against the baseline with their intervals, and what was decided of the bounds that the user set."""
    changes = [one for one in found.differences if one.slice is None]
    lines = ["## Against the baseline", ""] if changes else []
    if changes:
        rows = [[one.metric, one.baseline, f"{one.difference:+.6g}", bounds(one.low, one.high, one.level), one.n,
                 one.target] for one in changes]  # fmt: skip
        titles = ("metric", "baseline", "difference", "interval", "n", "target")
        lines += table(titles, rows, right=("difference", "n"))
    if not found.verdicts:
        return [*lines, "## Verdicts", "", "No bound was set, so nothing was decided.", ""]
    decided = [
        [one.metric, one.slice or "all rows", f"{one.bound:.6g}", f"**{one.verdict}**", _why(one.reason, one.n_needed),
         one.n, one.target] for one in found.verdicts
    ]  # fmt: skip
    heads = ("metric", "of", "bound", "verdict", "why", "n", "target")
    return [*lines, "## Verdicts", "", *table(heads, decided, right=("bound", "n"))]


def _why(reason: str | None, n_needed: int | None) -> str:
    more = f"about {n_needed} rows would tell" if n_needed else None
    return "; ".join(filter(None, (reason, more)))


def _energy(found: Evidence) -> list[str]:
    """Joules with the meter that read them, and what it leaves out."""
    figures = [one for one in found.measurements if one.metric.startswith(("energy", "power")) and one.slice is None]
    if not figures:
        return []
    meters = {(run.target, run.how): run.outcome.energy for run in found.runs if run.outcome.energy}
    lines = []
    for one in figures:
        meter = meters.get((one.target, one.how))
        source = f"{meter.meter} ({meter.scope}; without {meter.excludes})" if meter else one.provenance.get("sources")
        interval = bounds(one.low, one.high, one.level)
        what = f"{one.metric}, {one.statistic}: {one.value:.4g} {one.unit} {interval}".rstrip()
        lines.append(f"- {what}, {one.how} on {one.target}; source: {source or 'not named'}")
    return ["## Energy", "", *lines, ""]


def _not_measured(found: Evidence, profile: Profile) -> list[str]:
    taken = [one for one in found.measurements if one.how == "measured"]
    here = [one.metric for one in taken if one.target == profile.name]
    reasons = [f"- {one.metric}{_where(one.target)}: {one.reason}" for one in found.absent]
    missing = {
        "accuracy on any task": any(is_accuracy(one.metric) for one in taken),
        f"latency on {profile.name}": any(metric.startswith("latency") for metric in here),
        f"memory on {profile.name}": any(metric.startswith("memory") for metric in here),
        f"energy on {profile.name}": any(metric.startswith("energy") for metric in here),
    }
    left = [f"- {what}" for what, was_measured in missing.items() if not was_measured]
    return ["## Not measured", "", *left, *reasons, "- bias, toxicity, and any language or domain not named above", ""]


def _where(target: str | None) -> str:
    return f" on {target}" if target else ""


def _limits(manifest: VariantManifest, profile: Profile) -> list[str]:
    if kind_of(manifest.task) == "decoder":
        limits = [f"Text and answer together have at most {manifest.max_tokens} tokens."]
    elif manifest.pixels:
        limits = [f"Sees pictures as {manifest.pixels.width} by {manifest.pixels.height} pixels."]
    elif manifest.speech:
        language = f", and writes down {manifest.speech.language}" if manifest.speech.language else ""
        limits = [f"Hears at most {manifest.speech.sound.window_s} s of a sound{language}; refuses what is longer."]
    elif kind_of(manifest.task) == "seq2seq":
        limits = [f"Reads at most {manifest.max_tokens} tokens of a text with its instruction; refuses what is longer."]
    else:
        limits = [f"Reads at most {manifest.max_tokens} tokens of a text; what is longer is cut."]
    if cost := misfit(manifest.built_for, profile.integer_kernels):
        limits.append(f"Made for {manifest.built_for}, not for this target's {profile.integer_kernels}, where {cost}.")
    elif manifest.built_for:
        limits.append(f"Its integer weights were made for {manifest.built_for}.")
    if manifest.source_quantized:
        limits.append(
            f"Its source was already quantized ({manifest.source_quantized}): comparing with that source hides "
            "what the first quantization cost."
        )
    return ["## Limits", "", *(f"- {text}" for text in limits), ""]


def _files(manifest: VariantManifest) -> list[str]:
    rows = [f"| {file.path} | {file.size_bytes} | `{file.sha256}` |" for file in manifest.source_files]
    head = ["## Source files", "", "| file | bytes | SHA-256 |", "|---|---:|---|"]
    return [*head, *rows] if rows else []


def _answer(manifest: VariantManifest) -> tuple[str, str]:
    """What a text becomes: one of some labels, or a vector that is pooled in some way."""
    if manifest.labels:
        return "labels", manifest.labels_in_short
    if not manifest.pooling:
        return "pooling", "none"
    return "pooling", f"{manifest.pooling}{', normalised to length 1' if manifest.normalize else ''}"


def _result(one: Measurement) -> EvalResult:
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type=one.task,
        dataset_type="own",
        dataset_name=one.provenance.get("dataset", "not named"),
        dataset_revision=one.provenance.get("dataset_sha256"),
        metric_type=one.metric,
        metric_name=f"{one.metric}, {one.statistic}, on {one.target}",
        metric_value=one.value,
        verified=False,
    )

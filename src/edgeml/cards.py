"""Model cards: what a variant is, what its file really holds, what was measured, and what was not. Measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeml.targets.types import Profile
from edgeml.types import Measurement, ModelRef
from edgeml_runtime.session import kind_of
from edgeml_runtime.types import Absent, VariantManifest

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

# Metrics of accuracy, as far as edgeml computes them; only these go into the card's machine-readable index.
_ACCURACY = (
    "spearman", "pearson", "nearest_accuracy", "accuracy", "macro_f1", "entity_f1", "token_accuracy", "exact_match",
    "chrf", "perplexity",
)  # fmt: skip
_ACCURACY_PREFIX = "contract."


def model_card(
    manifest: VariantManifest,
    profile: Profile,
    *,
    measurements: Sequence[Measurement] = (),
    absent: Sequence[Absent] = (),
) -> str:
    """Markdown with the Hub's metadata block on top; every figure says how and where it was had."""
    from huggingface_hub import ModelCard, ModelCardData

    ref = ModelRef.parse(manifest.model) if manifest.model.startswith("hf:") else None
    results = [_result(one) for one in measurements if _is_accuracy(one.metric)]
    about = ModelCardData(
        license=manifest.licence.lower() if manifest.licence else None,  # as the Hub writes it
        base_model=ref.id if ref else None,
        pipeline_tag=manifest.task,
        library_name="edgeml",
        tags=["edgeml", *manifest.scheme.split(":"), profile.name],
        model_name=manifest.name if results else None,
        eval_results=results or None,
    )
    parts = [
        *_opening(manifest, profile),
        *_audit(manifest),
        *_measured(measurements, profile),
        *_not_measured(measurements, absent, profile),
        *_limits(manifest),
        *_files(manifest),
    ]
    return str(ModelCard(f"---\n{about.to_yaml()}\n---\n\n" + "\n".join(parts))) + "\n"


def _opening(manifest: VariantManifest, profile: Profile) -> list[str]:
    return [
        f"# {manifest.name}",
        "",
        f"`{manifest.model}` stored as `{manifest.scheme}`, to run without a network on: {profile.title}.",
        "",
        "| | |",
        "|---|---|",
        f"| source, pinned | `{manifest.model}` |",
        f"| architecture | {manifest.architecture} |",
        f"| task | {manifest.task} |",
        f"| licence | {manifest.licence or 'not stated by the source'} |",
        f"| size | {manifest.size_bytes / 1e6:.2f} MB in {len(manifest.files)} files |",
        *_answer(manifest),
        f"| made with | {', '.join(f'{name} {version}' for name, version in sorted(manifest.tools.items())) or '-'} |",
        "",
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


def _measured(measurements: Sequence[Measurement], profile: Profile) -> list[str]:
    title = ["## Measurements", ""]
    if not measurements:
        return [*title, "None were taken.", ""]
    others = sorted({one.target for one in measurements} - {profile.name})
    note = [f"Those on {', '.join(others)} say nothing of speed or memory on: {profile.title}.", ""] if others else []
    return [
        *title,
        *note,
        "| metric | value | interval | unit | statistic | n | target | how | data |",
        "|---|---:|---|---|---|---:|---|---|---|",
        *(_row(one) for one in measurements),
        "",
    ]


def _row(one: Measurement) -> str:
    known = one.low is not None and one.high is not None and one.level is not None
    interval = f"{one.low:.6g} to {one.high:.6g} ({one.level:.0%})" if known else ""
    data = one.provenance.get("dataset", "") if _is_accuracy(one.metric) else ""
    cells = [one.metric, f"{one.value:.6g}", interval, one.unit, one.statistic, one.n, one.target, one.how, data]
    return f"| {' | '.join(map(str, cells))} |"


def _not_measured(measurements: Sequence[Measurement], absent: Sequence[Absent], profile: Profile) -> list[str]:
    here = [one.metric for one in measurements if one.target == profile.name]
    reasons = [f"- {one.metric}: {one.reason}" for one in absent]
    missing = {
        "accuracy on any task": any(_is_accuracy(one.metric) for one in measurements),
        f"latency on {profile.name}": any(metric.startswith("latency") for metric in here),
        f"memory on {profile.name}": any(metric.startswith("memory") for metric in here),
        f"energy on {profile.name}": "energy" in here,
    }
    left = [f"- {what}" for what, was_measured in missing.items() if not was_measured]
    return ["## Not measured", "", *left, *reasons, "- bias, toxicity, and any language or domain not named above", ""]


def _limits(manifest: VariantManifest) -> list[str]:
    if kind_of(manifest.task) == "decoder":
        limits = [f"Text and answer together have at most {manifest.max_tokens} tokens."]
    elif manifest.pixels:
        limits = [f"Sees pictures as {manifest.pixels.width} by {manifest.pixels.height} pixels."]
    elif kind_of(manifest.task) == "seq2seq":
        limits = [f"Reads at most {manifest.max_tokens} tokens of a text with its instruction; refuses what is longer."]
    else:
        limits = [f"Reads at most {manifest.max_tokens} tokens of a text; what is longer is cut."]
    if manifest.built_for:
        limits.append(f"Its integer weights are laid out for {manifest.built_for}; elsewhere they may be slower.")
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


def _answer(manifest: VariantManifest) -> list[str]:
    """What a text becomes: one of some labels, or a vector that is pooled in some way."""
    if manifest.labels:
        names = manifest.labels_in_short.replace("|", "\\|")  # a bar would begin the next cell
        return [f"| labels | {names} |"]
    if not manifest.pooling:
        return ["| pooling | none |"]
    return [f"| pooling | {manifest.pooling}{', normalised to length 1' if manifest.normalize else ''} |"]


def _is_accuracy(metric: str) -> bool:
    return metric in _ACCURACY or metric.startswith(_ACCURACY_PREFIX)


def _result(one: Measurement) -> EvalResult:
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type=one.task,
        dataset_type="own",
        dataset_name=one.provenance.get("dataset", "not named"),
        metric_type=one.metric,
        metric_value=one.value,
    )

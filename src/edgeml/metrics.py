"""Every metric that edgeml knows: its unit, its statistics, which tasks have it, and which way is better.

How each is measured is in docs/method.md, where a reader looks for it.
"""

from __future__ import annotations

from edgeml_runtime.errors import unknown
from edgeml_runtime.types import Record

OF_INPUT = ("tokens",)  # say something of the data alone, so that no variant is better or worse by them


class Metric(Record, frozen=True, kw_only=True):
    """One metric. `less` is better of it, or more; a `cost` is of the machine at work, not of single rows.

    `statistics` and `tasks` are words for a reader. `check` names what must be tried for it beside the answers.
    """

    name: str
    unit: str
    statistics: str
    tasks: str
    less: bool = False
    cost: bool = False
    check: str | None = None

    def is_of(self, task: str) -> bool:
        """Whether the task can have it."""
        words = self.tasks.replace(",", " ").split()
        return words[0] == "all" or task in words or (task.endswith("-classification") and "classifications" in words)


def metric(name: str) -> Metric:
    """The metric of that name; an unknown one is refused with the nearest known."""
    for one in METRICS:
        if one.name == name:
            return one
    raise unknown("metric", name, [one.name for one in METRICS], plural="metrics")


def _of_rows(name: str, statistics: str, tasks: str, *, unit: str = "1", less: bool = False) -> Metric:
    return Metric(name=name, unit=unit, statistics=statistics, tasks=tasks, less=less, check=_check_in(tasks))


def _cost(name: str, unit: str, statistics: str, tasks: str = "all", *, less: bool = True) -> Metric:
    return Metric(
        name=name, unit=unit, statistics=statistics, tasks=tasks, less=less, cost=True, check=_check_in(tasks)
    )


def _check_in(tasks: str) -> str | None:
    return tasks.rpartition("check `")[2].rstrip("`") if "check `" in tasks else None


_GENERATION = "text-generation, text2text-generation"
_WRITING = f"{_GENERATION}, automatic-speech-recognition"
_TIMES = "median, mad, p90, p95, p99"
_WHOLE_TEXTS = "sentence-similarity, feature-extraction, text-classification, token-classification"
METRICS = (
    _of_rows("spearman", "spearman", "sentence-similarity"),
    _of_rows("pearson", "pearson", "sentence-similarity"),
    _of_rows("nearest_accuracy", "mean", "feature-extraction"),
    _of_rows("accuracy", "mean", "text-classification, image-classification"),
    _of_rows("macro_f1", "macro_f1", "text-classification, image-classification"),
    _of_rows("entity_f1", "f1", "token-classification"),
    _of_rows("token_accuracy", "share", "token-classification"),
    _of_rows("contract.valid", "mean", "text-generation"),
    _of_rows("contract.schema", "mean", "text-generation, with a schema"),
    _of_rows("contract.keys", "mean", "text-generation, with a schema or answers that are JSON objects"),
    _of_rows("contract.grounded", "mean", "text-generation, with a schema or answers that are JSON objects"),
    _of_rows("contract.truncated", "mean", "text-generation", less=True),
    _of_rows("contract.deterministic", "mean", "text-generation, with the check `determinism`"),
    _of_rows("contract.valid_free", "mean", "text-generation, with a schema and the check `constrained`"),
    _of_rows("exact_match", "mean", _GENERATION),
    _of_rows("chrf", "mean", "text2text-generation"),
    _of_rows("wer", "rate", "automatic-speech-recognition", less=True),
    _of_rows("cer", "rate", "automatic-speech-recognition", less=True),
    _of_rows("fidelity.agreement", "mean", "all whose answers are the same or not, with a baseline"),
    _of_rows("fidelity.spearman", "spearman", "sentence-similarity, with a baseline"),
    _of_rows("fidelity.cosine", "mean", "sentence-similarity, feature-extraction, with a baseline"),
    _of_rows("perplexity", "exp_mean", "perplexity", unit="perplexity", less=True),
    _of_rows("kl_divergence", "mean", "perplexity, with a baseline", unit="nat", less=True),
    _of_rows("same_top", "mean", "perplexity, with a baseline", unit="share"),
    _cost("latency", "ms", _TIMES, "all but perplexity"),
    _cost("latency_first_token", "ms", _TIMES, _WRITING),
    _cost("latency_first_character", "ms", _TIMES, _GENERATION),
    _cost("latency_load", "ms", "once"),
    _cost("latency_first", "ms", "once"),
    _cost("prefill_rate", "token/s", "median", "text-generation, text2text-generation, perplexity", less=False),
    _cost("decode_rate", "token/s", "median", _WRITING, less=False),
    _cost("decode_rate_free", "token/s", "median", "text-generation, with the check `constrained`", less=False),
    _cost("throughput", "text/s", "median", _WHOLE_TEXTS, less=False),
    _cost("throughput", "image/s", "median", "image-classification", less=False),
    _cost("throughput", "s/s", "median", "automatic-speech-recognition", less=False),
    _cost("generated", "token", "median", _WRITING),
    _cost("reasoning", "token", "median", "text-generation, of models that think aloud"),
    _cost("truncated", "text", "sum", _WHOLE_TEXTS),
    _of_rows("tokens", "mean", f"{_WHOLE_TEXTS}, {_GENERATION}", unit="token", less=True),
    _of_rows("sensitivity.typos", "mean", "all that read text, with the check `sensitivity`", less=True),
    _of_rows("sensitivity.case", "mean", "all that read text, with the check `sensitivity`", less=True),
    _of_rows("sensitivity.spacing", "mean", "all that read text, with the check `sensitivity`", less=True),
    _of_rows(
        "batch.flips", "mean", "feature-extraction, classifications, with the check `batch-invariance`", less=True
    ),
    _of_rows(
        "batch.shift",
        "mean",
        "feature-extraction, sentence-similarity, classifications, with the check `batch-invariance`",
        less=True,
    ),
    _cost("memory_peak", "MiB", "max"),
    _cost("memory_peak_anon", "MiB", "max"),
    _cost("memory_peak_file", "MiB", "max"),
    _cost("memory_peak_pss", "MiB", "max"),
    _cost("memory_needed", "MiB", "max"),
    _cost("energy", "J", "median, mad", "all but perplexity, with a meter"),
    _cost("energy_net", "J", "median, mad", "all but perplexity, with a meter"),
    _cost("energy_prefill", "J/token", "median, mad", "text-generation, perplexity, with a meter"),
    _cost("energy_decode", "J/token", "median, mad", "text-generation, with a meter"),
    _cost("energy_estimated", "J", "min, max", "all but perplexity, with stated watts"),
    _cost("power_idle", "W", "median", "all, with a meter"),
    _cost("size", "byte", "once"),
    _of_rows("parity.cosine", "min", "all whose output is a vector, with a target that is emulated"),
    _of_rows("parity.difference", "max", "all whose output is a vector, with a target that is emulated", less=True),
    _of_rows("parity.bit_equal", "mean", "all, with a target that is emulated", unit="share"),
    _of_rows(
        "parity.kl_divergence",
        "mean",
        f"{_WRITING}, perplexity, with a target that is emulated",
        unit="nat",
        less=True,
    ),
    _of_rows(
        "parity.same_top",
        "mean",
        f"{_WRITING}, perplexity, classifications, with a target that is emulated",
        unit="share",
    ),
    _cost("instructions", "instruction", "once", "all, with a target that is emulated and --count-instructions"),
)

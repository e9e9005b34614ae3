"""Numbers and names as a reader of a page meets them."""

from __future__ import annotations

import math

from edgeml.targets.types import memory_words
from edgeml.types import Fit, Measurement

MINUS = "\N{MINUS SIGN}"
_MEGA = 1_000_000
_MIB = 1 << 20
_UNITS = {"1": "", "share": "", "byte": "MB", "perplexity": ""}
_TITLES = {
    "parity.cosine": "least cosine",
    "parity.difference": "largest difference",
    "parity.bit_equal": "bit-equal",
    "parity.kl_divergence": "KL divergence",
    "parity.same_top": "same top",
    "spearman": "Spearman correlation",
    "pearson": "Pearson correlation",
    "nearest_accuracy": "nearest right",
    "macro_f1": "macro F1",
    "entity_f1": "entity F1",
    "chrf": "chrF",
    "wer": "word error rate",
    "cer": "character error rate",
    "contract.valid": "valid JSON",
    "fidelity.agreement": "same answer as the baseline's",
    "fidelity.spearman": "rank correlation with the baseline",
    "fidelity.cosine": "cosine to the baseline",
    "kl_divergence": "KL divergence",
    "same_top": "same top token",
    "latency_first_token": "time to first token",
    "latency_load": "time to load",
    "latency_first": "first inference",
    "latency_first_character": "time to first character",
    "memory_peak": "memory",
    "memory_needed": "memory that a device needs",
    "energy_net": "energy above idle",
    "power_idle": "idle power",
    "contract.grounded": "grounded in the input",
    "contract.schema": "fits the schema",
    "contract.keys": "same keys",
    "contract.truncated": "cut off",
    "contract.deterministic": "same when repeated",
    "memory_peak_anon": "anonymous memory",
    "memory_peak_file": "file-backed memory",
    "memory_peak_pss": "proportional memory (PSS)",
}
_TOLD = {"once", "mean", "exp_mean", "sum", "spearman", "pearson", "f1", "macro_f1", "share", "rate"}  # by its name
_STATISTICS = {"mad": "median absolute deviation", "max": "largest", "min": "least"}


def title(metric: str, statistic: str = "") -> str:
    """A metric in words, with its statistic where there may be several."""
    words = _TITLES.get(metric, metric.replace("_", " ").replace(".", " "))
    return words if not statistic or statistic in _TOLD else f"{words}, {_STATISTICS.get(statistic, statistic)}"


def unit_of(unit: str) -> str:
    """A unit as it is written behind a number; empty for shares and correlations."""
    return _UNITS.get(unit, unit)


def scaled(value: float, unit: str) -> float:
    """A value in the unit that `unit_of` names."""
    return value / _MEGA if unit == "byte" else value


def digits(value: float, low: float | None = None, high: float | None = None) -> int:
    """Decimals worth showing: two significant ones of the interval's half, else three or four of the value itself."""
    half = 0.0 if low is None or high is None else (high - low) / 2
    if half > 0:
        return min(6, max(0, 1 - math.floor(math.log10(half))))
    if value == 0:
        return 0
    return min(6, max(0, (3 if abs(value) < 1 else 2) - math.floor(math.log10(abs(value)))))


def number(value: float, decimals: int, *, signed: bool = False) -> str:
    """A number with a true minus sign; zero has none."""
    text = f"{value:{'+' if signed else ''}.{decimals}f}"
    if not any(digit in text for digit in "123456789"):
        return text.lstrip("+-")
    return text.replace("-", MINUS)


def with_unit(text: str, unit: str) -> str:
    """A number's text and its unit."""
    return f"{text} {unit_of(unit)}".rstrip()


def value_text(value: float, unit: str) -> str:
    """A lone value with its unit."""
    shown = scaled(value, unit)
    return with_unit(number(shown, digits(shown)), unit)


def measured_text(one: Measurement) -> str:
    """A measurement's value with its unit, with the decimals that its interval warrants."""
    shown, decimals = scaled(one.value, one.unit), _decimals(one)
    return with_unit(number(shown, decimals), one.unit)


def bounds_text(one: Measurement) -> str:
    """A measurement's interval in brackets; empty where it has none."""
    if one.low is None or one.high is None:
        return ""
    decimals = _decimals(one)
    low, high = (number(scaled(bound, one.unit), decimals) for bound in (one.low, one.high))
    return f"[{low}, {high}]"


def listed(words: list[str]) -> str:
    """Words as a sentence lists them."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def day(started: str) -> str:
    """The date of an ISO time."""
    return started[:10]


def bounds_of(
    value: float, low: float | None, high: float | None, unit: str
) -> tuple[float, float | None, float | None]:
    """A value and its bounds in the unit that they are shown in."""
    low, high = (None if bound is None else scaled(bound, unit) for bound in (low, high))
    return scaled(value, unit), low, high


def _decimals(one: Measurement) -> int:
    return digits(*bounds_of(one.value, one.low, one.high, one.unit))


def fit_text(one: Fit, variant: str) -> str:
    """Whether a variant fits into a device's memory, in one unit, with what the system leaves of it."""
    context = f", with {one.context_tokens} tokens of context" if one.context_tokens else ""
    needed = _mib(one.needed_low_bytes, one.needed_bytes, one.needed_high_bytes)
    room = _mib(one.available_low_bytes, one.available_bytes, one.available_high_bytes)
    word = "is tight" if one.word == "tight" else one.word
    left = f"the system leaves {room} of {memory_words(one.memory_gb)}"
    return f"{variant} {word} on {one.target}: needs {needed} MiB{context}; {left}"


def _mib(low: int | None, value: int, high: int | None) -> str:
    """A range in MiB; of a report without bounds the value alone."""
    ends = dict.fromkeys(f"{one / _MIB:.0f}" for one in (low, high) if one is not None)
    return " to ".join(ends) or f"{value / _MIB:.0f}"

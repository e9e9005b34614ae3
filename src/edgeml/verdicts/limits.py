"""What a user allows a variant to cost, read from the command line into values. Knows nothing of runs or intervals."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from msgspec.structs import replace

from edgeml.errors import EdgemlError
from edgeml.metrics import METRICS
from edgeml.metrics import metric as known_metric
from edgeml.scores import scorer_of
from edgeml_runtime.types import Record

Option = Literal["max-drop", "max-drop-worst-slice", "max-latency", "max-memory", "max-size", "max-energy"]

OPTIONS: tuple[Option, ...] = get_args(Option)
DROPS = ("max-drop", "max-drop-worst-slice")
# Option of a cost: its metric, the units it may be written in (in the metric's own unit), and an example.
_BYTES = {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
_COSTS: dict[str, tuple[str, dict[str, float], str]] = {
    "max-latency": ("latency", {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}, "5ms, p95=8ms or 120%"),
    "max-memory": ("memory_peak", {name: size / 2**20 for name, size in _BYTES.items()}, "200MiB or 60%"),
    "max-size": ("size", _BYTES, "25MB or 50%"),
    "max-energy": ("energy", {"mJ": 1e-3, "J": 1.0, "kJ": 1e3}, "0.5J or 80%"),
}
_EXAMPLE = "1%, 0.01 or spearman=1%"
_STATISTICS = ("p50", "median", "p90", "p95", "p99", "mean", "max")
_CHUNKED = ("perplexity", "kl_divergence", "same_top")
# What a metric that compares with a baseline is of the baseline itself.
OF_ITSELF = {"kl_divergence": 0.0, "same_top": 1.0}
_BY_DEGREE = ("sentence-similarity",)  # tasks whose answers are not the same or different, only near or far
_MOST_BYTES = 1e18  # which JSON and every library can hold
_AMOUNT = re.compile(r"([+-]?)(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)\s*(\S*)")


class Limit(Record, frozen=True, kw_only=True):
    """The worst that is allowed of one metric.

    Of a drop, `amount` is the largest one, 0 or more: in the metric's own unit, or as a share of the baseline's value
    if `relative`. Of a cost, it is the largest value: in the metric's own unit (ms, MiB, byte, J), or as a multiple of
    the baseline's. `metric` is empty where the task's headline is meant, `statistic` where the metric's own is.
    """

    option: Option
    text: str
    amount: float
    relative: bool = False
    metric: str = ""
    statistic: str | None = None

    @property
    def is_drop(self) -> bool:
        """Whether it bounds a difference to the baseline rather than a value."""
        return self.option in DROPS

    @property
    def needs_baseline(self) -> bool:
        """Whether it means nothing without one."""
        return self.is_drop or self.relative

    def __str__(self) -> str:
        return f"--{self.option} {self.text}"


def limits_of(given: Mapping[str, Sequence[str]]) -> tuple[Limit, ...]:
    """Every limit that was given, by its option's name without dashes before it, such as `max-drop`."""
    return tuple(limit_of(option, text) for option, texts in given.items() for text in texts)


def limit_of(option: str, text: str) -> Limit:
    """One limit as a user writes it; raises EdgemlError, with an example, for what cannot be read.

    A drop is `[metric=]1%` of the baseline's value, or `[metric=]0.01` in the metric's own unit. A cost is a number
    with its unit, or a share of the baseline's: `120%` of it, or as much as `+20%` above it. A latency may name its
    statistic (`p95=8ms`) or one of the other latencies (`latency_first_token=200ms`).
    """
    name, equals, amount = text.strip().rpartition("=")
    if equals and not name:
        raise _unreadable(option, text, "no name before =")
    return _drop(option, text, name, amount) if option in DROPS else _cost(option, text, name, amount)


def size_bytes(option: str, text: str) -> int:
    """The bytes that a size such as `2GB` stands for; raises EdgemlError naming the option for any other text."""
    found = _AMOUNT.fullmatch(text.strip())
    count = float(found[2]) * _BYTES[found[3]] if found and not found[1] and found[3] in _BYTES else 0
    if not 1 <= count <= _MOST_BYTES:
        raise EdgemlError(f"cannot read --{option} {text!r}", hint=f"write a size such as --{option} 2GB")
    return int(count)


def require_answerable(limits: Sequence[Limit], *, baseline: bool, sliced: bool) -> None:
    """Raise EdgemlError, before anything is measured, for a limit that nothing could decide."""
    for limit in limits:
        if limit.needs_baseline and not baseline:
            raise EdgemlError(
                f"{limit} compares with a baseline, and there is none", hint="name one: --baseline VARIANT"
            )
        if limit.option == "max-drop-worst-slice" and not sliced:
            raise EdgemlError(f"{limit} needs slices, and there are none", hint="name a column: --slice COLUMN")


def require_given(limits: Sequence[Limit], task: str) -> None:
    """Raise EdgemlError, before anything is measured, for a metric that the task does not give."""
    for limit in limits:
        if limit.metric and not known_metric(limit.metric).is_of(task):
            of_task = ", ".join(one.name for one in METRICS if one.is_of(task) and not one.cost)
            raise EdgemlError(f"{limit} bounds {limit.metric}, which {task} does not give", hint=f"it gives {of_task}")


def named(limit: Limit, task: str, *, labelled: bool) -> Limit:
    """The limit with its metric named: left out, it is the task's headline, or likeness to the baseline without labels.

    Raises EdgemlError for an unknown metric, a drop that no share could exceed, such as `--max-drop 1` where `1%` was
    meant, and for a share of what is 0 of any baseline.
    """
    full = replace(limit, metric=limit.metric or headline(task, labelled=labelled))
    less = lower_is_better(full.metric)
    if full.is_drop and full.amount >= 1 and not less:
        hint = "write 1% for a share of the baseline's value, or 0.01 in the metric's own unit"
        raise EdgemlError(f"{limit} allows any drop at all of {full.metric}", hint=hint)
    if full.is_drop and full.relative and OF_ITSELF.get(full.metric) == 0:
        problem = f"{limit} allows a share of the baseline's {full.metric}, which is 0 of itself"
        raise EdgemlError(problem, hint=f"allow an amount: --{limit.option} {full.metric}=0.01")
    return full


def headline(task: str, *, labelled: bool) -> str:
    """The metric that a drop is of, where none is named."""
    scorer = scorer_of(task)
    if labelled or scorer.GOLD is None:
        return scorer.HEADLINE
    return "fidelity.cosine" if task in _BY_DEGREE else "fidelity.agreement"


def lower_is_better(metric: str) -> bool:
    """Whether a metric's drop is its rise."""
    return known_metric(metric).less


def is_cost(metric: str) -> bool:
    """Whether a metric is of the machine at work, so that its independent sample is a process and not a row."""
    return known_metric(metric).cost


def samples_noun(metric: str) -> str:
    """What the independent samples of a metric are: `rows`, `chunks` of a text, or `processes`."""
    if is_cost(metric):
        return "processes"
    return "chunks" if metric in _CHUNKED else "rows"


def _drop(option: str, text: str, metric: str, amount: str) -> Limit:
    sign, number, unit = _parts(option, text, amount)
    if sign or unit not in ("", "%"):
        raise _unreadable(option, text, "a drop is a share or a plain number, 0 or more")
    value = number / 100 if unit else number
    return Limit(
        option="max-drop" if option == "max-drop" else "max-drop-worst-slice",
        text=text.strip(),
        amount=value,
        relative=bool(unit),
        metric=metric,
    )


def _cost(option: str, text: str, name: str, amount: str) -> Limit:
    if option not in _COSTS:
        raise EdgemlError(f"unknown limit --{option}", hint=f"known limits: {', '.join((*DROPS, *_COSTS))}")
    metric, units, _ = _COSTS[option]
    statistic = name if name in _STATISTICS else None
    if name and (option != "max-latency" or not (statistic or name.startswith("latency"))):
        raise _unreadable(option, text, f"{name!r} is neither a statistic nor a latency")
    sign, number, unit = _parts(option, text, amount)
    if unit != "%" and unit not in units:
        raise _unreadable(option, text, f"its unit is {unit!r}, not one of {', '.join(units)} or %")
    if sign and unit != "%":
        raise _unreadable(option, text, "only a share of the baseline's has a sign")
    offset = {"": 0.0, "+": 1.0, "-": 1.0}[sign]
    share = offset + (-number if sign == "-" else number) / 100
    value = share if unit == "%" else number * units[unit]
    if not 0 < value < math.inf:
        raise _unreadable(option, text, f"nothing costs so {'little' if value <= 0 else 'much'}")
    return Limit(
        option=option,  # type: ignore[arg-type]  # it is a key of _COSTS
        text=text.strip(),
        amount=value,
        relative=unit == "%",
        metric=name if name.startswith("latency") else metric,
        statistic=statistic,
    )


def _parts(option: str, text: str, amount: str) -> tuple[str, float, str]:
    found = _AMOUNT.fullmatch(amount.strip())
    if not found or not math.isfinite(float(found[2])):
        raise _unreadable(option, text, "no number in it")
    return found[1], float(found[2]), found[3]


def _unreadable(option: str, text: str, why: str) -> EdgemlError:
    example = _COSTS[option][2] if option in _COSTS else _EXAMPLE
    return EdgemlError(f"cannot read --{option} {text!r}: {why}", hint=f"write --{option} and one of {example}")

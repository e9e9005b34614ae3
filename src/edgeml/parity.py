"""Whether a variant computes on another machine what it computes here: raw outputs of a few rows, side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from edgeml.errors import EdgemlError
from edgeml.metrics import metric
from edgeml.stats import LEVEL
from edgeml.types import Run, Verdict, VerdictWord
from edgeml_runtime.session import kind_of, writes_text
from edgeml_runtime.tasks import shuffled
from edgeml_runtime.tolerances import KL_DIVERGENCE, LABELS, SAME_TOP, Tolerance, of_cosine
from edgeml_runtime.types import EnergyPlan, Environment, Job, Outcome, Samples

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeml_runtime.types import Array

    Floats = NDArray[np.float32]
    Pair = tuple[Floats, Floats]  # of one row or position: here and there, `(n, width)` both

ROWS = 8
PROMPT_TOKENS = 24  # of a row's prompt, for a model that writes text
CHUNK_TOKENS = 48
POSITIONS = 96  # in all: their logits are 19 MB for a vocabulary of 49 152, and an emulator needs minutes for more
FEWEST_POSITIONS = 20  # of fewer, three near ties are more than the 15 % that may differ
_CHARACTERS = 64  # of a text for each token that is wanted: a token has some 4
_LIBRARIES = {"onnx": "onnxruntime", "gguf": "llama-cpp-python"}
_METHODS = {
    "parity.cosine": "cosine of its vector or logits, of several the worst",
    "parity.difference": "largest absolute difference of two numbers",
    "parity.bit_equal": "1 where every bit is the same",
    "parity.kl_divergence": "KL(here || there) of the next token, in float64 from float32 logits, teacher-forced",
    "parity.same_top": "1 where the largest logit is the same one; of words, their share",
}


def parity_job(job: Job, rows: int = ROWS) -> Job:
    """The same job for raw outputs alone, to be run on both machines: of few rows, on one thread.

    The order of additions, and so the last bits, depend on the threads. A model that writes text gets as many rows as
    `POSITIONS` of `PROMPT_TOKENS` allow, and of a text as many chunks of `CHUNK_TOKENS`.
    """
    tokens = CHUNK_TOKENS if job.task == "perplexity" else PROMPT_TOKENS
    few = min(rows, POSITIONS // tokens) if writes_text(job.task) else rows
    places = parity_rows(job, few)
    return replace(
        job,
        trace=True,
        rows=tuple(job.rows[place] for place in places),
        numbers=tuple(job.number(place) for place in places),
        text=None if job.text is None else job.text[: _CHARACTERS * POSITIONS],
        context_tokens=min(job.context_tokens, tokens),
        limit=POSITIONS // tokens,
        threads=1,
        threads_prefill=None,
        warmups=0,
        repeats=0,
        reference=None,
        reference_rows=(),
        checks=(),
        answers=False,
        energy=EnergyPlan(meter="off"),
    )


def parity_rows(job: Job, count: int) -> tuple[int, ...]:
    """The places of the rows that stand for all: the first ones in the order that the job's seed draws."""
    return tuple(shuffled(range(len(job.rows)), job)[:count])


def compare(here: Outcome, there: Outcome, *, task: str, scheme: str) -> list[Samples]:
    """How far the raw outputs of two machines are apart: a value a row or, of a model that writes text, a position.

    Of vectors `parity.cosine` and `parity.difference`, of labels `parity.same_top` too, of text `parity.kl_divergence`
    in nats and `parity.same_top`; of all `parity.bit_equal`. NaN and infinity have no cosine, difference or divergence:
    where there are any, the samples are marked, and there are none of these metrics if nothing else is left. Raises
    EdgemlError for outputs that are not of the same rows, or not of the same shape.
    """
    by_position = _by_position(task)
    pairs = _pairs(here, there, by_position=by_position)
    finite = [pair for pair in pairs if _is_finite(pair)]
    noun, few = "position" if by_position else "traced row", len(pairs) - len(finite)
    between = f"{_named(here.environment, scheme)}, against {_named(there.environment, scheme)}"
    empty = Samples(
        metric="",
        unit="",
        values=(),
        statistics=(),
        unit_of_sample=noun,
        method=between,
        marks=(f"NaN or infinity in {few} of {len(pairs)} {noun}s",) if few else (),
        how="emulated" if there.environment.emulator else "measured",
    )
    found = [_filled(empty, name, finite if name in _OF_FINITE else pairs, task) for name in _metrics(task)]
    return [one for one in found if one.values]


def parity_verdicts(run: Run, *, scheme: str) -> list[Verdict]:
    """Whether the samples of `compare`, kept in a run, are within the stated tolerances: facts without an interval.

    NaN or infinity fails. A share of few positions cannot tell.
    """
    samples = {one.metric: one for one in run.outcome.samples}
    every = samples["parity.bit_equal"]
    found = []
    for name, tolerance in _tolerances(run.task, scheme).items():
        known, one = metric(name), samples.get(name)
        value = None if one is None else _STATISTICS[known.statistics](one.values)
        word, reason = _decided(name, value, tolerance, every)
        verdict = Verdict(
            variant=run.variant,
            target=run.target,
            metric=name,
            statistic=known.statistics,
            unit=known.unit,
            verdict=word,
            bound=tolerance.bound,
            value=value,
            n=len(one.values) if one else 0,
            level=LEVEL,
            method=f"a fact about these {every.unit_of_sample}s; the bound: {tolerance.reason}",
            reason=reason,
        )
        found.append(verdict)
    return found


def _filled(empty: Samples, name: str, pairs: Sequence[Pair], task: str) -> Samples:
    known, span = metric(name), _span(pairs) if name == "parity.difference" else ""
    return replace(
        empty,
        metric=name,
        unit=known.unit,
        values=tuple(_value_of(name, task)(pair) for pair in pairs),
        statistics=(known.statistics,),
        method=f"{_METHODS[name]}{span}; {empty.method}",
    )


def _decided(name: str, value: float | None, tolerance: Tolerance, every: Samples) -> tuple[VerdictWord, str | None]:
    """The verdict and, unless the numbers say it themselves, why."""
    n, noun = len(every.values), f"{every.unit_of_sample}s"
    if value is None or every.marks:
        return "fail", every.marks[0]
    if name == "parity.same_top" and tolerance.bound < 1 and n < FEWEST_POSITIONS:
        return "cannot tell", f"{n} {noun} are too few for a share; it takes {FEWEST_POSITIONS} at least"
    holds = value < tolerance.bound if metric(name).less else value >= tolerance.bound
    return ("pass" if holds else "fail"), None


def _tolerances(task: str, scheme: str) -> dict[str, Tolerance]:
    if _by_position(task):
        return {"parity.kl_divergence": KL_DIVERGENCE, "parity.same_top": SAME_TOP}
    labels = {} if kind_of(task) == "encoder" else {"parity.same_top": LABELS}
    return {"parity.cosine": of_cosine(scheme)} | labels


def _metrics(task: str) -> list[str]:
    if _by_position(task):
        return ["parity.kl_divergence", "parity.same_top", "parity.bit_equal"]
    labels = [] if kind_of(task) == "encoder" else ["parity.same_top"]
    return ["parity.cosine", "parity.difference", *labels, "parity.bit_equal"]


def _by_position(task: str) -> bool:
    return task == "perplexity" or writes_text(task) or kind_of(task) == "speech"


def _pairs(here: Outcome, there: Outcome, *, by_position: bool) -> list[Pair]:
    """The outputs of both, a pair for each value; rows without a single number, as without a token, are left out."""
    if len(here.trace) != len(there.trace):
        raise _unlike(f"{len(here.trace)} outputs here", f"{len(there.trace)} there")
    rows = []
    for number, (one, other) in enumerate(zip(here.trace, there.trace, strict=True), 1):
        if one.shape != other.shape:
            raise _unlike(f"output {number} has the shape {one.shape} here", f"{other.shape} there")
        rows.append((_floats(one), _floats(other)))
    if by_position:
        rows = [(one[[place]], other[[place]]) for one, other in rows for place in range(len(one))]
    pairs = [pair for pair in rows if pair[0].size]
    if not pairs:
        raise EdgemlError("there is no output to compare", hint="give rows with a text that has tokens")
    return pairs


def _unlike(ours: str, theirs: str) -> EdgemlError:
    hint = "run the same variant on the same rows, with the same versions of the libraries"
    return EdgemlError(f"nothing pairs the two machines' outputs: {ours}, {theirs}", hint=hint)


def _floats(array: Array) -> Floats:
    import numpy as np

    if len(array.shape) != 2 or math.prod(array.shape) * 4 != len(array.data):
        problem = f"an output of {len(array.data)} bytes is no table of the shape {array.shape}"
        raise EdgemlError(problem, hint="run it again")
    return np.frombuffer(array.data, dtype="<f4").reshape(array.shape)


def _is_finite(pair: Pair) -> bool:
    import numpy as np

    return bool(np.isfinite(pair[0]).all() and np.isfinite(pair[1]).all())


def _span(pairs: Sequence[Pair]) -> str:
    low = min((float(one.min()) for one, _ in pairs), default=0.0)
    high = max((float(one.max()) for one, _ in pairs), default=0.0)
    return f", of numbers from {low:.3g} to {high:.3g}"


def _named(one: Environment, scheme: str) -> str:
    """A machine and what it ran the variant with."""
    library = _LIBRARIES.get(scheme.partition(":")[0], "")
    ran = f", {library} {one.libraries[library]}" if library in one.libraries else ""
    under = f" under {one.emulator}" if one.emulator else ""
    return f"{one.machine}{under}{ran}, {one.threads} thread{'s' if one.threads != 1 else ''}"


def _value_of(name: str, task: str) -> Callable[[Pair], float]:
    if name == "parity.cosine" and kind_of(task) == "tagger":  # a word's few logits may all be near 0
        return lambda pair: _cosine((pair[0].reshape(1, -1), pair[1].reshape(1, -1)))
    return _VALUES[name]


def _cosine(pair: Pair) -> float:
    """The worst of the vectors' cosines; of two that are all zeros it is 1."""
    import numpy as np

    one, other = (side.astype(np.float64) for side in pair)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    both_nothing = ~one.any(1) & ~other.any(1)
    return float(np.where(both_nothing, 1.0, (one * other).sum(1) / norms.clip(1e-300)).min().clip(-1.0, 1.0))


def _difference(pair: Pair) -> float:
    import numpy as np

    return float(np.abs(pair[0].astype(np.float64) - pair[1]).max())


def _bit_equal(pair: Pair) -> float:
    return float(_is_finite(pair) and pair[0].tobytes() == pair[1].tobytes())


def _kl_divergence(pair: Pair) -> float:
    import numpy as np

    here, there = (_log_softmax(side) for side in pair)
    return max(float((np.exp(here) * (here - there)).sum(1).mean()), 0.0)  # rounding may leave it below 0


def _log_softmax(logits: Floats) -> NDArray[np.float64]:
    import numpy as np

    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return found


def _same_top(pair: Pair) -> float:
    if not _is_finite(pair):
        return 0.0
    return float((pair[0].argmax(1) == pair[1].argmax(1)).mean())


_VALUES: dict[str, Callable[[Any], float]] = {
    "parity.cosine": _cosine,
    "parity.difference": _difference,
    "parity.bit_equal": _bit_equal,
    "parity.kl_divergence": _kl_divergence,
    "parity.same_top": _same_top,
}
_OF_FINITE = ("parity.cosine", "parity.difference", "parity.kl_divergence")
_STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {"min": min, "mean": fmean}

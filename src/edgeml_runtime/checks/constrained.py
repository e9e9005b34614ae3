"""What holding the answers to a schema costs and brings: the same rows generated without it.

Method: at most 8 seeded rows, the same prompts and the same limit of new tokens, without the schema.
`decode_rate_free` stands beside `decode_rate`, which is that of the answers held to the schema; `contract.valid_free`
is 1 for a row whose free answer is JSON all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from edgeml_runtime.checks import sampled
from edgeml_runtime.grounding import NO_JSON, parsed
from edgeml_runtime.reasoning import visible
from edgeml_runtime.tasks import Answers
from edgeml_runtime.tasks.text_generation import decode_rate, decoder, generated
from edgeml_runtime.types import Absent, Samples

if TYPE_CHECKING:
    from edgeml_runtime.session import Session
    from edgeml_runtime.tasks import Tick
    from edgeml_runtime.types import Job

ROWS = 8
METRIC = "decode_rate_free"


def run(session: Session, job: Job, answers: tuple[Any, ...], tick: Tick) -> Answers:  # noqa: ARG001 - as every check
    """`decode_rate_free` and `contract.valid_free`; absent where nothing is held to a schema."""
    if job.generate.schema is None:
        reason = "no answer is held to a schema"
        return Answers(values=(), absent=(Absent(metric=METRIC, reason=reason, hint="give --json-schema"),))
    rows, kind = sampled(job, ROWS)
    free, made = replace(job.generate, schema=None), []
    for done, row in enumerate(rows):
        made.append(generated(decoder(session), job.rows[row], free))
        tick("constrained", done + 1, len(rows))
    rates = [rate for one in made if (rate := decode_rate(one)) is not None]
    valid = [float(parsed(visible(one.text, one.hidden)) is not NO_JSON) for one in made]
    how = f"the same {len(rows)} prompts and limit of {free.max_new_tokens} new tokens, without the schema"
    found = [
        _sample(METRIC, "token/s", rates, ("median",), ("generation", how)),
        _sample("contract.valid_free", "1", valid, ("mean",), (kind, how)),
    ]
    return Answers(values=(), samples=tuple(sample for sample in found if sample.values))


def _sample(
    metric: str, unit: str, values: list[float], statistics: tuple[str, ...], taken: tuple[str, str]
) -> Samples:
    return Samples(
        metric=metric,
        unit=unit,
        values=tuple(values),
        statistics=statistics,
        unit_of_sample=taken[0],
        method=taken[1],
    )

"""Token classification: the words of a text in, a tag for each out.

Method: every text is tagged alone; a word's tag is the likeliest label of its first token. Words that are cut off with
the text's end have the tag `O`. A plain text is cut into words at spaces: where a language writes none, give tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.rows import check_columns, check_texts
from edgeml_runtime.tasks import Answers
from edgeml_runtime.tasks.encoding import (
    latency,
    require_answers_differ,
    singles,
    texts_of,
    throughput,
    tokens,
    truncated,
)

if TYPE_CHECKING:
    from edgeml_runtime.session import Session, Tagged, Tagger
    from edgeml_runtime.tasks import Tick, Work
    from edgeml_runtime.types import Generate, Job, Row, Samples

COLUMNS = ("tokens",)
DEFAULT_REPEATS = 200
STEADY_IN_ANSWERS = False
OUTSIDE = "O"
_TAGGED = "words in, logits out (tokenizer, graph)"


def ready(rows: Sequence[Row], where: str) -> list[Row]:
    """Rows whose `tokens` are lists of words: of a list, of JSON, or of words between spaces; else of `text`."""
    if rows and "tokens" not in rows[0] and "text" in rows[0]:
        check_texts(rows, ("text",), where)
        return [{**row, "tokens": row["text"].split()} for row in rows]
    check_columns(rows, COLUMNS, where)
    return [{**row, "tokens": words(row["tokens"], number, where)} for number, row in enumerate(rows, 1)]


def words(value: Any, number: int, where: str) -> list[str]:
    """The words that a cell stands for; raises EdgemlError naming row `number` of `where` for one that is no list."""
    found = items(value)
    if not all(isinstance(one, str) for one in found or [None]):
        raise EdgemlError(
            f"'tokens' in row {number} of {where} are no words",
            hint='write a JSON list such as ["two", "words"], or words with spaces between them',
        )
    return cast("list[str]", found)


def items(value: Any) -> list[Any]:
    """What a cell lists: a list itself, a JSON list in text, or what stands between spaces; empty for anything else."""
    if isinstance(value, str):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return value.split()
        return found if isinstance(found, list) else value.split()
    return list(value) if isinstance(value, list | tuple) else []


def first(session: Session, job: Job) -> None:
    """Tag one text."""
    tagger(session).tag(texts_of(job)[:1])


def cost(session: Session, job: Job) -> list[Samples]:
    """Latency of single texts."""
    return [latency(tagger(session).tag, texts_of(job), job, what=_TAGGED)]


def work(session: Session, job: Job) -> Work:
    """Single texts, tagged."""
    return singles(tagger(session).tag, texts_of(job), job)


def answers(session: Session, job: Job, tick: Tick) -> Answers:
    """For each row the `tags` of its words."""
    model, texts = tagger(session), texts_of(job)
    found = tagged(model, texts, tick)
    samples, warnings = truncated(model, texts, rows=len(job.rows))
    return Answers(
        values=tuple(_answer(one, len(text), model) for one, text in zip(found, texts, strict=True)),
        samples=(throughput(model.tag, texts, job), *samples, tokens(model, texts, rows=len(job.rows))),
        warnings=(*warnings, *_lost(found, texts)),
    )


def predict(session: Session, row: Row, options: Generate) -> Any:  # noqa: ARG001 - one signature for all tasks
    """The tags of a text's words."""
    model = tagger(session)
    return _answer(model.tag([row["tokens"]])[0], len(row["tokens"]), model)


def tagger(session: Session) -> Tagger:
    """The session as a tagger; refuses a model that gives words no tags."""
    if not hasattr(session, "tag"):
        task = session.manifest.task
        raise EdgemlError(f"{session.manifest.name} gives words no tags", hint=f"edgeml bench --task {task}")
    return cast("Tagger", session)


def tagged(model: Tagger, texts: Sequence[Sequence[str]], tick: Tick) -> list[Tagged]:
    """The logits of each text's words, each text alone; raises EdgemlError when all words get the same."""
    found = []
    for index, text in enumerate(texts):
        found.append(model.tag([text])[0])
        if index % 50 == 0:
            tick("answers", index, len(texts))
    together = np.concatenate([one.logits for one in found])
    different = len({word for text in texts for word in text}) > 1
    require_answers_differ(together, model.manifest.name, different=different and len(together) > 1)
    return found


def _answer(found: Tagged, count: int, model: Tagger) -> dict[str, Any]:
    tags = [OUTSIDE] * count
    for word, row in zip(found.words, found.logits, strict=True):
        tags[word] = model.manifest.labels[int(row.argmax())]
    return {"tags": tags}


def _lost(found: Sequence[Tagged], texts: Sequence[Sequence[str]]) -> list[str]:
    total = sum(map(len, texts))
    lost = total - sum(len(one.words) for one in found)
    return [f"{lost} of {total} words were cut off or have no token, and count as {OUTSIDE}"] if lost else []

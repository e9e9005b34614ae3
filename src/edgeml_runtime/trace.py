"""What a variant computes for a few rows, as raw numbers, so that two machines' can be compared.

Nothing is timed, warmed up or checked, so that it ends soon under an emulator that is a hundred times slower. Every
text is run alone, since an answer in int8 depends on what else is in its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from edgeml_runtime.errors import UnfitError
from edgeml_runtime.session import kind_of, writes_text
from edgeml_runtime.tasks import automatic_speech_recognition, task_of
from edgeml_runtime.tasks.encoding import encoder
from edgeml_runtime.tasks.image_classification import together
from edgeml_runtime.tasks.perplexity import chunks_of
from edgeml_runtime.tasks.text_classification import classifier
from edgeml_runtime.tasks.text_generation import decoder
from edgeml_runtime.tasks.token_classification import tagger
from edgeml_runtime.types import Array

if TYPE_CHECKING:
    from edgeml_runtime.session import Classifier, Decoder, Encoder, Floats, ImageClassifier, Session, Tagger
    from edgeml_runtime.tasks import Tick
    from edgeml_runtime.types import Job, Row

    Reader = Encoder | Classifier | Tagger | ImageClassifier  # reads whole texts or pictures, and writes none

# Each refuses a session of another kind.
_NAMED: dict[str, Callable[[Session], Reader]] = {"encoder": encoder, "classifier": classifier, "tagger": tagger}


def trace(session: Session, job: Job, tick: Tick) -> tuple[Array, ...]:
    """One array a row of the job, in its order; for `perplexity`, a chunk of the text.

    An encoder's is `(texts of the row, width)`, the logits of a text or picture `(1, labels)`, those of words
    `(words that were read, labels)`, those of a sound's first token `(1, vocabulary)`. Of a model that
    writes text it is teacher-forced logits, `(tokens, vocabulary)`: of the last `context_tokens` tokens of the row's
    prompt, or of a chunk of so many, of which `limit` says how many. NaN is kept. Raises EdgemlError for a model that
    does not do the task, or a row that it cannot read.
    """
    outputs = _outputs(session, job)
    found = []
    for index, compute in enumerate(outputs):
        tick("trace", index, len(outputs))
        one = compute()
        found.append(Array(shape=one.shape, data=np.ascontiguousarray(one, dtype="<f4").tobytes()))
    return tuple(found)


def raw(session: Reader, item: Any) -> Floats:
    """What a model that writes no text computes for one text, its words, or a picture's content: `(n, width)`.

    A vector, logits, or those of each word.
    """
    kind = kind_of(session.manifest.task)
    if kind == "image":
        return cast("ImageClassifier", session).classify_images([item])
    if kind == "tagger":
        return cast("Tagger", session).tag([item])[0].logits
    if kind == "classifier":
        return cast("Classifier", session).classify([item])
    return cast("Encoder", session).embed([item])


def _outputs(session: Session, job: Job) -> list[Callable[[], Floats]]:
    if job.task == "perplexity":
        model = decoder(session)
        return [partial(model.logits, chunk) for chunk in chunks_of(model, job)]
    if writes_text(job.task):
        return [partial(_of_prompt, decoder(session), job, place) for place in range(len(job.rows))]
    return [partial(_of_row, session, job, row) for row in job.rows]


def _of_row(session: Session, job: Job, row: Row) -> Floats:
    kind = kind_of(job.task)
    if kind == "image":
        return together(session, [row["file"]])
    if kind == "speech":
        return automatic_speech_recognition.logits(session, row["file"])
    model = _NAMED[kind](session)
    return np.concatenate([raw(model, row[column]) for column in task_of(job.task).COLUMNS])


def _of_prompt(model: Decoder, job: Job, place: int) -> Floats:
    prompt = model.prompt(job.generate.instruction, job.rows[place]["text"])
    try:
        return model.logits(_end_of(prompt, model, min(job.context_tokens, model.manifest.max_tokens)))
    except UnfitError as error:
        raise error.of_row(job.number(place)) from error


def _end_of(prompt: Sequence[int], model: Decoder, size: int) -> Sequence[int]:
    """The last `size` tokens, where rows differ: an instruction before them is the same in all.

    The start token, where the model asks for one, takes the place of the first of them, as in the chunks of
    `perplexity`.
    """
    if len(prompt) <= size:
        return prompt
    start, rest = model.start_token, prompt[len(prompt) - size :]
    return rest if start is None else [start, *rest[1:]]

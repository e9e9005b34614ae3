"""Texts of several requests in one batch, so many that ONNX Runtime's memory stays bounded: it never gives any back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgeml_runtime.server.refusals import RefusedError, require_countable, wrong
from edgeml_runtime.server.work import Ask, GivenUpError
from edgeml_runtime.types import VariantManifest

if TYPE_CHECKING:
    from edgeml_runtime.server.settings import Settings
    from edgeml_runtime.session import Classifier, Encoder, Floats, Tagger

BATCH_TOKENS = 2048  # of 256 tokens each, eight texts
_WHOLE = ("f32", "fp32", "f16", "fp16", "bf16")


def batch_tokens(settings: Settings, manifest: VariantManifest) -> int:
    """The most tokens of a batch, its padding included; 0 where every text is run alone."""
    if settings.batch_tokens is not None:
        return settings.batch_tokens
    return BATCH_TOKENS if manifest.scheme.partition(":")[2] in _WHOLE else 0


def fits(counts: Sequence[int], limit: int) -> bool:
    """Whether texts of so many tokens are one batch: each is padded to the longest."""
    return len(counts) * max(counts, default=0) <= limit


def batches(counts: Sequence[int], limit: int) -> Iterator[tuple[int, int]]:
    """Ranges of neighbours, each a batch; a text that is longer than one goes alone."""
    start = 0
    for stop in range(1, len(counts) + 1):
        if stop == len(counts) or not fits(counts[start : stop + 1], limit):
            yield start, stop
            start = stop


class Embedded(NamedTuple):
    """The vectors of a request's texts, `(texts, width)`, and how many tokens were read for them."""

    vectors: Floats
    tokens: int


class Texts(Ask[Embedded]):
    """The texts of one request; `found` is set when they went with another request's."""

    def __init__(self, texts: Sequence[str], work: Callable[[Texts], Embedded]) -> None:
        super().__init__(lambda _: work(self))
        self.texts = texts
        self.found: Embedded | None = None


class Batcher:
    """Embeds texts in batches of at most `limit` tokens, those of several requests together where all fit one."""

    def __init__(self, session: Encoder, limit: int) -> None:
        self._session = session
        self._limit = limit
        self._waiting: deque[Texts] = deque()

    def ask(self, texts: Sequence[str]) -> Texts:
        """A request for the vectors of texts; its work raises the refusal of a text that is too long."""
        made = Texts(texts, self._embed)
        if self._limit:
            self._waiting.append(made)
        return made

    def _embed(self, ask: Texts) -> Embedded:
        """Called in the model's thread."""
        if ask.found is None:
            counts = counted(self._session, ask.texts)
            asks = [ask, *self._companions(ask, counts)]
            texts = [text for one in asks for text in one.texts]
            found = []
            for start, stop in batches(counts, self._limit):
                found.append(self._session.embed(texts[start:stop]))
                if ask.given_up.is_set():
                    raise GivenUpError
            _hand_out(asks, np.concatenate(found), counts)
        assert ask.found is not None
        return ask.found

    def _companions(self, ask: Texts, counts: list[int]) -> list[Texts]:
        """Requests that wait and fit into one batch with this one; their tokens are added to the counts."""
        found: list[Texts] = []
        while self._waiting:
            other = self._waiting[0]
            if other is not ask and other.found is None and not other.given_up.is_set():
                more = self._count(other)
                if not fits([*counts, *more], self._limit):
                    break
                if more:
                    counts += more
                    found.append(other)
            self._waiting.popleft()
        return found

    def _count(self, ask: Texts) -> list[int]:
        """The tokens of a request's texts; none where it will be refused, which is its own work's to say."""
        try:
            return counted(self._session, ask.texts)
        except RefusedError:
            return []


def counted(session: Encoder | Classifier | Tagger, texts: Sequence[Any]) -> list[int]:
    """The tokens of each text; raises the refusal of one that is longer than the model reads, with both counts."""
    limit, name = session.manifest.max_tokens, session.manifest.name
    for text in texts:
        require_countable(sum(map(len, text)), limit, name)
    counts = [session.count_tokens(text) for text in texts]
    for place, count in enumerate(counts):
        if count > limit:
            problem = f"text {place} has {count} tokens, and {name} reads {limit}"
            raise wrong(problem, code="context_length_exceeded")
    return counts


def _hand_out(asks: Sequence[Texts], vectors: Floats, counts: Sequence[int]) -> None:
    start = 0
    for ask in asks:
        stop = start + len(ask.texts)
        ask.found = Embedded(vectors[start:stop], sum(counts[start:stop]))
        start = stop

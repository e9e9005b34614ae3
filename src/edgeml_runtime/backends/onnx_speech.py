"""Speech to text with two ONNX graphs: one hears a sound once, one writes the answer token by token.

`encoder` takes `input_features` (1, mel bins, frames) and gives the keys and values of the decoder's cross-attention;
`decoder` is that of `onnx_seq2seq`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

from edgeml_runtime.backends.onnx import open_graph, open_tokenizer
from edgeml_runtime.errors import EdgemlError, UnfitError
from edgeml_runtime.mel import Ear
from edgeml_runtime.next_token import NextToken
from edgeml_runtime.session import Generation
from edgeml_runtime.sound import read_wave, resampled
from edgeml_runtime.types import Generate, Speech, VariantManifest

if TYPE_CHECKING:
    from edgeml_runtime.session import Floats

GRAPHS = ("encoder", "decoder")
_IN, _OUT, _OWN = "input.", "output.", "self_attention_cache"


class _State(NamedTuple):
    """What the writing graph is given beside the new tokens: of what it wrote, and of what was heard."""

    own: dict[str, Any]
    heard: dict[str, Any]


def open_variant(folder: Path, manifest: VariantManifest, *, threads: int) -> OnnxTranscriber:
    """Load both graphs and the tokenizer."""
    missing = [name for name in GRAPHS if name not in manifest.graphs]
    if missing or manifest.speech is None:
        lacks = f"graph {missing[0]}" if missing else "way to hear"
        raise EdgemlError(f"{manifest.name} names no {lacks}", hint="make the variant again")
    graphs = {name: open_graph(folder / manifest.graphs[name], threads=threads) for name in GRAPHS}
    return OnnxTranscriber(manifest, manifest.speech, graphs, open_tokenizer(folder / "tokenizer.json"))


class OnnxTranscriber:
    """A Transcriber; one sound at a time, no longer than the model's window."""

    def __init__(
        self, manifest: VariantManifest, speech: Speech, graphs: dict[str, ort.InferenceSession], tokenizer: Tokenizer
    ) -> None:
        self.manifest = manifest
        self._speech, self._tokenizer = speech, tokenizer
        self._reader, self._writer = (graphs[name] for name in GRAPHS)
        self._ear = Ear(speech.sound)
        self._empty = {
            item.name: np.zeros((1, int(item.shape[1]), 0, int(item.shape[3])), dtype=np.float32)
            for item in self._writer.get_inputs()
            if _OWN in item.name
        }
        self._heard = [item.name for item in self._reader.get_outputs()]
        self._written = ["logits", *(_OUT + name.removeprefix(_IN) for name in self._empty)]

    def seconds(self, sound: bytes) -> float:
        """How long a sound lasts; raises EdgemlError for one that cannot be heard."""
        return read_wave(sound, most_s=self._speech.sound.window_s).seconds

    def transcribe(self, sound: bytes, options: Generate, each: Callable[[], object] | None = None) -> Generation:
        """What is said, until an end token, `max_new_tokens`, or the most tokens that the model writes.

        `each` is called with every token that comes: what it raises ends the writing.
        """
        begin = perf_counter()
        self._require(options)
        made: list[int] = []
        times: list[float] = []
        ended = False
        for token in self._tokens(sound, options):
            if each is not None:
                each()
            ended = token in self.manifest.end_tokens and not options.past_end
            if not ended:
                made.append(token)
                times.append(perf_counter() - begin)
        return Generation(
            text=self._text(made),
            tokens=tuple(made),
            prompt_tokens=len(self._speech.start_tokens),
            finish_reason="stop" if ended else "length",
            token_times_s=tuple(times),
        )

    def logits(self, sound: bytes, tokens: Sequence[int]) -> Floats:
        """Teacher-forced logits after the last start token and each of the tokens, `(1 + len(tokens), vocabulary)`."""
        start = self._speech.start_tokens
        found: Floats = self._step([*start, *tokens], _State(self._empty, self._hear(sound)))[0][0]
        return found[len(start) - 1 :]

    def close(self) -> None:
        """Drop both sessions."""
        del self._reader, self._writer

    def _tokens(self, sound: bytes, options: Generate) -> Iterator[int]:
        """What is written, up to an end token, which comes last."""
        state, choice = _State(self._empty, self._hear(sound)), NextToken(options)
        new: Sequence[int] = self._speech.start_tokens
        for place in range(min(options.max_new_tokens, self.manifest.max_tokens - len(new))):
            logits, state = self._step(new, state)
            token = choice.choose(self._allowed(logits[0, -1], first=place == 0))
            yield token
            if token in self.manifest.end_tokens and not options.past_end:
                return
            new = [token]

    def _hear(self, sound: bytes) -> dict[str, Any]:
        recipe = self._speech.sound
        heard = resampled(read_wave(sound, most_s=recipe.window_s), recipe.sampling_hz)
        found = self._reader.run(self._heard, {"input_features": self._ear.hear(heard)[None]})
        return {_IN + name: value for name, value in zip(self._heard, found, strict=True)}

    def _step(self, tokens: Sequence[int], state: _State) -> tuple[Any, _State]:
        feeds = {"decoder_input_ids": np.array([tokens], dtype=np.int64), **state.own, **state.heard}
        logits, *new = self._writer.run(self._written, feeds)
        return logits, _State(dict(zip(state.own, new, strict=True)), state.heard)

    def _allowed(self, logits: Floats, *, first: bool) -> Floats:
        logits[[*self._speech.never, *(self._speech.not_first if first else ())]] = -np.inf
        return logits

    def _text(self, tokens: Sequence[int]) -> str:
        times = self._speech.first_timestamp
        text: str = self._tokenizer.decode([token for token in tokens if times is None or token < times])
        return text.strip()

    def _require(self, options: Generate) -> None:
        if options.schema is not None or options.instruction is not None or options.stop:
            what = "an instruction, a schema or stop words"
            raise EdgemlError(f"what is said is written down without {what}", hint="leave them out")
        if self.manifest.max_tokens <= len(self._speech.start_tokens):
            raise UnfitError(f"{self.manifest.name} has no room for an answer", hint="make the variant again")

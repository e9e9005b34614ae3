"""Continues texts with llama.cpp. Knows nothing about files, tasks or what an answer should be."""

from __future__ import annotations

import ctypes
from codecs import getincrementaldecoder
from collections.abc import Iterator, Sequence
from functools import cached_property
from time import perf_counter

import numpy as np

from edgeml_runtime import reasoning, stops
from edgeml_runtime.backends.gguf_chat import Chat
from edgeml_runtime.backends.gguf_grammar import Grammar
from edgeml_runtime.backends.gguf_kept import GRID, Beginnings
from edgeml_runtime.backends.gguf_model import Context, Floats, Model, room
from edgeml_runtime.errors import EdgemlError, UnfitError
from edgeml_runtime.next_token import NextToken
from edgeml_runtime.session import PROMPT_END, Generation, Said, Thinking, Written, plain_prompt
from edgeml_runtime.types import Generate, VariantManifest

CONTEXT_LIMIT = 4096  # tokens; a model that takes more would need memory that small devices do not have
LOGITS_BATCH = 128  # tokens whose logits are held at once: 25 MB for a vocabulary of 49 152


class GgufDecoder:
    """A language model. Its context is made at the first need, a power of two, and anew when a longer one comes.

    Every call but `write` starts from an empty context; the same input gives the same output in any case.
    """

    def __init__(
        self, model: Model, manifest: VariantManifest, *, threads: int, threads_prefill: int | None = None
    ) -> None:
        if model.lib.llama_model_has_encoder(model.pointer):
            raise EdgemlError(f"{manifest.name} has an encoder and a decoder", hint="make it in ONNX")
        self.manifest = manifest
        self._model = model
        self._threads = threads
        self._threads_prefill = threads_prefill or threads
        self._chat = Chat(model)
        self._context: Context | None = None
        self._beginnings = Beginnings(0)

    @property
    def start_token(self) -> int | None:
        """The vocabulary's begin-of-sequence token, where the vocabulary asks for it."""
        lib, vocabulary = self._model.lib, self._model.vocabulary
        return int(lib.llama_vocab_bos(vocabulary)) if lib.llama_vocab_get_add_bos(vocabulary) else None

    @property
    def omits_chat_template(self) -> bool:
        """Whether the file has a chat template that llama.cpp does not know."""
        return bool(self._chat.template) and self._chat.tokens(None, "a") is None

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text, without special tokens."""
        tokens: list[int] = self._model.tokenize(text).tolist()
        return tokens

    def prompt(self, instruction: str | None, text: str) -> list[int]:
        """Token ids of a turn, in the model's own chat template where llama.cpp knows it."""
        tokens = self._chat.tokens(instruction, text)
        return plain_prompt(self, instruction, text) if tokens is None else self._started(tokens)

    def logits(self, tokens: Sequence[int]) -> Floats:
        """Teacher-forced logits from an empty context, `(len(tokens), vocabulary)`."""
        context = self._empty_context(len(tokens))
        rows = np.empty((len(tokens), self._model.tokens), np.float32)
        for start in range(0, len(tokens), LOGITS_BATCH):
            part = rows[start : start + LOGITS_BATCH]
            count = context.batch.put(tokens[start : start + LOGITS_BATCH], position=start)
            context.batch.outputs[:count] = 1
            context.run(count)
            ctypes.memmove(part.ctypes.data, self._model.lib.llama_get_logits(context.pointer), part.nbytes)
        return rows

    def generate(self, tokens: Sequence[int], options: Generate) -> Generation:
        """Continue as the options say until the end token, before a stop word, or `max_new_tokens`.

        Raises EdgemlError when prompt and answer do not fit the context together, and for an empty prompt.
        """
        called = perf_counter()
        made: list[int] = []
        times: list[float] = []
        ends: list[int] = []
        words, hidden = stops.words(options), self._hidden(tokens, options)
        text, reader, ends_at = "", getincrementaldecoder("utf-8")("replace"), None
        for token in self._steps(self._empty_context(len(tokens), options.max_new_tokens), tokens, options):
            if token is None:
                continue
            made.append(token)
            times.append(perf_counter() - called)
            text += reader.decode(self._piece(token))
            ends.append(len(text))
            if words and (ends_at := stops.place_of(text, words, hidden(text))) is not None:
                break
        text += reader.decode(b"", final=True)
        if ends_at is None:
            ends_at = stops.place_of(text, words, hidden(text))
        whole = Generation(
            text=text,
            tokens=tuple(made),
            prompt_tokens=len(tokens),
            finish_reason="stop" if len(made) < options.max_new_tokens else "length",
            token_times_s=tuple(times),
            text_ends=tuple(ends),
            hidden=hidden(text),
        )
        return stops.cut(whole, ends_at)

    def keep(self, limit_bytes: int) -> None:
        """From now on, keep for `write` the states of prompts' beginnings that come again, in at most so many bytes."""
        self._beginnings = Beginnings(limit_bytes)

    def write(self, tokens: Sequence[int], options: Generate) -> Iterator[Written]:
        """The text of `generate`, step by step: whoever stops asking for more ends it.

        A step without text or token comes after each piece of the prompt. Raises as `generate` does, at the first step.
        """
        return stops.until(self._written(tokens, options), stops.words(options), self._hidden(tokens, options))

    def said(self, turns: Sequence[Said]) -> list[int] | None:
        """Token ids of several turns in the model's own chat template; None where llama.cpp does not know it."""
        tokens = self._chat.said(turns)
        return None if tokens is None else self._started(tokens)

    def thinking(self, tokens: Sequence[int]) -> Thinking:
        """The marks that the model's chat template names, and whether the prompt opens one."""
        before = self._model.text(tokens[-PROMPT_END:], also=self._mark_tokens)[0].rstrip()
        return Thinking(self._marks, any(before.endswith(opening) for opening, _ in self._marks))

    def close(self) -> None:
        """Give the model's memory back."""
        if self._context:
            self._context.close()
        self._model.close()

    def _written(self, tokens: Sequence[int], options: Generate) -> Iterator[Written]:
        context = self._room_for(len(tokens), options.max_new_tokens)
        reused = self._beginnings.resume(context, tokens)
        yield Written("", reused=reused)
        reader = getincrementaldecoder("utf-8")("replace")
        for token in self._steps(context, tokens, options, reused=reused, keep=self._beginnings):
            yield Written("" if token is None else reader.decode(self._piece(token)), token)
        yield Written(reader.decode(b"", final=True))

    def _started(self, tokens: list[int]) -> list[int]:
        start = self.start_token
        return tokens if start is None or tokens[:1] == [start] else [start, *tokens]

    def _steps(
        self,
        context: Context,
        tokens: Sequence[int],
        options: Generate,
        *,
        reused: int = 0,
        keep: Beginnings | None = None,
    ) -> Iterator[int | None]:
        """None after each piece of the prompt beyond what is `reused`, then new tokens, without the end token."""
        grammar = Grammar(self._model, options.schema) if options.schema is not None else None
        choice = NextToken(options)
        ends, vocabulary = self._model.lib.llama_vocab_is_eog, self._model.vocabulary
        for _ in self._pieces(context, tokens, reused, keep):
            yield None
        for position in range(len(tokens), len(tokens) + options.max_new_tokens):
            logits = self._logits(context)
            token = self._next(logits, choice, grammar)
            if not options.past_end and ends(vocabulary, token):
                return
            yield token
            if grammar:
                grammar.accept(token)
            if position + 1 < len(tokens) + options.max_new_tokens:
                self._run(context, (token,), position)

    def _next(self, logits: Floats, choice: NextToken, grammar: Grammar | None) -> int:
        if grammar is None:
            return choice.choose(logits)
        return grammar.best(logits) if choice.greedy else choice.choose(grammar.allowed(logits))

    def _pieces(self, context: Context, tokens: Sequence[int], start: int, keep: Beginnings | None) -> Iterator[int]:
        """Read a prompt from `start` on, piece by piece; those that begin another prompt, too, are kept."""
        wanted = keep.worth_keeping(tokens) if keep else 0
        if keep and start == wanted:
            keep.keep(context)
        for place in range(start, len(tokens), GRID):
            piece = tokens[place : place + GRID]
            self._run(context, piece, place)
            if keep:
                keep.evaluated(piece)
                if place + len(piece) == wanted:
                    keep.keep(context)
            yield place

    def _run(self, context: Context, tokens: Sequence[int], position: int) -> None:
        count = context.batch.put(tokens, position=position)
        context.batch.outputs[: count - 1] = 0
        context.batch.outputs[count - 1] = 1
        context.run(count)

    def _logits(self, context: Context) -> Floats:
        """Logits after the last token: llama.cpp's own memory, good until the next call."""
        row = self._model.lib.llama_get_logits_ith(context.pointer, -1)
        return np.ctypeslib.as_array(row, (self._model.tokens,))

    @cached_property
    def _marks(self) -> tuple[reasoning.Mark, ...]:
        return reasoning.named_in(self._chat.template)

    @cached_property
    def _mark_tokens(self) -> frozenset[int]:
        """Control tokens that open or close reasoning: llama.cpp would leave them out of the text."""
        words = [self._model.tokenize(word, parse_special=True).tolist() for mark in self._marks for word in mark]
        return frozenset(tokens[0] for tokens in words if len(tokens) == 1)

    def _piece(self, token: int) -> bytes:
        return self._model.piece(token, control=token in self._mark_tokens)

    def _hidden(self, prompt: Sequence[int], options: Generate) -> stops.Hidden:
        """What finds where the model thinks aloud after a prompt: nowhere in an answer that is held to a schema."""
        if options.schema is not None:
            return lambda _: ()
        return stops.hidden_after(lambda: self.thinking(prompt))

    def _empty_context(self, given: int, wanted: int = 0) -> Context:
        context = self._room_for(given, wanted)
        context.forget()
        self._beginnings.forget()
        return context

    def _room_for(self, given: int, wanted: int) -> Context:
        limit = min(self.manifest.max_tokens, CONTEXT_LIMIT)
        if given + wanted > limit:
            problem = f"{given} tokens and {wanted} new ones do not fit the {limit} of {self.manifest.name}"
            raise UnfitError(problem, hint="shorten the text, or ask for fewer new tokens")
        if not given:
            raise UnfitError("there is no token to continue from", hint="give a text")
        context = room(self._context, given + wanted, self._open)
        if context is not self._context:
            self._beginnings.forget()
        self._context = context
        return context

    def _open(self, size: int) -> Context:
        return Context(
            self._model,
            size,
            n_threads=self._threads,
            n_threads_batch=self._threads_prefill,
            n_batch=LOGITS_BATCH,
            n_ubatch=LOGITS_BATCH,
            n_outputs_max=LOGITS_BATCH,
        )

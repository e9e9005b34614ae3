"""Continues texts with llama.cpp, greedily. Knows nothing about files, tasks or what an answer should be."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from functools import partial
from time import perf_counter

import numpy as np

from edgeml_runtime.backends.gguf_grammar import Grammar
from edgeml_runtime.backends.gguf_model import Context, Floats, Model, room
from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.session import Generation, plain_prompt
from edgeml_runtime.types import Generate, VariantManifest

CONTEXT_LIMIT = 4096  # tokens; a model that takes more would need memory that small devices do not have
PROMPT_BATCH = 512  # tokens read at once; llama.cpp's own default for a physical batch
LOGITS_BATCH = 128  # tokens whose logits are held at once: 25 MB for a vocabulary of 49 152


class GgufDecoder:
    """A language model. Its context is made at the first need, a power of two, and anew when a longer one comes.

    Every call starts from an empty context, so the same input gives the same output.
    """

    def __init__(self, model: Model, manifest: VariantManifest, *, threads: int) -> None:
        if model.lib.llama_model_has_encoder(model.pointer):
            raise EdgemlError(f"{manifest.name} has an encoder and a decoder", hint="make it in ONNX")
        self.manifest = manifest
        self._model = model
        self._threads = threads
        self._context: Context | None = None

    @property
    def start_token(self) -> int | None:
        """The vocabulary's begin-of-sequence token, where the vocabulary asks for it."""
        lib, vocabulary = self._model.lib, self._model.vocabulary
        return int(lib.llama_vocab_bos(vocabulary)) if lib.llama_vocab_get_add_bos(vocabulary) else None

    @property
    def omits_chat_template(self) -> bool:
        """Whether the file has a chat template that llama.cpp does not know."""
        has = bool(self._model.lib.llama_model_chat_template(self._model.pointer, None))
        return has and self._chat(None, "a") is None

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text, without special tokens."""
        tokens: list[int] = self._model.tokenize(text).tolist()
        return tokens

    def prompt(self, instruction: str | None, text: str) -> list[int]:
        """Token ids of a turn, in the model's own chat template where llama.cpp knows it.

        llama.cpp recognises the usual templates and writes them itself: no template of a model is run as a program.
        """
        turn = self._chat(instruction, text)
        if turn is None:
            return plain_prompt(self, instruction, text)
        tokens: list[int] = self._model.tokenize(turn, parse_special=True).tolist()
        start = self.start_token
        return tokens if start is None or tokens[:1] == [start] else [start, *tokens]

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
        """Continue greedily until the end token or `max_new_tokens`; within the schema where one is given.

        Raises EdgemlError when prompt and answer do not fit the context together, and for an empty prompt.
        """
        called = perf_counter()
        made: list[int] = []
        times: list[float] = []
        for token in self._stream(tokens, options):
            made.append(token)
            times.append(perf_counter() - called)
        return Generation(
            text=self._model.text(made),
            tokens=tuple(made),
            prompt_tokens=len(tokens),
            finish_reason="stop" if len(made) < options.max_new_tokens else "length",
            token_times_s=tuple(times),
        )

    def close(self) -> None:
        """Give the model's memory back."""
        if self._context:
            self._context.close()
        self._model.close()

    def _stream(self, tokens: Sequence[int], options: Generate) -> Iterator[int]:
        """New tokens one by one, without the end token."""
        context = self._empty_context(len(tokens), options.max_new_tokens)
        grammar = Grammar(self._model, options.schema) if options.schema is not None else None
        ends, vocabulary = self._model.lib.llama_vocab_is_eog, self._model.vocabulary
        position = 0
        for _ in range(options.max_new_tokens):
            logits = self._read(context, tokens, position)
            token = grammar.best(logits) if grammar else int(np.argmax(logits))
            if ends(vocabulary, token):
                return
            yield token
            if grammar:
                grammar.accept(token)
            position += len(tokens)
            tokens = (token,)

    def _read(self, context: Context, tokens: Sequence[int], position: int) -> Floats:
        """Logits after the last of the tokens: llama.cpp's own memory, good until the next call."""
        for start in range(0, len(tokens), PROMPT_BATCH):
            count = context.batch.put(tokens[start : start + PROMPT_BATCH], position=position + start)
            context.batch.outputs[: count - 1] = 0
            context.batch.outputs[count - 1] = 1
            context.run(count)
        row = self._model.lib.llama_get_logits_ith(context.pointer, -1)
        return np.ctypeslib.as_array(row, (self._model.tokens,))

    def _empty_context(self, given: int, wanted: int = 0) -> Context:
        limit = min(self.manifest.max_tokens, CONTEXT_LIMIT)
        if given + wanted > limit:
            problem = f"{given} tokens and {wanted} new ones do not fit the {limit} of {self.manifest.name}"
            raise EdgemlError(problem, hint="shorten the text, or ask for fewer new tokens")
        if not given:
            raise EdgemlError("there is no token to continue from", hint="give a text")
        self._context = room(self._context, given + wanted, self._open)
        self._context.forget()
        return self._context

    def _open(self, size: int) -> Context:
        return Context(
            self._model,
            size,
            n_threads=self._threads,
            n_threads_batch=self._threads,
            n_batch=PROMPT_BATCH,
            n_ubatch=PROMPT_BATCH,
            n_outputs_max=LOGITS_BATCH,
        )

    def _chat(self, instruction: str | None, text: str) -> str | None:
        """The turn as the model was taught to read it, or None where llama.cpp does not know the template."""
        lib = self._model.lib
        template = lib.llama_model_chat_template(self._model.pointer, None)
        if not template:
            return None
        said = [(b"system", instruction), (b"user", text)]
        turns = [lib.llama_chat_message(role, _c_text(words)) for role, words in said if words is not None]
        messages = (lib.llama_chat_message * len(turns))(*turns)
        write = partial(lib.llama_chat_apply_template, template, messages, len(turns), 1)  # 1: now the assistant
        size = write(None, 0)
        if size < 0:
            return None
        turn = ctypes.create_string_buffer(size + 1)
        write(turn, len(turn))
        return turn.value.decode("utf-8", "replace")


def _c_text(text: str) -> bytes:
    """UTF-8 for C, in which a NUL would end the text before its end."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace")

"""The shapes of OpenAI's API that this endpoint takes and gives. Knows nothing about models.

Source: the OpenAPI description in openai/openai-openapi. What a client may send and what changes no answer here is
taken; what would change it and cannot be done is refused with the reason.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from edgeml_runtime.server.generation import Answered, Asked
from edgeml_runtime.server.refusals import wrong
from edgeml_runtime.server.schemas import check_schema
from edgeml_runtime.session import Decoder, Said, started
from edgeml_runtime.types import Generate, Record

if TYPE_CHECKING:
    from edgeml_runtime.session import Floats

STOPS = 4  # stop words that a request may have
RANGES = {"temperature": (0.0, 2.0), "top_p": (0.0, 1.0), "seed": (-(2**63), 2**63 - 1)}
_SEED_BITS = 32
_OBJECT = {"type": "object"}


class Text(Record, frozen=True, kw_only=True):
    """A part of a message; no other kind is read."""

    text: str
    type: Literal["text"]


class Message(Record, frozen=True, kw_only=True):
    """A turn. Fields without a use are those of an answer that a client sends back."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | tuple[Text, ...]
    name: str | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: tuple[()] | None = None
    annotations: tuple[Any, ...] | None = None
    reasoning_content: str | None = None

    @property
    def words(self) -> str:
        """All of its text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class Schema(Record, frozen=True, kw_only=True):
    """A JSON Schema with its name."""

    name: str
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class Format(Record, frozen=True, kw_only=True):
    """Whether an answer is text or JSON."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None


class StreamOptions(Record, frozen=True, kw_only=True):
    """What a stream tells beside the answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Writing(Record, frozen=True, kw_only=True):
    """What a chat and a completion have in common; fields without a use change no answer, or are refused."""

    model: str | None = None
    max_tokens: int | None = None
    stop: str | tuple[str, ...] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None

    def refuse(self) -> None:
        """Raise the refusal of what changes an answer and cannot be done."""
        for name, (least, most) in RANGES.items():
            if (value := getattr(self, name)) is not None and not least <= value <= most:
                raise wrong(f"{name} is {value:g}, and must be from {least:g} to {most:g}", name)
        if self.top_p == 0:
            raise wrong("top_p is 0, and must be more: for the likeliest token, set temperature to 0", "top_p")
        if self.n not in (None, 1):
            raise wrong("n must be 1: one answer a request", "n")
        for name in ("presence_penalty", "frequency_penalty", "logit_bias"):
            if getattr(self, name):
                raise wrong(f"{name} is not known here: leave it out", name)
        for name in ("max_tokens", "max_completion_tokens"):
            if (value := getattr(self, name, None)) is not None and value < 1:
                raise wrong(f"{name} is {value}, and must be 1 or more", name)
        if len(self.stops) > STOPS or not all(self.stops):
            raise wrong(f"stop takes up to {STOPS} words, and none that is empty", "stop")

    @property
    def stops(self) -> tuple[str, ...]:
        """The words that end the answer."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop or ()

    def options(self, max_new_tokens: int, schema: dict[str, Any] | None = None) -> Generate:
        """How to write: greedily unless a temperature is asked for, and then by chance where no seed is."""
        return Generate(
            max_new_tokens=max_new_tokens,
            schema=schema,
            temperature=self.temperature or 0.0,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=secrets.randbits(_SEED_BITS) if self.seed is None else self.seed,
        )

    @property
    def usage_wanted(self) -> bool:
        """Whether a stream ends with what it took."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class Chat(Writing, frozen=True, kw_only=True):
    """The body of /v1/chat/completions."""

    messages: tuple[Message, ...]
    max_completion_tokens: int | None = None
    response_format: Format | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: tuple[Any, ...] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    reasoning_effort: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    verbosity: str | None = None
    modalities: tuple[Literal["text"], ...] | None = None
    functions: tuple[()] | None = None
    function_call: Any = None
    audio: None = None
    prediction: None = None
    web_search_options: None = None

    def asked(self, default_tokens: int) -> Asked:
        """What is to be written; raises the refusal of what cannot be done."""
        self.refuse()
        if self.tools:
            raise wrong("tools are not known here: leave them out, or ask for JSON with response_format", "tools")
        if self.logprobs or self.top_logprobs:
            raise wrong("logprobs are not given here: leave them out", "logprobs")
        if not any(message.words.strip() for message in self.messages):
            raise wrong("the messages are empty", "messages")
        said = [Said(_role(message.role), message.words) for message in self.messages]
        return Asked(
            prompt=partial(_turns, said),
            characters=sum(len(turn.words) for turn in said),
            options=self.options(default_tokens, _schema(self.response_format)),
            stops=self.stops,
            max_tokens=self.max_completion_tokens or self.max_tokens,
        )


class Completion(Writing, frozen=True, kw_only=True):
    """The body of /v1/completions."""

    prompt: str | tuple[str, ...]
    echo: bool | None = None
    best_of: int | None = None
    logprobs: int | None = None
    suffix: str | None = None

    def asked(self, default_tokens: int) -> Asked:
        """What is to be written; raises the refusal of what cannot be done."""
        self.refuse()
        if self.echo or self.suffix or self.logprobs or self.best_of not in (None, 1):
            raise wrong("echo, suffix, logprobs and best_of are not known here: leave them out")
        prompts = (self.prompt,) if isinstance(self.prompt, str) else self.prompt
        if len(prompts) != 1 or not prompts[0]:
            raise wrong("prompt must be one text that is not empty", "prompt")
        return Asked(
            prompt=lambda session: started(session, prompts[0]),
            characters=len(prompts[0]),
            options=self.options(default_tokens),
            stops=self.stops,
            max_tokens=self.max_tokens,
        )


class Embeddings(Record, frozen=True, kw_only=True):
    """The body of /v1/embeddings."""

    input: str | tuple[str, ...]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts, each of which has something in it; raises the refusal of others."""
        texts = (self.input,) if isinstance(self.input, str) else self.input
        empty = next((place for place, text in enumerate(texts) if not text.strip()), None)
        if not texts or empty is not None:
            raise wrong("a text is empty" if texts else "there is no text", f"input[{empty}]" if texts else "input")
        return texts


class Shape(Protocol):
    """The responses to one request that writes text."""

    def whole(self, answered: Answered) -> dict[str, Any]:
        """The response with the whole answer."""

    def begin(self) -> Iterator[dict[str, Any]]:
        """What comes before a stream's first part."""

    def part(self, text: str) -> dict[str, Any]:
        """One part of a stream."""

    def end(self, answered: Answered, *, tell_usage: bool) -> Iterator[dict[str, Any]]:
        """What comes after a stream's last part."""


class ChatShape:
    """The responses of /v1/chat/completions to one request."""

    def __init__(self, model: str) -> None:
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time()), "model": model}

    def whole(self, answered: Answered) -> dict[str, Any]:
        """The response with the whole answer."""
        message = {"role": "assistant", "content": answered.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answered.finish_reason}
        return self._head | {"object": "chat.completion", "choices": [choice], "usage": usage(answered)}

    def begin(self) -> Iterator[dict[str, Any]]:
        """What comes before the first part."""
        yield self._chunk({"role": "assistant", "content": "", "refusal": None})

    def part(self, text: str) -> dict[str, Any]:
        """One part of the answer."""
        return self._chunk({"content": text})

    def end(self, answered: Answered, *, tell_usage: bool) -> Iterator[dict[str, Any]]:
        """What comes after the last part."""
        yield self._chunk({}, answered.finish_reason)
        if tell_usage:
            yield self._head | {"object": "chat.completion.chunk", "choices": [], "usage": usage(answered)}

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._head | {"object": "chat.completion.chunk", "choices": [choice]}


class CompletionShape:
    """The responses of /v1/completions to one request."""

    def __init__(self, model: str) -> None:
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time()),
            "model": model,
        }

    def whole(self, answered: Answered) -> dict[str, Any]:
        """The response with the whole answer."""
        return self._chunk(answered.text, answered.finish_reason) | {"usage": usage(answered)}

    def begin(self) -> Iterator[dict[str, Any]]:
        """Nothing comes before the first part."""
        return iter(())

    def part(self, text: str) -> dict[str, Any]:
        """One part of the answer."""
        return self._chunk(text)

    def end(self, answered: Answered, *, tell_usage: bool) -> Iterator[dict[str, Any]]:
        """What comes after the last part."""
        yield self._chunk("", answered.finish_reason)
        if tell_usage:
            yield self._head | {"choices": [], "usage": usage(answered)}

    def _chunk(self, text: str, reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
        return self._head | {"choices": [choice]}


def usage(answered: Answered) -> dict[str, Any]:
    """How many tokens were read, of them kept from an earlier prompt, and written."""
    return {
        "prompt_tokens": answered.prompt_tokens,
        "completion_tokens": answered.tokens,
        "total_tokens": answered.prompt_tokens + answered.tokens,
        "prompt_tokens_details": {"cached_tokens": answered.reused},
    }


def embeddings(vectors: Floats, tokens: int, model: str, encoding: str | None) -> dict[str, Any]:
    """The response of /v1/embeddings."""
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector, encoding)}
        for index, vector in enumerate(vectors)
    ]
    total = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": total}


def models(model: str, created: int) -> dict[str, Any]:
    """The response of /v1/models: the one that is served."""
    return {"object": "list", "data": [{"id": model, "object": "model", "created": created, "owned_by": "edgeml"}]}


def event(shape: dict[str, Any]) -> bytes:
    """One event of a stream."""
    return b"data: " + msgspec.json.encode(shape) + b"\n\n"


def _encoded(vector: Any, encoding: str | None) -> Any:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return vector.tolist()


def _role(role: str) -> str:
    return "system" if role == "developer" else role


def _schema(format: Format | None) -> dict[str, Any] | None:
    if format is None or format.type == "text":
        return None
    if format.type == "json_object":
        return _OBJECT
    if format.json_schema is None:
        raise wrong("there is no json_schema", "response_format.json_schema")
    check_schema(format.json_schema.schema, "response_format.json_schema.schema")
    return format.json_schema.schema


def _turns(said: list[Said], session: Decoder) -> list[int]:
    """The prompt of a conversation; without a chat template, that of one text with its instruction."""
    tokens = session.said(said)
    if tokens is not None:
        return tokens
    roles = [turn.role for turn in said]
    if roles not in (["user"], ["system", "user"]):
        problem = f"{session.manifest.name} has no chat template that is known here: send one user message, and at most"
        raise wrong(f"{problem} one system message before it", "messages")
    return session.prompt(said[0].words if len(said) == 2 else None, said[-1].words)

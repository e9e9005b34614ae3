"""Opening a variant: the kinds of session that every task is written against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, cast

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.records import read_record
from edgeml_runtime.types import Generate, Record, VariantManifest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeml_runtime.reasoning import Mark

    Floats = NDArray[np.float32]


class Generation(Record, frozen=True, kw_only=True):
    """One generated text. `token_times_s` are seconds from the call to each token, so the first is the time to it.

    `text_ends` are the characters of `text` that are complete with each token, empty where nobody counted. `hidden` are
    the places in `text`, first character and the one after the last, where the model thinks before it answers.
    """

    text: str
    tokens: tuple[int, ...]
    prompt_tokens: int
    finish_reason: str
    token_times_s: tuple[float, ...]
    text_ends: tuple[int, ...] = ()
    hidden: tuple[tuple[int, int], ...] = ()


class Said(NamedTuple):
    """A turn of a conversation; `role` is system, user or assistant."""

    role: str
    words: str


class Written(NamedTuple):
    """One step of writing: the text that it completed, and its token; none where the prompt was read, or text is left.

    `reused` are tokens of the prompt whose state was kept.
    """

    text: str
    token: int | None = None
    reused: int = 0


class Thinking(NamedTuple):
    """The marks between which a model thinks aloud, and whether its prompt ends within them."""

    marks: tuple[Mark, ...] = ()
    begun: bool = False


class Encoder(Protocol):
    """Turns text into vectors."""

    manifest: VariantManifest

    def embed(self, texts: Sequence[str]) -> Floats:
        """One vector a text, `(len(texts), width)`, pooled and normalised as the manifest says."""

    def count_tokens(self, text: str) -> int:
        """Tokens of a text before truncation, special tokens included."""

    def close(self) -> None:
        """Give the model's memory back."""


class Classifier(Protocol):
    """Gives a text one label out of the manifest's."""

    manifest: VariantManifest

    def classify(self, texts: Sequence[str]) -> Floats:
        """Raw logits, `(len(texts), len(manifest.labels))`."""

    def count_tokens(self, text: str) -> int:
        """Tokens of a text before truncation, special tokens included."""

    def close(self) -> None:
        """Give the model's memory back."""


class Tagged(NamedTuple):
    """Which words of a text (by their place) have a token that was read, and their raw logits, `(words, labels)`."""

    words: tuple[int, ...]
    logits: Floats


class Tagger(Protocol):
    """Gives every word of a text one label out of the manifest's."""

    manifest: VariantManifest

    def tag(self, texts: Sequence[Sequence[str]]) -> list[Tagged]:
        """The logits of each text's words: those of a word's first token."""

    def count_tokens(self, words: Sequence[str]) -> int:
        """Tokens of a text's words before truncation, special tokens included."""

    def close(self) -> None:
        """Give the model's memory back."""


class ImageClassifier(Protocol):
    """Gives a picture one label out of the manifest's."""

    manifest: VariantManifest

    def classify_images(self, images: Sequence[bytes]) -> Floats:
        """Raw logits, `(len(images), len(manifest.labels))`; an image is the content of its file."""

    def close(self) -> None:
        """Give the model's memory back."""


class Transcriber(Protocol):
    """Writes down what is said in a sound; `manifest.speech` says how it hears and how its answers begin."""

    manifest: VariantManifest

    def seconds(self, sound: bytes) -> float:
        """How long a sound lasts; raises EdgemlError for one that cannot be heard."""

    def transcribe(self, sound: bytes, options: Generate, each: Callable[[], object] | None = None) -> Generation:
        """What is said, until an end token or `max_new_tokens`; a sound is the content of its file.

        `each` is called with every token that comes: what it raises ends the writing.
        """

    def logits(self, sound: bytes, tokens: Sequence[int]) -> Floats:
        """Teacher-forced logits after the last start token and each of the tokens, `(1 + len(tokens), vocabulary)`."""

    def close(self) -> None:
        """Give the model's memory back."""


class Decoder(Protocol):
    """Continues text, or reads one text and writes another."""

    manifest: VariantManifest

    @property
    def start_token(self) -> int | None:
        """The token that the model expects before any text, where its vocabulary asks for one."""

    @property
    def omits_chat_template(self) -> bool:
        """Whether prompts are plain although the model may have a chat template."""

    def prompt(self, instruction: str | None, text: str) -> list[int]:
        """Token ids of a turn: in the model's chat template where the session can write it, else `plain_prompt`."""

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text, without special tokens."""

    def logits(self, tokens: Sequence[int]) -> Floats:
        """Teacher-forced logits from an empty context, `(len(tokens), vocabulary)`."""

    def generate(self, tokens: Sequence[int], options: Generate) -> Generation:
        """Continue as the options say until an end token, before a stop word, or `max_new_tokens`."""

    def write(self, tokens: Sequence[int], options: Generate) -> Iterator[Written]:
        """The text of `generate`, step by step: whoever stops asking for more ends it.

        A prompt whose beginning was kept is not read there again, where the session can keep one.
        """

    def said(self, turns: Sequence[Said]) -> list[int] | None:
        """Token ids of several turns and the beginning of an answer; None where the session cannot write them."""

    def thinking(self, tokens: Sequence[int]) -> Thinking:
        """How the model shows that it thinks, after this prompt."""

    def close(self) -> None:
        """Give the model's memory back."""


PROMPT_END = 16  # tokens at a prompt's end in which a chat template may open the reasoning
Session = Encoder | Classifier | Tagger | ImageClassifier | Transcriber | Decoder
Kind = Literal["encoder", "classifier", "tagger", "image", "speech", "decoder", "seq2seq"]
_KINDS: dict[str, Kind] = {
    "text-classification": "classifier",
    "token-classification": "tagger",
    "text-generation": "decoder",
    "image-classification": "image",
    "automatic-speech-recognition": "speech",
    "text2text-generation": "seq2seq",
}


def kind_of(task: str) -> Kind:
    """What a variant of that task opens as, and what is exported for it."""
    return _KINDS.get(task, "encoder")


def writes_text(task: str) -> bool:
    """Whether a variant of that task opens as a Decoder."""
    return kind_of(task) in ("decoder", "seq2seq")


def plain_prompt(session: Decoder, instruction: str | None, text: str) -> list[int]:
    """Token ids of a turn without a chat template, the same words in every format: instruction, empty line, text."""
    words = "\n\n".join(part for part in (instruction, text) if part is not None) + "\n"
    return started(session, words)


def started(session: Decoder, text: str) -> list[int]:
    """Token ids of plain text after the start token, where the model expects one."""
    start = session.start_token
    return [*(() if start is None else (start,)), *session.tokenize(text)]


class Backend(Protocol):
    """One module a format."""

    def open_variant(
        self,
        folder: Path,
        manifest: VariantManifest,
        *,
        threads: int,
        threads_prefill: int | None = None,
        gpu: bool | None = None,
    ) -> Session:
        """Load the weights; `threads` are those of the inference library, `threads_prefill` those that read a prompt.

        A format whose library knows one number only ignores the second, and one that has no GPU ignores `gpu`.
        """

    def accelerator(self, *, gpu: bool | None) -> str | None:
        """The GPU's library that computes for a session opened with that `gpu`; None where the CPU does alone."""


def open_session(folder: Path, *, threads: int, threads_prefill: int | None = None, gpu: bool | None = None) -> Session:
    """Open the variant in `folder`; raises EdgemlError when its library is missing or its file is broken.

    `threads_prefill` read a prompt where the library (llama.cpp) tells reading from writing; left out, `threads` do.
    `gpu` left out is as that library was built: on a Mac it computes on the GPU.
    """
    manifest = read_record(folder / "variant.json", VariantManifest)
    try:
        backend = _backend(manifest)
        return backend.open_variant(folder, manifest, threads=threads, threads_prefill=threads_prefill, gpu=gpu)
    except ModuleNotFoundError as error:
        raise EdgemlError(f"{manifest.name} needs the Python package {error.name}", hint=_install(error)) from error


def accelerator_of(manifest: VariantManifest, *, gpu: bool | None) -> str | None:
    """The GPU's library (Metal, CUDA) that computes for the variant's session; None where the CPU does alone."""
    return _backend(manifest).accelerator(gpu=gpu)


def _backend(manifest: VariantManifest) -> Backend:
    format = manifest.scheme.partition(":")[0]
    return cast("Backend", import_module(f"edgeml_runtime.backends.{format}"))


def is_encoder(manifest: VariantManifest) -> bool:
    """Whether the variant opens as an Encoder."""
    return kind_of(manifest.task) == "encoder"


def _install(error: ModuleNotFoundError) -> str:
    package = {"llama_cpp": "llama-cpp-python"}.get(error.name or "", error.name)
    return f"pip install {package}"

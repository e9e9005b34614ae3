"""The nouns that travel to a device: what a variant is, what a worker is asked and what it answers. No I/O."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import msgspec

_SHOWN = 20  # labels that a person reads; a classifier of pictures has a thousand

How = Literal["measured", "emulated", "estimated"]
Pooling = Literal["mean", "cls", "last"]
Row = dict[str, Any]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of everything written as JSON: frozen, strict, and silent about what is absent."""


class File(Record, frozen=True, kw_only=True):
    """One file of a model, variant or bundle; `path` is relative to the record's folder, with forward slashes."""

    path: str
    size_bytes: int
    sha256: str


class Audit(Record, frozen=True, kw_only=True):
    """What a weight file really holds, read from the file itself.

    `tensor_types` counts parameters by the type that stores them (ggml type names, or ONNX element types).
    `earned` is false when the scheme's label promises more than the file holds; `shortfalls` says why.
    """

    parameters: int
    bits_per_weight: float
    tensor_types: dict[str, int]
    share_quantized: float
    earned: bool
    shortfalls: tuple[str, ...] = ()


class Pixels(Record, frozen=True, kw_only=True):
    """How a picture becomes a model's input of `height` by `width` pixels.

    It is turned as its EXIF tag says, made RGB, and resized by `resample`: to that size whatever its proportions; or to
    `squeezed`, height and width, or so that its shorter side has `shortest_edge` pixels, then cut out of the centre.
    Each channel is then `(byte * scale - mean) / std`.
    """

    height: int
    width: int
    resample: Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    shortest_edge: int | None = None
    squeezed: tuple[int, int] | None = None


class Sound(Record, frozen=True, kw_only=True):
    """How a sound becomes a model's input: a log-mel spectrogram, as `edgeml_runtime.mel` computes it.

    It is heard in one channel at `sampling_hz`, and ended by silence so that it lasts `window_s` seconds. A window of
    `fft_size` samples moves by `hop` of them; each place gives `mel_bins` numbers.
    """

    sampling_hz: int
    fft_size: int
    hop: int
    mel_bins: int
    window_s: int

    @property
    def frames(self) -> int:
        """How many places the window takes."""
        return self.window_s * self.sampling_hz // self.hop


class Speech(Record, frozen=True, kw_only=True):
    """How a model writes down what is said in a `sound`, in token ids.

    `start_tokens` stand before every answer: that one begins, its `language` where the model knows several, whether
    it is a translation, and that no times are written. Tokens of `never` are not written, those of `not_first` not as
    the first one. From `first_timestamp` on, tokens are times and no text.
    """

    sound: Sound
    start_tokens: tuple[int, ...]
    language: str | None = None
    never: tuple[int, ...] = ()
    not_first: tuple[int, ...] = ()
    first_timestamp: int | None = None


class VariantManifest(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.variant/1"):
    """`variant.json`: a model in one scheme, complete in its own folder.

    `max_tokens` is the one resolved sequence limit, special tokens included, absent where no text is read; padding is
    always to the longest row of a batch. `weights` is the file that holds the model, or of several the one that writes
    the answer; `graphs` are then all of them by what they do. `start_token` begins an answer where the model that
    reads the text is not the one that writes. `pixels` is there where pictures are read, `speech` where sounds are; of
    these, `max_tokens` is the limit of what is written, start tokens included. `source_quantized` names the
    type of a source that was already quantized. `built_for` is the CPU family whose integer kernels the weights were
    prepared for, where that matters. `asked` is what the user wished of its making, `settings` what was chosen and
    measured on the way; `calibration_sha256` is the digest of the inputs that it was made with, if with any.
    `first_token`, where there is one, follows the start token of every answer. `chat_template` is what became of the
    model's where it is a file of the variant, absent where nobody looked. `notes` are what a user must know, a sentence
    each.
    """

    name: str
    model: str
    scheme: str
    task: str
    architecture: str
    weights: str
    files: tuple[File, ...]
    source_files: tuple[File, ...]
    audit: Audit
    max_tokens: int = 0
    graphs: dict[str, str] = {}
    start_token: int | None = None
    first_token: int | None = None
    chat_template: Literal["none", "kept", "left out"] | None = None
    pixels: Pixels | None = None
    speech: Speech | None = None
    pooling: Pooling | None = None
    normalize: bool = False
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    end_tokens: tuple[int, ...] = ()
    licence: str | None = None
    source_quantized: str | None = None
    built_for: str | None = None
    calibration_sha256: str | None = None
    asked: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    tools: dict[str, str] = {}

    @property
    def size_bytes(self) -> int:
        """Size on disk of every file of the variant, in bytes."""
        return sum(file.size_bytes for file in self.files)

    @property
    def labels_in_short(self) -> str:
        """How many labels there are, and the first ones by name."""
        more = f", and {len(self.labels) - _SHOWN} more" if len(self.labels) > _SHOWN else ""
        return f"{len(self.labels)}: {', '.join(self.labels[:_SHOWN])}{more}"

    @property
    def weights_sha256(self) -> str:
        """The digest of the weights: of their file, or of the digests of several in the order of their names.

        Several are the graphs of one model, and what lies beside a graph that is too large for one file.
        """
        graphs = set(self.graphs.values()) or {self.weights}
        named = sorted((file.path, file.sha256) for file in self.files if file.path.removesuffix(".data") in graphs)
        if len(named) == 1:
            return named[0][1]
        return hashlib.sha256("".join(digest for _, digest in named).encode()).hexdigest()


class Generate(Record, frozen=True, kw_only=True):
    """How text is generated: at most `max_new_tokens`, within `schema` (JSON Schema) when one is given.

    The likeliest token is taken, unless `temperature` is above 0: then one is drawn by `seed` among the `top_k`
    likeliest (0 for all) that make up `top_p` of the probability. The text ends before the first of `stop`.

    With `past_end`, an end token ends nothing: exactly `max_new_tokens` are made, so that their time can be compared.
    """

    max_new_tokens: int = 128
    instruction: str | None = None
    schema: dict[str, Any] | None = None
    past_end: bool = False
    temperature: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.0
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    top_k: Annotated[int, msgspec.Meta(ge=0)] = 0
    seed: int = 0
    stop: tuple[str, ...] = ()


class EnergyPlan(Record, frozen=True, kw_only=True):
    """How energy is measured: `meter` is one of `edgeml_runtime.meters`, `auto` the best here, `off` none.

    Each of `windows` lasts at least `window_s` and is one sample; the idle baseline is read for `idle_s` before and
    after, once `settle_s` have passed. `busy_w` are the least and the most watts of the busy machine, with
    which the meter `estimate` calculates.
    """

    meter: str = "auto"
    settle_s: float = 2.0
    idle_s: float = 5.0
    windows: int = 3
    window_s: float = 10.0
    busy_w: tuple[float, float] | None = None


class Job(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.job/1"):
    """All that a worker needs. `variant` and `reference` are folders on the worker's machine.

    `rows` hold the task's columns; `text` is the plain text of `perplexity`. `warmups` and `repeats` count
    single-row inferences; `threads` are those of the inference library. `limit` caps the chunks of `perplexity`,
    each of `context_tokens`. `threads_prefill` are those that read a decoder's prompt; left out, `threads`. `checks`
    name modules of `edgeml_runtime.checks`. With `answers` false only the cost is measured, for one more process.
    `reference_rows` are labelled rows that `feature-extraction` seeks the nearest among; left out, the other rows.
    `numbers` are the rows' places in the data's file, from 1, where they do not follow its order. With `trace`, only
    the raw output for each row, or for `context_tokens` tokens of the text, is computed: two machines' are compared.
    `gpu` chooses where GGUF runs: on a GPU or not; left out, as llama.cpp's build decides. ONNX runs on the CPU alone.
    """

    variant: str
    task: str
    target: str
    threads: int
    warmups: int
    repeats: int
    seed: int
    rows: tuple[Row, ...] = ()
    text: str | None = None
    reference: str | None = None
    batch_size: int = 32
    context_tokens: int = 512
    limit: int | None = None
    generate: Generate = Generate()
    threads_prefill: int | None = None
    checks: tuple[str, ...] = ()
    answers: bool = True
    energy: EnergyPlan = EnergyPlan()
    reference_rows: tuple[Row, ...] = ()
    numbers: tuple[int, ...] = ()
    trace: bool = False
    gpu: bool | None = None

    def number(self, row: int) -> int:
        """The place in the data's file, from 1, of a row of `rows`, counted from 0."""
        return self.numbers[row] if self.numbers else row + 1


class Samples(Record, frozen=True, kw_only=True):
    """Raw values of one metric, warm-ups apart. `statistics` names what is derived from them, headline first.

    `unit_of_sample` is the independent thing one value belongs to (row, batch, chunk, process); `method` says how
    the value was taken. Where it is `row`, there is one value a row of the data, in its order. `marks` say why the
    values should not be trusted (the machine drifted, throttled, swapped); marked ones decide no verdict. `how` stands
    where these values were had in another way than the rest of the run. `parts` is of how many equal parts each value
    is the mean, such as the scored tokens of a chunk.
    """

    metric: str
    unit: str
    values: tuple[float, ...]
    statistics: tuple[str, ...]
    unit_of_sample: str
    method: str
    warmups: tuple[float, ...] = ()
    marks: tuple[str, ...] = ()
    how: How | None = None
    parts: int | None = None


class Absent(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.absent/1"):
    """A metric that could not be had, and why. Never a zero."""

    metric: str
    reason: str
    hint: str
    variant: str | None = None
    target: str | None = None


class Environment(Record, frozen=True, kw_only=True):
    """The machine and software that produced an outcome; absent keys are unknown.

    `emulator` is the program that runs another processor's instructions here: times taken under one mean nothing.
    `performance_cores` and `efficiency_cores` are those of a processor that has both. `accelerator` is the GPU's
    library (Metal, CUDA) that computed beside the CPU.
    """

    machine: str
    system: str
    python: str
    threads: int
    cores: int
    libraries: dict[str, str]
    cpu: str | None = None
    cpu_features: tuple[str, ...] = ()
    memory_bytes: int | None = None
    governor: str | None = None
    device: str | None = None
    emulator: str | None = None
    performance_cores: int | None = None
    efficiency_cores: int | None = None
    accelerator: str | None = None


class Array(Record, frozen=True, kw_only=True):
    """Numbers as a model computed them: `shape`, and little-endian float32 in C order."""

    shape: tuple[int, ...]
    data: bytes


class Vectors(Record, frozen=True, kw_only=True):
    """One vector a text, `width` wide and 1 long, as little-endian float16 one after the other.

    Only their directions are compared; 1e-3 is exact enough a part. A text that stands in several rows is repeated.
    """

    width: int
    data: bytes


class State(Record, frozen=True, kw_only=True):
    """What the machine was like at one moment; absent keys are unknown.

    `throttled` are the set bits of the Raspberry Pi's firmware, by name, with `had_` before those that are sticky since
    boot. `major_faults` and `swapped_pages` are counters of this process and of the machine. `thermal_pressure` is the
    word of macOS for it, from Nominal to Sleeping.
    """

    temperature_c: float | None = None
    frequency_mhz: float | None = None
    governor: str | None = None
    thermal_pressure: str | None = None
    on_battery: bool | None = None
    load_average: float | None = None
    major_faults: int | None = None
    swapped_pages: int | None = None
    throttled: tuple[str, ...] | None = None
    low_power_mode: bool | None = None


class Window(Record, frozen=True, kw_only=True):
    """One span of time in which energy was read.

    `started_s` is Unix time, so that an outside meter's log can be laid over it; `joules` are absent where no meter of
    this machine read any.
    """

    kind: Literal["idle", "steady", "prefill", "decode"]
    started_s: float
    duration_s: float
    units: int = 0
    joules: float | None = None
    readings: int = 0


class Energy(Record, frozen=True, kw_only=True):
    """Where joules came from. `scope` says what they contain, `excludes` what they leave out.

    `kind`: a `counter` adds up by itself, `sampled` power is integrated over readings, `estimated` is no measurement.
    `uncertainty` is a relative half-width where the source states one. `coverage` is the share of the windows' time
    that readings stand for, at the worst window. `marks` say why the joules should not be trusted.
    """

    meter: str
    scope: str
    kind: Literal["counter", "sampled", "estimated"]
    excludes: str
    windows: tuple[Window, ...]
    unit_of_work: str
    sampling_hz: float | None = None
    coverage: float | None = None
    uncertainty: float | None = None
    marks: tuple[str, ...] = ()


class Outcome(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.outcome/1"):
    """A worker's answer: samples, what was absent, one answer per row, and what a reader must know.

    `vectors` are those of the texts of the rows, in the order of `texts_of`. `before` and `after` are the machine
    around the timed part. `trace` is the raw output that a job with `trace` asks for.
    """

    environment: Environment
    samples: tuple[Samples, ...]
    absent: tuple[Absent, ...] = ()
    answers: tuple[Any, ...] = ()
    warnings: tuple[str, ...] = ()
    vectors: Vectors | None = None
    before: State | None = None
    after: State | None = None
    energy: Energy | None = None
    trace: tuple[Array, ...] = ()


class Refusal(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.refusal/1"):
    """A worker's `no`: the message and hint of an EdgemlError, carried over the process border."""

    message: str
    hint: str

"""The workshop's nouns. Frozen values without I/O; those that travel to a device are in `edgeml_runtime.types`."""

from __future__ import annotations

import re
from difflib import get_close_matches
from os.path import realpath  # unlike Path.resolve, it names a link that leads to itself, too
from pathlib import Path
from typing import Any, Literal

from edgeml.errors import EdgemlError
from edgeml_runtime.types import (
    Absent,
    Environment,
    File,
    Generate,
    How,
    Outcome,
    Pixels,
    Pooling,
    Record,
    Row,
    Speech,
    VariantManifest,
)

SOURCES = ("hf", "pypi")
SCHEMES: dict[str, tuple[str, ...]] = {
    "onnx": ("fp32", "fp16", "int8", "int8-dynamic", "int8-static", "int4"),
    "gguf": (
        *("f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_1", "q5_0", "q4_k_m", "q4_k_s", "q4_1", "q4_0"),
        *("iq4_nl", "iq4_xs", "mxfp4_moe", "q3_k_l", "q3_k_m", "q3_k_s", "iq3_m", "iq3_s", "iq3_xs", "iq3_xxs"),
        *("q2_k", "q2_k_s", "q2_0", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "tq2_0", "tq1_0", "iq1_m", "iq1_s", "q1_0"),
    ),
}
REPORT = ".report.json"  # ends the names of reports, which lie among runs
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PACKAGE = re.compile(r"[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?")

WeightFormat = Literal["safetensors", "gguf", "onnx", "pickle"]


class ModelRef(Record, frozen=True, kw_only=True):
    """Where a model comes from: `hf:org/name[@rev]`, `pypi:package[==version]`, or a folder or file.

    `parse` and `str` are inverse. `revision` is a commit, branch or tag for `hf`, a version for `pypi`.
    """

    source: Literal["hf", "pypi", "local"]
    id: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        """Read a reference; a bare `org/name` that is no path here is a hub reference."""
        source, colon, rest = text.partition(":")
        if colon and source in SOURCES:
            return cls._remote(source, rest, text)
        if colon and len(source) > 1 and "/" not in source:
            near = get_close_matches(source, SOURCES, n=1, cutoff=0.3)
            raise _unreadable(text, f"did you mean {near[0]}:{rest}?" if near else None)
        if (
            not text.startswith((".", "/", "~"))
            and _HUB_ID.fullmatch(text.partition("@")[0])
            and not Path(text).exists()
        ):
            return cls._remote("hf", text, text)
        if "==" in text and "/" not in text:
            raise _unreadable(text, f"did you mean pypi:{text}?")
        return cls(source="local", id=text)

    @classmethod
    def _remote(cls, source: str, rest: str, text: str) -> ModelRef:
        name, separator, revision = rest.partition("@" if source == "hf" else "==")
        pattern = _HUB_ID if source == "hf" else _PACKAGE
        if not pattern.fullmatch(name) or (separator and not revision):
            raise _unreadable(text, None)
        return cls(source="hf" if source == "hf" else "pypi", id=name, revision=revision or None)

    def __str__(self) -> str:
        if self.source == "local":
            return self.id
        joint = "@" if self.source == "hf" else "=="
        return f"{self.source}:{self.id}" + (f"{joint}{self.revision}" if self.revision else "")

    @property
    def short_name(self) -> str:
        """The last part of the id in lower case, fit for a folder's name."""
        last = Path(realpath(self.id)).stem if self.source == "local" else self.id.rpartition("/")[2]
        return re.sub(r"[^a-z0-9._-]+", "-", last.lower()).strip("-.")


class Model(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.model/1"):
    """A source that was resolved to something immutable: `ref` is pinned, `files` carry digests, `path` is a folder.

    `downloaded` is a UTC time in ISO form; `name` is the short name that commands use; `source_sha256` is the digest
    of the one archive (a wheel) that the files came in.
    """

    name: str
    ref: str
    path: str
    files: tuple[File, ...]
    format: WeightFormat
    downloaded: str
    licence: str | None = None
    task: str | None = None
    source_sha256: str | None = None

    @property
    def size_bytes(self) -> int:
        """Size of all files together, in bytes."""
        return sum(file.size_bytes for file in self.files)


class Scheme(Record, frozen=True, kw_only=True):
    """A file format and a way to store weights in it, such as `gguf:q4_k_m` or `onnx:int8`."""

    format: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """Read `format:name`; an unknown one is refused with the nearest known."""
        known = [f"{format}:{name}" for format, names in SCHEMES.items() for name in names]
        wanted = text.lower().replace("-", ":", 1) if ":" not in text else text.lower()
        if wanted not in known:
            near = [name for name in known if name.startswith(wanted)] or get_close_matches(wanted, known, n=1)
            names = "; ".join(f"{format}:{{{','.join(names)}}}" for format, names in SCHEMES.items())
            hint = f"did you mean {' or '.join(near)}?" if near else f"known schemes: {names}"
            raise EdgemlError(f"unknown scheme {text!r}", hint=hint)
        format, _, name = wanted.partition(":")
        return cls(format=format, name=name)

    def __str__(self) -> str:
        return f"{self.format}:{self.name}"

    @property
    def folder_name(self) -> str:
        """The scheme as a folder's name: `gguf-q4_k_m`."""
        return f"{self.format}-{self.name}"


class Traits(Record, frozen=True, kw_only=True):
    """What a model's own files say of it: read once, equal in every format that is made from it.

    The keys mean what they mean in `VariantManifest`.
    """

    architecture: str
    task: str
    max_tokens: int = 0
    start_token: int | None = None
    first_token: int | None = None
    pixels: Pixels | None = None
    speech: Speech | None = None
    pooling: Pooling | None = None
    normalize: bool = False
    labels: tuple[str, ...] = ()
    end_tokens: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    licence: str | None = None
    quantized: str | None = None


class Variant(Record, frozen=True, kw_only=True):
    """A manifest and the folder that it describes."""

    manifest: VariantManifest
    path: Path

    @property
    def name(self) -> str:
        """`<model>/<format>-<scheme>`, the name that commands use."""
        return self.manifest.name


class Dataset(Record, frozen=True, kw_only=True):
    """Rows with a task's columns, or the plain text of `perplexity`; `sha256` is the file's own digest.

    `path` is the file's, absolute; `columns` is how its columns were mapped to the task's. `reference_rows` are of a
    second file, labelled, among which `feature-extraction` seeks the nearest. `numbers` are the rows' places in the
    file, from 1, where they do not follow its order.
    """

    name: str
    sha256: str
    rows: tuple[Row, ...] = ()
    text: str | None = None
    path: str | None = None
    columns: dict[str, str] = {}
    numbers: tuple[int, ...] = ()
    reference_rows: tuple[Row, ...] = ()
    reference_sha256: str | None = None


class Measurement(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.measurement/1"):
    """One statistic of one metric with its interval, how it was had, and where.

    `low` and `high` bound the statistic at `level`; they are absent where an interval makes no sense (a file's
    size) or too few samples were taken. The raw samples are in the file under `measurements/` that `provenance` names
    as `run`. `slice` is `column=value` where only those rows count. `marks` say why the figure is in doubt. An
    estimate has no `environment`, since nothing ran.
    """

    variant: str
    target: str
    how: How
    task: str
    metric: str
    unit: str
    value: float
    n: int
    statistic: str
    provenance: dict[str, str]
    environment: Environment | None = None
    low: float | None = None
    high: float | None = None
    level: float | None = None
    slice: str | None = None
    marks: tuple[str, ...] = ()


class Difference(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.difference/1"):
    """A variant's metric minus its baseline's, on the same rows, with the interval of the paired difference."""

    variant: str
    baseline: str
    target: str
    metric: str
    unit: str
    difference: float
    n: int
    low: float | None = None
    high: float | None = None
    level: float | None = None
    slice: str | None = None


VerdictWord = Literal["pass", "fail", "cannot tell"]


class Verdict(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.verdict/1"):
    """Whether a bound holds, decided by an interval at `level` that lies wholly on one side of it.

    Against a baseline, `difference` is variant minus baseline on the same rows and `bound` the worst one allowed, in
    the metric's own unit. Without a baseline, `difference` is absent and `value` is held against `bound`.
    `n_needed` is how many rows would probably decide, where it cannot tell. `p_value` is that of the exact McNemar
    test, for right/wrong metrics. `method` names the interval; `reason` says why it cannot tell.
    """

    variant: str
    target: str
    metric: str
    statistic: str
    unit: str
    verdict: VerdictWord
    bound: float
    n: int
    level: float
    method: str
    baseline: str | None = None
    difference: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n_needed: int | None = None
    p_value: float | None = None
    slice: str | None = None
    reason: str | None = None


class Example(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.example/1"):
    """One row (counted from 1) whose answer is worth a look: it `flipped` from the baseline's, or is `ungrounded`.

    Answers may repeat parts of the input, so a report that leaves the house shows neither.
    """

    variant: str
    kind: Literal["flipped", "ungrounded", "invalid"]
    row: int
    answer: str
    baseline: str | None = None
    baseline_answer: str | None = None
    expected: str | None = None


class ThreadSweep(Record, frozen=True, kw_only=True):
    """Which thread counts were chosen, and the medians that each count that was `tried` had, by metric."""

    tried: dict[str, dict[str, float]]
    threads: int
    threads_prefill: int | None = None


class Run(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.run/1"):
    """One file under `measurements/`: what one worker answered, kept raw, and what it was asked.

    The data's texts are not kept: `dataset_path` and `columns` say where they were read. `slices` are the values of
    the columns that `--slice` names, a row each. `processes` are further processes that measured the cost again.
    `numbers` are as in `Dataset`. `size_bytes` is that of all the variant's files, absent in runs of old.
    """

    variant: str
    variant_sha256: str
    target: str
    how: How
    task: str
    started: str
    dataset: str
    dataset_sha256: str
    seed: int
    repeats: int
    warmups: int
    batch_size: int
    context_tokens: int
    generate: Generate
    outcome: Outcome
    limit: int | None = None
    gold: tuple[Any, ...] = ()
    slices: dict[str, tuple[str, ...]] = {}
    dataset_path: str | None = None
    reference_sha256: str | None = None
    columns: dict[str, str] = {}
    processes: tuple[Outcome, ...] = ()
    sweep: ThreadSweep | None = None
    numbers: tuple[int, ...] = ()
    size_bytes: int | None = None

    @property
    def file_name(self) -> str:
        """The run's own file, whose name sorts by time."""
        scheme = self.variant.partition("/")[2]
        return f"{scheme}.{self.task}.{self.target}.{_stamp(self.started)}.json"


class Report(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.report/1"):
    """Measurements that may stand side by side, the verdicts and differences to a baseline, and what to know of them.

    Kept as `measurements/*.report.json`, the newest of a task and target being what counts.
    """

    started: str = ""
    measurements: tuple[Measurement, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    differences: tuple[Difference, ...] = ()
    absent: tuple[Absent, ...] = ()
    fits: tuple[Fit, ...] = ()
    warnings: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()

    @property
    def file_name(self) -> str:
        """The report's own file, whose name sorts by time; a report without a measurement has none."""
        first = self.measurements[0]
        how = "" if first.how == "measured" else f".{first.how}"
        return f"{first.task}.{first.target}{how}.{_stamp(self.started)}{REPORT}"


class Page(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.page/1"):
    """Where a model's page was written. `reports` are the files under `measurements/` that it shows.

    With `shows_inputs`, it holds texts of the data and answers to them.
    """

    model: str
    markdown: str
    reports: tuple[str, ...]
    html: str | None = None
    shows_inputs: bool = False


class Fit(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.fit/1"):
    """Whether a variant fits into a target's memory with a context of so many tokens, estimated.

    `needed_bytes` are what its process needs, `available_bytes` what the system leaves, each with its bounds. It is
    `tight` where the two ranges overlap.
    """

    variant: str
    target: str
    word: Literal["fits", "tight", "does not fit"]
    memory_gb: float
    needed_bytes: int
    needed_high_bytes: int
    available_bytes: int
    method: str
    needed_low_bytes: int | None = None
    available_low_bytes: int | None = None
    available_high_bytes: int | None = None
    context_tokens: int | None = None


def _stamp(started: str) -> str:
    return started.replace(":", "").replace("-", "")


def _unreadable(text: str, hint: str | None) -> EdgemlError:
    forms = "write hf:org/name[@revision], pypi:package[==version], or a path such as ./model"
    return EdgemlError(f"cannot read model reference {text!r}", hint=hint or forms)

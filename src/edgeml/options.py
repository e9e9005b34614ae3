"""The options of `edgeml bench`, which are many: what to measure, on what, and which bounds must hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeml.errors import EdgemlError
from edgeml.progress import Progress

if TYPE_CHECKING:
    from edgeml.conditions import Conditions
    from edgeml.formats import Wishes
    from edgeml.quantize import Terms
    from edgeml.targets.ssh import Reached
    from edgeml.types import Model

_AS_THEY_ARE = (
    "warmups",
    "repeats",
    "seed",
    "batch_size",
    "limit",
    "processes",
    "slices",
    "sequential",
    "parity_rows",
    "gpu",
    "instructions",
)


def _finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """The number that was typed, which click takes to be one where it is NaN or endless, too."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no finite number.", ctx, param)
    return value


_FILE = click.Path(path_type=Path)
_COUNT = click.IntRange(min=1)
_DEVICE = (
    click.option("--host", metavar="USER@ADDRESS", help="Measure there, over SSH; or a name of edgeml devices."),
    click.option("--accept-new", is_flag=True, help="Trust a host that SSH does not know yet."),
    click.option("--clean", is_flag=True, help="Leave nothing behind on the host."),
    click.option(
        "--parity-rows",
        type=click.IntRange(min=0),
        default=8,  # as `parity.ROWS`: to import that would make the help a third slower
        show_default=True,
        help="Rows to run in an emulator of a target that is not at hand; 0 for none.",
    ),
    click.option(
        "--count-instructions", "instructions", is_flag=True, help="That one inference takes there, in the emulator."
    ),
)
_DATA = (
    click.option("--data", type=_FILE, help="JSONL, CSV or TSV with the task's columns; plain text; images."),
    click.option("--task", help="A Hub task name; left out, the variant's own."),
    click.option("--columns", multiple=True, metavar="YOURS=TASKS", help="Map a column, e.g. body=text."),
    click.option("--reference", type=_FILE, help="Labelled rows to seek the nearest among, for feature-extraction."),
    click.option("--slice", "slices", multiple=True, metavar="COLUMN", help="Report each value of a column apart."),
    click.option("--limit", type=_COUNT, help="Use only the first rows, or chunks."),
)
_BOUNDS = (
    click.option(
        "--max-drop",
        multiple=True,
        metavar="[METRIC=]DROP",
        help="Pass if no more is lost than 1% of the baseline's value, or 0.01. May be given again.",
    ),
    click.option("--max-drop-worst-slice", multiple=True, metavar="[METRIC=]DROP", help="The same, of every slice."),
    click.option(
        "--max-latency", multiple=True, metavar="[STATISTIC=]TIME", help="e.g. 5ms, p95=8ms, or 120% of the baseline's."
    ),
    click.option("--max-memory", multiple=True, metavar="SIZE", help="e.g. 200MiB, or 60% of the baseline's."),
    click.option("--max-size", multiple=True, metavar="SIZE", help="e.g. 25MB, or 50% of the baseline's."),
    click.option("--max-energy", multiple=True, metavar="ENERGY", help="Of an inference, e.g. 0.5J, or 80%."),
    click.option("--sequential", is_flag=True, help="Stop as soon as the verdicts on a drop are clear."),
)
_COST = (
    click.option("--threads", metavar="N|auto", help="Of the inference library; left out, every fast core."),
    click.option("--gpu/--no-gpu", default=None, help="Of GGUF; left out, where llama.cpp was built for one."),
    click.option("--processes", type=_COUNT, help="That measure the cost; left out, 1, or 5 where it has a bound."),
    click.option("--warmups", type=click.IntRange(min=0), help="Inferences before the measured ones, at least."),
    click.option("--repeats", type=_COUNT, help="Measured single-row inferences."),
    click.option("--batch-size", type=_COUNT, default=32, show_default=True, help="Of throughput and batch checks."),
    click.option("--check", "checks", multiple=True, metavar="NAME|none", help="Try what should not change answers."),
    click.option(
        "--context",
        type=click.IntRange(min=8),
        default=512,
        show_default=True,
        help="Tokens of a perplexity chunk; estimates judge memory for so many.",
    ),
    click.option("--seed", type=int, default=20, show_default=True, help="Of the order of rows and of the intervals."),
)
_ENERGY = (
    click.option("--energy", metavar="METER", default="auto", show_default=True, help="auto, off, or a meter's name."),
    click.option("--energy-csv", type=_FILE, help="Log of an outside meter, timestamp,watts, read after each run."),
    click.option(
        "--csv-offset-s",
        type=float,
        default=0.0,
        callback=_finite,
        help="How far this machine's clock is ahead of the log's.",
    ),
    click.option("--energy-busy-w", metavar="LOW,HIGH", help="Watts of the busy machine, for --energy estimate."),
)
_GENERATION = (
    click.option("--instruction", help="What a generating model is told before each text."),
    click.option("--schema", type=_FILE, help="A JSON Schema that generated text must fit."),
    click.option("--max-new-tokens", type=_COUNT, default=128, show_default=True, help="The longest answer."),
)

_CALIBRATION = (
    click.option("--calibration", type=_FILE, help="Your inputs, unlabelled: text, rows, or a folder of pictures."),
    click.option("--columns", multiple=True, metavar="YOURS=TASKS", help="Map a column, e.g. body=text."),
    click.option(
        "--calibration-method",
        type=click.Choice(("minmax", "entropy", "percentile")),
        help="How int8-static finds the range of activations; left out, by measurement.",
    ),
    click.option("--memory", metavar="SIZE", help="The most that calibration may take, e.g. 2GB."),
    click.option(
        "--min-agreement",
        type=click.FloatRange(0, 1),
        callback=_finite,
        help="Cosine to fp32 below which nodes stay in fp32.",
    ),
    click.option("--exclude", multiple=True, metavar="PATTERN", help="ONNX nodes that stay in floating point."),
    click.option("--block-size", type=_COUNT, help="Of int4: weights that share a scale."),
    click.option("--imatrix", type=_FILE, help="An importance matrix in a file of llama.cpp's, for gguf: schemes."),
    click.option("--tensor-type", "tensor_types", multiple=True, metavar="PATTERN=TYPE", help="A tensor's ggml type."),
)


def quantize_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of `edgeml quantize` that say how a scheme is made."""
    for option in reversed(_CALIBRATION):
        command = option(command)
    return command


def terms_of(model: Model, options: dict[str, Any]) -> Terms:
    """What typed options of `edgeml quantize` stand for; raises EdgemlError for one that cannot be read."""
    from edgeml.calibration import read_calibration
    from edgeml.quantize import Terms
    from edgeml.traits import read_traits
    from edgeml_runtime.rows import parse_columns

    path, columns = options["calibration"], parse_columns(options["columns"])
    if columns and path is None:
        raise EdgemlError("--columns says nothing without data", hint="name it: --calibration FILE")
    return Terms(
        strict=options["strict"],
        force=options["force"],
        calibration=read_calibration(path, task=read_traits(model).task, columns=columns) if path else None,
        wishes=wishes_of(options),
    )


def wishes_of(options: dict[str, Any]) -> Wishes:
    """How typed options of `edgeml quantize` want schemes made; raises EdgemlError for a size that is none."""
    from edgeml.formats import Wishes
    from edgeml.verdicts.limits import size_bytes

    return Wishes(
        calibration_method=options["calibration_method"],
        memory_bytes=size_bytes("memory", options["memory"]) if options["memory"] else None,
        exclude=options["exclude"],
        min_agreement=options["min_agreement"],
        block_size=options["block_size"],
        imatrix=str(options["imatrix"].resolve()) if options["imatrix"] else None,
        tensor_types=options["tensor_types"],
    )


def bench_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with every option of `edgeml bench`, in the order in which its help lists them."""
    for option in reversed((*_DEVICE, *_DATA, *_BOUNDS, *_COST, *_ENERGY, *_GENERATION)):
        command = option(command)
    return command


@contextmanager
def reached(options: dict[str, Any], progress: Progress) -> Iterator[Reached | None]:
    """The device that `--host` names, for as long as the block lasts; None without one. `--clean` clears it then."""
    if options["host"] is None:
        for name in ("accept_new", "clean"):
            if options[name]:
                message = f"--{name.replace('_', '-')} says nothing without a device"
                raise EdgemlError(message, hint="name one: --host user@address")
        yield None
        return
    from edgeml.devices import host_of
    from edgeml.download import wheels_for
    from edgeml.targets import profile, ssh

    named = host_of(options["host"])
    target = options["target"] or named.target
    device = ssh.reach(
        named.host,
        profile(target) if target else None,
        wheels_for=partial(wheels_for, progress=progress),
        accept_new=options["accept_new"],
        progress=progress,
    )
    with device.connection:
        yield device
        if options["clean"]:
            ssh.clean(device.connection)


def conditions_of(task: str, options: dict[str, Any], device: Reached | None = None) -> Conditions:
    """What typed options stand for, on a device or here; raises EdgemlError for a value that cannot be read."""
    from edgeml.conditions import Conditions, energy_plan, parse_checks
    from edgeml.dataset import read_schema
    from edgeml.targets import profile
    from edgeml.threads import parse_threads
    from edgeml.verdicts.limits import OPTIONS, limits_of
    from edgeml_runtime.types import Generate

    found = Conditions(
        task=task,
        profile=device.profile if device else profile(options["target"]),
        device=device,
        threads=parse_threads(options["threads"]),
        context_tokens=options["context"],
        checks=parse_checks(options["checks"]),
        limits=limits_of({name: options[name.replace("-", "_")] for name in OPTIONS}),
        energy=energy_plan(options["energy"], log=options["energy_csv"], busy_w=options["energy_busy_w"]),
        energy_log=options["energy_csv"],
        log_offset_s=options["csv_offset_s"],
        generate=Generate(
            max_new_tokens=options["max_new_tokens"],
            instruction=options["instruction"],
            schema=read_schema(options["schema"]),
        ),
        **{name: options[name] for name in _AS_THEY_ARE},
    )
    _require_emulated(found)
    return found


def _require_emulated(conditions: Conditions) -> None:
    """Raise EdgemlError where instructions are to be counted, and nothing is going to be emulated."""
    if not conditions.instructions:
        return
    if not conditions.is_away:
        message = "--count-instructions counts in an emulator, and this device is measured"
        raise EdgemlError(message, hint="name a target that is not at hand, such as --target pi5, and no --host")
    if not conditions.parity_rows:
        raise EdgemlError(
            "--parity-rows 0 leaves the emulator out, in which --count-instructions counts", hint="drop it"
        )

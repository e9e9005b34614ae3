"""The command line: parse, call one verb, render. No logic lives here."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from edgeml import __version__
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.store import Store

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class Session:
    """What every command needs: the artifacts folder, how to show results, and where progress goes."""

    def __init__(self, artifacts: Path, *, as_json: bool) -> None:
        from edgeml.render import Bars
        from edgeml.store import Store

        self.store = Store(artifacts)
        self.progress = Bars()
        self._as_json = as_json

    def show(self, values: Iterable[Any]) -> None:
        """Results to stdout: tables for a person, or a JSON object a line."""
        from edgeml import render

        if self._as_json:
            for value in values:
                for line in render.as_json(value):
                    click.echo(line)
            return
        shown = list(values)
        self.progress.close()
        render.show(shown, sys.stdout)

    def next(self, *commands: str) -> None:
        """The one or two commands that make sense now, to stderr."""
        self.progress.close()
        click.echo("next: " + "  |  ".join(commands), err=True)


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command takes."""
    command = click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout.")(command)
    return click.option(
        "--artifacts",
        type=click.Path(path_type=Path, file_okay=False),
        default="artifacts",
        envvar="EDGEML_ARTIFACTS",
        show_default=True,
        help="Where results live.",
    )(command)


def _complete(
    list_names: Callable[[Store], Iterable[str]],
) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
        from edgeml.store import Store

        store = Store(Path(ctx.params.get("artifacts") or "artifacts"))
        return [name for name in list_names(store) if name.startswith(incomplete)]

    return complete


def _scheme_names(store: Store) -> list[str]:  # noqa: ARG001 - one signature for all completions
    from edgeml.types import SCHEMES

    return [f"{format}:{name}" for format, names in SCHEMES.items() for name in names]


def _target_names(store: Store) -> list[str]:  # noqa: ARG001 - one signature for all completions
    from edgeml.targets import profiles

    return [word for found in profiles() for word in (found.name, *found.aliases)]


complete_models = _complete(lambda store: [model.name for model in store.models()])
complete_variants = _complete(lambda store: [variant.name for variant in store.variants()])
target_option = click.option(
    "--target", help="A device's profile; left out, this machine's.", shell_complete=_complete(_target_names)
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgeml")
def cli() -> None:
    """Make a model small, prove on your own task and device what that cost, and pack it to run with no network."""


@cli.command()
@click.argument("ref", required=False)
@click.option("--name", help="The short name to use from here on.")
@click.option(
    "--runtime", type=click.Choice(["onnx", "gguf"]), help="Fetch the wheels that run this format on --target."
)
@click.option("--python", help="Of the target, e.g. 3.13, for --runtime; left out, the profile's first.")
@target_option
@click.option("--allow-pickle", is_flag=True, help="Accept weights that can run code when they are loaded.")
@click.option("--allow-code", is_flag=True, help="Accept a model that comes with code of its own.")
@common
def download(ref: str | None, artifacts: Path, *, as_json: bool, **options: Any) -> None:
    """Resolve REF to something immutable, fetch it, verify every file.

    REF is org/name or hf:org/name[@revision] on the hub, pypi:package[==version], a folder or a file. With --runtime
    and no REF, fetch what a bundle needs to run on a device.
    """
    from edgeml.download import download as verb
    from edgeml.download import runtime_wheels
    from edgeml.sources import Consent
    from edgeml.targets import profile
    from edgeml.types import ModelRef

    session = Session(artifacts, as_json=as_json)
    if ref is None and options["runtime"] is None:
        raise EdgemlError("nothing to download", hint="edgeml download org/name, or pypi:package, or ./folder")
    if options["runtime"]:
        device = profile(options["target"])
        runtime_wheels(device, options["runtime"], python=options["python"], progress=session.progress)
        session.next(f"edgeml package --target {device.name}")
    if ref:
        consent = Consent(pickle=options["allow_pickle"], remote_code=options["allow_code"])
        model = verb(
            ModelRef.parse(ref), store=session.store, name=options["name"], consent=consent, progress=session.progress
        )
        session.show([model])
        session.next(f"edgeml quantize {model.name}")


@cli.command()
@click.argument("model", required=False, shell_complete=complete_models)
@click.option(
    "--to",
    "to",
    multiple=True,
    metavar="SCHEME",
    help="e.g. onnx:int8, gguf:q4_k_m; may be given again.",
    shell_complete=_complete(_scheme_names),
)
@target_option
@click.option("--strict", is_flag=True, help="Refuse a variant whose label is not earned.")
@click.option("--force", is_flag=True, help="Replace variants that exist.")
@common
def quantize(model: str | None, to: tuple[str, ...], target: str | None, artifacts: Path, **flags: bool) -> None:
    """Write MODEL (left out: the newest) in each scheme, and audit what each file really holds."""
    from edgeml.quantize import Terms, recommended
    from edgeml.quantize import quantize as verb
    from edgeml.targets import profile
    from edgeml.types import Scheme

    session = Session(artifacts, as_json=flags["as_json"])
    schemes = [Scheme.parse(text) for text in to]
    device, found = profile(target), session.store.model(model)
    if not schemes:
        schemes = list(recommended(found, device))
        click.echo(f"{found.name} for {device.title}: {', '.join(map(str, schemes))}", err=True)
    terms = Terms(strict=flags["strict"], force=flags["force"])
    made = verb(found, schemes, profile=device, store=session.store, terms=terms, progress=session.progress)
    session.show(made)
    session.next(f"edgeml bench {found.name} --data FILE", f"edgeml package {made[-1].name}")


@cli.command()
@click.argument("variants", nargs=-1, metavar="[VARIANT]...", shell_complete=complete_variants)
@click.option(
    "--data", type=click.Path(path_type=Path), help="JSONL, CSV or TSV with the task's columns; text for perplexity."
)
@click.option("--task", help="A Hub task name; left out, the variant's own.")
@click.option("--columns", multiple=True, metavar="OURS=THEIRS", help="Map a column of the file to the task's.")
@click.option("--baseline", help="The variant that the others are compared with.", shell_complete=complete_variants)
@target_option
@click.option("--threads", type=click.IntRange(min=1), help="Of the inference library; left out, every processor.")
@click.option("--warmups", type=click.IntRange(min=0), help="Inferences before the measured ones.")
@click.option("--repeats", type=click.IntRange(min=1), help="Measured single-row inferences.")
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Of the throughput figure."
)
@click.option(
    "--context", type=click.IntRange(min=8), default=512, show_default=True, help="Tokens of a perplexity chunk."
)
@click.option("--limit", type=click.IntRange(min=1), help="Use only the first rows, or chunks.")
@click.option("--seed", type=int, default=20, show_default=True)
@click.option("--instruction", help="What a generating model is told before each text.")
@click.option("--schema", type=click.Path(path_type=Path), help="A JSON Schema that generated text must fit.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=128, show_default=True)
@common
def bench(variants: tuple[str, ...], artifacts: Path, *, as_json: bool, **options: Any) -> None:
    """Measure VARIANTs (left out: all of the newest model's) on your data, each in a process of its own."""
    from edgeml.bench import Conditions
    from edgeml.bench import bench as verb
    from edgeml.dataset import choose_task, dataset_for, read_schema
    from edgeml.targets import profile
    from edgeml_runtime.rows import parse_columns
    from edgeml_runtime.types import Generate

    session = Session(artifacts, as_json=as_json)
    chosen = session.store.select(variants)
    baseline = session.store.variant(options["baseline"]) if options["baseline"] else None
    columns = parse_columns(options["columns"])
    task = options["task"] or choose_task(chosen[0].manifest.task, options["data"], columns)
    conditions = Conditions(
        task=task,
        profile=profile(options["target"]),
        generate=Generate(
            max_new_tokens=options["max_new_tokens"],
            instruction=options["instruction"],
            schema=read_schema(options["schema"]),
        ),
        context_tokens=options["context"],
        **{name: options[name] for name in ("threads", "warmups", "repeats", "seed", "batch_size", "limit")},
    )
    dataset = dataset_for(task, options["data"], columns, limit=options["limit"])
    report = verb(chosen, dataset, conditions, store=session.store, baseline=baseline, progress=session.progress)
    session.show([report])
    session.next(f"edgeml package {chosen[-1].name} --target {conditions.profile.name}")


@cli.command()
@click.argument("variant", required=False, shell_complete=complete_variants)
@target_option
@click.option(
    "--as", "kind", type=click.Choice(["dir", "tar"]), default="dir", show_default=True, help="Kind of bundle."
)
@click.option("--goldens", type=click.Path(path_type=Path), help="Lines for the self-test; they travel in the bundle.")
@click.option("--no-wheels", is_flag=True, help="Leave the Python packages out; the device must have them.")
@click.option("--force", is_flag=True, help="Replace a bundle that exists.")
@common
def package(variant: str | None, target: str | None, artifacts: Path, *, as_json: bool, **options: Any) -> None:
    """Pack VARIANT with all that runs it on the target: copy it there, then `sh run.sh selftest`."""
    from edgeml.package import bundle_path
    from edgeml.package import package as verb
    from edgeml.targets import profile

    session = Session(artifacts, as_json=as_json)
    bundle = verb(
        session.store.variant(variant),
        store=session.store,
        profile=profile(target),
        kind=options["kind"],
        goldens=options["goldens"],
        wheels=not options["no_wheels"],
        force=options["force"],
        progress=session.progress,
    )
    session.show([bundle])
    path = bundle_path(session.store, bundle)
    session.next(f"scp -r {path} DEVICE:", "sh run.sh selftest")


@cli.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@common
def run(recipe: Path, artifacts: Path, *, as_json: bool) -> None:
    """Run the verbs that RECIPE writes down, in order."""
    from edgeml import recipe as recipes

    session = Session(artifacts, as_json=as_json)
    results = recipes.run(recipes.load(recipe), recipe.parent, store=session.store, progress=session.progress)
    session.show(results)
    session.next("edgeml list", f"edgeml run {recipe} --json")


@cli.command("list")
@common
def list_(artifacts: Path, *, as_json: bool) -> None:
    """What is here: models, variants, bundles."""
    from edgeml.bundles import bundles_in

    session = Session(artifacts, as_json=as_json)
    store = session.store
    models, variants = store.models(), store.variants()
    session.show([*models, *variants, *bundles_in(store.root / "bundles")])
    if not models:
        session.next("edgeml download org/name")
    else:
        session.next(f"edgeml bench {models[0].name}" if variants else f"edgeml quantize {models[0].name}")


@cli.command()
@common
def targets(artifacts: Path, *, as_json: bool) -> None:
    """What is known of the devices that a variant may run on."""
    from edgeml.targets import profiles

    session = Session(artifacts, as_json=as_json)
    session.show(profiles())
    session.next("edgeml quantize --target pi")


@cli.command()
@common
def doctor(artifacts: Path, *, as_json: bool) -> None:
    """What this machine can make, run and measure, what it cannot, and why."""
    from edgeml.doctor import doctor as verb

    session = Session(artifacts, as_json=as_json)
    session.show(verb())
    session.next("edgeml list")


def main() -> NoReturn:
    """Entry point: expected failures are two lines and an exit code; bugs keep their traceback."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = cli.main(standalone_mode=False) or 0
    except EdgemlError as error:
        code = _refuse(error.message, error.hint, error.exit_code)
    except click.exceptions.BadParameter as error:
        missing = isinstance(error, click.exceptions.MissingParameter)
        code = _refuse(error.format_message(), _see_help(error), 2 if missing else EdgemlError.exit_code)
    except click.UsageError as error:
        code = _refuse(error.format_message(), _see_help(error), 2)
    except (click.Abort, KeyboardInterrupt):
        code = _refuse("interrupted", "nothing half-written was left; run the same command again", INTERRUPTED)
    except BrokenPipeError:  # `edgeml list | head`
        code = 0
    sys.exit(code)


def _terminated(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's signature
    raise KeyboardInterrupt  # so that SIGTERM cleans up as Ctrl-C does


def _refuse(message: str, hint: str, code: int) -> int:
    click.echo(f"error: {message}", err=True)
    click.echo(f"hint: {hint}", err=True)
    return code


def _see_help(error: click.UsageError) -> str:
    return f"{error.ctx.command_path if error.ctx else 'edgeml'} --help"

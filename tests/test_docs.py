"""The documents are true: what they quote is what the program says, and what they name exists."""

import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import msgspec
import pytest
import yaml

from edgeml.bench import Conditions, bench
from edgeml.cli import cli
from edgeml.dataset import dataset_for, read_dataset
from edgeml.metrics import METRICS
from edgeml.parity import compare, parity_job
from edgeml.render import WIDTH, as_text
from edgeml.store import Store
from edgeml.targets import own_name, profile
from edgeml.types import Report
from edgeml.wheels import PACKAGES
from edgeml_runtime import __main__ as runtime
from edgeml_runtime import worker
from edgeml_runtime.meters.energy import figures
from edgeml_runtime.tolerances import of_cosine
from edgeml_runtime.types import Energy, Generate, Job, Window
from tiny.bundles import tiny_bundle
from tiny.gguf import llama_gguf
from tiny.pictures import image_variant, picture_folder
from tiny.speech import sound_folder, speech_variant
from tiny.variants import gguf_variant, onnx_variant

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
SKIPPED = re.compile(r"build|dist|__pycache__|.*\.egg-info|\.(?!ci$|gitignore$).*")
TRAINED = ROOT / "recipes/address-parser/model"  # which .gitignore names, too
SELFTEST = re.compile(r"^(\S+: \d+ files are .*\n.*, at least ([\d.]+) .*\n.*)$", re.MULTILINE)
generate = runpy.run_path(str(ROOT / "docs/generate.py"), run_name="generate")
BLOCKS = {block["command"]: block["output"] for block in generate["BLOCK"].finditer(README)}

ENERGY = Energy(
    meter="rapl",
    scope="processor package",
    kind="counter",
    excludes="all else",
    unit_of_work="answer",
    windows=tuple(
        Window(kind=kind, started_s=0.0, duration_s=1.0, units=1, joules=1.0)
        for kind in ("idle", "steady", "prefill", "decode")
    ),
)


def files(folder=ROOT):
    """Every file that belongs to the repository; of artifacts/ only its README does, and what was trained does not."""
    for path in sorted(folder.iterdir()):
        made = path == TRAINED or (folder == ROOT / "artifacts" and path.name != "README.md")
        if not made and not SKIPPED.fullmatch(path.name):
            yield from files(path) if path.is_dir() else [path]


def label(path):
    return path.relative_to(ROOT).as_posix()


DOCUMENTS = [path for path in files() if path.suffix == ".md"]
PROSE = [path for path in DOCUMENTS if label(path) != "docs/reference.md"]


def code(path):
    """The lines of code of a document: those of fenced blocks, and what stands between backticks."""
    text = path.read_text(encoding="utf-8")
    for block in re.findall(r"^```(?:sh|console)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield from (line.removeprefix("$ ") for line in block.splitlines())
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


def command_lines(path):
    for line in code(path):
        words = shlex.split(re.split(r"[|>;&]", line)[0], comments=True) if "edgeml " in line else []
        while words and re.fullmatch(r"[A-Z_]+=\S+", words[0]):
            words = words[1:]
        if words[:1] == ["edgeml"] and len(words) > 1:
            yield words[1:]


def refusal(words):
    """What the command line has against these words, which are not run; None when it takes them."""
    try:
        with cli.make_context("edgeml", list(words)) as context:
            name, command, rest = cli.resolve_command(context, [*context._protected_args, *context.args])
            command.make_context(name, rest, parent=context)
    except click.exceptions.Exit:  # it asked for help
        return None
    except click.ClickException as error:
        return error.format_message()


@pytest.mark.parametrize("name", cli.commands)
def test_every_command_and_option_has_help_an_example_and_a_place_in_the_reference(name):
    command = cli.commands[name]
    section = REFERENCE.partition(f"### edgeml {name}\n")[2].partition("\n### ")[0]

    assert command.help
    assert f"edgeml {name}" in section.partition("For example:")[2]
    for option in (one for one in command.params if isinstance(one, click.Option)):
        assert option.help, option.name
        assert option.opts[0] in section


def test_the_reference_is_what_its_generator_writes_now():
    assert generate["reference"]() == REFERENCE, "run: make docs"


def test_every_record_with_a_schema_is_in_the_reference_with_its_place():
    assert "not documented" not in REFERENCE
    for kind in generate["WHERE"]:
        assert f'`"{kind}"`' in REFERENCE


@pytest.mark.parametrize("command", [one for one in BLOCKS if one.startswith("edgeml ")])
def test_a_quoted_output_is_what_its_command_prints_now(command):
    assert generate["output"](command) == BLOCKS[command], "run: make docs"


def test_the_quoted_demo_has_the_recipes_variants_and_the_tables_columns(tmp_path):
    recipe = yaml.safe_load((ROOT / "recipes/similarity.yaml").read_text(encoding="utf-8"))
    schemes = {scheme.replace(":", "-") for scheme in recipe["quantize"]["to"]}
    quoted = set(re.findall(r"^((?:onnx|gguf)-\w+) ", BLOCKS["make demo"], re.MULTILINE))

    assert quoted == schemes
    assert titles(BLOCKS["make demo"]) == titles(text_of(tiny_report(tmp_path)))


def tiny_report(folder):
    store = Store(folder / "artifacts")
    made = [onnx_variant(store.root / "tiny" / name, name=f"tiny/{name}") for name in ("onnx-fp32", "onnx-int8")]
    data = folder / "lines.csv"
    data.write_text("text,label\n" + "rent,a\nfuel,b\npost,b\n" * 4, encoding="utf-8")
    conditions = Conditions(task="feature-extraction", profile=profile(own_name()), threads=1, warmups=1, repeats=12)
    dataset = read_dataset(data, task="feature-extraction", columns={})
    return bench(made, dataset, conditions, store=store, baseline=made[0])


def text_of(report: Report):
    return as_text([report], WIDTH)


def titles(text):
    """The words above the rule of the table of measurements; its first line names the model."""
    table = next(part for part in text.split("\n\n") if "nearest right" in part)
    return set(table.partition("──")[0].partition("\n")[2].split())


def test_the_quoted_test_run_is_pytests_own_closing_lines():
    assert BLOCKS["make test"]
    for line in BLOCKS["make test"].splitlines():
        assert re.fullmatch(r"\d+ passed.* in [\d.]+s.*", line)


@pytest.mark.real
def test_the_quoted_demo_is_what_a_real_run_prints_but_for_its_figures():
    command = [sys.executable, "-m", "edgeml", "run", "recipes/similarity.yaml"]
    environment = os.environ | {"COLUMNS": str(WIDTH)}  # readline, which pytest loads, sets its own for children
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)

    assert without_figures(generate["demo_result"](done.stdout)) == without_figures(BLOCKS["make demo"])


def without_figures(text):
    """The words of the tables: figures, rules, and what is this machine's own are left out."""
    own = ("measured on ", "energy:", "warning:", "samples of ", "in doubt:")
    kept = " ".join(line for line in text.splitlines() if not line.startswith(own))
    return [word for word in re.sub(r"[+-]?\d[\d.,]*\*?", "#", kept).split() if not set(word) <= set("─#%")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=label)
def test_a_quoted_self_test_is_worded_and_bounded_as_now(path, tmp_path, capsys):
    quoted = SELFTEST.findall(path.read_text(encoding="utf-8"))
    if not quoted:
        return
    runtime.main(["selftest", str(tiny_bundle(tmp_path))])
    printed = SELFTEST.findall(capsys.readouterr().out)

    for words, minimum in quoted:
        scheme = re.search(r"-(onnx|gguf)-([a-z0-9_]+)-", words)
        assert float(minimum) == of_cosine(f"{scheme[1]}:{scheme[2]}").bound
        assert spoken(words) == spoken(printed[0][0])


def spoken(words):
    """Without the bundle's name and the figures, which differ from model to model."""
    return re.sub(r"\d[\d.]*", "#", words.partition(": ")[2])


@pytest.mark.parametrize("path", DOCUMENTS, ids=label)
def test_every_relative_link_leads_somewhere(path):
    for link in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        if "://" not in link and target:
            assert (path.parent / target).exists(), link
        if anchor and not target.startswith("http"):
            other = (path.parent / target if target else path).read_text(encoding="utf-8")
            assert anchor in {title.strip().lower().replace(" ", "-") for title in re.findall(r"^#+ (.*)", other, re.M)}


@pytest.mark.parametrize("path", DOCUMENTS, ids=label)
def test_every_command_line_in_a_document_parses(path):
    for words in command_lines(path):
        assert refusal(words) is None, f"edgeml {shlex.join(words)}"


def test_the_documents_do_hold_command_lines():
    assert sum(len(list(command_lines(path))) for path in PROSE) > 20


@pytest.mark.parametrize("path", DOCUMENTS, ids=label)
def test_every_make_target_that_is_named_exists(path):
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))

    for line in code(path):
        assert set(re.findall(r"\bmake ([a-z]\S*)", line)) <= known, line


def test_the_tree_in_the_readme_names_every_folder_and_every_file_of_the_workshop():
    tree = re.search(r"^```text\nMakefile(.*?)^```$", README, re.MULTILINE | re.DOTALL)[0]
    top = {path.relative_to(ROOT).parts[0] for path in files()} - {"README.md", ".gitignore", ".ci"}
    top |= {"src/edgeml", "src/edgeml_runtime"}
    workshop = {path.name for path in files() if path.parent == ROOT / "src/edgeml" and path.suffix == ".py"}
    named = set(re.findall(r"[\w./]*\w", tree))

    assert (top - {"src"}) <= named
    assert workshop == {name for name in named if name.endswith(".py")}


def test_every_direct_dependency_has_its_row():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"].values()
    stated = [*project["project"]["dependencies"], *(one for extra in extras for one in extra)]
    stated += [*project["build-system"]["requires"], *(name for packages in PACKAGES.values() for name in packages)]
    text = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    rows = {cells[1].strip(): cells for line in text.splitlines() if len(cells := line.split("|")) > 5}

    for name in {re.match(r"[\w.-]+", one)[0] for one in stated}:
        assert name in rows, name
        assert all(cell.strip() for cell in rows[name][1:-1]), name


def test_the_changelog_begins_with_what_is_not_released():
    versions = re.findall(r"^## \[(.+?)\] - (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert versions[0] == ("0.1.0", "Unreleased")


def test_no_file_names_the_machine_it_was_written_on_or_an_index_host():
    hosts = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("deb", "debian", "org"))]
    hosts += [".".join(("registry", "npmjs", "org"))]
    folders = [f"/{name}/" for name in ("root", "work", "home")]
    helpers = re.compile(r"\b(this|another|a previous|an earlier|the next) session\b|\bissues? #?\d", re.IGNORECASE)

    for path in files():
        text = path.read_bytes().decode("utf-8", errors="replace")
        text = re.sub(r"/hom[e]/(alice|somebody)/", "", text)  # invented, for tests
        found = [word for word in (*hosts, *folders) if word in text]
        assert not found, f"{label(path)}: {found}"
        assert not helpers.search(text), label(path)


def test_the_table_of_metrics_is_what_the_tasks_give(tmp_path):
    given = {row for task in ("sentence-similarity", "feature-extraction") for row in encoder_metrics(tmp_path, task)}
    given |= {row for task in ("text-generation", "perplexity") for row in decoder_metrics(tmp_path, task)}
    given |= image_metrics(tmp_path) | speech_metrics(tmp_path)
    given |= parity_metrics(tmp_path)
    given |= {("size", "byte", ("once",)), ("energy_estimated", "J", ("min", "max"))}
    given |= {("instructions", "instruction", ("once",))}  # which an emulator counts
    given |= {(one.metric, one.unit, one.statistics) for one in figures(ENERGY)}
    stated = {(one.name, one.unit, tuple(one.statistics.split(", "))) for one in METRICS}

    accuracy = {"spearman", "pearson", "nearest_accuracy", "contract.valid", "exact_match", "chrf", "wer", "cer"}
    accuracy |= {"accuracy", "macro_f1", "token_accuracy", "entity_f1"}
    accuracy |= {f"contract.{name}" for name in ("schema", "keys", "grounded", "truncated")}
    accuracy |= {"reasoning"}  # of models that think aloud
    accuracy |= {"fidelity.agreement", "fidelity.spearman", "fidelity.cosine"}  # of two runs, not of one
    assert {row for row in stated if row[0] not in accuracy} == given


def encoder_metrics(folder, task):
    variant = onnx_variant(folder / task)
    rows = ({"text": "rent", "label": "a"}, {"text": "fuel", "label": "b"})
    pairs = ({"sentence1": "rent", "sentence2": "fuel"}, {"sentence1": "fuel", "sentence2": "post"})
    checks = ("batch-invariance", "sensitivity")
    return metrics(task, str(variant.path), rows=pairs if task == "sentence-similarity" else rows, checks=checks)


def image_metrics(folder):
    rows = dataset_for("image-classification", picture_folder(folder / "pictures", 1), {}, limit=None).rows
    return metrics("image-classification", str(image_variant(folder / "image")), rows=rows)


def speech_metrics(folder):
    task = "automatic-speech-recognition"
    rows = dataset_for(task, sound_folder(folder / "sounds", 2), {}, limit=None).rows
    return metrics(task, str(speech_variant(folder / "speech")), rows=rows)


def decoder_metrics(folder, task):
    weights = llama_gguf(folder / f"{task}.gguf", width=64, type="F32")
    variant = gguf_variant(folder / task, weights)
    text = "a long text of many words " * 20
    more = {"text": text, "context_tokens": 16, "limit": 2, "reference": str(variant)}
    if task == "text-generation":
        more = {"rows": ({"text": "rent"}, {"text": "fuel"}), "checks": ("constrained", "determinism")}
    return metrics(task, str(variant), **more)


def parity_metrics(folder):
    found = set()
    text = gguf_variant(folder / "traced", llama_gguf(folder / "traced.gguf", width=64, type="F32"))
    for task, variant in (("text-generation", text), ("feature-extraction", onnx_variant(folder / "traced-2").path)):
        job = Job(variant=str(variant), task=task, target="x", threads=1, warmups=0, repeats=0, seed=1)
        traced = worker.run(parity_job(msgspec.structs.replace(job, rows=({"text": "rent"}, {"text": "fuel"}))))
        samples = compare(traced, traced, task=task, scheme="onnx:fp32")
        found |= {(one.metric, one.unit, one.statistics) for one in samples}
    return found


def metrics(task, variant, **fields):
    generate = Generate(max_new_tokens=4, schema={"type": "string"} if task == "text-generation" else None)
    job = Job(variant=variant, task=task, target="x", threads=1, warmups=1, repeats=2, seed=1, **fields)
    outcome = worker.run(msgspec.structs.replace(job, generate=generate))
    return {(one.metric, one.unit, one.statistics) for one in outcome.samples}

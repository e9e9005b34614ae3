"""The shape of the code, checked: who may import whom, how long a function may be, who may print."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src"
FILES = sorted(SRC.rglob("*.py"))
WORKSHOP = [path for path in FILES if path.is_relative_to(SRC / "edgeml")]
RUNTIME = [path for path in FILES if path.is_relative_to(SRC / "edgeml_runtime")]

# Lower may not import higher. A module that stands in no row fails the test: decide where it belongs.
LEVELS = (
    ("__init__", "children", "errors", "progress", "yaml_files"),
    ("types", "metrics"),
    (
        "store",
        "sources",
        "targets",
        "devices",
        "stats",
        "wheels",
        "crossbuild",
        "preprocessing",
        "images",
        "speech",
        "sounds",
        "formats",
    ),
    ("scores", "dataset", "traits", "bundles", "privacy", "pulled", "threshold", "inventory", "calibration"),
    (
        "measurements",
        "provenance",
        "fidelity",
        "examples",
        "papers",
        "signing",
        "parcels",
        "comparable",
        "threads",
        "sequential",
        "parity",
    ),
    ("verdicts", "plots", "page"),
    ("conditions",),
    ("away",),
    (
        "download",
        "quantize",
        "bench",
        "report",
        "package",
        "verify",
        "deploy",
        "runtime",
        "doctor",
        "feedback",
        "serve",
    ),  # no verb imports a verb
    ("recipe", "render", "suggestions", "options"),
    ("console",),
    ("command", "device_commands"),
    ("cli",),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
VERBS = LEVELS[8]
HEAVY = {
    "llama_cpp",
    "onnx",
    "onnxruntime",
    "optimum",
    "torch",
    "transformers",
    "huggingface_hub",
    "scipy",
    "rich",
    "numpy",
    "matplotlib",
    "jinja2",
}
TRAVELS = {
    "edgeml_runtime",
    "msgspec",
    "numpy",
    "tokenizers",
    "onnxruntime",
    "llama_cpp",
    "PIL",
    "jinja2",
    "cryptography",
    *sys.stdlib_module_names,
}
SERVER = {"starlette", "uvicorn", "h11"}  # the endpoint's own: nothing else may need them
SPEAKERS = {"edgeml/cli.py", "edgeml/console.py", "edgeml_runtime/worker.py", "edgeml_runtime/__main__.py"}


def label(path):
    return path.relative_to(SRC).as_posix()


def top(path):
    return path.relative_to(SRC / "edgeml").with_suffix("").parts[0]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "edgeml":
            yield from (f"edgeml.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("path", WORKSHOP, ids=label)
def test_imports_point_down(path):
    for name in imports(path):
        if name.startswith("edgeml.") and name != "edgeml.__version__":
            other = name.split(".")[1]
            same = other == top(path)
            assert same or LEVEL[other] <= LEVEL[top(path)], f"{label(path)} imports {name}"
            assert same or not (other in VERBS and top(path) in VERBS), f"{label(path)}: a verb imports a verb"


@pytest.mark.parametrize("path", RUNTIME, ids=label)
def test_the_runtime_imports_only_what_travels(path):
    more = SERVER if path.is_relative_to(SRC / "edgeml_runtime" / "server") else set()
    for name in imports(path):
        assert name.split(".")[0] in TRAVELS | more, f"{label(path)} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=label)
def test_functions_stop_at_forty_lines_and_files_at_four_hundred(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 40, f"{label(path)}: {node.name}"


@pytest.mark.parametrize("path", FILES, ids=label)
def test_only_the_command_line_and_the_worker_write_to_the_streams(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    prints = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
    assert not prints or label(path) in SPEAKERS


@pytest.mark.parametrize("path", WORKSHOP, ids=label)
def test_only_one_place_starts_processes_since_a_signal_must_leave_none_behind(path):
    calls = [node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    named = [(ast.unparse(func.value), func.attr) for func in calls if isinstance(func, ast.Attribute)]
    starts = [attribute for owner, attribute in named if owner == "subprocess" and attribute[0] != "_"]
    assert not starts or label(path) == "edgeml/children.py", starts


@pytest.mark.parametrize("path", FILES, ids=label)
def test_no_error_is_swallowed(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Name) and node.type.id == "Exception":
            assert any(isinstance(step, ast.Raise) for step in node.body), f"{label(path)}:{node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=label)
def test_every_module_says_what_it_is(path):
    assert path.name == "__main__.py" or path.read_text() == "" or ast.get_docstring(ast.parse(path.read_text()))


def test_help_loads_nothing_heavy():
    code = (
        "import sys, atexit; sys.argv = ['edgeml', '--help']; "
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr)); from edgeml.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not HEAVY & {name.split(".")[0] for name in done.stderr.split()}
    assert "Make a model small" in done.stdout


def test_the_runtime_loads_without_the_workshop_or_a_library_that_it_may_not_need():
    code = "import sys, edgeml_runtime.session, edgeml_runtime.records; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}

    assert not loaded & {"edgeml", "torch", "click", "onnxruntime", "llama_cpp", "numpy"}


@pytest.mark.parametrize("path", FILES, ids=label)
def test_no_error_of_the_system_is_told_as_python_writes_it_with_its_number_and_the_file_again(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler) and node.type and "OSError" in ast.unparse(node.type):
            told = [one.value for one in ast.walk(node) if isinstance(one, ast.FormattedValue)]
            plain = [one.id for one in told if isinstance(one, ast.Name)]
            assert node.name not in plain, f"{label(path)}:{node.lineno}"

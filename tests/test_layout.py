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


@pytest.fixture(scope="module")
def nodes():
    """The syntax of each file, read once for all rules: a rule is one test that names every place that breaks it."""
    return {path: list(ast.walk(ast.parse(path.read_text(encoding="utf-8")))) for path in FILES}


def imports(nodes):
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "edgeml":
            yield from (f"edgeml.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_imports_point_down(nodes):
    wrong = []
    for path in WORKSHOP:
        for name in imports(nodes[path]):
            if name.startswith("edgeml.") and name != "edgeml.__version__":
                other = name.split(".")[1]
                down = LEVEL[other] <= LEVEL[top(path)] and not (other in VERBS and top(path) in VERBS)
                wrong += [] if other == top(path) or down else [f"{label(path)} imports {name}"]

    assert not wrong  # nor does a verb import a verb


def test_the_runtime_imports_only_what_travels(nodes):
    wrong = []
    for path in RUNTIME:
        more = SERVER if path.is_relative_to(SRC / "edgeml_runtime" / "server") else set()
        named = imports(nodes[path])
        wrong += [f"{label(path)} imports {name}" for name in named if name.split(".")[0] not in TRAVELS | more]

    assert not wrong


def test_functions_stop_at_forty_lines_and_files_at_four_hundred(nodes):
    functions = [(path, node) for path in FILES for node in nodes[path] if isinstance(node, ast.FunctionDef)]

    assert not [f"{label(path)}: {node.name}" for path, node in functions if node.end_lineno - node.lineno >= 40]
    assert not [label(path) for path in FILES if path.read_text(encoding="utf-8").count("\n") > 400]


def test_only_the_command_line_and_the_worker_write_to_the_streams(nodes):
    calls = [(path, node.func) for path in FILES for node in nodes[path] if isinstance(node, ast.Call)]
    prints = {label(path) for path, func in calls if isinstance(func, ast.Name) and func.id == "print"}

    assert prints <= SPEAKERS


def test_only_one_place_starts_processes_since_a_signal_must_leave_none_behind(nodes):
    calls = [(path, node.func) for path in WORKSHOP for node in nodes[path] if isinstance(node, ast.Call)]
    named = [(path, func) for path, func in calls if isinstance(func, ast.Attribute) and func.attr[0] != "_"]
    starts = {label(path) for path, func in named if ast.unparse(func.value) == "subprocess"}

    assert starts == {"edgeml/children.py"}


def test_no_error_is_swallowed(nodes):
    handlers = [(path, node) for path in FILES for node in nodes[path] if isinstance(node, ast.ExceptHandler)]
    all_errors = [(path, node) for path, node in handlers if isinstance(node.type, ast.Name)]
    all_errors = [(path, node) for path, node in all_errors if node.type.id == "Exception"]
    raised = [node for _, node in all_errors if any(isinstance(step, ast.Raise) for step in node.body)]

    assert not [f"{label(path)}:{node.lineno}" for path, node in all_errors if node not in raised]


def test_every_module_says_what_it_is(nodes):
    owed = [path for path in FILES if path.name != "__main__.py" and path.read_text(encoding="utf-8")]

    assert not [label(path) for path in owed if not ast.get_docstring(nodes[path][0])]


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


def test_no_error_of_the_system_is_told_as_python_writes_it_with_its_number_and_the_file_again(nodes):
    handlers = [(path, node) for path in FILES for node in nodes[path] if isinstance(node, ast.ExceptHandler)]
    wrong = []
    for path, node in handlers:
        if node.type and "OSError" in ast.unparse(node.type):
            told = [one.value for one in ast.walk(node) if isinstance(one, ast.FormattedValue)]
            plain = [one.id for one in told if isinstance(one, ast.Name)]
            wrong += [f"{label(path)}:{node.lineno}"] if node.name in plain else []

    assert not wrong

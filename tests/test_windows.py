"""What Windows lacks is asked for before it is used: here a Python from which it was taken away, since none runs there.

This shows that nothing is missing at import and in plain use; what Windows does otherwise, it cannot show.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeml_runtime.records import decode, encode
from edgeml_runtime.types import EnergyPlan, Job, Outcome
from tiny.variants import onnx_variant

# Python runs this before anything else. What its own modules and numpy need on this system stays: SIGKILL, uname.
TAKEN_AWAY = """
import os, signal, sys
import concurrent.futures, multiprocessing, subprocess, tempfile  # Python's own modules may use what they find
sys.modules["fcntl"] = sys.modules["resource"] = None
for module, names in {
    os: ("killpg", "getloadavg", "sched_getaffinity", "sysconf", "sysconf_names", "geteuid", "getuid"),
    signal: ("SIGHUP", "SIGPIPE", "pthread_sigmask"),
}.items():
    for name in names:
        delattr(module, name)
"""
MODULES = sorted(
    ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    for name in ("edgeml", "edgeml_runtime")
    for root in [Path(__file__).parent.parent / "src"]
    for path in (root / name).rglob("*.py")
    if path.stem != "__main__"
)
ON_A_DEVICE = ("edgeml_runtime.device", "edgeml_runtime.deployment")  # run on the Linux side of a bench over SSH


@pytest.fixture
def lacking(tmp_path):
    """Runs Python without what Windows lacks."""
    (tmp_path / "sitecustomize.py").write_text(TAKEN_AWAY)

    def run(*arguments, **options):
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, **options)

    return run


def test_every_module_is_imported(lacking):
    names = [name for name in MODULES if not name.startswith(ON_A_DEVICE)]
    done = lacking("-c", f"import importlib\nfor name in {names}: importlib.import_module(name)")

    assert done.returncode == 0, done.stderr[-2000:]


def test_a_command_runs_and_refuses_as_elsewhere(lacking, tmp_path):
    shown = lacking("-m", "edgeml", "list", "--artifacts", tmp_path / "artifacts")
    refused = lacking("-m", "edgeml", "bench", "none/onnx-fp32", "--artifacts", tmp_path / "artifacts")

    assert shown.returncode == 0, shown.stderr
    assert refused.returncode == 3
    assert refused.stderr.startswith("error: ")


def test_a_job_is_done_by_a_child_and_what_the_system_does_not_tell_is_absent(lacking, tmp_path):
    folder = onnx_variant(tmp_path / "onnx").path
    rows = ({"text": "one", "label": "x"}, {"text": "zw\u00f6lf", "label": "x"})
    job = Job(
        variant=str(folder),
        task="feature-extraction",
        target="laptop",
        threads=1,
        warmups=1,
        repeats=2,
        seed=1,
        rows=rows,
        energy=EnergyPlan(meter="off"),
    )
    code = (
        "import sys; from edgeml.targets import local; from edgeml.progress import silent\n"
        "from edgeml_runtime.records import decode, encode; from edgeml_runtime.types import Job\n"
        "print(encode(local.run(decode(sys.stdin.read(), Job, where='here'), progress=silent)))"
    )
    done = lacking("-c", code, input=encode(job))

    assert done.returncode == 0, done.stderr
    outcome = decode(done.stdout, Outcome, where="the answer")
    assert len(outcome.answers) == 2
    assert (outcome.after.load_average, outcome.after.major_faults) == (None, None)
    assert outcome.environment.cores == os.cpu_count()

"""How many instructions an inference takes on a device's processor, counted by a plugin of QEMU's.

Unlike time, a count under emulation is that of the device, and nearly the same each time, however busy this machine is.
It is no time either: memory, and how many instructions a processor does at once, are not in it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

from msgspec.structs import replace

from edgeml.children import started
from edgeml.errors import EdgemlError
from edgeml.progress import Progress, within
from edgeml.sources.apt import check_apt, fetch_packages, unpack
from edgeml.targets import emulated, local
from edgeml.targets.emulator import Emulator, emulator, made_once, python_command, root_folder
from edgeml.targets.types import Profile
from edgeml_runtime.tasks import task_of
from edgeml_runtime.types import Absent, Job, Samples

_METRIC = "instructions"
_FEW, _MANY = 1, 6  # rows: what is equal in both runs, such as loading, cancels out
_PACKAGE = "qemu-user"  # the one with plugins: the static one of Debian 12 has none
_LIBRARIES = ("lib64/", "lib/x86_64-linux-gnu/", "usr/lib64/", "usr/lib/x86_64-linux-gnu/")
_PROGRAM = "usr/bin/qemu-aarch64"
# Else threads that wait for work would be counted, and dictionaries of text be laid out anew in each process.
_SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
}
_SAID = re.compile(r"instructions: (\d+)")
# The libraries of the package's own release, whatever this machine has.
_START = """\
#!/bin/sh
here=$(dirname "$0")
exec "$here/tree/lib64/ld-linux-x86-64.so.2" \
    --library-path "$here/tree/lib/x86_64-linux-gnu:$here/tree/usr/lib/x86_64-linux-gnu" \
    "$here/tree/{program}" -plugin "$here/instructions.so" "$@"
"""


def count_instructions(job: Job, profile: Profile, format: str, *, progress: Progress) -> Samples | Absent:
    """The instructions of one inference: of one text, of one row, or of a chunk of `perplexity`, in one thread.

    Counted is the first row's raw output, as `Job.trace` has it, by the difference of two runs. Repeats agreed within
    1 % for a text of six words, the less so the shorter it is. Absent where nothing here counts; raises EdgemlError as
    `emulated.run` does.
    """
    if not counter_file().exists():
        hint = f"edgeml download --emulator --count-instructions --target {profile.asked}"
        return _absent("what counts instructions is not here", hint, profile)
    device = emulator(profile, format)._replace(qemu=counter_file())
    first, told = _shortened(job, _FEW), within(progress, "count instructions")
    # Leaves compiled Python behind, so that the two that count do the same, whoever else uses these packages.
    local.outcome(first, emulated.work_on(device, first, settings=_SETTINGS, progress=told))
    few, many = (_counted(device, _shortened(job, rows), told) for rows in (_FEW, _MANY))
    if few[1] == many[1]:
        return _absent("a difference needs six chunks, and the text is shorter", "take a longer text", profile)
    inferences = (many[1] - few[1]) * max(len(task_of(job.task).COLUMNS), 1)
    return Samples(
        metric=_METRIC,
        unit="instruction",
        values=((many[0] - few[0]) / inferences,),
        statistics=("once",),
        unit_of_sample="inference",
        method=f"a plugin of QEMU's, {device.cpu}, 1 thread: {many[1]} times the first row less {few[1]}, a share each",
        how="emulated",
    )


def counter_file() -> Path:
    """Where the emulator that counts lies."""
    return root_folder().parent / "counter" / "qemu-aarch64"


def prepare_counter(profile: Profile, *, progress: Progress) -> None:
    """Fetch an emulator with plugins (22 MB) and compile ours; raises EdgemlError where one of the two cannot be.

    All else that the device consists of is there.
    """
    cpu = profile.emulated_cpu
    assert cpu
    made_once(counter_file().parent, lambda folder: _add(folder, cpu, progress))


def _add(folder: Path, cpu: str, progress: Progress) -> None:
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise EdgemlError(
            "instructions are counted by a plugin, and there is no C compiler", hint="sudo apt install gcc"
        )
    check_apt()
    packages, step = folder.parent / "packages", "download the emulator that counts (22 MB)"
    for package in fetch_packages([_PACKAGE], "amd64", packages, step=step, progress=progress):
        unpack(package, folder / "tree", lambda name: name == _PROGRAM or name.startswith(_LIBRARIES))
    with as_file(files("edgeml.targets") / "instructions.c") as source:
        output = ["-o", str(folder / "instructions.so")]
        _run([compiler, "-shared", "-fPIC", "-O2", "-Wall", *output, str(source)], "the plugin does not compile")
    start = folder / counter_file().name
    start.write_text(_START.format(program=_PROGRAM), encoding="utf-8")
    start.chmod(0o755)
    _run([*python_command(start, cpu, root_folder()), "-c", ""], "this release's QEMU takes no plugins")


def _run(command: Sequence[str], otherwise: str) -> None:
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with started(command, **quiet) as child:
        said = child.communicate()[0].strip()
    if child.returncode:
        hint = "instructions are left out; all else is emulated without them"
        raise EdgemlError(f"{otherwise}: {said or child.returncode}", hint=hint)


def _shortened(job: Job, rows: int) -> Job:
    return replace(job, trace=True, threads=1, threads_prefill=None, rows=job.rows[:1] * rows, numbers=(), limit=rows)


def _counted(device: Emulator, job: Job, progress: Progress) -> tuple[int, int]:
    """The instructions of a whole process, and how many rows it did."""
    ended = emulated.work_on(device, job, settings=_SETTINGS, progress=progress)
    done = len(local.outcome(job, ended).trace)
    counts = [int(found[1]) for line in ended.said if (found := _SAID.fullmatch(line))]
    if not counts:
        raise EdgemlError("the emulator has not counted", hint=f"remove {counter_file().parent} and fetch it again")
    return counts[-1], done


def _absent(reason: str, hint: str, profile: Profile) -> Absent:
    return Absent(metric=_METRIC, reason=reason, hint=hint, target=profile.name)

"""A device that is not there, emulated: its own Python, libraries and instructions, run by QEMU.

What it computes is what the device would; how long it takes says nothing of the device.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import Distribution, distributions
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec.structs import replace

import edgeml_runtime
from edgeml.errors import EdgemlError
from edgeml.progress import Progress
from edgeml.targets import local
from edgeml.targets.emulator import Emulator, emulator
from edgeml.targets.types import Profile
from edgeml_runtime.types import Job, Outcome

_FOREIGN = ("PYTHON", "LD_", "QEMU_")  # settings of this machine's programs that would reach into the device's
_FRAME = re.compile(r'\s*File "(.+)", line \d+ in ')  # as Python's faulthandler writes it


def run(job: Job, profile: Profile, format: str, *, progress: Progress) -> Outcome:
    """Run a job as on the profile's device; raises EdgemlError as `local.run` does, or where the emulator is missing.

    A library that needs instructions which that processor lacks is refused by its name and version.
    """
    return run_on(emulator(profile, format), job, progress=progress)


def run_on(device: Emulator, job: Job, *, progress: Progress) -> Outcome:
    """Run a job on an emulated device."""
    outcome = local.outcome(job, work_on(device, job, progress=progress))
    # Never to be taken for a measurement, even under an emulator that cannot be seen from inside.
    named = outcome.environment.emulator or device.qemu.resolve().name
    return replace(outcome, environment=replace(outcome.environment, emulator=named))


def work_on(
    device: Emulator,
    job: Job,
    *,
    settings: Mapping[str, str] | None = None,
    progress: Progress,
) -> local.Ended:
    """How the worker ended on an emulated device, started with these environment variables, too.

    Raises EdgemlError where it met an instruction that the device lacks.
    """
    with environment_of(device) as environment:
        command = device.command("-X", "faulthandler", "-m", "edgeml_runtime.worker")
        ended = local.work(command, job, environment={**environment, **(settings or {})}, progress=progress)
    if ended.code == -signal.SIGILL:
        raise _lacking(device, ended.said)
    return ended


@contextmanager
def environment_of(device: Emulator) -> Iterator[dict[str, str]]:
    """The variables of a process on the device, which sees its packages and of this machine's only `edgeml_runtime`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    with TemporaryDirectory(prefix="edgeml-") as folder:
        package = Path(edgeml_runtime.__file__).parent
        (Path(folder) / package.name).symlink_to(package.resolve())
        yield {**kept, "PYTHONPATH": os.pathsep.join((folder, str(device.site)))}


def _lacking(device: Emulator, said: list[str]) -> EdgemlError:
    """The refusal of the library that was at work when an instruction was met that the processor does not know."""
    found = _at_work(device.site, said)
    library, name = (f"{found.name} {found.version}", found.name) if found else ("a library of the runtime", "it")
    target = f"{device.profile.title} ({device.cpu.title()})"
    return EdgemlError(
        f"{library} needs instructions that a {target} lacks: its process died of SIGILL under emulation",
        hint=f"take another version of {name}, or a wheel of it that is built for this processor",
    )


def _at_work(site: Path, said: list[str]) -> Distribution | None:
    """The package, of those in `site`, whose file is the innermost that Python was in when it died."""
    files = (Path(frame[1]) for line in said if (frame := _FRAME.match(line)))
    top = next((file.relative_to(site).parts[0] for file in files if file.is_relative_to(site)), None)
    for found in distributions(path=[str(site)]):
        if any(path.parts[0] == top for path in found.files or ()):
            return found
    return None

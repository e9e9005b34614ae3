"""The wheels that a bundle carries, so that a device needs no index: which ones, and where they are kept.

Nothing here fetches; `edgeml.download` fills the folders.
"""

from __future__ import annotations

import filecmp
import os
import platform
import re
import shutil
from importlib import metadata
from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml.store import cache_folder, scratch_folder
from edgeml.targets import is_here
from edgeml.targets.types import Profile
from edgeml_runtime.types import VariantManifest

COMPILED = "llama-cpp-python"  # the one package that the index has no wheel of
# What the runtime of each format really imports, found by running it in an empty environment (`pip --no-deps`):
# onnxruntime also names flatbuffers, packaging and protobuf, tokenizers the hub's client, llama-cpp-python jinja2 and
# diskcache: no inference touches them. `onnx-image` also decodes pictures, and `onnx-chat` writes turns by a model's
# chat template. Versions are those that were seen to work together; where a package is installed here, its version is
# taken instead.
# The endpoint's own, 0.5 MB together: starlette and uvicorn with what they import. anyio also names idna, which only a
# client that looks up names would need.
_SERVER = {
    "starlette": "1.10.0",
    "uvicorn": "0.54.0",
    "anyio": "4.16.0",
    "click": "8.5.1",
    "h11": "0.16.0",
    "typing-extensions": "4.16.0",
}
_ONNX = {"onnxruntime": "1.32.0", "numpy": "2.4.6", "tokenizers": "0.23.3", "msgspec": "0.22.0", **_SERVER}
PACKAGES: dict[str, dict[str, str]] = {
    "onnx": _ONNX,
    "onnx-image": {**_ONNX, "pillow": "13.0.0"},
    "onnx-chat": {**_ONNX, "jinja2": "3.1.6", "markupsafe": "3.0.4"},
    "gguf": {
        COMPILED: "0.3.36",
        "numpy": "2.4.6",
        "msgspec": "0.22.0",
        **_SERVER,
    },
}


def runtime_of(manifest: VariantManifest) -> str:
    """Which of PACKAGES run a variant: its format's, with those for pictures or a chat template where it needs them."""
    format = manifest.scheme.partition(":")[0]
    if manifest.pixels:
        return f"{format}-image"
    return f"{format}-chat" if manifest.chat_template == "kept" else format


def requirements(format: str) -> tuple[str, ...]:
    """The pinned requirements of a format's runtime, as `requirements.txt` writes them."""
    if format not in PACKAGES:
        raise EdgemlError(f"no runtime for format {format!r}", hint=f"known formats: {', '.join(PACKAGES)}")
    return tuple(f"{package}=={_version(package, pinned)}" for package, pinned in PACKAGES[format].items())


def default_python(profile: Profile) -> str:
    """The Python version (`3.11`) to fetch wheels for: this one on this machine, else the profile's first."""
    return own_python() if is_own(profile) else profile.python[0]


def own_python() -> str:
    """The running interpreter's version, as wheels name it."""
    return ".".join(platform.python_version_tuple()[:2])


def is_own(profile: Profile) -> bool:
    """Whether this machine fits the profile."""
    return is_here(profile)


def can_build_for(profile: Profile) -> bool:
    """Whether `edgeml runtime build` compiles for such a machine: 64-bit Arm Linux with glibc."""
    return profile.machine == "aarch64" and profile.wheel_platforms[0].startswith("manylinux")


def wheel_folder(profile: Profile, python: str, format: str) -> Path:
    """Where the wheels for one platform, Python and format are kept; machines of one platform share them.

    A wheel that was compiled for dot-product instructions alone must not reach a Raspberry Pi 4 that way.
    """
    return cache_folder() / "wheels" / f"{profile.wheel_platforms[0]}-{python}-{runtime_name(profile, format)}"


def runtime_name(profile: Profile, format: str) -> str:
    """A format, and what its runtime was compiled for where that is more than the machine."""
    dotprod = COMPILED in PACKAGES.get(format, {}) and profile.integer_kernels == "arm64-dotprod"
    return f"{format}-dotprod" if dotprod else format


def shared_wheel(profile: Profile, format: str, requirement: str) -> Path | None:
    """A wheel for any Python that meets a requirement, from the folder of whichever Python has one."""
    pattern = wheel_folder(profile, "*", format)
    found = (_find(folder, requirement) for folder in sorted(pattern.parent.glob(pattern.name)))
    return next((path for path in found if path and "-py3-none-" in path.name), None)


def put_wheel(path: Path, folder: Path) -> Path:
    """A copy of a wheel in a folder, in the place of every other wheel of that version of its package."""
    name, version = path.name.split("-")[:2]
    goal = folder / path.name
    if not (goal.exists() and filecmp.cmp(goal, path, shallow=False)):
        with scratch_folder(goal) as part:
            shutil.copyfile(path, part / path.name)
            os.replace(part / path.name, goal)
    while (other := _find(folder, f"{name}=={version}", but=path.name)) is not None:
        other.unlink()
    return goal


def cached_wheels(profile: Profile, python: str, format: str) -> tuple[Path, ...]:
    """Every wheel that a bundle for this target needs, one a requirement and in its order.

    Raises EdgemlError when one of them is not there yet.
    """
    folder = wheel_folder(profile, python, format)
    if missing := missing_wheels(folder, format):
        message = f"the wheels for {profile.name} and Python {python} are not all here: {', '.join(missing)}"
        raise EdgemlError(message, hint=f"edgeml download --runtime {format} --target {profile.asked}")
    return tuple(path for wanted in requirements(format) if (path := _find(folder, wanted)))


def missing_wheels(folder: Path, format: str) -> tuple[str, ...]:
    """The requirements that no wheel in the folder meets."""
    return tuple(wanted for wanted in requirements(format) if _find(folder, wanted) is None)


def _find(folder: Path, requirement: str, *, but: str | None = None) -> Path | None:
    package, _, version = requirement.partition("==")
    for path in sorted(folder.glob("*.whl")):
        name, found = path.name.split("-")[:2]
        if _normal(name) == _normal(package) and found == version and path.name != but:
            return path
    return None


def _normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def _version(package: str, pinned: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return pinned

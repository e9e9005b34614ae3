"""Which of a bundle's files go into which layer of its image, and what the image does when it is started.

The wheels stay out: their packages lie in the image, unpacked as the runtime itself would unpack them.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeml.bundles.dir import mode
from edgeml.bundles.image.base import STATE, USER, Base
from edgeml.bundles.image.layers import Entry
from edgeml_runtime.bundle import GOLDENS, SITE, VARIANT, WHEELS, Bundle
from edgeml_runtime.records import read_record
from edgeml_runtime.types import VariantManifest
from edgeml_runtime.unpack import serves

HOME = "opt/edgeml"  # where the bundle's folder lies in an image
PORT = 8080
TOKEN = "/run/secrets/token"  # noqa: S105 - where it is mounted
SETTINGS = "etc/edgeml/serve.toml"
EPOCH = "1970-01-01T00:00:00Z"  # of every image: the same input gives the same bytes
PARTS = ("packages", "weights", "config", "papers", "runtime")  # layers above the base, what changes most on top
_PAPERS = ("MODEL_CARD.md", "DATA_CARD.md", "licences/")
# A container is reached from outside itself by its address alone, so that a token is needed, as anywhere else.
_SERVE = f'host = "0.0.0.0"\nport = {PORT}\ntoken_file = "{TOKEN}"\n'
HEALTHY = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{PORT}/health', timeout=5)"
_SECOND_NS = 1_000_000_000


def entries_of(folder: Path, bundle: Bundle, python: str) -> dict[str, list[Entry]]:
    """The entries of each layer above the base."""
    sorted_out: dict[str, list[Entry]] = {part: [] for part in PARTS}
    weights = _weights(folder)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if not name.startswith((WHEELS, SITE)):
            sorted_out[_part(name, weights)].append(Entry(f"{HOME}/{name}", path, mode(path)))
    sorted_out["packages"] += packages(folder / WHEELS, bundle, python)
    sorted_out["runtime"].append(Entry(SETTINGS, _SERVE.encode()))
    return sorted_out


def site_name(bundle: Bundle, python: str) -> str:
    """The folder that the runtime unpacks the bundle's wheels to, and finds there."""
    digests = "".join(_wheels(bundle, python).values())
    return f"{SITE}{python}-{hashlib.sha256(digests.encode()).hexdigest()[:12]}"


def packages(folder: Path, bundle: Bundle, python: str) -> Iterator[Entry]:
    """What is in the wheels for one Python, in the order of the wheels' names."""
    home = f"{HOME}/{site_name(bundle, python)}"
    for wheel in _wheels(bundle, python):
        with zipfile.ZipFile(folder / wheel) as archive:
            for member in sorted(archive.namelist()):
                if not member.endswith("/"):
                    yield Entry(f"{home}/{member}", archive.read(member))


def start_of(bundle: Bundle, base: Base) -> dict[str, Any]:
    """The part of an image's configuration that says how it is run: `serve`, as nobody, with nothing but Python."""
    python = "/usr/bin/python3"
    return {
        "User": f"{USER}:{USER}",
        "ExposedPorts": {f"{PORT}/tcp": {}},
        "Env": [
            "PATH=/usr/bin",
            "HOME=/tmp",
            "LANG=C.UTF-8",
            f"PYTHONPATH=/{HOME}:/{HOME}/{site_name(bundle, base.python)}",
            "PYTHONDONTWRITEBYTECODE=1",
            "PYTHONUNBUFFERED=1",
        ],
        "Entrypoint": [python, "-P", "-s", "-m", "edgeml_runtime"],
        "Cmd": ["serve", ".", "--config", f"/{SETTINGS}"],
        "Volumes": {f"/{STATE}": {}},
        "WorkingDir": f"/{HOME}",
        "Labels": labels(bundle, base),
        "StopSignal": "SIGTERM",
        # Docker's own addition, which others pass over: podman takes it from images of Docker's format alone.
        "Healthcheck": {
            "Test": ["CMD", python, "-c", HEALTHY],
            "Interval": 30 * _SECOND_NS,
            "Timeout": 10 * _SECOND_NS,
            "StartPeriod": 60 * _SECOND_NS,
            "Retries": 3,
        },
    }


def labels(bundle: Bundle, base: Base) -> dict[str, str]:
    """What is told of an image, under the names that OCI has for it."""
    return {
        "org.opencontainers.image.title": bundle.name,
        "org.opencontainers.image.description": f"{bundle.variant}, served by edgeml {bundle.runtime}",
        "org.opencontainers.image.version": bundle.runtime,
        "org.opencontainers.image.revision": bundle.model,
        "org.opencontainers.image.base.name": base.release,
        "org.opencontainers.image.base.digest": base.layer.digest,
        **({"org.opencontainers.image.licenses": bundle.licence} if bundle.licence else {}),
    }


def _weights(folder: Path) -> set[str]:
    manifest = read_record(folder / VARIANT / "variant.json", VariantManifest)
    graphs = set(manifest.graphs.values()) or {manifest.weights}
    return {f"{VARIANT}/{file.path}" for file in manifest.files if file.path.removesuffix(".data") in graphs}


def _part(name: str, weights: set[str]) -> str:
    if name in weights:
        return "weights"
    if name.startswith(f"{VARIANT}/") or name == GOLDENS:
        return "config"
    return "papers" if name.startswith(_PAPERS) else "runtime"


def _wheels(bundle: Bundle, python: str) -> dict[str, str]:
    """One wheel a package for that Python, by name, with its digest: what the runtime would choose there."""
    found = {file.path.removeprefix(WHEELS): file.sha256 for file in bundle.files if file.path.startswith(WHEELS)}
    fitting = {wheel.partition("-")[0]: wheel for wheel in sorted(found) if serves(wheel, python)}
    return {wheel: found[wheel] for wheel in fitting.values()}

"""A bundle as a component of AWS IoT Greengrass: a recipe, and an archive of the bundle's folder as its artifact."""

from __future__ import annotations

import filecmp
import zipfile
from pathlib import Path

from edgeml.bundles.dir import mode
from edgeml.bundles.extraction import LARGEST_MANIFEST_BYTES, Intake, limit_of, only_folder
from edgeml.errors import EdgemlError, disk_refusal
from edgeml.sources.wheel import BROKEN_ZIP
from edgeml_runtime.bundle import MANIFEST, Bundle, read_bundle
from edgeml_runtime.records import decode

SUFFIX = ".greengrass"
ARTIFACT = "bundle.zip"
RECIPE = "recipe.yaml"
_MACHINES = {"aarch64": "aarch64", "x86_64": "amd64"}
_FIRST = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold
_RECIPE = """\
---
RecipeFormatVersion: "2020-01-25"
ComponentName: {component}
ComponentVersion: "{version}"
ComponentDescription: {variant}, served on loopback by edgeml {version}
ComponentPublisher: edgeml
ComponentConfiguration:
  DefaultConfiguration:
    Port: "8080"
Manifests:
  - Platform:
      os: linux
      architecture: {machine}
    Lifecycle:
      Install:
        Timeout: 600
        Script: sh {home}/run.sh selftest
      Run:
        Script: exec sh {home}/run.sh serve --port {{configuration:/Port}}
    Artifacts:
      - Uri: s3://BUCKET/{component}/{version}/{artifact}
        Unarchive: ZIP
        Permission:
          Read: OWNER
          Execute: OWNER
"""
_README = """\
# {name}

```sh
sed -i "s|BUCKET|my-bucket|" {recipe}
aws s3 cp {artifact} s3://my-bucket/{component}/{version}/{artifact}
aws greengrassv2 create-component-version --inline-recipe fileb://{recipe}
```

The device needs Python 3.11 or newer. A self-test that fails leaves the component BROKEN, and Greengrass rolls the
deployment back. Greengrass ends `serve` with SIGTERM, and it finishes what it has begun.
"""


def seal(folder: Path) -> Path:
    """The folder with recipe and artifact, beside the bundle's."""
    bundle = read_bundle(folder)
    if bundle.machine not in _MACHINES:
        hint = "package --as dir or tar for such a machine"
        raise EdgemlError(f"no Greengrass component is made for {bundle.target}", hint=hint)
    goal = folder.with_name(folder.name + SUFFIX)
    goal.mkdir()
    _zip(folder, goal / ARTIFACT)
    words = {
        "name": bundle.name,
        "component": f"edgeml.{bundle.name}",
        "version": bundle.runtime,
        "variant": bundle.variant,
        "machine": _MACHINES[bundle.machine],
        "artifact": ARTIFACT,
        "recipe": RECIPE,
        "home": f"{{artifacts:decompressedPath}}/{ARTIFACT.removesuffix('.zip')}/{bundle.name}",
    }
    for name, text in {RECIPE: _RECIPE, "README.md": _README}.items():
        (goal / name).write_text(text.format(**words), encoding="utf-8")
    return goal


def read(path: Path) -> Bundle:
    """The manifest inside the artifact."""
    try:
        with zipfile.ZipFile(path / ARTIFACT) as archive:
            names = [name for name in archive.namelist() if name.endswith(f"/{MANIFEST}") and name.count("/") == 1]
            with archive.open(names[0]) as content:
                return decode(content.read(LARGEST_MANIFEST_BYTES), Bundle, where=f"{path.name}/{MANIFEST}")
    except (*BROKEN_ZIP, OSError) as error:
        hint = "edgeml package --force makes it again"
        raise EdgemlError(f"{path} holds no complete artifact", hint=hint) from error


def same(made: Path, present: Path) -> bool:
    """Whether recipe and artifact are equal."""
    names = [path.name for path in made.iterdir()]
    return present.is_dir() and len(filecmp.cmpfiles(made, present, names, shallow=False)[0]) == len(names)


def unpack(path: Path, folder: Path) -> Path:
    """The one folder that the artifact holds."""
    packed = path / ARTIFACT
    intake = Intake(folder, packed.name, limit_of(packed))
    try:
        with zipfile.ZipFile(packed) as archive:
            for member in archive.infolist():
                with archive.open(member) as content:
                    intake.add(member.filename, content)
    except (*BROKEN_ZIP, OSError) as error:
        if isinstance(error, OSError) and disk_refusal(error):
            raise
        raise EdgemlError(f"{packed} is no complete archive", hint="copy it again") from error
    return only_folder(folder, packed)


def _zip(folder: Path, goal: Path) -> None:
    with zipfile.ZipFile(goal, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            member = zipfile.ZipInfo(path.relative_to(folder.parent).as_posix(), _FIRST)
            member.external_attr, member.compress_type = (0o100000 | mode(path)) << 16, zipfile.ZIP_DEFLATED
            member.create_system = 3  # Unix, wherever it is made
            with path.open("rb") as content, archive.open(member, "w", force_zip64=True) as packed:
                while chunk := content.read(1 << 20):
                    packed.write(chunk)

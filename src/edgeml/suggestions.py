"""What makes sense after a result: whole commands, to be typed as they stand. Knows nothing of how they are shown."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from edgeml.bundles import kind_of
from edgeml.store import EXAMPLE, Store
from edgeml.types import Model, Page, Profile, Variant
from edgeml_runtime.types import Bundle


def after_download(model: Model) -> list[str]:
    """A model is there: make it small."""
    return [f"edgeml quantize {model.name}"]


def after_quantize(variant: Variant, target: Profile, store: Store) -> list[str]:
    """Variants are there: measure them, where that can be done here, and pack the last one."""
    measure = [f"edgeml bench {variant.name.partition('/')[0]}"] if _is_own(target) else []
    return [*measure, *_packing(variant, target, store)]


def after_bench(variant: Variant, target: Profile, store: Store) -> list[str]:
    """Variants were measured: put what was found on a page, and pack one."""
    return [f"edgeml report {variant.name.partition('/')[0]}", *_packing(variant, target, store)]


def after_report(page: Page) -> list[str]:
    """A page is there: look at it, or put it in a pull request."""
    if page.html:
        return [f"python3 -m webbrowser {quote(Path(page.html).resolve().as_uri())}"]
    return [f"gh pr comment --body-file {quote(page.markdown)}"]


def _packing(variant: Variant, target: Profile, store: Store) -> list[str]:
    """A variant is chosen: pack it; before that, fetch what runs it on the target."""
    format = variant.manifest.scheme.partition(":")[0]
    there = "" if _is_own(target) else f" --target {target.name}"
    if not _has_wheels(format, target):
        return [f"edgeml download --runtime {format}{there}"]
    known = store.root / variant.name == variant.path
    return [f"edgeml package {variant.name if known else quote(str(variant.path))}{there}"]


def after_runtime(format: str, target: Profile, store: Store) -> list[str]:
    """What runs a format on a target is there: pack the newest model's last variant of that format."""
    models = store.models()
    if not models:
        return [EXAMPLE]
    fitting = [one for one in store.variants(models[0].name) if one.manifest.scheme.startswith(f"{format}:")]
    return _packing(fitting[-1], target, store) if fitting else after_download(models[0])


def after_package(bundle: Bundle, target: Profile, store: Store) -> list[str]:
    """A bundle is there: run its self-test, on the device that it is for."""
    file_name = bundle.name + kind_of(bundle.kind).SUFFIX
    path = quote(str(store.root / "bundles" / file_name))
    test = f"sh {bundle.name}/run.sh selftest"
    if _is_own(target):
        return [f"tar -xzf {path} && {test}" if bundle.kind == "tar" else f"sh {path}/run.sh selftest"]
    unpack = f"tar -xzf {file_name} && " if bundle.kind == "tar" else ""
    return [f"scp -r {path} DEVICE: && ssh DEVICE '{unpack}{test}'"]


def anytime(store: Store) -> list[str]:
    """The step that the newest model is at."""
    models = store.models()
    if not models:
        return [EXAMPLE]
    return [f"edgeml bench {models[0].name}"] if store.variants(models[0].name) else after_download(models[0])


def _is_own(target: Profile) -> bool:
    from edgeml.wheels import is_own  # reads package metadata, which `edgeml list` can do without

    return is_own(target)


def _has_wheels(format: str, target: Profile) -> bool:
    from edgeml.wheels import default_python, missing_wheels, wheel_folder

    pythons = (default_python(target), *target.python)
    return any(not missing_wheels(wheel_folder(target, python, format), format) for python in pythons)

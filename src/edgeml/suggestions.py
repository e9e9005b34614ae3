"""What makes sense after a result: whole commands, to be typed as they stand. Knows nothing of how they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from edgeml.bundles import kind_of
from edgeml.bundles.verification import Verification
from edgeml.pulled import Export
from edgeml.store import EXAMPLE, Store
from edgeml.targets.types import Profile
from edgeml.types import Model, Page, Report, Variant
from edgeml_runtime.bundle import Bundle

# After a scheme that lost too much: the next one that keeps more.
_GENTLER = {
    "onnx:int4": "onnx:int8",
    "onnx:int8": "gguf:q8_0",
    "gguf:q2_k": "gguf:q3_k_m",
    "gguf:iq3_xxs": "gguf:iq4_xs",
    "gguf:iq4_xs": "gguf:q5_k_m",
    "gguf:q3_k_m": "gguf:q4_k_m",
    "gguf:q4_0": "gguf:q4_k_m",
    "gguf:q4_k_m": "gguf:q5_k_m",
    "gguf:q5_k_m": "gguf:q6_k",
    "gguf:q6_k": "gguf:q8_0",
    "gguf:q8_0": "gguf:f16",
}


def after_download(model: Model) -> list[str]:
    """A model is there: make it small."""
    return [f"edgeml quantize {model.name}"]


def after_quantize(variant: Variant, target: Profile, store: Store) -> list[str]:
    """Variants are there: measure them, where that can be done here, and pack the last one."""
    measure = [_bench(variant)] if _is_own(target) else []
    return [*measure, *_packing(variant, target, store)]


def after_bench(
    variant: Variant, target: Profile, store: Store, reports: Sequence[Report], *, asked: Sequence[str] = ()
) -> list[str]:
    """Variants were measured: put what was found on a page, and pack the last; or try a gentler scheme if it failed.

    `asked` are the options that were typed, so that another variant is asked the same.
    """
    page = f"edgeml report {variant.name.partition('/')[0]}"
    judged = [one for report in reports for one in report.verdicts if one.variant == variant.name]
    words = {one.verdict for one in judged}
    if "fail" in words:
        return [*_gentler(variant, store, asked), page]
    return [page] if "cannot tell" in words else [page, *_packing(variant, target, store)]


def _gentler(variant: Variant, store: Store, asked: Sequence[str]) -> list[str]:
    """The next scheme that keeps more of the weights: make it, or measure it where it is made."""
    model, larger = variant.name.partition("/")[0], _GENTLER.get(variant.manifest.scheme)
    if larger is None:
        return []
    made = next((one for one in store.variants(model) if one.manifest.scheme == larger), None)
    if made is None:
        return [f"edgeml quantize {model} --to {larger}"]
    return [" ".join(("edgeml bench", made.name, *map(quote, asked)))]


def after_report(page: Page) -> list[str]:
    """A page is there: look at it, or put it in a pull request."""
    if page.html:
        return [f"python3 -m webbrowser {quote(Path(page.html).resolve().as_uri())}"]
    return [f"gh pr comment --body-file {quote(page.markdown)}"]


def _packing(variant: Variant, target: Profile, store: Store) -> list[str]:
    """A variant is chosen: pack it; before that, fetch what runs it on the target."""
    format = _runtime_of(variant)
    there = "" if _is_own(target) else f" --target {quote(target.asked)}"
    if not _has_wheels(format, target):
        return [f"edgeml {_fetching(format, target)}{there}"]
    known = store.root / variant.name == variant.path
    return [f"edgeml package {variant.name if known else quote(str(variant.path))}{there}"]


def after_runtime(format: str, target: Profile, store: Store) -> list[str]:
    """What runs a format on a target is there: pack the newest model's last variant of that format."""
    models = store.models()
    if not models:
        return [EXAMPLE]
    fitting = [one for one in store.variants(models[0].name) if _runtime_of(one) == format]
    return _packing(fitting[-1], target, store) if fitting else after_download(models[0])


def after_emulator(target: Profile, store: Store) -> list[str]:
    """A device can be emulated: see what the newest model's variants compute there."""
    models = store.models()
    if not models or not (variants := store.variants(models[0].name)):
        return anytime(store)
    return [f"{_bench(variants[-1])} --target {target.asked}"]


# What the computer does that has an image, given the bundle's path.
_LOADERS = {"oci": "podman load -i {}", "compose": "cat {}/README.md", "greengrass": "cat {}/README.md"}
_LOADERS |= {"iotedge": "cat {}/README.md", "ollama": "cat {}/OLLAMA.md"}
_INSTALLERS = {"deb": "sudo apt install", "rpm": "sudo dnf install", "apk": "doas apk add --allow-untrusted"}


def after_image(target: Profile, store: Store) -> list[str]:
    """What an image stands on is there: pack one, of the newest model's last variant."""
    models = store.models()
    variants = store.variants(models[0].name) if models else []
    there = "" if _is_own(target) else f" --target {quote(target.asked)}"
    return [f"edgeml package {variants[-1].name}{there} --as oci"] if variants else anytime(store)


def after_package(bundle: Bundle, target: Profile, store: Store) -> list[str]:
    """A bundle is there: run its self-test, on the device that it is for."""
    file_name = bundle.name + kind_of(bundle.kind).SUFFIX
    where = store.root / "bundles" / file_name
    if step := _installing(bundle.kind, where, is_own=_is_own(target)):
        return [step]
    path, test = quote(str(where)), f"sh {bundle.name}/run.sh selftest"
    if _is_own(target):
        return [f"tar -xzf {path} && {test}" if bundle.kind == "tar" else f"sh {path}/run.sh selftest"]
    unpack = f"tar -xzf {file_name} && " if bundle.kind == "tar" else ""
    return [f"scp -r {path} DEVICE: && ssh DEVICE '{unpack}{test}'"]


def after_verify(found: Verification, where: Path, *, key: Path | None = None) -> list[str]:
    """A bundle is what was packed: put it on a device, which by `key` knows its packer, too."""
    from edgeml.targets import own_name

    if step := _installing(found.kind, where, is_own=found.target == own_name()):
        return [step]
    signed = f" --key {quote(str(key))}" if key else ""
    return [f"edgeml deploy {quote(str(where))} --host user@address{signed}"]


def _installing(kind: str, where: Path, *, is_own: bool) -> str | None:
    """What installs a bundle by a device's own tools; None for the kinds that need none."""
    path = quote(str(where))
    if load := _LOADERS.get(kind):
        return load.format(path)
    install = _INSTALLERS.get(kind)
    if install and is_own:
        return f"{install} {path if where.is_absolute() else './' + path}/*.{kind}"
    return install and f"scp -r {path} DEVICE: && ssh -t DEVICE '{install} ./{where.name}/*.{kind}'"


def after_export(done: Export) -> list[str]:
    """A pool is a file: what it is for. Nothing follows one for training, which is done elsewhere."""
    file = quote(done.file)
    steps = {
        "calibration": [f"edgeml quantize {done.model} --to SCHEME --calibration {file}"],
        "evaluation": [f"edgeml bench {done.model} --task {done.task} --data {file}"],
    }
    return steps.get(done.pool, [])


def after_targets(found: Sequence[Profile], store: Store) -> list[str]:
    """Targets were shown: look at one, or make variants for it."""
    if len(found) > 1:
        return ["edgeml targets pi5"]
    there = "" if _is_own(found[0]) else f" --target {quote(found[0].asked)}"
    return [f"edgeml quantize{there}"] if store.models() else [EXAMPLE]


def anytime(store: Store) -> list[str]:
    """The step that the newest model is at."""
    models = store.models()
    if not models:
        return [EXAMPLE]
    variants = store.variants(models[0].name)
    return [_bench(variants[-1])] if variants else after_download(models[0])


def _bench(variant: Variant) -> str:
    """All variants of that model; pictures must be the user's, for nobody else's cost the same to decode."""
    data = " --data FOLDER" if variant.manifest.pixels or variant.manifest.speech else ""
    return f"edgeml bench {variant.name.partition('/')[0]}{data}"


def _is_own(target: Profile) -> bool:
    from edgeml.wheels import is_own  # reads package metadata, which `edgeml list` can do without

    return is_own(target)


def _runtime_of(variant: Variant) -> str:
    from edgeml.wheels import runtime_of

    return runtime_of(variant.manifest)


def _fetching(format: str, target: Profile) -> str:
    """What brings the wheels; the one that no index has comes first where it must be built for another machine."""
    from edgeml.wheels import COMPILED, can_build_for, requirements, shared_wheel

    compiled = [wanted for wanted in requirements(format) if wanted.startswith(f"{COMPILED}==")]
    lacking = any(shared_wheel(target, format, wanted) is None for wanted in compiled)
    build = lacking and can_build_for(target) and not _is_own(target)
    return "runtime build" if build else f"download --runtime {format}"


def _has_wheels(format: str, target: Profile) -> bool:
    from edgeml.wheels import default_python, missing_wheels, wheel_folder

    pythons = (default_python(target), *target.python)
    return any(not missing_wheels(wheel_folder(target, python, format), format) for python in pythons)

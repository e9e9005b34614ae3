"""`bom.cdx.json`: a CycloneDX bill of materials of a bundle. The same bundle has the same bill: no times, no chance.

The library writes all but the model card, which it does not know: that is added to its JSON.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import edgeml_runtime
from edgeml.papers.evidence import Evidence, is_accuracy
from edgeml.papers.licences import spdx_of
from edgeml.papers.origin import digest
from edgeml.papers.wheel_papers import Packed
from edgeml.types import ModelRef
from edgeml_runtime.bundle import VARIANT
from edgeml_runtime.records import parse_json
from edgeml_runtime.types import File, Record, VariantManifest

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component

FILE = "bom.cdx.json"
PATH = "edgeml:path"  # the property that says which file of the bundle a component is
_MODEL, _RUNTIME, _BASE, _BUNDLE = "model", "edgeml_runtime", "base-model", "bundle"


class Parts(Record, frozen=True, kw_only=True):
    """What a bundle is made of."""

    name: str
    manifest: VariantManifest
    wheels: tuple[Packed, ...]
    runtime_files: tuple[File, ...]
    found: Evidence = Evidence()


def bill(parts: Parts) -> str:
    """CycloneDX 1.6 as JSON text."""
    from cyclonedx.output.json import JsonV1Dot6

    plain: dict[str, Any] = json.loads(JsonV1Dot6(_bom(parts)).output_as_string())
    del plain["metadata"]["timestamp"]
    for component in plain["components"]:
        if component["bom-ref"] == _MODEL:
            component["modelCard"] = _card(parts)
    plain["serialNumber"] = ""
    text = json.dumps(plain, sort_keys=True)
    plain["serialNumber"] = uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=5).urn
    return json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def listed(text: str | bytes) -> dict[str, str]:
    """The SHA-256 of each file of a bundle that its bill names, by path.

    Raises ValueError where it is not JSON, or a component is not written as here.
    """
    try:
        return dict(_hashed(parse_json(text)))
    except (KeyError, TypeError, AttributeError, StopIteration, RuntimeError) as error:
        raise ValueError(f"{error!r} in a component") from error


def _hashed(bill: Any) -> Iterator[tuple[str, str]]:
    pending: list[dict[str, Any]] = list(bill["components"])
    while pending:
        component = pending.pop()
        pending += component.get("components", [])
        for one in component.get("properties", []):
            if one["name"] == PATH:
                sha256 = next(hash["content"] for hash in component["hashes"] if hash["alg"] == "SHA-256")
                yield str(one["value"]), str(sha256)


def _bom(parts: Parts) -> Bom:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType

    whole = Component(name=parts.name, type=ComponentType.APPLICATION, bom_ref=_BUNDLE)
    model, runtime, data = _model(parts), _runtime(parts), _data(parts)
    wheels = [_wheel(one) for one in parts.wheels]
    bom = Bom(serial_number=uuid.UUID(int=0), components=[model, runtime, *wheels, *data])
    bom.metadata.component = whole
    bom.metadata.tools.components.add(Component(name="edgeml-toolkit", version=edgeml_runtime.__version__))
    bom.register_dependency(whole, [model, runtime])
    bom.register_dependency(runtime, wheels)
    bom.register_dependency(model, data)
    return bom


def _model(parts: Parts) -> Component:
    """The quantized model: its files, how they were made, and what they were made from."""
    from cyclonedx.model.component import Component, ComponentType, Pedigree

    manifest = parts.manifest
    weights = next(file for file in manifest.files if file.path == manifest.weights)
    tools = ", ".join(f"{name} {version}" for name, version in sorted(manifest.tools.items()))
    changed = f"stored as {manifest.scheme} by edgeml {edgeml_runtime.__version__}, with {tools or 'no other tool'}"
    return Component(
        name=manifest.name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=_MODEL,
        version=manifest.weights_sha256[:12],
        hashes=[_hash(weights.sha256)],
        licenses=_licences(manifest.licence),
        components=[_file(file, VARIANT) for file in manifest.files],
        pedigree=Pedigree(ancestors=[_base(manifest)], notes=changed),
        properties=_properties(_quantization(manifest)),
    )


def _base(manifest: VariantManifest) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    local = manifest.model.startswith("local:")  # as a bundle names it, without its folder
    ref = (
        ModelRef(source="local", id=manifest.model.removeprefix("local:")) if local else ModelRef.parse(manifest.model)
    )
    purl = None
    if ref.source != "local":
        owner, _, name = ref.id.rpartition("/")
        kind = "huggingface" if ref.source == "hf" else "pypi"
        purl = PackageURL(type=kind, namespace=owner or None, name=name, version=ref.revision)
    return Component(
        name=ref.id,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=_BASE,
        version=ref.revision,
        purl=purl,
        licenses=_licences(manifest.licence),
        components=[_file(file, None) for file in manifest.source_files],
    )


def _runtime(parts: Parts) -> Component:
    from cyclonedx.model.component import Component

    return Component(
        name="edgeml_runtime",
        bom_ref=_RUNTIME,
        version=edgeml_runtime.__version__,
        licenses=_licences("Apache-2.0"),
        properties=_properties({"edgeml:sha256sums": digest(parts.runtime_files)}),
    )


def _wheel(one: Packed) -> Component:
    from cyclonedx.model.component import Component
    from packageurl import PackageURL

    return Component(
        name=one.name,
        version=one.version,
        bom_ref=one.path,
        purl=PackageURL(type="pypi", name=one.name, version=one.version),
        hashes=[_hash(one.sha256)],
        licenses=_licences(one.licence),
        properties=_properties({PATH: one.path}),
    )


def _data(parts: Parts) -> list[Component]:
    """The files that calibrated and that judged the model, by name and digest alone."""
    from cyclonedx.model.component import Component, ComponentType

    judged = {run.dataset_sha256: run.dataset for run in parts.found.runs}
    calibration = parts.manifest.calibration_sha256
    uses = [("evaluation", name, sha256) for sha256, name in sorted(judged.items())]
    uses += [("calibration", "calibration data", calibration)] if calibration else []
    return [
        Component(
            name=name,
            type=ComponentType.DATA,
            bom_ref=f"{use}-{sha256[:12]}",
            hashes=[_hash(sha256)],
            properties=_properties({"edgeml:use": use}),
        )
        for use, name, sha256 in uses
    ]


def _file(file: File, folder: str | None) -> Component:
    """A file of the bundle below `folder`, or without one a file that is not in it."""
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        name=file.path,
        type=ComponentType.FILE,
        bom_ref=f"{folder or _BASE}/{file.path}",
        hashes=[_hash(file.sha256)],
        properties=_properties({PATH: f"{folder}/{file.path}"} if folder else {}),
    )


def _quantization(manifest: VariantManifest) -> dict[str, str]:
    audit = manifest.audit
    found = {
        "scheme": manifest.scheme,
        "built_for": manifest.built_for,
        "bits_per_weight": f"{audit.bits_per_weight:.4f}",
        "share_quantized": f"{audit.share_quantized:.4f}",
        "parameters": str(audit.parameters),
        "label_earned": str(audit.earned).lower(),
        "tensor_types": ", ".join(f"{name} {count}" for name, count in sorted(audit.tensor_types.items())),
        "calibration_sha256": manifest.calibration_sha256,
        "source_quantized": manifest.source_quantized,
    }
    return {f"edgeml:{name}": value for name, value in found.items() if value}


def _card(parts: Parts) -> dict[str, Any]:
    """The schema's modelCard: parameters, and as its analysis what was measured of the model's accuracy."""
    manifest = parts.manifest
    judged = [one for one in parts.found.measurements if is_accuracy(one.metric)]
    metrics = []
    for one in judged:
        interval = (
            {} if one.low is None or one.high is None else {"lowerBound": repr(one.low), "upperBound": repr(one.high)}
        )
        metric = {"type": f"{one.metric} ({one.statistic}, {one.how} on {one.target})", "value": repr(one.value)}
        metric |= {"slice": one.slice} if one.slice else {}
        metrics.append(metric | ({"confidenceInterval": interval} if interval else {}))
    limits = [*manifest.audit.shortfalls, *manifest.notes]
    limits += [f"its source was already quantized: {manifest.source_quantized}"] if manifest.source_quantized else []
    refs = [{"ref": f"evaluation-{sha256[:12]}"} for sha256 in sorted({run.dataset_sha256 for run in parts.found.runs})]
    card: dict[str, Any] = {
        "bom-ref": "model-card",
        "modelParameters": {
            "task": manifest.task,
            "modelArchitecture": manifest.architecture,
            "inputs": [{"format": name} for name in manifest.inputs],
            "outputs": [{"format": name} for name in manifest.outputs],
            "datasets": refs,
        },
        "quantitativeAnalysis": {"performanceMetrics": metrics},
    }
    return card | ({"considerations": {"technicalLimitations": limits}} if limits else {})


def _licences(stated: str | None) -> Sequence[Any]:
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
    from cyclonedx.spdx import is_supported_id

    if not stated:
        return ()
    spdx = spdx_of(stated)
    if spdx is None:
        return (DisjunctiveLicense(name=stated),)
    return (DisjunctiveLicense(id=spdx) if is_supported_id(spdx) else LicenseExpression(spdx),)


def _properties(values: dict[str, str]) -> Iterable[Any]:
    from cyclonedx.model import Property

    return [Property(name=name, value=value) for name, value in values.items()]


def _hash(sha256: str) -> Any:
    from cyclonedx.model import HashAlgorithm, HashType

    return HashType(alg=HashAlgorithm.SHA_256, content=sha256)

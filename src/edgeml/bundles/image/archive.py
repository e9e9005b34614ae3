"""One tar that is an OCI image layout, and an archive as `docker load` of any version takes it. Needs no daemon.

It holds one image. `model/` in it is a layout of its own that shares the blobs: the model alone, a ModelPack artifact.
`wheels/` are what the image's packages come from, so that they can be verified; no image holds them.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from pathlib import Path
from typing import IO, Any

from edgeml.bundles.image.base import Base, base_folder
from edgeml.bundles.image.contents import EPOCH, PARTS, entries_of, labels, start_of
from edgeml.bundles.image.layers import Layer, write_layer
from edgeml.bundles.image.modelpack import model_config, model_manifest
from edgeml.errors import EdgemlError
from edgeml_runtime.bundle import WHEELS, Bundle
from edgeml_runtime.records import parse_json

INDEX = "index.json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
_REF = "org.opencontainers.image.ref.name"
_LARGEST_JSON = 4 << 20  # as registries have it
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def write_archive(folder: Path, bundle: Bundle, base: Base, goal: Path) -> None:
    """The archive of a bundle's image."""
    blobs = goal.with_name(f"{goal.name}.blobs")
    blobs.mkdir()
    entries = entries_of(folder, bundle, base.python)
    layers = {part: write_layer(entries[part], blobs) for part in PARTS}
    (blobs / _name(base.layer.digest)).symlink_to(base_folder(base.architecture).absolute() / _name(base.layer.digest))
    config = _blob(blobs, _config(bundle, base, [base.layer, *layers.values()]))
    manifest = _blob(blobs, _manifest(bundle, base, config, layers))
    model = _blob(blobs, model_manifest(layers, _blob(blobs, model_config(folder, layers))))
    tag = f"localhost/edgeml/{repository(bundle)}:{_name(manifest['digest'])[:12]}"
    named = {_REF: tag, "io.containerd.image.name": tag}
    image = {"mediaType": MANIFEST_TYPE, **manifest, "platform": _platform(base), "annotations": named}
    older = [{"Config": _path(config), "RepoTags": [tag], "Layers": [_path(one) for one in _stack(base, layers)]}]
    texts = {
        "oci-layout": {"imageLayoutVersion": "1.0.0"},
        INDEX: _index(image),
        "manifest.json": older,
        "model/oci-layout": {"imageLayoutVersion": "1.0.0"},
        f"model/{INDEX}": _index({"mediaType": MANIFEST_TYPE, **model, "annotations": {_REF: "latest"}}),
    }
    _write(goal, texts, blobs, folder / WHEELS)


class Opened:
    """An archive that somebody else may have written: no blob is believed before its digest is checked."""

    def __init__(self, path: Path, tar: tarfile.TarFile) -> None:
        self.path, self._tar = path, tar
        members = [member for member in tar if member.isreg()]
        self.members = {member.name: member for member in members}
        if len(self.members) != len(members):
            raise self.refused("a name stands there twice")
        (image,) = self._json(self._read(INDEX))["manifests"]
        self.image_digest, self.tag = str(image["digest"]), str(image["annotations"][_REF])
        self.manifest = self._json(self.text(self.image_digest))
        self.config = self._json(self.text(self.manifest["config"]["digest"]))

    def text(self, digest: str) -> bytes:
        """A small blob."""
        content = self._read(self._blob(digest))
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
            raise self.refused(f"{digest} is not what it says")
        return content

    def layer(self, digest: str) -> IO[bytes]:
        """A layer, packed, once its digest is known to be right."""
        content, digester = self.file(self._blob(digest)), hashlib.sha256()
        while chunk := content.read(1 << 20):
            digester.update(chunk)
        if f"sha256:{digester.hexdigest()}" != digest:
            raise self.refused(f"{digest} is not what it says")
        content.seek(0)
        return content

    def file(self, name: str) -> IO[bytes]:
        """A file of the archive's own."""
        content = self._tar.extractfile(self.members[name])
        assert content
        return content

    def refused(self, reason: str) -> EdgemlError:
        """The refusal of this archive."""
        message = f"{self.path.name} is no image of edgeml's: {reason}"
        return EdgemlError(message, hint="copy it again, or do not use it")

    def _blob(self, digest: Any) -> str:
        found = _DIGEST.fullmatch(str(digest))
        if not found or f"blobs/sha256/{found[1]}" not in self.members:
            raise self.refused(f"it has no {digest}")
        return f"blobs/sha256/{found[1]}"

    def _read(self, name: str) -> bytes:
        if name not in self.members or self.members[name].size > _LARGEST_JSON:
            raise self.refused(f"{name} is missing, or too large")
        return self.file(name).read()

    def _json(self, content: bytes) -> Any:
        return parse_json(content)


def repository(bundle: Bundle) -> str:
    """A bundle's name as registries take it."""
    return re.sub(r"[^a-z0-9]+", "-", bundle.name.lower()).strip("-")


def _stack(base: Base, layers: dict[str, Layer]) -> list[dict[str, Any]]:
    return [_descriptor(base.layer, "base"), *(_descriptor(layer, part) for part, layer in layers.items())]


def _descriptor(layer: Layer, part: str) -> dict[str, Any]:
    named = {"org.edgeml.part": part}
    return {"mediaType": _LAYER_TYPE, "digest": layer.digest, "size": layer.size_bytes, "annotations": named}


def _config(bundle: Bundle, base: Base, layers: list[Layer]) -> dict[str, Any]:
    parts = ("base", *PARTS)
    return {
        "created": EPOCH,
        **_platform(base),
        "config": start_of(bundle, base),
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created": EPOCH, "created_by": f"edgeml package: {part}"} for part in parts],
    }


def _manifest(bundle: Bundle, base: Base, config: dict[str, Any], layers: dict[str, Layer]) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": _CONFIG_TYPE, **config},
        "layers": _stack(base, layers),
        "annotations": labels(bundle, base) | {"org.opencontainers.image.created": EPOCH},
    }


def _platform(base: Base) -> dict[str, str]:
    variant = {"variant": "v8"} if base.architecture == "arm64" else {}
    return {"architecture": base.architecture, "os": "linux", **variant}


def _index(*manifests: dict[str, Any]) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": list(manifests)}


def _blob(blobs: Path, content: dict[str, Any]) -> dict[str, Any]:
    """A blob's digest and size, once it lies there."""
    packed = json_bytes(content)
    digest = hashlib.sha256(packed).hexdigest()
    (blobs / digest).write_bytes(packed)
    return {"digest": f"sha256:{digest}", "size": len(packed)}


def json_bytes(content: Any) -> bytes:
    """JSON in one form alone."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _name(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _path(described: dict[str, Any]) -> str:
    return f"blobs/sha256/{_name(described['digest'])}"


def _write(goal: Path, texts: dict[str, Any], blobs: Path, wheels: Path) -> None:
    with tarfile.open(goal, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in texts.items():
            packed = json_bytes(content)
            archive.addfile(_member(name, len(packed)), io.BytesIO(packed))
        link = _member("model/blobs", 0)
        link.type, link.linkname = tarfile.SYMTYPE, "../blobs"
        archive.addfile(link)
        for folder, prefix in ((blobs, "blobs/sha256"), (wheels, WHEELS.rstrip("/"))):
            for path in sorted(folder.iterdir()):
                with path.open("rb") as content:
                    archive.addfile(_member(f"{prefix}/{path.name}", path.stat().st_size), content)


def _member(name: str, size_bytes: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size_bytes, 0o644
    return member

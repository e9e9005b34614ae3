"""An image without a daemon: what is in it, that it is the same each time, and what of it is believed."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import tarfile

import jsonschema
import msgspec
import pytest

from edgeml.bundles import bundles_in, kind_at, oci
from edgeml.bundles.image.base import Base, architecture_of, base_folder, base_for, prepare_base
from edgeml.bundles.image.contents import HOME, PARTS
from edgeml.bundles.image.layers import Entry, write_layer
from edgeml.errors import EdgemlError
from edgeml.papers.contents import check_whole
from edgeml.progress import silent
from edgeml_runtime import unpack as runtime_unpack
from edgeml_runtime.bundle import check_files, read_bundle
from edgeml_runtime.records import read_record
from tiny.bundles import changed, runtime_fixed
from tiny.images import MACHINE, bundle_with_wheels, tiny_base
from tiny.packages import apt_config, write_package
from tiny.refusals import refusal

pytestmark = pytest.mark.skipif(MACHINE not in ("x86_64", "aarch64"), reason="no image is made for this machine")
DIGEST = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
# As the OCI image specification 1.1 has them, as far as they are used.
DESCRIPTOR = {
    "type": "object",
    "required": ["mediaType", "digest", "size"],
    "properties": {
        "mediaType": {
            "type": "string",
            "pattern": "^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9!#$&^_.+-]{1,127}$",
        },
        "digest": DIGEST,
        "size": {"type": "integer", "minimum": 0},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
INDEX = {
    "type": "object",
    "required": ["schemaVersion", "manifests"],
    "properties": {"schemaVersion": {"const": 2}, "manifests": {"type": "array", "items": DESCRIPTOR}},
}
MANIFEST = {
    "type": "object",
    "required": ["schemaVersion", "config", "layers"],
    "properties": {
        "schemaVersion": {"const": 2},
        "config": DESCRIPTOR,
        "layers": {"type": "array", "minItems": 1, "items": DESCRIPTOR},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
CONFIG = {
    "type": "object",
    "required": ["architecture", "os", "rootfs"],
    "properties": {
        "created": {"type": "string", "format": "date-time"},
        "architecture": {"enum": ["amd64", "arm64"]},
        "os": {"const": "linux"},
        "config": {
            "type": "object",
            "properties": {
                "User": {"type": "string"},
                "ExposedPorts": {"type": "object", "additionalProperties": {"type": "object"}},
                "Env": {"type": "array", "items": {"type": "string"}},
                "Entrypoint": {"type": "array", "items": {"type": "string"}},
                "Cmd": {"type": "array", "items": {"type": "string"}},
                "Labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "Volumes": {"type": "object", "additionalProperties": {"type": "object"}},
            },
        },
        "rootfs": {
            "type": "object",
            "required": ["type", "diff_ids"],
            "properties": {"type": {"const": "layers"}, "diff_ids": {"type": "array", "items": DIGEST}},
        },
        "history": {"type": "array"},
    },
}
MODEL_CONFIG = {  # as ModelPack's schema/config-schema.json has it, as far as it is used
    "type": "object",
    "required": ["descriptor", "config", "modelfs"],
    "additionalProperties": False,
    "properties": {
        "descriptor": {"type": "object"},
        "config": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                **{key: {"type": "string"} for key in ("architecture", "format", "precision", "quantization")},
                "paramSize": {"type": "string", "pattern": r"^\d+(\.\d)?[KMBTQ]$"},
                "capabilities": {"type": "object"},
            },
        },
        "modelfs": {
            "type": "object",
            "required": ["type", "diffIds"],
            "properties": {"type": {"const": "layers"}, "diffIds": {"type": "array", "items": DIGEST}},
        },
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle's folder; for looking at only."""
    return bundle_with_wheels(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def archive(folder, tmp_path):
    tiny_base()
    return sealed(folder, tmp_path / "made")


def sealed(folder, space):
    return oci.seal(shutil.copytree(folder, space / folder.name))


def laid_out(archive, goal):
    with tarfile.open(archive) as tar:
        tar.extractall(goal, filter="data")
    return goal


def blob(layout, digest):
    return (layout / "blobs/sha256" / digest.removeprefix("sha256:")).read_bytes()


def image(layout):
    (one,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    manifest = json.loads(blob(layout, one["digest"]))
    return manifest, json.loads(blob(layout, manifest["config"]["digest"]))


def names(layout, digest):
    path = layout / "blobs/sha256" / digest.removeprefix("sha256:")
    with tarfile.open(path) as layer:
        return {member.name: member for member in layer}


def test_the_layout_is_as_the_specification_has_it_and_every_digest_and_size_is_right(archive, tmp_path):
    layout = laid_out(archive, tmp_path / "layout")
    manifest, config = image(layout)
    index = json.loads((layout / "index.json").read_bytes())
    for document, schema in ((index, INDEX), (manifest, MANIFEST), (config, CONFIG)):
        jsonschema.validate(document, schema)
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    for described in (*index["manifests"], manifest["config"], *manifest["layers"]):
        content = blob(layout, described["digest"])
        assert (f"sha256:{hashlib.sha256(content).hexdigest()}", len(content)) == (
            described["digest"],
            described["size"],
        )
    plain = [gzip.decompress(blob(layout, layer["digest"])) for layer in manifest["layers"]]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in plain]


def test_the_same_folder_makes_the_same_bytes(folder, archive, tmp_path):
    again = sealed(folder, tmp_path / "again")

    assert again.read_bytes() == archive.read_bytes()
    assert oci.same(again, archive)


def test_a_fix_of_the_runtime_changes_no_layer_of_the_model(folder, archive, tmp_path):
    (tmp_path / "fixed").mkdir()
    fixed = oci.seal(changed(folder, tmp_path / "fixed" / folder.name, runtime_fixed))
    (before, _), (after, _) = (image(laid_out(one, tmp_path / f"{one.parent.name}-layout")) for one in (archive, fixed))

    differing = [one["annotations"] for one, two in zip(before["layers"], after["layers"], strict=True) if one != two]
    assert differing == [{"org.edgeml.part": "runtime"}]


def test_an_image_runs_as_nobody_and_all_but_its_state_is_roots(archive, tmp_path):
    layout = laid_out(archive, tmp_path / "layout")
    manifest, config = image(layout)
    members = [member for layer in manifest["layers"] for member in names(layout, layer["digest"]).values()]

    assert config["config"]["User"] == "65532:65532"
    assert {(member.uid, member.gid, member.mtime) for member in members} == {(0, 0, 0)}
    assert not [member.name for member in members if member.mode & 0o022]
    assert config["config"]["Cmd"][0] == "serve"


def test_the_image_holds_the_packages_where_the_runtime_looks_for_them_and_no_wheels(archive, folder, tmp_path):
    layout = laid_out(archive, tmp_path / "layout")
    manifest, config = image(layout)
    for layer in manifest["layers"]:
        with tarfile.open(layout / "blobs/sha256" / layer["digest"].removeprefix("sha256:")) as tar:
            tar.extractall(tmp_path / "root", filter="data")
    inside = tmp_path / "root" / HOME
    site = runtime_unpack.unpack(inside)

    assert not (inside / "wheels").exists()
    assert (site.parent, (site / "one.py").read_text()) == (inside, "ONE = 1\n")
    assert f"PYTHONPATH=/{HOME}:/{HOME}/{site.name}" in config["config"]["Env"]
    assert check_files(inside) == read_bundle(folder)


def test_missing_wheels_are_refused_where_their_packages_are_not_there_either(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(copy / "wheels")
    assert "wheels/" in refusal(check_files, copy)
    (copy / ".site-3.11-0").mkdir()
    assert check_files(copy)


def test_the_archive_is_one_for_older_dockers_too(archive, tmp_path):
    layout = laid_out(archive, tmp_path / "layout")
    manifest, _ = image(layout)
    (older,) = json.loads((layout / "manifest.json").read_bytes())

    assert [older["Config"], *older["Layers"]] == [
        f"blobs/sha256/{one['digest'].removeprefix('sha256:')}" for one in (manifest["config"], *manifest["layers"])
    ]
    assert older["RepoTags"][0].startswith("localhost/edgeml/tiny-onnx-fp32-laptop:")


def test_the_model_alone_is_a_modelpack_artifact_of_the_images_own_layers(archive, tmp_path):
    layout = laid_out(archive, tmp_path / "layout")
    manifest, config = image(layout)
    artifact, described = image(layout / "model")

    assert artifact["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert artifact["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    jsonschema.validate(described, MODEL_CONFIG)
    own = [layer["digest"] for layer in artifact["layers"]]
    assert own == [layer["digest"] for layer in manifest["layers"][2:5]]
    assert described["modelfs"]["diffIds"] == config["rootfs"]["diff_ids"][2:5]
    assert f"{HOME}/variant/model.onnx" in names(layout, own[0])


def test_the_bundle_comes_out_of_its_image_whole(archive, folder, tmp_path):
    bundle, _ = check_whole(oci.unpack(archive, tmp_path / "out"))

    assert bundle == oci.read(archive) == read_bundle(folder)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [folder.name]
    assert kind_at(archive) == "oci"
    assert bundles_in(archive.parent)[-1] == bundle


def test_a_flipped_byte_of_any_layer_is_refused(archive, tmp_path):
    with tarfile.open(archive) as tar:
        spots = [member.offset_data + member.size // 2 for member in tar if "blobs/sha256" in member.name]
    content = archive.read_bytes()
    refused = 0
    for number, spot in enumerate(spots):
        broken = tmp_path / f"{number}.oci.tar"
        broken.write_bytes(content[:spot] + bytes([content[spot] ^ 1]) + content[spot + 1 :])
        try:
            oci.unpack(broken, tmp_path / f"out{number}")
        except EdgemlError:
            refused += 1

    assert refused == len(spots) - 2  # what tells of the model alone is not read, nor trusted


def test_packages_that_are_not_those_of_the_wheels_are_refused(archive, tmp_path):
    layout = laid_out(archive, tmp_path / "layout")
    forged = write_layer([Entry(f"{HOME}/.site-x/one.py", b"ONE = 666\n")], layout / "blobs/sha256")
    manifest, _ = image(layout)
    manifest["layers"][PARTS.index("packages") + 1] |= {"digest": forged.digest, "size": forged.size_bytes}
    packed = json.dumps(manifest).encode()
    digest = hashlib.sha256(packed).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(packed)
    index = json.loads((layout / "index.json").read_bytes())
    index["manifests"][0]["digest"] = f"sha256:{digest}"
    (layout / "index.json").write_text(json.dumps(index))
    with tarfile.open(tmp_path / "forged.oci.tar", "w") as tar:
        for path in sorted(path for path in layout.rglob("*") if path.is_file()):
            tar.add(path, path.relative_to(layout))

    assert "not those of its wheels" in refusal(oci.unpack, tmp_path / "forged.oci.tar", tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, b"\0" * 10240])
def test_what_is_no_archive_is_refused_in_one_sentence(content, tmp_path):
    (tmp_path / "x.oci.tar").write_bytes(content)
    assert "x.oci.tar" in refusal(oci.read, tmp_path / "x.oci.tar")


def test_without_a_base_the_command_that_fetches_it_is_named(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path / "empty"))
    with pytest.raises(EdgemlError) as caught:
        base_for(read_bundle(folder))
    assert caught.value.hint == "edgeml download --image --target laptop"


def test_a_base_whose_python_has_no_wheels_in_the_bundle_is_refused(folder):
    tiny_base(python="3.99")
    assert "the image's Python is 3.99" in refusal(base_for, read_bundle(folder))


def test_a_bundle_without_wheels_makes_no_image(folder):
    tiny_base()
    bundle = read_bundle(folder)
    bare = msgspec.structs.replace(bundle, files=tuple(one for one in bundle.files if "wheels/" not in one.path))
    assert "needs the wheels" in refusal(base_for, bare)


def test_no_image_is_made_for_a_mac():
    assert "apple-silicon" in refusal(architecture_of, "arm64", "apple-silicon")


@pytest.mark.skipif(not (shutil.which("apt-get") and shutil.which("dpkg-deb")), reason="no apt here")
def test_a_base_is_pythons_packages_without_those_that_install_packages(tmp_path, monkeypatch):
    source = tmp_path / "archive"
    source.mkdir()
    monkeypatch.setenv("APT_CONFIG", str(apt_config(tmp_path / "etc", f"copy:{source}")))
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path / "cache"))
    release = {"usr/lib/os-release": 'PRETTY_NAME="Tiny 1"\n', "usr/share/common-licenses/MIT": "as is"}
    write_package(source, "base-files", release)
    write_package(source, "python3", {"usr/bin/python3.11": "x", "usr/share/man/x": "much"}, depends="dpkg")
    write_package(source, "libstdc++6", {"usr/lib/lib.so": "x", "usr/share/doc/libstdc++6/copyright": "GPL"})
    write_package(source, "libgomp1", {"usr/lib/gomp.so": "x"})
    write_package(source, "dpkg", {"usr/bin/python3-dpkg": "x"})
    base = prepare_base("arm64", silent)

    assert (base.python, base.release) == ("3.11", "Tiny 1")
    assert [package.partition(" ")[0] for package in base.packages] == [
        "base-files",
        "libgomp1",
        "libstdc++6",
        "python3",
    ]
    assert read_record(base_folder("arm64") / "base.json", Base) == base
    with tarfile.open(base_folder("arm64") / base.layer.digest.removeprefix("sha256:")) as layer:
        found = {member.name: member for member in layer}
    assert {
        "usr/bin/python3.11",
        "usr/share/doc/libstdc++6/copyright",
        "var/lib/dpkg/status.d/libgomp1",
    } <= found.keys()
    assert not {"usr/share/man/x", "usr/bin/python3-dpkg"} & found.keys()
    assert (found["tmp"].mode, found["var/lib/edgeml"].uid) == (0o1777, 65532)
    assert prepare_base("arm64", silent) == base  # again: the newest takes its place

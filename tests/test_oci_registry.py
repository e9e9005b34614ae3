"""An image goes through a real registry and back, and then runs: natively, and as on a Pi by an emulator."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile

import oras.client
import pytest

from edgeml.bundles import oci
from edgeml.download import image_base, runtime_wheels
from edgeml.errors import EdgemlError
from edgeml.package import bundle_path, package
from edgeml.store import Store
from edgeml.targets import profile
from edgeml.targets.emulator import cpuinfo, qemu_file
from registry import ImageRoot, registry, skopeo, tools
from tiny.variants import onnx_variant

pytestmark = pytest.mark.real
CLEAR = ("--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests")


def image_for(target, space):
    """The archive of a tiny model's image with the target's real wheels, on Debian's Python."""
    tools()
    try:
        base = image_base(target)
    except EdgemlError as error:
        pytest.skip(error.message)
    runtime_wheels(target, "onnx", python=base.python)
    store = Store(space / "artifacts")
    variant = onnx_variant(store.variant_folder("tiny", "onnx-fp32"))
    return bundle_path(store, package(variant, store=store, profile=target, kind="oci"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return image_for(profile("laptop"), tmp_path_factory.mktemp("laptop"))


def blobs(layout):
    return {path.name: path.read_bytes() for path in (layout / "blobs/sha256").iterdir()}


def pulled_back(archive, space):
    """A layout of what a registry gave back, after it got the archive's image."""
    space.mkdir()
    with registry(space) as address:
        skopeo("copy", *CLEAR, f"oci-archive:{archive}", f"docker://{address}/tiny:1")
        skopeo("copy", *CLEAR, f"docker://{address}/tiny:1", f"oci:{space}/back:1")
    return space / "back"


def root_of(layout, goal):
    (described,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    content = blobs(layout)
    manifest = json.loads(content[described["digest"].removeprefix("sha256:")])
    config = json.loads(content[manifest["config"]["digest"].removeprefix("sha256:")])
    layers = [layout / "blobs/sha256" / layer["digest"].removeprefix("sha256:") for layer in manifest["layers"]]
    return ImageRoot(layers, config, goal)


def test_an_image_comes_back_from_a_registry_byte_for_byte_and_passes_its_self_test(archive, tmp_path):
    back = pulled_back(archive, tmp_path / "space")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "made", filter="data")
    made, returned = blobs(tmp_path / "made"), blobs(back)
    assert all(hashlib.sha256(content).hexdigest() == name for name, content in returned.items())
    assert set(made) - set(returned) == model_only(tmp_path / "made")
    with oci.opened(archive) as image:
        assert image.image_digest.removeprefix("sha256:") in returned
    done = root_of(back, tmp_path / "root").run("selftest", ".")
    assert done.returncode == 0, done.stderr
    assert "self-test passed" in done.stdout


def model_only(layout):
    (described,) = json.loads((layout / "model/index.json").read_bytes())["manifests"]
    digest = described["digest"].removeprefix("sha256:")
    config = json.loads(blobs(layout)[digest])["config"]["digest"]
    return {digest, config.removeprefix("sha256:")}


def test_an_image_for_a_pi_passes_its_self_test_on_an_emulated_one(emulator_cache, tmp_path):
    target = profile("pi5")
    back = pulled_back(image_for(target, tmp_path), tmp_path / "space")
    root = root_of(back, tmp_path / "root")
    shutil.copy(qemu_file().resolve(), root.root / "qemu")
    (root.root / "pi/proc").mkdir(parents=True)
    (root.root / "pi/proc/cpuinfo").write_text(cpuinfo(target, 2))
    done = root.run("selftest", ".", emulator=("/qemu", "-cpu", target.emulated_cpu, "-L", "/pi"))
    assert done.returncode == 0, done.stderr
    assert "self-test passed" in done.stdout


def test_the_endpoint_in_an_image_answers_with_its_token_alone(archive, tmp_path):
    if not shutil.which("ip", path="/usr/sbin:/usr/bin:/sbin:/bin"):
        pytest.skip("no ip here, which brings up the loopback of a network namespace")
    root = root_of(pulled_back(archive, tmp_path / "space"), tmp_path / "root")
    secret = root.root / "run/secrets/token"
    secret.parent.mkdir(parents=True)
    secret.write_text("a" * 32)
    secret.chmod(0o400)
    shutil.chown(secret, 65532, 65532)
    script = """
import json, subprocess, sys, time, urllib.error, urllib.request
serve = subprocess.Popen([*sys.argv[1:]])
def ask(path, **headers):
    body = json.dumps({"input": ["one"]}).encode() if path.startswith("/v1") else None
    headers["content-type"] = "application/json"
    request = urllib.request.Request(f"http://127.0.0.1:8080{path}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
while True:
    try:
        ask("/health")
        break
    except urllib.error.URLError:
        if serve.poll() is not None:
            sys.exit(9)
        time.sleep(0.1)
found = [ask("/health"), ask("/v1/embeddings"), ask("/v1/embeddings", authorization="Bearer " + "a" * 32)]
serve.terminate()
print(found, serve.wait())
"""
    own = root._config["config"]
    done = root.run(python=(own["Entrypoint"][0], "-c", script, *own["Entrypoint"], *own["Cmd"]))
    assert done.stdout.strip().endswith("[200, 401, 200] 0"), done.stdout + done.stderr


def test_the_model_alone_is_pushed_and_pulled_by_oras(archive, tmp_path):
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "made", filter="data")
    layout, content = tmp_path / "made", blobs(tmp_path / "made")
    (described,) = json.loads((layout / "model/index.json").read_bytes())["manifests"]
    manifest = json.loads(content[described["digest"].removeprefix("sha256:")])
    with registry(tmp_path) as address:
        client, target = oras.client.OrasClient(insecure=True), f"{address}/tiny-model:1"
        for one in (manifest["config"], *manifest["layers"]):
            path = layout / "blobs/sha256" / one["digest"].removeprefix("sha256:")
            assert client.upload_blob(str(path), client.get_container(target), one).status_code in (200, 201)
        assert client.upload_manifest(manifest, client.get_container(target)).status_code == 201
        assert client.get_manifest(client.get_container(target)) == manifest
        client.pull(target, outdir=str(tmp_path / "pulled"))
    for layer in manifest["layers"]:
        pulled = (tmp_path / "pulled" / layer["annotations"]["org.opencontainers.image.title"]).read_bytes()
        assert pulled == content[layer["digest"].removeprefix("sha256:")]


def test_skopeo_copies_the_model_alone_and_reads_the_archive_as_docker_does(archive, tmp_path):
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "made", filter="data")
    with registry(tmp_path) as address:
        skopeo("copy", *CLEAR, f"oci:{tmp_path}/made/model", f"docker://{address}/tiny-model:1")
    skopeo("copy", f"docker-archive:{archive}", f"oci:{tmp_path}/docker:1")
    inspected = json.loads(skopeo("inspect", f"oci:{tmp_path}/docker:1"))
    with oci.opened(archive) as image:
        assert len(inspected["Layers"]) == len(image.manifest["layers"])
    assert inspected["Architecture"] == "amd64"

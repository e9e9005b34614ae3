"""A deployment manifest of Azure IoT Edge, by its structure: nothing here runs one."""

import json
import shutil

import pytest

from edgeml.bundles import iotedge, oci
from tiny.images import MACHINE, bundle_with_wheels, tiny_base

pytestmark = pytest.mark.skipif(MACHINE not in ("x86_64", "aarch64"), reason="no image is made for this machine")


def test_the_module_is_the_image_by_digest_with_options_that_docker_takes(tmp_path):
    tiny_base()
    folder = bundle_with_wheels(tmp_path / "bundle")
    made = iotedge.seal(shutil.copytree(folder, tmp_path / folder.name))
    manifest = json.loads((made / "deployment.json").read_bytes())
    desired = manifest["modulesContent"]["$edgeAgent"]["properties.desired"]
    settings = desired["modules"]["tiny-onnx-fp32-laptop"]["settings"]
    options = json.loads(settings["createOptions"])
    with oci.opened(made / "image.oci.tar") as image:
        assert settings["image"] == f"$REGISTRY/tiny-onnx-fp32-laptop@{image.image_digest}"

    assert set(desired["systemModules"]) == {"edgeAgent", "edgeHub"}
    assert options["HostConfig"]["ReadonlyRootfs"] is True
    assert options["HostConfig"]["CapDrop"] == ["ALL"]
    assert options["HostConfig"]["PortBindings"]["8080/tcp"][0]["HostIp"] == "127.0.0.1"
    assert options["ExposedPorts"].keys() == options["HostConfig"]["PortBindings"].keys()
    assert "$edgeHub" in manifest["modulesContent"]
    again = iotedge.seal(shutil.copytree(folder, tmp_path / "again" / folder.name))
    assert iotedge.same(again, made)
    assert iotedge.read(made) == iotedge.read(again)

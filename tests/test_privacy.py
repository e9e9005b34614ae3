"""Privacy: a mark is found in every spelling; a bundle that keeps what it is asked, or tries to connect, is refused."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
from pathlib import Path

import pytest

from edgeml.errors import EdgemlError
from edgeml.privacy.canaries import canaries, stems
from edgeml.privacy.check import check_privacy, in_short
from edgeml.privacy.confinement import reason_against
from edgeml.privacy.search import Marks, Search
from edgeml_runtime.feedback.redaction import EVERY_RULE
from tiny.bundles import tiny_bundle

alone = pytest.mark.skipif(reason_against() is not None, reason="no namespaces here")


@pytest.fixture
def marked():
    common = stems()
    planted = canaries(("one", "two"), common)
    return planted, Marks(common, planted.values(), {}, lambda text: [ord(letter) for letter in text])


def test_numbers_and_addresses_are_what_redaction_finds(marked):
    one = marked[0]["one"]
    left = EVERY_RULE(one.text)
    assert all(word in left for word in ("<phone>", "<iban>", "<card>", "<email>", one.words, one.accents))


@pytest.mark.parametrize(
    "kept",
    [
        lambda text: text.encode(),
        lambda text: text.upper().encode(),
        lambda text: text[:8].encode(),
        lambda text: text[::-1].encode(),
        lambda text: text.encode("utf-16le"),
        lambda text: text.encode("utf-16be"),
        lambda text: text.encode().hex().upper().encode(),
        lambda text: base64.b64encode(b"x" + text.encode()),
        lambda text: base64.b64encode(b"xy" + text.encode()),
        lambda text: base64.b64encode(text.encode("utf-16le")),
        lambda text: base64.b32encode(b"xyz" + text.encode()),
        lambda text: "".join(f"\\u{ord(one):04x}" for one in text).encode(),
        lambda text: "".join(f"%{byte:02X}" for byte in text.encode()).encode(),
        lambda text: json.dumps([ord(one) for one in text]).encode(),
        lambda text: gzip.compress(gzip.compress(text.encode())),
    ],
)
def test_a_mark_is_found_in_every_spelling(marked, kept):
    search = Search(marked[1])
    search.text(
        b"before " * 3 + kept(marked[0]["two"].words) if kept(" ")[:2] != b"\x1f\x8b" else kept(marked[0]["two"].words),
        "x",
    )
    assert search.found
    assert {one.step for one in search.found} <= {"two", "one of them"}


def test_a_mark_is_found_over_the_border_of_two_reads_and_in_a_name(marked, tmp_path):
    search, words = Search(marked[1]), marked[0]["one"].words
    (tmp_path / words).write_bytes(b"a" * 7_999_993 + words.encode())
    search.file(tmp_path / words, f"home/{words}")
    assert {one.place.partition("/")[0] for one in search.found} == {"home", "the name of a file in home"}


def test_what_holds_no_mark_has_no_trace(marked):
    search = Search(marked[1])
    search.text(b"0123456789, hello world" * 1000, "x")
    assert not search.found
    assert search.totals.bytes == 23_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("private"))


def run(bundle, tmp_path, code="", file="tasks/sentence_similarity.py"):
    """The check of the bundle's own code, to which some was added."""
    folder = shutil.copytree(bundle, tmp_path / "all" / "bundle", ignore=shutil.ignore_patterns("__pycache__"))
    if code:
        path = folder / "edgeml_runtime" / file
        path.write_text(path.read_text() + code)
        _reseal(folder)
    return check_privacy(folder, tmp_path / "all" / "space", own=True)


def _reseal(folder):
    from msgspec.structs import replace

    from edgeml_runtime.bundle import MANIFEST, SUMS, checksums, read_bundle
    from edgeml_runtime.records import describe, describe_file, write_record

    files = tuple(file for file in describe(folder) if file.path not in (MANIFEST, SUMS))
    write_record(folder / MANIFEST, replace(read_bundle(folder), files=files))
    (folder / SUMS).write_text(checksums((*files, describe_file(folder / MANIFEST, MANIFEST))))


@pytest.mark.real
@alone
def test_a_clean_bundle_leaves_nothing_and_says_what_was_tried(bundle, tmp_path):
    found = run(bundle, tmp_path)
    assert all(one.expected for one in found.found)
    assert not [one for one in found.tried if one.unrouted or one.local]
    assert "nothing left" in in_short(found)
    assert found.tried[-1].end.startswith("feedback was kept")


@alone
@pytest.mark.real
def test_a_folder_named_from_here_is_written_to_where_all_else_is_read_only(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(bundle, Path("all") / "bundle")

    found = check_privacy(folder, Path("all") / "space", own=True)

    assert "nothing left" in in_short(found)


WRAP = """
_was = predict
def predict(session, row, options):
    text = str(row.get("sentence1", ""))
    leak(text)
    return _was(session, row, options)
def leak(text):
    import base64, os, pathlib, socket, sqlite3, sys
    home = pathlib.Path.home()
"""
LEAKS = {
    "logs it": ("    print('asked', text, file=sys.stderr)\n", "stderr"),
    "base64 in the cache": (
        "    pathlib.Path(os.environ['XDG_CACHE_HOME']).mkdir(parents=True, exist_ok=True)\n"
        "    (pathlib.Path(os.environ['XDG_CACHE_HOME']) / 'x').write_bytes(base64.b64encode(text.encode()))\n",
        "home/.cache/x",
    ),
    "utf-16 in a database": (
        "    db = sqlite3.connect(home / 'kept.sqlite'); db.execute('PRAGMA encoding = \"UTF-16le\"')\n"
        "    db.execute('CREATE TABLE IF NOT EXISTS t (x)'); db.execute('INSERT INTO t VALUES (?)', (text,))\n"
        "    db.commit(); db.close()\n",
        "home/kept.sqlite",
    ),
    "a file in /tmp": ("    open('/tmp/x.log', 'a').write(text)\n", "/tmp/x.log"),
    "telemetry's identity": (
        "    (home / '.cache' / 'Microsoft').mkdir(parents=True, exist_ok=True)\n"
        "    (home / '.cache' / 'Microsoft' / 'deviceid').write_text('0123')\n",
        "home/.cache/Microsoft/deviceid (a file that nothing asked for)",
    ),
    "connects": (
        "    s = socket.socket(); s.settimeout(1)\n"
        "    try: s.connect(('192.0.2.1', 443))\n"
        "    except OSError: pass\n"
        "    s.close()\n",
        "tried to connect",
    ),
}


@pytest.mark.real
@alone
@pytest.mark.parametrize("leak", LEAKS)
def test_a_planted_leak_is_caught(bundle, tmp_path, leak):
    code, place = LEAKS[leak]
    with pytest.raises(EdgemlError) as caught:
        run(bundle, tmp_path, WRAP + code)
    assert place in caught.value.message


@pytest.mark.real
@alone
def test_feedback_with_a_key_and_a_plain_log_beside_is_caught(bundle, tmp_path):
    code = """
_add = FeedbackStore.add
def _kept(self, entry):
    if self._seal:
        side = sqlite3.connect(str(self.path) + ".side", check_same_thread=False)
        side.execute("PRAGMA journal_mode = WAL")
        side.execute("CREATE TABLE IF NOT EXISTS t (x)")
        side.execute("INSERT INTO t VALUES (?)", (str(entry.input),))
        side.commit()
        self._side = side
    return _add(self, entry)
FeedbackStore.add = _kept
"""
    with pytest.raises(EdgemlError) as caught:
        run(bundle, tmp_path, code, file="feedback/store.py")
    assert "feedback sealed/feedback.sqlite.side" in caught.value.message


@pytest.mark.real
@alone
def test_a_real_model_leaves_nothing_in_files_and_tries_no_connection(minilm_folder, tmp_path):
    from edgeml.download import download
    from edgeml.package import bundle_path, package
    from edgeml.quantize import quantize
    from edgeml.store import Store
    from edgeml.targets import profile
    from edgeml.types import ModelRef, Scheme
    from edgeml.verify import verify

    store = Store(tmp_path / "artifacts")
    model = download(ModelRef.parse(str(minilm_folder)), store=store)
    (variant,) = quantize(model, [Scheme.parse("onnx:int8")], store=store, profile=profile("laptop"))
    made = package(variant, store=store, profile=profile("laptop"), kind="dir", wheels=False)
    found = verify(bundle_path(store, made), store=store, private=True)
    assert next(one.result for one in found.checks if one.name == "privacy") == "done"
    assert found.privacy is not None
    ends = {one.what: one.end for one in found.privacy.tried}
    assert ends["/v1/predict"] == ends["/v1/embeddings"] == "status 200"

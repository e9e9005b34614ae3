"""What the spoiled files found, each once: a crash, a hang or too much memory before, and a sentence now."""

import csv
import gzip
import io
import json
import re
import sqlite3
import struct
import tarfile
import zipfile
import zlib

import pytest
import safetensors
from PIL import Image

from edgeml.bundles import oci, tar
from edgeml.bundles.extraction import Intake, first_file
from edgeml.formats.onnx.audit import audit
from edgeml.papers.bom import listed
from edgeml.pulled import models_of, read_pulled
from edgeml.sources import Consent
from edgeml.sources.contents import Choice, check_sides, read_card
from edgeml.sources.headers import SAFETENSORS_BITS, check_weights
from edgeml.sources.wheel import opened
from edgeml.store import Store
from edgeml.targets.ssh.probe import read as read_probe
from edgeml.traits import folder_traits
from edgeml.yaml_files import parse_yaml, read_yaml
from edgeml_runtime.backends.gguf_grammar import grammar_text
from edgeml_runtime.backends.schema_bounds import written_out
from edgeml_runtime.chat_template import ChatTemplate, Writer
from edgeml_runtime.feedback.settings import FeedbackSettings
from edgeml_runtime.feedback.store import FeedbackStore, items_of
from edgeml_runtime.pixels import decoded
from edgeml_runtime.records import decode, parse_json, verify
from edgeml_runtime.rows import read_rows
from edgeml_runtime.session import Said
from edgeml_runtime.tasks.token_classification import items
from edgeml_runtime.types import File
from edgeml_runtime.unpack import unpack
from fuzz.mutations import DEEP
from fuzz.running import limits
from tiny.refusals import refusal
from tiny.safetensors import bert_folder
from tiny.variants import onnx_variant
from tiny.wheels import write_wheel

ENDLESS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


# JSON and YAML --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [DEEP, '{"a": ' + DEEP + "}", '"\\ud800"', '{"\\udfff": 1}', b"\xff", b'"\xed\xa0\x80"']
)
def test_json_that_is_too_deep_or_no_text_is_no_json(text):
    with pytest.raises(ValueError, match=r"deep|surrogates|decode"):
        parse_json(text)


def test_a_pair_of_surrogates_is_a_character():
    assert parse_json('"\\ud83d\\ude00"') == "😀"


@pytest.mark.parametrize("name", ["x" * 100_000, "a\0b"])
def test_a_file_whose_name_no_disk_takes_is_missing(tmp_path, name):
    assert "is missing" in refusal(verify, tmp_path, (File(path=name, size_bytes=1, sha256="0"),))


def test_a_record_that_is_too_deep_is_refused():
    assert "nested too deeply" in refusal(decode, DEEP, File, where="it")


@pytest.mark.parametrize(
    "text",
    [
        "9" * 5000,
        "!!int x",
        "!!float x",
        "!!timestamp x",
        "[" * 400,
        "&a [*a]",
        ENDLESS,
        "? [a]\n: [*b]",
        "0b",
        "=: 1\n=: 2",
    ],
    ids=lambda text: text[:12],
)
def test_yaml_that_python_cannot_hold_is_no_yaml(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with limits():
        said = refusal(read_yaml, path, missing="-", hint="-") if text != "0b" else "mine.yaml is not YAML"
    assert "mine.yaml is not YAML" in said


def test_many_keys_are_read_in_no_time():
    with limits():
        assert len(parse_yaml("".join(f"key{number}: 1\n" for number in range(2500)))) == 2500


# Models ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {"architectures": 5}),
        ("config.json", {"architectures": [5]}),
        ("config.json", {"architectures": ["BertModel"], "max_position_embeddings": "many"}),
        ("config.json", {"architectures": ["BertModel"], "max_position_embeddings": float("nan")}),
        ("config.json", {"architectures": ["BertForSequenceClassification"], "id2label": {"a": "x", "b": "y"}}),
        ("config.json", {"architectures": ["BertForSequenceClassification"], "id2label": 5}),
        ("config.json", {"architectures": ["BertForSequenceClassification"], "num_labels": 10**12}),
        ("config.json", {"architectures": ["BertModel"], "quantization_config": "all"}),
        ("tokenizer_config.json", {"model_max_length": {}}),
        ("tokenizer_config.json", [1]),
        ("tokenizer.json", {"truncation": 7}),
        ("generation_config.json", {"eos_token_id": "</s>"}),
        ("modules.json", [5]),
        ("modules.json", {"a": 5}),
        ("1_Pooling/config.json", 7),
    ],
    ids=lambda one: one if isinstance(one, str) else json.dumps(one)[:40],
)
def test_a_models_file_with_another_type_than_is_read_is_named(tmp_path, name, content):
    folder = bert_folder(tmp_path / "model", width=64)
    if name == "config.json":
        (folder / "modules.json").unlink()
    (folder / name).write_text(json.dumps(content))

    assert str(folder / name) in refusal(folder_traits, folder)


def test_an_index_of_shards_that_names_none_is_refused(tmp_path):
    index = "model.safetensors.index.json"
    (tmp_path / index).write_text('{"weight_map": [1, 2]}')
    chosen = Choice(format="safetensors", weights=(), sides=(index,))
    assert "weight_map" in refusal(check_sides, tmp_path, chosen, consent=Consent(), where="it")


@pytest.mark.parametrize("licence", ['"\\e[31mred"', ENDLESS.replace("\n", "\n  "), "[1, 2]", "x" * 5000, "9" * 5000])
def test_a_card_whose_licence_is_none_states_none(tmp_path, licence):
    (tmp_path / "README.md").write_text(f"---\nlicense: {licence}\ntags: 5\n---\n")
    with limits():
        assert read_card(tmp_path).licence is None


def safetensors_file(path, header, size=16):
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))
    return path


def entry(begin, end, dtype="F32", shape=None):
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"a": entry(0, 8), "b": entry(4, 16)}, "contradicts itself: 'b'"),
        ({"a": entry(0, 4), "b": entry(8, 16)}, "contradicts itself: 'b'"),
        ({"a": entry(0, 16, shape=[2**31, 2**31, 4])}, "contradicts itself: 'a'"),
        ({"a": entry(0, 16, dtype="F64")}, "contradicts itself: 'a'"),
        ({"a": entry(0, 16, dtype="OBJECT")}, "no type of it"),
        ({"a": entry(0, 16, shape=[-2, -2])}, "unreadable"),
        ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, {}]}}, "unreadable"),
        ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 2**70]}}, "unreadable"),
        ({"__metadata__": {"a": 5}, "a": entry(0, 16)}, "unreadable"),
        ({"a": entry(0, 12)}, "promises"),
        (DEEP.encode(), "unreadable"),
        (b"[1]", "unreadable"),
    ],
    ids=repr,
)
def test_a_safetensors_header_that_contradicts_itself_is_refused_before_a_library_reads_it(tmp_path, header, said):
    path = safetensors_file(tmp_path / "model.safetensors", header)
    with pytest.raises(safetensors.SafetensorError):
        safetensors.deserialize(path.read_bytes())
    assert said in refusal(check_weights, tmp_path, [path.name])


def test_the_types_of_safetensors_are_the_librarys():
    text = json.dumps({"a": entry(0, 4, dtype="X")}).encode()
    with pytest.raises(safetensors.SafetensorError) as caught:
        safetensors.deserialize(len(text).to_bytes(8, "little") + text + bytes(4))
    assert set(re.findall(r"`([A-Z0-9_]+)`", str(caught.value))) - {"X"} == set(SAFETENSORS_BITS)
    for dtype, bits in SAFETENSORS_BITS.items():
        text = json.dumps({"a": {"dtype": dtype, "shape": [8], "data_offsets": [0, bits]}}).encode()
        safetensors.deserialize(len(text).to_bytes(8, "little") + text + bytes(bits))


@pytest.mark.parametrize("change", ["no output", "type", "dimension", "bytes"])
def test_a_graph_that_cannot_be_is_no_complete_one(tmp_path, change):
    import onnx

    path = onnx_variant(tmp_path / "tiny").path / "model.onnx"
    model = onnx.load(path)
    if change == "no output":
        del model.graph.output[:]
    elif change == "type":
        model.graph.initializer[0].data_type = 99
    elif change == "dimension":
        model.graph.initializer[0].dims[0] = -4
    content = model.SerializeToString()
    path.write_bytes(content.replace(b"Gather", b"G\xffther") if change == "bytes" else content)

    assert "no complete ONNX file" in refusal(audit, path, "int8")


def test_a_chat_template_with_an_endless_number_is_refused():
    def write():
        Writer(ChatTemplate(template="{% if 1e999 %}a{% endif %}")).write([Said("user", "a")])

    assert "cannot be used" in refusal(write)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "maxLength": 100_000},
        {"type": "string", "maxLength": 10**12},
        {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "null"}, "minItems": 1001}}},
        {"type": "string", "pattern": "^(((a?){50}){50}){50}$"},
        {"type": "string", "pattern": "^a{99999999999999}$"},
        {"type": "string", "pattern": "^a{ 9_999_999 }$"},
        {"type": "string", "pattern": "^a{-99999999,1}$"},
        {"anyOf": [{"type": "string", "minLength": 1e300}]},
        {"type": "string", "minLength": -(2**70), "maxLength": 5},
        {"properties": {"default": {"type": "string", "maxLength": 100_000}}},
        {"$ref": "#/default", "default": {"type": "string", "maxLength": 100_000}},
        {"anyOf": [{"$ref": "#/x/y"}], "x": {"y": {"items": {"type": "string", "maxLength": 100_000}}}},
    ],
    ids=str,
)
def test_a_schema_that_counts_too_far_is_refused_before_llama_cpp_ends_the_process(schema):
    assert re.search("counts to|too many characters", refusal(grammar_text, json.dumps(schema)))


@pytest.mark.parametrize("key", ["default", "const", "examples", "x-note"])
def test_what_a_schema_gives_as_a_value_is_no_schema(key):
    value = {"maxLength": 100_000, "pattern": "]", "items": {"minItems": -1}}
    rules = grammar_text(json.dumps({"type": "object", "properties": {"a": {"type": "string", key: value}}}))
    assert "root ::=" in rules


@pytest.mark.parametrize(
    "pattern", ["(a?){1000}", "(a*){129}", "((a|b|c)?){100}", "((a?){20}b?){20}", "x" + "a?" * 200]
)
def test_a_pattern_that_leaves_out_too_much_is_refused_before_a_token_takes_minutes(pattern):
    assert "left out too often" in refusal(grammar_text, json.dumps({"type": "string", "pattern": f"^{pattern}$"}))


@pytest.mark.parametrize("pattern", ["(ab?){1000}", "[a-z]{0,1000}", "[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}", "(a?){127}"])
def test_a_pattern_of_many_letters_of_which_few_may_be_next_is_taken(pattern):
    assert grammar_text(json.dumps({"type": "string", "pattern": f"^{pattern}$"})).startswith("root")


@pytest.mark.parametrize("pattern", ["]", "^Ya-z]{2}$", "a}", "[]a]", "*", "^+$", "a{", "["])
def test_a_pattern_at_which_the_converter_would_never_end_is_refused(pattern):
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}
    with limits():
        assert re.search("nothing opened|cannot become a grammar", refusal(grammar_text, json.dumps(schema)))


@pytest.mark.parametrize("pattern", [r"^[^\]]+$", r"^a\]\}$", r"^\d{2}[}{]$", "^(a|b){2,3}$"])
def test_brackets_that_are_opened_or_escaped_are_taken(pattern):
    assert grammar_text(json.dumps({"type": "string", "pattern": pattern})).startswith("root")


@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        ("abc", 3),
        ("a{3}", 3),
        ("(ab{2}){5}c", 16),
        ("[a-z]{2,5}x", 6),
        (r"\\{5}", 5),
        ("((a{9}){9}){9}", 729),
        (")(", 1),
    ],
)
def test_counts_of_a_pattern_multiply_where_they_are_nested(pattern, size):
    assert written_out(pattern).size == size


@pytest.mark.parametrize(
    ("pattern", "most"),
    [
        ("abc", 1),
        ("(one|two|three)", 1),
        ("x(a?){50}y", 51),
        ("a?b?c?d", 4),
        ("x?(a|b|c|d)", 5),
        ("((ab)?|c){10}", 20),
        ("(a|){7}", 7),
        ("(a?b){30}", 2),
        ("(xa?b?){30}", 3),
    ],
)
def test_places_at_which_a_letter_may_stand_next_are_counted_where_parts_are_left_out(pattern, most):
    assert written_out(pattern).most == most


# Archives -------------------------------------------------------------------------------------------------------------


def packed(path, *members, form=tarfile.PAX_FORMAT):
    with (
        gzip.open(path, "wb", compresslevel=1) as stream,
        tarfile.open(fileobj=stream, mode="w", format=form) as archive,
    ):
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                member.linkname = content
                archive.addfile(member)
    return path


@pytest.mark.parametrize("goal", ["", "b/bundle.json", "b/none"])
def test_a_manifest_that_is_a_link_is_none(tmp_path, goal):
    path = packed(tmp_path / "b.tar.gz", ("b/bundle.json", tarfile.SYMTYPE, goal))
    assert "holds no bundle.json" in refusal(tar.read, path)


def test_to_look_for_a_manifest_takes_no_more_than_an_archive_may_hold(tmp_path, monkeypatch):
    monkeypatch.setattr("edgeml.bundles.extraction._SPARE_BYTES", 1 << 16)
    path = packed(tmp_path / "b.tar.gz", ("b/zeros", tarfile.REGTYPE, bytes(1 << 22)))
    with limits(), gzip.open(path) as stream:
        assert "unpack to more" in refusal(first_file, stream, path, lambda name: name == "b/bundle.json")


def test_a_part_of_a_name_that_no_disk_takes_is_refused(tmp_path):
    intake = Intake(tmp_path, "b.tar.gz", 1000)
    assert "b.tar.gz is refused" in refusal(intake.accept, "b/" + "x" * 300)
    intake.accept("/".join(["x" * 200] * 5))


def test_an_image_whose_index_is_too_deep_is_no_image(tmp_path):
    path = tmp_path / "b.oci.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("index.json")
        member.size = len(DEEP)
        archive.addfile(member, io.BytesIO(DEEP.encode()))
    assert "no complete archive of an image" in refusal(oci.read, path)


def test_a_wheel_of_many_files_is_read_in_no_time(tmp_path):
    path = write_wheel(tmp_path, {f"a/{number}": b"" for number in range(4000)})
    with limits(), opened(path) as wheel:
        assert len(wheel.names) == 4000


@pytest.mark.parametrize("place", [-4, -8, -10])
def test_a_wheel_whose_directory_lies_is_broken(tmp_path, place):
    path = write_wheel(tmp_path, {"a": b"x"})
    content = bytearray(path.read_bytes())
    content[place] ^= 0x80
    path.write_bytes(content)
    with pytest.raises(Exception, match=r"broken wheel|refused") as caught, opened(path):
        pass
    assert caught.value.hint


def test_a_file_of_a_wheel_that_is_longer_than_the_wheel_takes_no_memory(tmp_path):
    path = write_wheel(tmp_path, {"a": b"x"})
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02")  # RECORD's entry: its packed size is 20 bytes on
    content[place + 20 : place + 24] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(content)
    with limits(), pytest.raises(Exception, match="longer than it is itself"), opened(path):
        pass


def test_a_wheel_whose_record_is_no_table_is_broken(tmp_path):
    csv.field_size_limit(131_072)  # Python's own; reading rows of data raises it
    path = tmp_path / "a-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("a-1.0.dist-info/RECORD", 'a,"' + "x" * 200_000)
    with pytest.raises(Exception, match="broken wheel"), opened(path):
        pass


@pytest.mark.parametrize(
    "text", ['{"components": 5}', '{"components": ["a"]}', "[]", "{}", DEEP, '{"components": [{"properties": [5]}]}']
)
def test_a_bill_that_is_written_otherwise_is_not_read(text):
    with pytest.raises(ValueError, match=r"in a component|deep"):
        listed(text)


@pytest.mark.parametrize("manifest", [{"machine": 5}, {"files": [{"path": "wheels/a", "sha256": {}}]}, {"python": [5]}])
def test_a_bundles_manifest_of_other_types_is_none(tmp_path, manifest):
    whole = {"machine": "x86_64", "python": ["3.11"], "files": []} | manifest
    (tmp_path / "bundle.json").write_text(json.dumps(whole))
    with pytest.raises(Exception, match="no bundle's manifest") as caught:
        unpack(tmp_path)
    assert caught.value.hint


# Data and devices -----------------------------------------------------------------------------------------------------


def test_a_long_cell_is_a_cell(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("text,label\n" + "word " * 100_000 + ",a\n")
    assert len(read_rows(path)[0]["text"]) == 500_000


def test_a_picture_that_would_fill_the_memory_is_refused_by_its_header():
    packed = io.BytesIO()
    Image.new("1", (1, 1)).save(packed, "PNG")
    content = bytearray(packed.getvalue())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    with limits():
        assert "cannot be decoded" in refusal(decoded, bytes(content))


def test_a_row_that_is_too_deep_is_refused_with_its_line(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "a"}\n{"text": ' + DEEP + "}\n")
    assert "line 2" in refusal(read_rows, path)


def test_a_cell_that_is_too_deep_is_words():
    assert items(DEEP[:40_000]) == [DEEP[:40_000]]


@pytest.mark.parametrize("told", [DEEP.encode(), b"[5]", b"5", b"\xff", b'"a"'])
def test_a_device_that_says_no_facts_is_refused(told):
    assert "cannot be read" in refusal(read_probe, told, where="what pi says of itself")


def test_a_device_whose_firmware_says_a_list_has_no_bits():
    facts = (
        b'{"throttled": [1], "machine": "aarch64", "userland_bits": 64, "system": "Linux", "pythons": [], "home": "/h"}'
    )
    assert read_probe(facts, where="what pi says").throttled is None


@pytest.fixture
def kept(tmp_path):
    FeedbackStore(tmp_path / "feedback.sqlite", FeedbackSettings(file="x")).close()
    return (tmp_path / "feedback.sqlite").read_bytes()


@pytest.mark.parametrize(
    "statements",
    [
        "ALTER TABLE items RENAME TO old; CREATE VIEW items AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 "
        "FROM n) SELECT i AS sequence, 'a' AS id, 'b' AS kind, 0 AS sealed, '1' AS item FROM n",
        "CREATE TRIGGER t AFTER DELETE ON items BEGIN DELETE FROM items; END",
        "DROP INDEX kinds; ALTER TABLE items DROP COLUMN kind",
        "CREATE TABLE more (x)",
    ],
    ids=["an endless view", "a trigger", "a column less", "a table more"],
)
def test_feedback_in_other_tables_is_refused_before_it_is_read(kept, statements):
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.deserialize(kept)
    for statement in statements.split("; ") if "BEGIN" not in statements else [statements]:
        database.execute(statement)
    content = database.serialize()
    database.close()

    assert "other tables than edgeml makes" in refusal(items_of, content, None, where="what came home")


def test_a_damaged_store_whose_damage_is_told_in_no_text_is_damaged(kept):
    place = kept.index(b"CREATE INDEX kinds")
    assert "damaged" in refusal(items_of, kept[:place] + b"\xc5\xff\xfe" + kept[place + 3 :], None, where="it")


@pytest.mark.parametrize("item", ["5", "'text'", "x'ff'", f"'{DEEP}'", "'{}'"], ids=lambda item: item[:8])
def test_an_item_of_feedback_that_is_none_is_refused(kept, item):
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.deserialize(kept)
    database.execute(f"INSERT INTO items (sequence, id, kind, sealed, item) VALUES (1, 'a', 'b', 0, {item})")
    content = database.serialize()
    database.close()

    assert "item a is not as it was written" in refusal(items_of, content, None, where="what came home")


@pytest.mark.parametrize("line", [b"\xff", b'{"a": "\\ud800"}', DEEP.encode()], ids=["no text", "half a pair", "deep"])
def test_feedback_at_home_that_was_spoiled_names_its_line(tmp_path, line):
    path = tmp_path / "tiny" / "feedback" / "one.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(line + b"\n")
    store = Store(tmp_path)

    assert "line 1 of " in refusal(read_pulled, store, models_of(store))

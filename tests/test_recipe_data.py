"""The recipes' data is exactly what its scripts make, and is what its data card says."""

import csv
import json
import re
import runpy
from collections import Counter
from pathlib import Path

import pytest

RECIPES = Path(__file__).parent.parent / "recipes"
MADE = {
    "similarity/lines.csv": "similarity/make_lines.py",
    "extraction/addresses.jsonl": "extraction/make_addresses.py",
}


@pytest.fixture(scope="module")
def lines():
    with (RECIPES / "similarity/lines.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def addresses():
    return [json.loads(line) for line in (RECIPES / "extraction/addresses.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def card():
    return " ".join((RECIPES / "README.md").read_text(encoding="utf-8").split())


@pytest.mark.parametrize(("made", "script"), MADE.items())
def test_the_committed_file_is_what_its_script_makes(made, script, tmp_path):
    runpy.run_path(str(RECIPES / script))["write"](tmp_path / "made")
    assert (tmp_path / "made").read_bytes() == (RECIPES / made).read_bytes()


@pytest.mark.parametrize("made", MADE)
def test_lines_end_as_on_unix_and_no_brace_is_left_unfilled(made):
    text = (RECIPES / made).read_bytes().decode("utf-8")
    assert text.endswith("\n")
    assert "\r" not in text
    assert not re.search(r"\{[a-z_]+\}", text)


def test_each_account_has_at_least_eight_lines_and_each_source_enough_to_slice(lines):
    assert list(lines[0]) == ["text", "label", "source"]
    assert min(Counter(line["label"] for line in lines).values()) >= 8
    assert min(Counter(line["source"] for line in lines).values()) >= 30


def test_no_bookkeeping_line_comes_twice_even_in_other_capitals(lines):
    assert len({line["text"].casefold() for line in lines}) == len(lines)


def test_no_address_comes_twice_even_in_other_capitals(addresses):
    assert len({address["text"].casefold() for address in addresses}) == len(addresses)


def test_an_expected_value_is_a_span_of_its_text_and_no_number_is_left_over(addresses):
    for address in addresses:
        rest = address["text"]
        for value in sorted(filter(None, address["expected"].values()), key=len, reverse=True):
            assert value in rest
            rest = rest.replace(value, "\n", 1)
        assert not re.search(r"\d", rest), address


def test_the_schema_demands_the_keys_of_every_expected_object_in_their_order(addresses):
    schema = json.loads((RECIPES / "extraction/schema.json").read_text(encoding="utf-8"))
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert set(map(json.dumps, schema["properties"].values())) == {'{"type": "string"}'}
    for address in addresses:
        assert list(address["expected"]) == schema["required"] == list(schema["properties"])


def test_llama_cpp_turns_the_schema_into_a_grammar_with_a_rule_for_each_key(addresses):
    convert = pytest.importorskip("llama_cpp.llama_grammar").json_schema_to_gbnf
    grammar = convert((RECIPES / "extraction/schema.json").read_text(encoding="utf-8"))
    for key in addresses[0]["expected"]:
        assert f'"\\"{key}\\""' in grammar


def test_the_data_card_counts_the_bookkeeping_lines_right(lines, card):
    labels = Counter(line["label"] for line in lines)
    sources = Counter(line["source"] for line in lines)
    assert f"{len(lines)} bookkeeping lines" in card
    assert f"{len(labels)} accounts of {min(labels.values())} or {max(labels.values())} lines" in card
    assert ", ".join(f"{sources[name]} {name}" for name in ("bank", "card", "invoice", "receipt")) in card


def test_the_data_card_counts_the_addresses_right(addresses, card):
    kinds = Counter(address["kind"] for address in addresses)
    assert f"{len(addresses)} lines with a US address" in card
    assert (
        ", ".join(f"{kinds[name]} {name}" for name in ("plain", "unit", "po_box", "rural_route", "messy")) + "." in card
    )

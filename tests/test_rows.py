"""Data files: what is read, and what is refused with its line."""

from __future__ import annotations

import pytest

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.rows import LONGEST, check_columns, check_texts, parse_columns, read_rows, rename
from tiny.refusals import refusal


@pytest.fixture
def file(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_csv_cells_may_hold_commas_quotes_and_line_breaks(file):
    path = file("a.csv", 'text,label\n"one, ""two""\nthree",x\r\n\nfour,y\n')
    assert read_rows(path) == [{"text": 'one, "two"\nthree', "label": "x"}, {"text": "four", "label": "y"}]


def test_tsv_has_no_quoting_and_keeps_unusual_line_separators(file):
    path = file("a.tsv", 'text\tlabel\r\n"one\ttwo\x0c\u2028\r\n')
    assert read_rows(path) == [{"text": '"one', "label": "two\x0c\u2028"}]


def test_jsonl_keeps_the_types_of_values(file):
    assert read_rows(file("a.jsonl", '{"text":"é","score":1.5}\n\n{"text":"b"}\n')) == [
        {"text": "é", "score": 1.5},
        {"text": "b"},
    ]


def test_any_other_file_has_one_text_a_line(file):
    assert read_rows(file("a.txt", "one, two\n\n three\r\n")) == [{"text": "one, two"}, {"text": " three"}]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt"])
def test_a_byte_order_mark_is_no_part_of_the_first_name(file, name):
    assert list(read_rows(file(name, "\ufefftext\nhello\n".encode()))[-1].values()) == ["hello"]
    assert "text" in read_rows(file(name, "\ufefftext\nhello\n".encode()))[0]


def test_a_missing_file_is_refused(tmp_path):
    assert "cannot read" in refusal(read_rows, tmp_path / "none.csv")


@pytest.mark.parametrize(("name", "content"), [("a.csv", ""), ("a.csv", "text,label\n"), ("a.jsonl", "\n"), ("a", "")])
def test_a_file_without_rows_is_refused(file, name, content):
    assert "holds no rows" in refusal(read_rows, file(name, content))


def test_a_file_in_another_encoding_is_refused_with_its_line(file):
    assert "not UTF-8 (line 2)" in refusal(read_rows, file("a.txt", b"fine\ncaf\xe9\n"))


def test_a_ragged_line_is_refused_with_its_number(file):
    assert "line 3" in refusal(read_rows, file("a.csv", "a,b\n1,2\n3\n"))
    assert "line 4" in refusal(read_rows, file("b.csv", 'a,b\n"1\n1",2\n3\n'))
    assert "line 3" in refusal(read_rows, file("a.tsv", "a\tb\n1\t2\n3\t4\t5\n"))


def test_a_quote_that_is_not_closed_is_refused_with_its_line(file):
    assert "line 2" in refusal(read_rows, file("a.csv", 'a\n"open\n'))


def test_a_column_that_stands_twice_is_refused(file):
    assert "'text'" in refusal(read_rows, file("a.csv", "text, text\n1,2\n"))


@pytest.mark.parametrize("line", ['{"text": ', "[1]", '{"text": NaN}'])
def test_broken_json_is_refused_with_its_line(file, line):
    assert "line 2" in refusal(read_rows, file("a.jsonl", '{"text":"a"}\n' + line + "\n"))


def test_a_missing_column_is_named_with_those_present_and_a_way_out():
    with pytest.raises(EdgemlError) as caught:
        check_columns([{"text": "a"}, {"body": "b"}], ["text"], "data.jsonl")
    assert "'text' in row 2" in caught.value.message
    assert "'body'" in caught.value.message
    assert "--columns YOURS=text" in caught.value.hint


def test_a_number_where_text_belongs_is_refused():
    check_texts([{"text": "5"}], ["text"], "data.jsonl")
    assert "row 2" in refusal(check_texts, [{"text": "a"}, {"text": 5}], ["text"], "data.jsonl")


def test_columns_are_renamed_and_may_be_swapped():
    rows = [{"a": 1, "b": 2, "c": 3}]
    assert rename(rows, {"a": "b", "b": "a"}) == [{"a": 2, "b": 1, "c": 3}]
    assert rename(rows, {"b": "a"}) == [{"a": 2, "c": 3}]
    assert "'none'" in refusal(rename, rows, {"none": "a"})


def test_a_mapping_leads_from_the_files_columns_to_the_tasks():
    assert parse_columns(["body=text", "a=b=label"]) == {"body": "text", "a": "b=label"}
    assert "'text'" in refusal(parse_columns, ["text"])


def test_a_blank_text_is_refused_with_its_row():
    with pytest.raises(EdgemlError, match=r"'text' in row 2 of .* is blank"):
        check_texts([{"text": "fuel"}, {"text": " "}], ["text"], "lines.csv")


def test_a_column_that_the_file_does_not_have_cannot_be_mapped():
    with pytest.raises(EdgemlError, match="has no column 'body' to map") as caught:
        rename([{"line": "fuel"}], {"body": "text"}, "lines.csv")
    assert "one of 'line'" in caught.value.hint


def test_a_text_that_no_model_reads_is_refused_before_its_tokens_fill_the_memory():
    whole = {"text": "a" * LONGEST}
    check_texts([whole], ("text",), "rows.txt")
    with pytest.raises(EdgemlError, match=r"'text' in row 2 of rows\.txt has 1000001 characters"):
        check_texts([whole, {"text": "a" * (LONGEST + 1)}], ("text",), "rows.txt")

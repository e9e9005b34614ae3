import pytest

from edgeml.dataset import MOST_SLICES, choose_task, dataset_for, read_dataset, slice_values
from edgeml.errors import EdgemlError
from edgeml.types import Dataset
from edgeml_runtime.tasks import NAMES, task_of

LINES = "rent for march\n\nfuel, two cans\n"


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text(LINES, encoding="utf-8")
    return path


def dataset(**columns):
    rows = tuple(dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    return Dataset(name="x.csv", sha256="0", rows=rows)


@pytest.mark.parametrize("task", [name for name in NAMES if "text" in task_of(name).COLUMNS])
def test_plain_lines_without_labels_serve_every_task_that_reads_a_text(lines, task):
    assert [row["text"] for row in read_dataset(lines, task=task, columns={}).rows] == [
        "rent for march",
        "fuel, two cans",
    ]


def test_plain_lines_are_words_to_a_tagger_and_one_text_to_perplexity(lines):
    words = [row["tokens"] for row in read_dataset(lines, task="token-classification", columns={}).rows]

    assert words == [["rent", "for", "march"], ["fuel,", "two", "cans"]]
    assert read_dataset(lines, task="perplexity", columns={}).text == LINES


def test_single_texts_are_no_pairs_which_is_said_where_pairs_were_asked_for(lines):
    assert choose_task("sentence-similarity", lines, {}) == "feature-extraction"
    with pytest.raises(EdgemlError, match="holds single texts") as caught:
        read_dataset(lines, task="sentence-similarity", columns={})
    assert caught.value.hint == "--task feature-extraction, or give columns sentence1 and sentence2"


def test_one_of_two_sentences_is_a_missing_column(tmp_path):
    path = tmp_path / "half.csv"
    path.write_text("sentence1,text\na,b\n")

    with pytest.raises(EdgemlError, match="no column 'sentence2' in row 1"):
        read_dataset(path, task="sentence-similarity", columns={})


def test_one_pair_is_enough(tmp_path):
    path = tmp_path / "pair.csv"
    path.write_text("sentence1,sentence2\na,b\n")

    assert len(read_dataset(path, task="sentence-similarity", columns={}).rows) == 1


def test_slices_are_values_as_text_whatever_their_type():
    found = slice_values(dataset(text="abc", region=["north", "", "north"], year=[1, True, None]), ["year", "region"])

    assert found == {"year": ("1", "true", "missing"), "region": ("north", "missing", "north")}


def test_a_renamed_column_is_sliced_by_either_name(tmp_path):
    path = tmp_path / "lines.csv"
    path.write_text("text,account\na,x\nb,y\n")
    data = read_dataset(path, task="feature-extraction", columns={"account": "label"})

    assert slice_values(data, ["account"]) == {"account": ("x", "y")}
    assert slice_values(data, ["label"]) == {"label": ("x", "y")}


def test_a_column_to_slice_by_that_no_row_has_is_refused_and_one_that_some_lack_is_not():
    rows = ({"text": "a", "lang": "en"}, {"text": "b"})
    data = Dataset(name="x.jsonl", sha256="0", rows=rows)

    assert slice_values(data, ["lang"]) == {"lang": ("en", "missing")}
    with pytest.raises(EdgemlError, match="no column 'language' to slice by") as caught:
        slice_values(data, ["language"])
    assert caught.value.hint == "its columns: text, lang"


def test_a_column_of_too_many_values_is_refused_before_anything_is_measured():
    numbers = [str(number) for number in range(MOST_SLICES + 1)]

    with pytest.raises(EdgemlError, match=f"'id' has {MOST_SLICES + 1} values, which is too many slices"):
        slice_values(dataset(id=numbers), ["id"])
    assert slice_values(dataset(id=numbers[:-1]), ["id"])


def test_a_plain_text_has_no_slices():
    with pytest.raises(EdgemlError, match="no column 'lang' to slice by"):
        slice_values(Dataset(name="x.txt", sha256="0", text="x"), ["lang"])
    assert slice_values(Dataset(name="x.txt", sha256="0", text="x"), []) == {}


def test_reference_rows_are_labelled_and_make_one_row_of_data_enough(tmp_path):
    data, known = tmp_path / "data.txt", tmp_path / "known.jsonl"
    data.write_text("rent march\n")
    known.write_text('{"line": "rent", "label": "home"}\n')

    with pytest.raises(EdgemlError, match="no column 'text' in row 1"):
        read_dataset(data, task="feature-extraction", columns={}, reference=known)
    known.write_text('{"text": "rent", "label": "home"}\n')
    found = read_dataset(data, task="feature-extraction", columns={}, reference=known)
    assert found.reference_rows == ({"text": "rent", "label": "home"},)
    assert found.reference_sha256 != found.sha256

    known.write_text('{"text": "rent", "label": "home"}\n{"text": "fuel"}\n')
    with pytest.raises(EdgemlError, match="no column 'label' in row 2"):
        read_dataset(data, task="feature-extraction", columns={}, reference=known)


def test_a_reference_is_refused_where_nothing_seeks_a_nearest_row_or_there_is_no_data(lines):
    with pytest.raises(EdgemlError, match="text-generation seeks no nearest row"):
        dataset_for("text-generation", lines, {}, limit=None, reference=lines)
    with pytest.raises(EdgemlError, match="for data of yours"):
        dataset_for("feature-extraction", None, {}, limit=None, reference=lines)


def test_columns_of_a_reference_are_mapped_like_those_of_the_data(tmp_path):
    for name in ("data.csv", "known.csv"):
        (tmp_path / name).write_text("body,account\nrent,home\nfuel,car\n")

    columns = {"body": "text", "account": "label"}
    found = read_dataset(
        tmp_path / "data.csv", task="feature-extraction", columns=columns, reference=tmp_path / "known.csv"
    )

    assert found.rows == found.reference_rows

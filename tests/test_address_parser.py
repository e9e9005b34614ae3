"""The address parser's scripts: what they read and refuse, no address in two splits, and training that goes on."""

import gzip
import io
import json
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from edgeml import recipe as recipes
from edgeml.errors import EdgemlError
from edgeml_runtime.records import sha256
from tiny.families import family_folder

RECIPE = Path(__file__).parent.parent / "recipes" / "address-parser"
sys.path.insert(0, str(RECIPE))  # the scripts lie beside each other, as Python itself finds them when one is run

import addresses  # noqa: E402
import augment  # noqa: E402
import prepare  # noqa: E402
import train  # noqa: E402

SAMPLE = """<?xml version="1.0" encoding="UTF-8"?>
<AddressCollection>
  <AddressString><AddressNumber>12</AddressNumber> <StreetName>Elm</StreetName> <StreetNamePostType>St</StreetNamePostType>, <PlaceName>Odell</PlaceName>; <StateName>il</StateName></AddressString>
  <AddressString><USPSBoxGroupType>RR</USPSBoxGroupType> <USPSBoxGroupID>2</USPSBoxGroupID> <USPSBoxType>Box</USPSBoxType> <USPSBoxID>9</USPSBoxID></AddressString>
  <AddressString><StreetName>Mall Road</StreetName> <StateName>New</StateName> <StateName>York.</StateName></AddressString>
  <AddressString><AddressNumber>5</AddressNumber> # <OccupancyIdentifier>1</OccupancyIdentifier></AddressString>
  <AddressString>at <AddressNumber>5</AddressNumber></AddressString>
  <AddressString></AddressString>
</AddressCollection>
"""  # noqa: E501
TAGS = ["AddressNumber", "StreetName", "StreetNamePostType", "PlaceName"]


def archive(files: dict[str, str], kind: bytes = tarfile.REGTYPE) -> bytes:
    """A source archive with these files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(text) if kind == tarfile.REGTYPE else 0
            member.linkname = "/etc/passwd"
            tar.addfile(member, io.BytesIO(text.encode()))
    return made.getvalue()


def rows(count: int, start: int = 0) -> list[addresses.Row]:
    """Made-up addresses."""
    names = ["elm", "oak", "first", "lake", "mill", "pine"]
    return [
        {"tokens": [str(7 * n + 1), names[n % 6], "st,", "odell"], "tags": TAGS, "kind": "plain", "state": "none"}
        for n in range(start, start + count)
    ]


def prepared(folder: Path) -> Path:
    """What prepare.py leaves, of made-up addresses."""
    prepare.write({"train": rows(24), "dev": rows(6, 24), "test": rows(12, 30)}, b"licence", folder)
    return folder


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A script as a user runs it."""
    command = [sys.executable, str(RECIPE / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_words_are_read_with_their_tags_and_a_comma_stays_with_its_word():
    read = addresses.read_xml(SAMPLE.encode(), "sample")

    assert read[0]["tokens"] == ["12", "Elm", "St,", "Odell;", "il"]
    assert read[0]["tags"] == [*TAGS, "StateName"]
    assert read[2] == {
        "tokens": ["Mall", "Road", "New", "York."],
        "tags": ["StreetName", "StreetName", "StateName", "StateName"],
    }


def test_an_address_with_text_that_has_no_label_is_left_out():
    assert len(addresses.read_xml(SAMPLE.encode(), "sample")) == 3


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b'<!DOCTYPE a [<!ENTITY b "bb">]><a><c>&b;</c></a>', "declares a document type"),
        ('<!DOCTYPE a [<!ENTITY b "bb">]><a>&b;</a>'.encode("utf-16"), "is no XML"),
        (b"<a><b></a>", "is no XML"),
        (b"", "is no XML"),
    ],
)
def test_xml_that_expands_or_is_broken_is_refused(content, error):
    with pytest.raises(EdgemlError, match=error):
        addresses.read_xml(content, "labeled.xml")


@pytest.mark.parametrize(
    ("tags", "kind"),
    [
        (["USPSBoxGroupType", "USPSBoxGroupID", "USPSBoxType", "USPSBoxID"], "rural_route"),
        (["USPSBoxType", "USPSBoxID", "OccupancyType"], "po_box"),
        (["StreetName", "IntersectionSeparator", "StreetName"], "intersection"),
        (["AddressNumber", "StreetName", "OccupancyIdentifier"], "occupancy"),
        (["Recipient", "AddressNumber"], "named"),
        (["AddressNumber", "StreetName"], "plain"),
    ],
)
def test_the_kind_of_an_address_follows_from_its_tags(tags, kind):
    assert addresses.kind_of(tags) == kind


@pytest.mark.parametrize(
    ("words", "state"),
    [(["il,"], "IL"), (["New", "York"], "NY"), (["N.Y."], "NY"), (["Oz"], "other"), ([], "none")],
)
def test_a_state_is_two_letters_however_it_is_written(words, state):
    assert addresses.state_of({"tokens": words, "tags": ["StateName"] * len(words)}) == state


def test_states_with_few_addresses_are_one_slice():
    many = [{"tokens": ["IL"], "tags": ["StateName"]}] * addresses.FEWEST_IN_A_STATE
    sliced = addresses.with_slices([*many, {"tokens": ["UT"], "tags": ["StateName"]}])

    assert {row["state"] for row in sliced} == {"IL", "other"}


def test_no_address_nor_its_family_is_in_two_splits():
    parts = "".join(
        f"<AddressString><AddressNumber>{number}</AddressNumber> <StreetName>{name}</StreetName></AddressString>"
        for number in range(40)
        for name in ("Elm", "ELM,", "Oak Hill", "Lake", "Mill", "Pine", "Quay", "Rose", "Ash", "Bay", "Cove")
    )
    splits = prepare.split(f"<AddressCollection>{parts}</AddressCollection>".encode())

    found = [row["tokens"] for part in splits.values() for row in part]
    assert len(found) == len({addresses.plain(tokens) for tokens in found}) == 400
    families = [{addresses.family(row["tokens"]) for row in part} for part in splits.values()]
    assert sum(map(len, families)) == len(set().union(*families))
    assert all(families)


def test_an_archive_of_another_digest_is_refused(tmp_path):
    (tmp_path / "usaddress.tar.gz").write_bytes(archive({"usaddress-0.5.16/training/labeled.xml": SAMPLE}))

    done = run("prepare.py", "--archive", tmp_path / "usaddress.tar.gz", "--to", tmp_path / "data")

    assert done.returncode == 1
    assert "is not the archive that this was written for: SHA-256" in done.stderr
    assert "hint: get usaddress-0.5.16.tar.gz" in done.stderr
    assert not (tmp_path / "data").exists()


def test_only_the_named_files_of_an_archive_are_read_and_none_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = archive({"../../evil": "x", "/etc/evil": "x", "p/training/labeled.xml": SAMPLE})

    assert prepare.members(made, ("training/labeled.xml",)) == {"training/labeled.xml": SAMPLE.encode()}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "made",
    [
        archive({"p/other": "x"}),
        archive({"p/training/labeled.xml": ""}, kind=tarfile.SYMTYPE),
        gzip.compress(b"no tar at all"),
        archive({"p/training/labeled.xml": SAMPLE})[:60],
        b"",
    ],
    ids=["without", "link", "no tar", "cut", "empty"],
)
def test_an_archive_without_the_file_is_refused(made):
    with pytest.raises(EdgemlError, match="the archive"):
        prepare.members(made, ("training/labeled.xml",))


def test_a_file_that_would_fill_the_memory_is_not_read(monkeypatch):
    monkeypatch.setattr(prepare, "MOST_BYTES", 100)
    with pytest.raises(EdgemlError, match="the archive has no"):
        prepare.members(archive({"p/training/labeled.xml": SAMPLE}), ("training/labeled.xml",))


@pytest.mark.parametrize("url", ["ftp://host/x", "/etc/passwd", "https://127.0.0.1:1/x"])
def test_an_address_that_cannot_be_fetched_is_told_with_the_way_round(url):
    with pytest.raises(EdgemlError, match="fetch") as caught:
        prepare.downloaded(url, prepare.silent)
    assert "--archive" in caught.value.hint


def test_the_first_piece_of_a_word_is_the_one_with_its_label():
    assert train.first_pieces([None, 0, 0, 1, 2, 2, 2, None]) == [(1, 0), (3, 1), (4, 2)]
    assert train.first_pieces([0, 0, None]) == [(0, 0)]
    assert train.first_pieces([None, None]) == []


def test_augmented_addresses_keep_a_label_a_word_and_follow_from_the_seed():
    source = [*rows(6), {"tokens": ["P.O.", "Box,", "12", ","], "tags": ["USPSBoxType"] * 2 + ["USPSBoxID"] * 2}]
    maker = augment.Augmenter(source)
    made = [maker.made(row, random.Random(seed)) for seed in range(300) for row in source]

    assert made == [maker.made(row, random.Random(seed)) for seed in range(300) for row in source]
    assert all(len(words) == len(tags) >= 2 and all(words) for words, tags in made)
    assert {tag for _, tags in made for tag in tags} == {tag for row in source for tag in row["tags"]}
    assert len({tuple(words) for words, _ in made}) > 100


def test_training_without_data_says_how_to_make_it(tmp_path):
    with pytest.raises(EdgemlError, match=r"train\.jsonl is not there") as caught:
        train.read(tmp_path)
    assert "prepare.py" in caught.value.hint


def test_a_folder_of_the_users_own_is_not_replaced_by_a_model(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("my model")
    run = train.Training(train.read(prepared(tmp_path / "data")), "base", train.SETTINGS, tmp_path, 1)

    with pytest.raises(EdgemlError, match="exists already and is not a model of this script"):
        run.write(tmp_path / "mine", tmp_path / "data" / "LICENSE", 0.5)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["README.md"]


def test_the_recipe_is_whole_once_its_data_and_model_are_made(tmp_path):
    folder = tmp_path / "recipes"
    prepared(folder / "address-parser" / "data")
    recipe = recipes.load(RECIPE.with_suffix(".yaml"))
    with pytest.raises(EdgemlError, match="is not there yet") as caught:
        recipes.check(recipe, folder)
    assert caught.value.hint == "python recipes/address-parser/train.py"
    (folder / "address-parser" / "model" / "us-address-parser").mkdir(parents=True)

    plan = recipes.check(recipe, folder)

    assert plan.ref.id == str(folder / "address-parser" / "model" / "us-address-parser")
    assert len(plan.dataset.rows) == 12
    assert plan.packed in plan.schemes


@pytest.mark.real
def test_training_that_was_ended_goes_on_and_ends_as_if_it_had_not_been(tmp_path):
    data, base = prepared(tmp_path / "data"), family_folder(tmp_path / "base", "BertModel")
    common = ["--data", data, "--base", base, "--threads", 1, "--epochs", 4]
    whole = run("train.py", *common, "--to", tmp_path / "whole", "--checkpoints", tmp_path / "a")
    assert whole.returncode == 0, whole.stderr

    command = [sys.executable, str(RECIPE / "train.py"), *map(str, common)]
    places = ["--to", str(tmp_path / "parts"), "--checkpoints", str(tmp_path / "b")]
    with subprocess.Popen([*command, *places], stderr=subprocess.DEVNULL) as child:
        while not list((tmp_path / "b").glob("*.pt")) and child.poll() is None:
            pass
        child.kill()
    assert not (tmp_path / "parts").exists()
    rest = run("train.py", *common, *places)

    assert rest.returncode == 0, rest.stderr
    assert "going on after epoch" in rest.stderr
    assert sha256(tmp_path / "parts/model.safetensors") == sha256(tmp_path / "whole/model.safetensors")
    labels = json.loads((tmp_path / "whole/config.json").read_text())["id2label"]
    assert list(labels.values()) == sorted(TAGS)
    assert (tmp_path / "whole/README.md").read_text().startswith("---\nlicense: apache-2.0\n")
    assert list((tmp_path / "b").iterdir()) == []

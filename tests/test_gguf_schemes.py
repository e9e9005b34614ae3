import json
import re
import subprocess
import sys
from itertools import pairwise

import pytest

from edgeml.errors import EdgemlError
from edgeml.formats.gguf.audit import audit, largest_bytes, share_quantized
from edgeml.formats.gguf.header import Header, read_header
from edgeml.formats.gguf.matrix import Entry, Matrix, write_matrix
from edgeml.formats.gguf.mixtures import DEMANDING_TYPES, MATRIX_TYPES, MIXTURES, REPLACED
from edgeml.types import SCHEMES, Scheme
from test_gguf import converted
from tiny.gguf import llama_gguf
from tiny.refusals import refusal

SLOW = ("iq1_m", "iq1_s", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq3_m", "iq3_s", "iq3_xs", "iq3_xxs", "iq4_xs")
QUICK = [name for name in MIXTURES if name not in SLOW]
LOOP = """
import json, sys
from edgeml.formats.gguf.child import QuantizeJob, quantize
jobs = json.loads(sys.argv[1])
print([quantize(QuantizeJob(**job)) for job in jobs])
"""


def matrix_of(path, header, folder):
    """A matrix file with the same weight for each column of the model."""
    import numpy as np

    ones = {
        tensor.name: Entry(np.ones((1, tensor.columns), np.float32), np.ones(1, np.float32))
        for tensor in header.tensors
        if tensor.name.startswith("blk.") and len(tensor.shape) == 2
    }
    write_matrix(folder / "matrix.gguf", Matrix(entries=ones, chunks=1, chunk_tokens=512))
    return str(folder / "matrix.gguf")


def headers_of(schemes, source, folder):
    """What llama.cpp makes of a file, scheme by scheme, in one process of its own; None where it refuses."""
    matrix = matrix_of(source, read_header(source), folder)
    jobs = [
        {
            "source": str(source),
            "target": str(folder / f"{name}.gguf"),
            "ftype": MIXTURES[name].ftype,
            "matrix": matrix if MIXTURES[name].demanding else None,
            "requantize": True,
        }
        for name in schemes
    ]
    ran = subprocess.run([sys.executable, "-c", LOOP, json.dumps(jobs)], check=True, capture_output=True, text=True)
    codes = json.loads(ran.stdout.splitlines()[-1])
    return {
        name: None if code else read_header(folder / f"{name}.gguf") for name, code in zip(schemes, codes, strict=True)
    }


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wide")
    return headers_of(QUICK, llama_gguf(folder / "source.gguf", layers=1), folder)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    folder = tmp_path_factory.mktemp("narrow")
    return headers_of(list(MIXTURES), llama_gguf(folder / "source.gguf", width=64, layers=1), folder)


def test_a_scheme_may_be_written_as_ggml_writes_it():
    assert str(Scheme.parse("gguf:Q4_K_M")) == "gguf:q4_k_m"
    assert str(Scheme.parse("gguf:IQ3_XXS")) == "gguf:iq3_xxs"
    assert Scheme.parse("GGUF-Q2_K").name == "q2_k"


def test_a_mistyped_scheme_is_answered_with_the_nearest():
    with pytest.raises(EdgemlError) as error:
        Scheme.parse("gguf:iq3_xsx")
    assert error.value.hint.startswith("did you mean gguf:iq3_x")


def test_the_beginning_of_a_scheme_is_answered_with_all_that_begin_so():
    with pytest.raises(EdgemlError) as error:
        Scheme.parse("gguf:Q4")
    assert error.value.hint == "did you mean gguf:q4_k_m or gguf:q4_k_s or gguf:q4_1 or gguf:q4_0?"


def test_schemes_stand_in_the_order_of_what_a_weight_takes(wide):
    sizes = [audit(wide[name], name).bits_per_weight for name in SCHEMES["gguf"] if name in wide]
    rising = sum(after > before + 1.0 for before, after in pairwise(sizes))

    assert list(MIXTURES) == list(SCHEMES["gguf"])
    assert rising <= 1  # the mixture of experts, which this model has none of


@pytest.mark.parametrize("scheme", QUICK)
def test_every_scheme_earns_its_label_on_rows_that_its_blocks_divide(wide, scheme):
    found = audit(wide[scheme], scheme)

    assert found.earned == (scheme != "mxfp4_moe"), found.shortfalls
    assert set(found.tensor_types) <= MIXTURES[scheme].family | {"F32"}
    assert MIXTURES[scheme].main in found.tensor_types or scheme == "mxfp4_moe"


@pytest.mark.real
@pytest.mark.parametrize("scheme", SLOW)
def test_every_scheme_that_takes_long_earns_its_label_on_rows_that_its_blocks_divide(tmp_path, scheme):
    source = llama_gguf(tmp_path / "source.gguf", layers=1)
    found = audit(headers_of([scheme], source, tmp_path)[scheme], scheme)

    assert found.earned, found.shortfalls
    assert set(found.tensor_types) <= MIXTURES[scheme].family | {"F32"}
    assert MIXTURES[scheme].main in found.tensor_types


@pytest.mark.parametrize("scheme", MIXTURES)
def test_on_rows_of_64_columns_what_falls_back_is_told_and_nothing_else(narrow, scheme):
    if scheme == "q1_0":
        assert narrow[scheme] is None  # llama.cpp knows no way around its blocks of 128
        return
    found = audit(narrow[scheme], scheme)

    fits = scheme in ("f32", "f16", "bf16", "q8_0")
    assert found.earned == fits, found.shortfalls
    strays = set(found.tensor_types) - MIXTURES[scheme].family - {"F32"}
    for name in strays:
        said = re.compile(rf"to {name}: (64|64 and 192) columns are no multiple of 256")
        assert any(said.search(sentence) for sentence in found.shortfalls), name
    assert strays <= set(REPLACED)


def test_an_iq_type_that_llama_cpp_silently_replaces_is_not_earned(narrow):
    said = audit(narrow["iq2_xxs"], "iq2_xxs").shortfalls

    assert "fell back from IQ2_XXS to IQ4_NL" in said[0]
    assert any("fell back from Q2_K to Q4_0" in sentence for sentence in said)


@pytest.mark.parametrize("scheme", QUICK)
def test_no_file_is_larger_than_was_made_sure_to_fit(wide, narrow, scheme):
    for made in (wide[scheme], narrow[scheme]):
        if made:
            assert largest_bytes(made, scheme) >= made.size_bytes


def test_a_mixture_of_experts_earns_mxfp4(tmp_path):
    source = llama_gguf(tmp_path / "source.gguf", layers=1, experts=4)
    found = audit(headers_of(["mxfp4_moe"], source, tmp_path)["mxfp4_moe"], "mxfp4_moe")

    assert found.earned
    assert found.tensor_types["MXFP4"] > found.tensor_types["Q8_0"]


def test_a_dense_model_does_not_earn_mxfp4_and_says_why(wide):
    said = audit(wide["mxfp4_moe"], "mxfp4_moe").shortfalls

    assert said == ("no weight is stored in MXFP4: only a mixture of experts has weights for it",)


def test_a_tied_embedding_is_part_of_the_family_of_every_scheme(tmp_path):
    source = llama_gguf(tmp_path / "tied.gguf", layers=1, tied=True)

    for scheme, made in headers_of(["q4_0", "q5_1", "q3_k_s", "tq2_0", "q2_0"], source, tmp_path).items():
        assert audit(made, scheme).earned, scheme


def test_what_is_demanded_is_known_beforehand(tmp_path):
    source = llama_gguf(tmp_path / "source.gguf", layers=1)
    free = [name for name in MIXTURES if not MIXTURES[name].demanding]
    made = {name: MIXTURES[name].family & DEMANDING_TYPES for name in free}

    assert not any(made.values())
    assert DEMANDING_TYPES < MATRIX_TYPES
    with pytest.raises(EdgemlError, match="gguf:iq2_xs is nothing without an importance matrix") as error:
        converted(source, "gguf:iq2_xs", tmp_path / "out")
    assert "--calibration FILE" in error.value.hint


def test_a_file_without_weights_earns_no_label_and_is_refused():
    empty = Header(version=3, metadata={}, tensors=(), size_bytes=64)

    assert refusal(audit, empty, "q8_0") == "the GGUF file holds no parameters"
    assert share_quantized(empty) == 0


def test_progress_goes_by_parameters_to_the_last_one(tmp_path):
    told = []
    path = llama_gguf(tmp_path / "tiny.gguf", width=256, layers=1)

    made = converted(path, "gguf:q8_0", tmp_path / "made", progress=lambda *step: told.append(step))

    shares = [done for step, done, _ in told if step == "quantize"]
    assert shares == sorted(set(shares))
    assert (shares[0], shares[-1]) == (0, made.audit.parameters)
    assert {total for step, _, total in told if step == "quantize"} == {made.audit.parameters}

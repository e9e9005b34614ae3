import struct

import pytest

from edgeml.errors import EdgemlError
from edgeml.formats.gguf.header import TENSOR_TYPES, read_header
from tiny.gguf import llama_gguf


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return llama_gguf(tmp_path_factory.mktemp("gguf") / "whole.gguf", width=64).read_bytes()


def read(folder, content, **options):
    path = folder / "model.gguf"
    path.write_bytes(content)
    return read_header(path, **options)


def patched(content, key, value):
    """The file with the 4-byte value after `key` (and its type) changed."""
    place = content.index(key) + len(key) + 4
    return content[:place] + struct.pack("<I", value) + content[place + 4 :]


def tensor_info(content, name):
    """The place of a one- or two-dimensional tensor's fields after its name."""
    return content.index(struct.pack("<Q", len(name)) + name) + 8 + len(name)


def test_a_header_says_what_the_converters_own_reader_says(tmp_path, whole):
    import gguf

    header = read(tmp_path, whole)
    theirs = gguf.GGUFReader(tmp_path / "model.gguf")

    assert header.architecture == "llama"
    assert header.own("context_length") == 512
    assert [(x.name, x.shape, x.type.name, x.offset, x.size_bytes, x.parameters) for x in header.tensors] == [
        (x.name, tuple(map(int, x.shape)), x.tensor_type.name, x.data_offset, x.n_bytes, x.n_elements)
        for x in theirs.tensors
    ]


def test_the_type_table_is_ggmls():
    import gguf

    theirs = {int(number): (number.name, *sizes) for number, sizes in gguf.GGML_QUANT_SIZES.items()}
    del theirs[9]  # Q8_1, which no file holds: the library keeps a size that ggml gave up

    assert {number: tuple(type) for number, type in TENSOR_TYPES.items() if number != 9} == theirs


def test_arrays_are_kept_only_when_asked_for(tmp_path, whole):
    tokens = "tokenizer.ggml.tokens"

    assert tokens not in read(tmp_path, whole).metadata
    assert read(tmp_path, whole, arrays=(tokens,)).metadata[tokens][1:3] == ["<s>", "</s>"]
    assert read(tmp_path, whole, arrays=("tokenizer.ggml.token_type",)).metadata["tokenizer.ggml.token_type"][0] == 2


@pytest.mark.parametrize("kept", [4, 12, 23, 60, 500, 3000, 6000])
def test_a_file_that_ends_inside_its_header_is_refused_with_its_size(tmp_path, whole, kept):
    with pytest.raises(EdgemlError, match=f"cut off: it has {kept} bytes"):
        read(tmp_path, whole[:kept])


@pytest.mark.parametrize("lost", [1, 1000, 100_000])
def test_a_file_that_ends_inside_its_weights_is_refused_with_both_sizes(tmp_path, whole, lost):
    with pytest.raises(EdgemlError, match=f"it has {len(whole) - lost} bytes, its header promises {len(whole)}"):
        read(tmp_path, whole[:-lost])


@pytest.mark.parametrize("start", [b"", b"GG", b"PK\x03\x04", b"ggjt"])
def test_another_kind_of_file_is_refused(tmp_path, whole, start):
    with pytest.raises(EdgemlError, match="not a GGUF file"):
        read(tmp_path, start + whole[4:] if start else b"")


@pytest.mark.parametrize("version", [0, 1, 4, 0x03000000])
def test_a_version_that_is_not_known_is_refused(tmp_path, whole, version):
    with pytest.raises(EdgemlError, match="GGUF version"):
        read(tmp_path, whole[:4] + struct.pack("<I", version) + whole[8:])


@pytest.mark.parametrize("field", [8, 16])
def test_counts_beyond_the_files_size_are_refused_at_once(tmp_path, whole, field):
    with pytest.raises(EdgemlError, match="cut off"):
        read(tmp_path, whole[:field] + struct.pack("<Q", 1 << 60) + whole[field + 8 :])


def test_a_tensor_of_unknown_type_is_refused(tmp_path, whole):
    place = tensor_info(whole, b"output.weight") + 4 + 2 * 8

    with pytest.raises(EdgemlError, match=r"'output\.weight' of ggml type 31"):
        read(tmp_path, whole[:place] + struct.pack("<I", 31) + whole[place + 4 :])


@pytest.mark.parametrize("rows", [0, 1 << 62])
def test_a_shape_that_cannot_be_is_refused(tmp_path, whole, rows):
    place = tensor_info(whole, b"output.weight") + 4 + 8

    with pytest.raises(EdgemlError, match="shape"):
        read(tmp_path, whole[:place] + struct.pack("<Q", rows) + whole[place + 8 :])


def test_tensors_that_overlap_or_leave_holes_are_refused(tmp_path, whole):
    place = tensor_info(whole, b"output.weight") + 4 + 2 * 8 + 4

    with pytest.raises(EdgemlError, match=r"'output\.weight' at offset 0, expected"):
        read(tmp_path, whole[:place] + struct.pack("<Q", 0) + whole[place + 8 :])


def test_two_tensors_or_keys_of_one_name_are_refused(tmp_path, whole):
    with pytest.raises(EdgemlError, match="tensor twice"):
        read(tmp_path, whole.replace(b"blk.1.attn_q.weight", b"blk.0.attn_q.weight"))
    with pytest.raises(EdgemlError, match="twice"):
        read(tmp_path, whole.replace(b"tokenizer.ggml.bos_token_id", b"tokenizer.ggml.eos_token_id"))


def test_metadata_of_unknown_type_is_refused(tmp_path, whole):
    place = whole.index(b"llama.block_count") + len(b"llama.block_count")

    with pytest.raises(EdgemlError, match=r"'llama\.block_count' of unknown type 99"):
        read(tmp_path, whole[:place] + struct.pack("<I", 99) + whole[place + 4 :])


def test_an_alignment_that_is_no_power_of_two_is_refused(tmp_path):
    path = llama_gguf(tmp_path / "odd.gguf", width=64, metadata={"general.alignment": 48})

    with pytest.raises(EdgemlError, match="alignment 48"):
        read_header(path)


def test_a_missing_file_is_an_error_of_ours(tmp_path):
    with pytest.raises(EdgemlError, match="cannot read"):
        read_header(tmp_path / "none.gguf")

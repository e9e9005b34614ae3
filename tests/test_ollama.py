"""A folder for Ollama: the Modelfile follows from the GGUF, and the bundle still runs by itself. Ollama is not run."""

import shutil

import pytest

from edgeml.bundles import kind_at, ollama
from edgeml.errors import EdgemlError
from edgeml.package import bundle_path, package
from edgeml.papers.contents import check_whole
from edgeml.signing import sign
from edgeml.store import Store, load_variant
from edgeml.targets import profile
from edgeml.verify import verify
from edgeml_runtime.bundle import SUMS, checksums
from edgeml_runtime.records import describe
from tiny.bundles import tiny_bundle
from tiny.gguf import llama_gguf
from tiny.keys import a_key
from tiny.variants import gguf_variant

CHATML = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of a tiny Llama that speaks ChatML; for looking at only."""
    pytest.importorskip("llama_cpp")
    root = tmp_path_factory.mktemp("ollama")
    weights = llama_gguf(root / "model.gguf", template=CHATML)
    store = Store(root / "artifacts")
    variant = load_variant(gguf_variant(store.variant_folder("tiny", "gguf-f16"), weights))
    bundle = package(variant, store=store, profile=profile("laptop"), kind="ollama", wheels=False)
    return bundle_path(store, bundle)


def test_the_modelfile_has_weights_template_stops_and_greedy_answers(made):
    text = (made / "Modelfile").read_text()

    assert "\nFROM ./variant/model.gguf\n" in text
    assert "\nPARAMETER temperature 0\n" in text
    assert "\nPARAMETER num_ctx 512\n" in text
    assert '\nPARAMETER stop "<|im_end|>"\n' in text
    assert '\nTEMPLATE """{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}' in text
    assert (made / "variant/model.gguf").is_file()


def test_a_signature_is_checked_as_of_any_bundle_though_its_files_are_around(made, tmp_path):
    pytest.importorskip("model_signing")
    keys = {name: a_key(tmp_path, name) for name in ("own", "other")}
    signed = shutil.copytree(made, tmp_path / made.name)
    sign(signed, keys["own"][0])

    found = verify(signed, store=Store(tmp_path / "artifacts"), key=keys["own"][1])
    assert {one.name: one.result for one in found.checks}["signature"] == "done"
    with pytest.raises(EdgemlError, match="signed by another key"):
        verify(signed, store=Store(tmp_path / "artifacts"), key=keys["other"][1])
    (signed / "Modelfile").write_text("FROM /etc/passwd\n")
    (signed / SUMS).write_text(checksums([one for one in describe(signed) if one.path not in (SUMS, "model.sig")]))
    with pytest.raises(EdgemlError, match="Modelfile"):  # whoever changed it wrote the checksums anew
        verify(signed, store=Store(tmp_path / "artifacts"), key=keys["own"][1])


def test_the_bundle_comes_back_whole_and_a_changed_modelfile_is_refused(made, tmp_path):
    copy = shutil.copytree(made, tmp_path / made.name)
    bundle, _ = check_whole(ollama.unpack(copy, tmp_path / "out"))

    assert kind_at(made) == bundle.kind == "ollama"
    assert ollama.same(copy, made)
    (copy / "Modelfile").write_text("FROM /etc/passwd\n")
    assert not ollama.same(made, copy)
    with pytest.raises(EdgemlError, match="Modelfile is not the file that was packed"):
        ollama.unpack(copy, tmp_path / "again")


def test_it_is_verified_and_what_was_added_or_changed_is_refused(made, tmp_path):
    store = Store(tmp_path / "artifacts")
    copy = shutil.copytree(made, tmp_path / made.name)

    assert verify(copy, store=store).kind == "ollama"
    (copy / "evil.sh").write_text("")
    with pytest.raises(EdgemlError, match=r"evil\.sh was not packed"):
        verify(copy, store=store)
    (copy / "evil.sh").unlink()
    (copy / "Modelfile").write_text("FROM /etc/passwd\n")
    with pytest.raises(EdgemlError, match="Modelfile is not the file that was packed"):
        verify(copy, store=store)


@pytest.mark.parametrize(
    ("template", "family"),
    [
        (CHATML, "ChatML"),
        ("<|start_header_id|>{{ role }}<|end_header_id|>\n\n", "Llama 3"),
        ("[INST] {{ text }} [/INST]", None),
        ("", None),
    ],
)
def test_a_template_that_cannot_be_written_is_left_to_ollama(template, family):
    assert ollama.family_of(template) == family


def test_a_variant_that_is_no_gguf_is_refused_with_the_reason(tmp_path):
    with pytest.raises(EdgemlError, match=r"Ollama runs GGUF alone, and tiny/onnx-fp32 is onnx:fp32"):
        ollama.seal(tiny_bundle(tmp_path))

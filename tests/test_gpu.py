"""Where a GGUF is computed: by llama.cpp's own default, on a GPU or on none; and what an outcome tells of it.

No machine here has a GPU: what drives one is told by an object that has ggml's functions.
"""

import ctypes
import types

import numpy as np
import pytest

from edgeml_runtime import selftest, worker
from edgeml_runtime.backends import gguf_model
from edgeml_runtime.backends.gguf_model import Model, gpu_library
from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.session import accelerator_of, open_session
from edgeml_runtime.types import EnergyPlan, Job
from tiny.gguf import bert_gguf, llama_gguf
from tiny.variants import gguf_variant, onnx_variant


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    return gguf_variant(
        folder / "bert",
        bert_gguf(folder / "bert.gguf", width=64, type="F32"),
        task="sentence-similarity",
        pooling="mean",
        normalize=True,
    )


def built_for(monkeypatch, name, *, kinds=(1,), supports=True):
    """Makes llama.cpp one that was built for a GPU: ggml tells `name` for what drives a device of those kinds."""
    text = ctypes.create_string_buffer(name.encode())

    class Function:
        restype = None

        def __init__(self, answer):
            self._answer = answer

        def __call__(self, value):
            return self._answer(value)

    ggml = types.SimpleNamespace(
        ggml_backend_dev_by_type=Function(lambda kind: 0x1000 if kind in kinds else None),
        ggml_backend_dev_backend_reg=Function(lambda device: device.value + 1),
        ggml_backend_reg_name=Function(lambda driver: ctypes.addressof(text) if driver.value == 0x1001 else None),
    )
    own = types.SimpleNamespace(llama_supports_gpu_offload=lambda: supports)
    monkeypatch.setattr(gguf_model, "library", lambda name="llama_cpp": {"llama_cpp": own}.get(name) or module(ggml))


def module(ggml):
    return types.SimpleNamespace(libggml=ggml)


def test_without_a_gpu_the_default_and_no_gpu_compute_the_same(folder):
    texts = ["some words", "and others"]
    plain, without = open_session(folder, threads=1), open_session(folder, threads=1, gpu=False)

    np.testing.assert_array_equal(plain.embed(texts), without.embed(texts))
    assert accelerator_of(plain.manifest, gpu=None) is None
    assert accelerator_of(plain.manifest, gpu=False) is None


def test_a_gpu_that_llama_cpp_does_not_find_is_refused_with_what_to_do(folder):
    with pytest.raises(EdgemlError) as refused:
        open_session(folder, threads=1, gpu=True)

    assert "no GPU" in refused.value.message
    assert "GGML_METAL" in refused.value.hint


@pytest.mark.parametrize(
    ("name", "kinds", "told"),
    [("MTL", (1,), "Metal"), ("Metal", (1,), "Metal"), ("CUDA", (1,), "CUDA"), ("Vulkan", (2,), "Vulkan")],
)
def test_what_drives_the_gpu_has_one_name_in_old_and_new_versions(monkeypatch, name, kinds, told):
    built_for(monkeypatch, name, kinds=kinds)

    assert gpu_library() == told


@pytest.mark.parametrize("terms", [{"supports": False}, {"kinds": (0, 3)}])
def test_a_build_without_a_gpu_or_a_machine_without_one_has_none(monkeypatch, terms):
    built_for(monkeypatch, "MTL", **terms)

    assert gpu_library() is None


def test_a_choice_of_the_gpu_is_every_layer_no_gpu_is_no_device_and_no_choice_changes_nothing(folder, monkeypatch):
    model = Model(folder / "bert.gguf")
    defaults = model.lib.llama_model_default_params
    monkeypatch.setattr(gguf_model, "gpu_library", lambda: "Metal")
    chosen = {}
    for gpu in (None, True, False):
        settings = chosen[gpu] = defaults()
        model._place(settings, gpu=gpu)

    assert (chosen[None].n_gpu_layers, chosen[None].devices) == (defaults().n_gpu_layers, defaults().devices)
    assert (chosen[True].n_gpu_layers, chosen[True].devices) == (-1, None)
    assert chosen[False].n_gpu_layers == 0
    assert ctypes.cast(chosen[False].devices, ctypes.POINTER(ctypes.c_void_p))[0] is None


def job(folder, **fields):
    own = {"task": "feature-extraction", "target": "laptop", "threads": 1, "warmups": 1, "repeats": 2, "seed": 1}
    rows = tuple({"text": text, "label": "x"} for text in ("one", "two", "three"))
    return Job(variant=str(folder), rows=rows, energy=EnergyPlan(meter="off"), **own, **fields)


def test_an_outcome_tells_what_computed_beside_the_cpu(folder, monkeypatch):
    assert worker.run(job(folder)).environment.accelerator is None

    monkeypatch.setattr("edgeml_runtime.backends.gguf.gpu_library", lambda: "Metal")
    assert worker.run(job(folder)).environment.accelerator == "Metal"
    assert worker.run(job(folder, gpu=False)).environment.accelerator is None


def test_onnx_runs_on_the_cpu_alone_and_says_so_where_a_gpu_was_asked_for(tmp_path):
    path = onnx_variant(tmp_path / "onnx").path
    asked, plain = worker.run(job(path, gpu=True)), worker.run(job(path))

    assert asked.environment.accelerator is None
    assert [text for text in asked.warnings if "GPU" in text] == ["a GPU was asked for, and ONNX runs on the CPU alone"]
    assert plain.warnings == ()


@pytest.mark.real
def test_a_real_model_answers_alike_with_no_gpu_allowed(smollm_file, tmp_path):
    folder = gguf_variant(tmp_path / "smol", smollm_file, max_tokens=64)
    plain, without = open_session(folder, threads=2), open_session(folder, threads=2, gpu=False)
    tokens = plain.tokenize("The capital of France is")

    np.testing.assert_array_equal(plain.logits(tokens), without.logits(tokens))


def test_goldens_are_the_cpus_and_a_device_compares_as_it_predicts(folder, monkeypatch):
    asked, place = [], Model._place
    monkeypatch.setattr(
        Model, "_place", lambda self, settings, gpu: asked.append(gpu) or place(self, settings, gpu=gpu)
    )
    goldens = selftest.record(folder)
    selftest.compare(folder, goldens)

    assert asked == [False, None]


def test_a_decoder_runs_with_no_gpu_allowed(tmp_path):
    folder = gguf_variant(tmp_path / "llama", llama_gguf(tmp_path / "llama.gguf", width=64, type="F32"))
    session = open_session(folder, threads=1, gpu=False)

    assert session.logits([1, 2, 3]).shape[0] == 3

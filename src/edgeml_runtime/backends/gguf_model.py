"""What llama.cpp offers, as values that free themselves: its library, its log, a model, a context, a batch.

Knows nothing about variants, embeddings or generation. Everything goes through llama.cpp's own C functions.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import weakref
from codecs import getincrementaldecoder
from collections import deque
from collections.abc import Callable, Container, Sequence
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml_runtime.errors import EdgemlError, why

Ids = NDArray[np.int32]
Floats = NDArray[np.float32]
SMALLEST_CONTEXT = 256  # tokens; llama.cpp rounds every context up to a multiple of it
_ERROR = 4  # GGML_LOG_LEVEL_ERROR in ggml.h
_GPUS = (1, 2)  # GGML_BACKEND_DEVICE_TYPE_GPU and _IGPU in ggml-backend.h
_LIBRARIES = {"MTL": "Metal"}  # the name of Metal's since the end of 2025
_complaints: deque[str] = deque(maxlen=20)


def library(name: str = "llama_cpp") -> Any:
    """One module of the package `llama_cpp`, by default its low-level bindings.

    The package's own `__init__` is passed over: it takes 0.3 s, and needs jinja2 and diskcache for things unused here.
    Raises ModuleNotFoundError when the package is missing, EdgemlError when its shared library does not load.
    """
    try:
        found = _submodule(f"llama_cpp.{name}")
        _load_backend()
        return found
    except (OSError, RuntimeError) as error:
        hint = "pip install --force-reinstall llama-cpp-python"
        raise EdgemlError(f"llama-cpp-python is installed but does not load: {why(error)}", hint=hint) from error


def _submodule(name: str) -> Any:
    if name in sys.modules:
        return sys.modules[name]
    if "llama_cpp" in sys.modules:
        return import_module(name)
    spec = find_spec("llama_cpp")
    if spec is None:
        raise ModuleNotFoundError("No module named 'llama_cpp'", name="llama_cpp")
    sys.modules["llama_cpp"] = module_from_spec(spec)
    try:
        return import_module(name)
    finally:
        del sys.modules["llama_cpp"]  # so that whoever wants the whole package still gets it


@cache
def _load_backend() -> None:
    """Let a build that holds its kernels once a kind of CPU load those that this one runs best.

    Raises RuntimeError when none of them runs here.
    """
    ggml, low_level = _submodule("llama_cpp._ggml").libggml, _submodule("llama_cpp.llama_cpp")
    if not ggml.ggml_backend_dev_count():
        low_level.llama_log_set(_listener(), None)  # it would tell stderr which one it takes
        ggml.ggml_backend_load_all_from_path(os.fsencode(Path(low_level.__file__).parent / "lib"))
        if not ggml.ggml_backend_dev_count():
            raise RuntimeError("it has no kernels for this processor")


@cache  # C calls it for as long as the process lives, so it must never be collected
def _listener() -> Any:
    def hear(level: int, text: bytes, _: object) -> None:
        if level == _ERROR:
            _complaints.append(text.decode("utf-8", "replace").strip())

    return _submodule("llama_cpp.llama_cpp").llama_log_callback(hear)


def complaint(act: Callable[[], Any]) -> tuple[Any, str]:
    """What `act` returned and the first error that llama.cpp logged meanwhile, without the C function's name.

    llama.cpp's log comes here instead of going to stderr. Its first error says why, the later ones only that.
    """
    _complaints.clear()
    library().llama_log_set(_listener(), None)
    result = act()
    first = _complaints[0] if _complaints else "llama.cpp: it gave no reason"
    return result, re.sub(r"^.*?: (error loading model: )?", "", first, count=1)


def gpu_library() -> str | None:
    """The name of what drives the first GPU that llama.cpp can compute with (Metal, CUDA, Vulkan); None without one."""
    if not library().llama_supports_gpu_offload():
        return None
    ggml = library("_ggml").libggml
    for name in ("ggml_backend_dev_by_type", "ggml_backend_dev_backend_reg", "ggml_backend_reg_name"):
        getattr(ggml, name).restype = ctypes.c_void_p
    devices = (ggml.ggml_backend_dev_by_type(kind) for kind in _GPUS)
    device = next((device for device in devices if device), None)
    if device is None:
        return None
    driver = ctypes.c_void_p(ggml.ggml_backend_dev_backend_reg(ctypes.c_void_p(device)))
    name = ctypes.string_at(ggml.ggml_backend_reg_name(driver)).decode()
    return _LIBRARIES.get(name, name)


class Model:
    """A loaded GGUF with its vocabulary; `width` is that of its vectors. Raises EdgemlError when it does not load.

    With `gpu` every layer is computed on a GPU, with False none; left out, llama.cpp's build decides.
    """

    def __init__(self, path: Path, *, gpu: bool | None = None) -> None:
        self.lib = library()
        settings = self.lib.llama_model_default_params()
        self._place(settings, gpu=gpu)
        load = self.lib.llama_model_load_from_file
        self.pointer, reason = complaint(lambda: load(str(path).encode(), settings))
        if not self.pointer:
            hint = "make the variant again; its file may be damaged, or newer than the installed llama-cpp-python"
            raise EdgemlError(f"cannot load {path}: {reason}", hint=hint)
        self.close = weakref.finalize(self, self.lib.llama_model_free, self.pointer)
        self.vocabulary = self.lib.llama_model_get_vocab(self.pointer)
        self.tokens = self.lib.llama_vocab_n_tokens(self.vocabulary)
        self.width = self.lib.llama_model_n_embd_out(self.pointer)
        self.trained_tokens = self.lib.llama_model_n_ctx_train(self.pointer)
        self._room = np.empty(512, np.int32)

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> Ids:
        """Token ids of a text. With `parse_special`, words such as `<|im_end|>` become the tokens they name."""
        self.refuse_closed()
        raw = text.encode("utf-8", "replace")
        count = self._tokenize(raw, add_special, parse_special)
        if count < 0:
            self._room = np.empty(-count, np.int32)
            count = self._tokenize(raw, add_special, parse_special)
        return self._room[:count].copy()

    def _place(self, settings: Any, *, gpu: bool | None) -> None:
        """Have every layer computed on the GPU, or nothing at all; or leave it to the library's own default."""
        if gpu:
            if gpu_library() is None:
                hint = "leave the GPU out, or build llama-cpp-python for it: CMAKE_ARGS=-DGGML_METAL=on, or GGML_CUDA"
                raise EdgemlError("llama.cpp finds no GPU here that it was built for", hint=hint)
            settings.n_gpu_layers = -1
        elif gpu is False:
            # Without layers alone, long prompts and the cache would go there still: no device may be used.
            self._no_device = (ctypes.c_void_p * 1)(None)
            settings.devices = ctypes.cast(self._no_device, ctypes.c_void_p)
            settings.n_gpu_layers = 0

    def refuse_closed(self) -> None:
        """Raise ValueError, as a closed file does: C would read freed memory."""
        if not self.close.alive:
            raise ValueError("the model is closed")

    def _tokenize(self, raw: bytes, add_special: bool, parse_special: bool) -> int:  # noqa: FBT001 C's own order
        room = self._room.ctypes.data_as(self.lib.llama_token_p)
        vocabulary, size = self.vocabulary, self._room.size
        count: int = self.lib.llama_tokenize(vocabulary, raw, len(raw), room, size, add_special, parse_special)
        return count

    def text(self, tokens: Sequence[int], *, also: Container[int] = ()) -> tuple[str, tuple[int, ...]]:
        """The text of ordinary tokens, and of those control tokens that `also` holds, and where each token's part ends.

        Ends count the characters that are complete by then. Bytes that are no UTF-8 become the replacement character.
        """
        reader = getincrementaldecoder("utf-8")("replace")
        parts = [reader.decode(self.piece(token, control=token in also)) for token in tokens]
        ends = tuple(accumulate(map(len, parts)))
        return "".join(parts) + reader.decode(b"", final=True), ends

    def piece(self, token: int, *, control: bool) -> bytes:
        """The bytes that a token stands for; none for a control token, unless `control` asks for its word."""
        room = ctypes.create_string_buffer(32)
        read = partial(self.lib.llama_token_to_piece, self.vocabulary, token)
        size = read(room, len(room), 0, control)
        if size < 0:  # what it would have needed
            room = ctypes.create_string_buffer(-size)
            size = read(room, len(room), 0, control)
        return room.raw[:size]


class Context:
    """Working memory for `size` tokens, with the batch that fills it. `settings` are llama_context_params by name."""

    def __init__(self, model: Model, size: int, **settings: Any) -> None:
        model.refuse_closed()
        self.model = model  # llama.cpp wants the context freed before its model
        self.size = size
        lib = model.lib
        parameters = lib.llama_context_default_params()
        for key, value in ({"n_ctx": size} | settings).items():
            setattr(parameters, key, value)
        self.pointer, reason = complaint(lambda: lib.llama_init_from_model(model.pointer, parameters))
        if not self.pointer:
            raise EdgemlError(f"cannot make room for {size} tokens: {reason}", hint="take shorter texts")
        self.close = weakref.finalize(self, lib.llama_free, self.pointer)
        self.batch = Batch(lib, parameters.n_batch)
        self._memory = lib.llama_get_memory(self.pointer)  # None for an encoder, which keeps nothing between calls
        self._run = lib.llama_decode if self._memory else lib.llama_encode

    def forget(self) -> None:
        """Start over with an empty context."""
        if self._memory:
            self.model.lib.llama_memory_clear(self._memory, 0)  # 0: the cells, not their bytes

    def cut(self, size: int) -> bool:
        """Forget all but the first `size` tokens; False where this model's memory cannot go back."""
        return bool(self._memory and self.model.lib.llama_memory_seq_rm(self._memory, 0, size, -1))

    def state(self) -> ctypes.Array[ctypes.c_uint8] | None:
        """What is known of the tokens so far, to be restored later; None where there is nothing."""
        lib = self.model.lib
        state = (ctypes.c_uint8 * lib.llama_state_seq_get_size(self.pointer, 0))()
        return state if lib.llama_state_seq_get_data(self.pointer, state, len(state), 0) == len(state) else None

    def restore(self, state: ctypes.Array[ctypes.c_uint8]) -> bool:
        """Know in an empty context what a state knows; False where it does not fit in."""
        done: int = self.model.lib.llama_state_seq_set_data(self.pointer, state, len(state), 0)
        return done > 0

    def run(self, count: int) -> None:
        """Put the first `count` tokens of the batch through the model."""
        self.batch.raw.n_tokens = count
        status = self._run(self.pointer, self.batch.raw)
        if status:
            raise EdgemlError(f"llama.cpp refused {count} tokens (status {status})", hint="check the token ids")


class Batch:
    """Room for `size` tokens, seen by numpy and by C alike, so that filling it is a slice assignment."""

    def __init__(self, lib: Any, size: int) -> None:
        self.outputs = np.zeros(size, np.int8)  # which tokens' results are wanted
        self._tokens = np.zeros(size, np.int32)
        self._positions = np.zeros(size, np.int32)
        self._sequences = np.zeros(size, np.int32)
        self._one_each = np.ones(size, np.int32)
        places = np.arange(size, dtype=np.uintp) * self._sequences.itemsize
        self._places = places + self._sequences.ctypes.data  # C wants a list of sequences a token: a pointer to each
        self.raw = lib.llama_batch()
        self._share(token=self._tokens, pos=self._positions, n_seq_id=self._one_each)
        self._share(seq_id=self._places, logits=self.outputs)

    def _share(self, **arrays: NDArray[Any]) -> None:
        for name, array in arrays.items():
            setattr(self.raw, name, ctypes.cast(array.ctypes.data, type(getattr(self.raw, name))))

    def put(self, tokens: Ids | Sequence[int], *, at: int = 0, position: int = 0, sequence: int = 0) -> int:
        """Write the tokens of one sequence from row `at` on; returns the row after them."""
        stop = at + len(tokens)
        self._tokens[at:stop] = tokens
        self._positions[at:stop] = np.arange(position, position + len(tokens))
        self._sequences[at:stop] = sequence
        return stop


def room(old: Context | None, need: int, make: Callable[[int], Context]) -> Context:
    """A context for `need` tokens: the old one where it is large enough, else a new one, its size a power of two."""
    if old is not None and old.close.alive and old.size >= need:
        return old
    if old is not None:
        old.close()
    return make(max(SMALLEST_CONTEXT, 1 << (need - 1).bit_length()))

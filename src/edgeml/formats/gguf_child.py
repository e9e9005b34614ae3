"""A process of its own that calls `llama_model_quantize`, because llama.cpp may end the process that calls it.

Run as `python -m edgeml.formats.gguf_child SOURCE TARGET FTYPE REQUANTIZE`. llama.cpp's own log goes to stderr.
"""

from __future__ import annotations

import ctypes
import signal
import sys

BUFFER_BYTES = 64 << 20  # rows of one tensor are worked on in slices of this size, whatever the tensor's own


def quantize(source: str, target: str, ftype: int, *, requantize: bool) -> int:
    """llama.cpp's return code: 0 when `target` was written."""
    from llama_cpp import llama_cpp as llama

    # An empty pointer means llama.cpp's own printing. The package's callback would print through Python, and with
    # the default answers to these signals the process ends at once, with its parent or with the user's Ctrl-C.
    llama.llama_log_set(llama.llama_log_callback(), ctypes.c_void_p())
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    llama.llama_backend_init()
    options = llama.llama_model_quantize_default_params()
    options.ftype = ftype
    options.allow_requantize = requantize
    options.max_buf_size = BUFFER_BYTES
    code: int = llama.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(options))
    return code


if __name__ == "__main__":
    source, target, ftype, requantize = sys.argv[1:]
    sys.exit(quantize(source, target, int(ftype), requantize=requantize == "yes"))

"""ONNX: export, fusion and quantization in a child process, and the audit of what was written."""

"""What travels to a device: opens a variant, runs it, measures it. Knows nothing of how a variant was made."""

import os

__version__ = "0.1.0"

# Official builds of ONNX Runtime for Linux (since 1.29, August 2026) report to their maker the name and digest of each
# model that they open, and keep an identity of the device in the user's cache. This stops both, if it is set before the
# library is imported; its own `disable_telemetry_events` comes too late.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

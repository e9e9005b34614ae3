"""Every error a user may see; the type itself travels with the runtime."""

from edgeml_runtime.errors import EdgemlError

__all__ = ["EdgemlError"]

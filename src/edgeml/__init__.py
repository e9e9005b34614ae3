"""The workshop: fetches a model, makes it small, measures what that cost, and packs it for a device."""

from edgeml_runtime import __version__ as __version__

"""What travels to a device: opens a variant, runs it, measures it. Knows nothing of how a variant was made."""

__version__ = "0.1.0"

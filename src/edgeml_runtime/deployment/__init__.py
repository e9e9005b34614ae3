"""A device's own side of `edgeml deploy`: the standard library alone, since its text is what a call runs there."""

"""Makers of small real models: seconds to make, a few megabytes at most, the same bytes every time."""

"""Pictures that anybody may have: drawn by arithmetic, so that a self-test needs none of its user's."""

from __future__ import annotations

import numpy as np

PATTERNS = ("a grey ramp", "a ramp of colours", "checks", "red stripes", "blue rings", "a disc on green", "speckles")
_HEIGHT, _WIDTH = 72, 96


def picture(name: str) -> bytes:
    """The content of a PPM file, which holds its pixels as they are."""
    row, column = np.mgrid[0:_HEIGHT, 0:_WIDTH]
    flat, far = np.zeros_like(row), np.hypot(row - 30, column - 55).astype(int)  # from a point beside the centre
    drawn = {
        "a grey ramp": (2 * column, 2 * column, 2 * column),
        "a ramp of colours": (2 * column, 3 * row, 255 - 2 * column),
        "checks": ((row // 9 + column // 9) % 2 * 255,) * 3,
        "red stripes": (column // 6 % 2 * 220, flat + 30, flat + 30),
        "blue rings": (flat + 20, 2 * far, far // 8 % 2 * 250),
        "a disc on green": (30 + 210 * (far < 22), flat + 200, flat + 40),
        "speckles": tuple((row * 79 + column * step) % 251 for step in (104, 131, 179)),
    }
    pixels = np.stack(drawn[name], axis=-1).clip(0, 255).astype(np.uint8)
    return f"P6\n{_WIDTH} {_HEIGHT}\n255\n".encode() + pixels.tobytes()

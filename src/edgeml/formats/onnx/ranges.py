"""The range of each activation over the calibration inputs, in memory that does not grow with them.

A tensor's values are counted as they come, in a histogram of as many bins for any number of inputs. ONNX Runtime's own
calibrators for entropy and percentiles keep every value until the end instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgeml.errors import EdgemlError
from edgeml.formats import CalibrationMethod

METHODS: tuple[CalibrationMethod, ...] = ("minmax", "entropy", "percentile")
# Values beyond are clipped, half of them at each end. Source: Wu et al., "Integer Quantization for Deep Learning
# Inference", 2020 (arXiv:2004.09602), tables 4 and 5, where 99.99 and 99.999 did best.
PERCENTILE = 99.99
SIDE = 4096  # bins on each side of zero: 2048 as in TensorRT, and twice, since the reach is a power of two
_LEVELS = 128  # magnitudes of a signed byte. Source of both: Migacz, "8-bit Inference with TensorRT", GTC 2017, S7310
_STRIDE = 8  # of the thresholds that are tried, in bins
CHUNK = 1 << 18  # values that are counted at once


class Range(NamedTuple):
    """The least and the greatest value that a tensor's integers stand for."""

    low: float
    high: float


class Histogram:
    """Counts of a tensor's values between -reach and +reach, whose reach doubles when a value lies beyond."""

    def __init__(self) -> None:
        self.counts: Any = np.zeros(2 * SIDE, np.int64)
        self.low, self.high, self.reach = np.inf, -np.inf, 0.0

    def add(self, values: Any) -> None:
        """Count them; raises ValueError for one that is no finite number."""
        flat = values.reshape(-1)
        for start in range(0, flat.size, CHUNK):
            self._add(flat[start : start + CHUNK])

    def _add(self, values: Any) -> None:
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise ValueError
        self.low, self.high = min(self.low, low), max(self.high, high)
        largest = max(abs(low), abs(high))
        if largest > self.reach:
            self._widen(largest)
        if self.reach == 0:
            self.counts[SIDE] += values.size
            return
        places = np.multiply(values, SIDE / self.reach, dtype=np.float32)  # by a power of two: exact
        bins = np.floor(places, out=places).astype(np.int64)
        bins += SIDE
        np.minimum(bins, 2 * SIDE - 1, out=bins)  # the reach itself
        self.counts += np.bincount(bins, minlength=2 * SIDE)

    def _widen(self, largest: float) -> None:
        """A reach that is a power of two, so that two bins become one, or four, and no count is split."""
        wanted = float(2.0 ** np.ceil(np.log2(largest)))
        factor = int(min(wanted / self.reach, SIDE)) if self.reach else 1
        if factor > 1:
            merged = self.counts.reshape(2, SIDE // factor, factor).sum(2)
            self.counts = np.zeros_like(self.counts)
            half = SIDE // factor
            self.counts[SIDE - half : SIDE], self.counts[SIDE : SIDE + half] = merged
        self.reach = wanted


def range_of(found: Histogram, method: CalibrationMethod) -> Range:
    """The range by that method, always within the least and the greatest value seen; (0, 0) where all were 0.

    minmax: from the least to the greatest. percentile: all but 0.005 % at either end. entropy: the threshold on the
    magnitude that loses the least information (Kullback-Leibler) when 128 levels stand for the bins below it.
    """
    if found.low > found.high:
        return Range(0.0, 0.0)
    if method == "minmax" or found.reach == 0:
        return Range(found.low, found.high)
    low, high = _percentile(found) if method == "percentile" else _entropy(found)
    return Range(max(low, found.low), min(high, found.high))


def _percentile(found: Histogram) -> tuple[float, float]:
    share = np.cumsum(found.counts) / found.counts.sum()
    cut = (1 - PERCENTILE / 100) / 2
    edges = np.linspace(-found.reach, found.reach, 2 * SIDE + 1)
    left, right = int(np.searchsorted(share, cut, side="right")), int(np.searchsorted(share, 1 - cut))
    return float(edges[left]), float(edges[min(right + 1, 2 * SIDE)])


def _entropy(found: Histogram) -> tuple[float, float]:
    magnitudes: Any = (found.counts[SIDE:] + found.counts[:SIDE][::-1]).astype(np.float64)
    magnitudes[0] = magnitudes[1]  # else a spike at zero, as ReLU makes it, decides alone; so does pytorch-quantization
    end = int(np.flatnonzero(magnitudes)[-1]) + 1 if magnitudes.any() else 1
    tried = [*range(_LEVELS, end, _STRIDE), end] if end > _LEVELS else [end]
    best: int = min(tried, key=lambda bins: (_divergence(magnitudes, bins), -bins))
    reach = found.reach * best / SIDE
    return -reach, reach


def _divergence(magnitudes: Any, bins: int) -> float:
    """Of the distribution, cut at so many bins with all beyond in the last, from its 128 levels spread out again."""
    kept = magnitudes[:bins]
    whole = kept.copy()
    whole[-1] += magnitudes[bins:].sum()
    level: Any = np.minimum(np.arange(bins) * _LEVELS // bins, _LEVELS - 1)
    used = whole > 0
    sums = np.bincount(level, kept, minlength=_LEVELS)
    shares = np.bincount(level, used, minlength=_LEVELS)
    spread = np.where(used, (sums / shares.clip(1))[level], 0.0)
    total = spread.sum()
    if total == 0 or ((spread == 0) & used).any():
        return float("inf")
    p, q = whole[used] / whole.sum(), spread[used] / total
    return float((p * np.log(p / q)).sum())


def count(found: dict[str, Histogram], names: Sequence[str], values: Sequence[Any]) -> None:
    """Add one run's activations; raises EdgemlError naming the first that holds no finite number."""
    for name, value in zip(names, values, strict=True):
        try:
            if value.size:
                found[name].add(value)
        except ValueError as error:
            message = f"the model makes values that are no finite numbers of a calibration input ({name})"
            raise EdgemlError(
                message, hint="try the model itself on these inputs: its weights may be broken"
            ) from error


Tick = Callable[[int, int], None]

"""From the bytes of a WAV file to samples of one channel at the rate that a model hears, by the standard library.

Resampling is a sum of neighbours weighted by a sinc under a Kaiser window, one set of weights for each place between
two samples (polyphase). The window has 32 zero crossings a side and beta 9, so that what the new rate cannot hold is
90 dB down, and what is below 82 % of its highest frequency stays as it is. Source: Kaiser, "Nonrecursive digital filter
design using the I0-sinh window function", 1974: beta = 0.1102 (A - 8.7), width = (A - 8) / (2.285 N).
"""

from __future__ import annotations

import io
import math
import wave
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgeml_runtime.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml_runtime.session import Floats

HINT = "make it a plain WAV file: ffmpeg -i YOURS -ac 1 -ar 16000 -c:a pcm_s16le sound.wav"
RATES = (4_000, 384_000)  # samples a second; others are a broken header
_MOST_CHANNELS, _WIDEST = 64, 4
_CROSSINGS = 32
_BETA = 9.0
_CUTOFF = 0.91  # of the highest frequency: the middle of the window's slope, which ends at 1


class Wave(NamedTuple):
    """What a file holds: samples of one channel from -1 to 1, and how many are a second."""

    samples: Floats
    hz: int

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.hz


def read_wave(content: bytes, *, most_s: float | None = None) -> Wave:
    """The sound in a WAV file of 8, 16, 24 or 32 bits (PCM); several channels become their mean.

    Raises EdgemlError for another format, a file that ends too early, and one that lasts longer than `most_s` seconds.
    """
    try:
        with wave.open(io.BytesIO(content)) as opened:
            channels, width, hz, frames = opened.getparams()[:4]
            if not RATES[0] <= hz <= RATES[1] or channels > _MOST_CHANNELS or width > _WIDEST:
                problem = f"its header says {channels} channels of {8 * width} bits at {hz} Hz"
                raise EdgemlError(problem, hint=HINT)
            if most_s is not None and frames > most_s * hz:
                message = f"it lasts {frames / hz:.1f} s, and at most {most_s:g} s are heard"
                raise EdgemlError(message, hint="cut it into parts, at pauses if there are any")
            raw = opened.readframes(frames)
    except (wave.Error, EOFError, RuntimeError) as error:  # the last where a part is longer than the file
        reason = str(error) or "it ends early"
        raise EdgemlError(f"it is no WAV file that can be read: {reason}", hint=HINT) from error
    if not frames or len(raw) != frames * channels * width:
        held = len(raw) // (channels * width)
        raise EdgemlError(f"it holds {held} of the {frames} samples that its header tells of", hint="copy it again")
    return Wave(_numbers(raw, width).reshape(frames, channels).mean(axis=1, dtype=np.float32), hz)


def resampled(sound: Wave, hz: int) -> Floats:
    """Its samples at another rate."""
    if sound.hz == hz:
        return sound.samples
    common = math.gcd(sound.hz, hz)
    phases, step = hz // common, sound.hz // common
    cutoff = _CUTOFF * min(1.0, hz / sound.hz)
    reach = math.ceil(_CROSSINGS / cutoff)
    offsets: Any = np.arange(-reach, reach + 1)
    around: Any = np.lib.stride_tricks.sliding_window_view(np.pad(sound.samples, (reach, reach + step)), 2 * reach + 1)
    found = np.empty(math.ceil(len(sound.samples) * hz / sound.hz), np.float32)
    for phase in range(min(phases, len(found))):
        first, between = divmod(phase * step, phases)
        count = len(found[phase::phases])
        found[phase::phases] = around[first::step][:count] @ _weights(offsets - between / phases, cutoff, reach)
    return found


def _weights(distance: Any, cutoff: float, reach: int) -> Any:
    """What each neighbour counts, by how many samples it is away; together 1."""
    inside = np.sqrt(np.maximum(1 - (distance / (reach + 1)) ** 2, 0))
    weights = np.sinc(cutoff * distance) * np.i0(_BETA * inside)
    return (weights / weights.sum()).astype(np.float32)


def _numbers(raw: bytes, width: int) -> Floats:
    """Samples from -1 to 1; those of one byte are unsigned."""
    if width == 1:
        return (np.frombuffer(raw, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
    if width == 3:  # the three bytes become the upper ones of four
        bytes4 = np.zeros((len(raw) // 3, 4), np.uint8)
        bytes4[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        raw, width = bytes4.tobytes(), 4
    found: Floats = np.frombuffer(raw, f"<i{width}").astype(np.float32) / np.float32(2 ** (8 * width - 1))
    return found

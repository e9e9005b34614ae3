"""What a speech model hears: the logarithm of a sound's power in bands of the mel scale, as Whisper computes it.

Source: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022, section 2.2, and its code
(openai/whisper, audio.py): a Hann window of 25 ms every 10 ms, Slaney's mel scale and area-normalised triangles, the
logarithm to base 10 kept within 8 of its maximum, then (x + 4) / 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml_runtime.types import Sound

if TYPE_CHECKING:
    from edgeml_runtime.session import Floats

_HIGHEST_HZ = 8000.0
_LINEAR_HZ = 1000.0  # up to here a mel is 200/3 Hz, above it a factor of 6.4 ** (1 / 27): Slaney, Auditory Toolbox
_HZ_A_MEL = 200 / 3
_MELS_A_LOG = 27 / np.log(6.4)
_LEAST = 1e-10  # power of silence
_RANGE = 8.0


class Ear:
    """Turns samples into what the model hears; the filters are computed once."""

    def __init__(self, sound: Sound) -> None:
        self._sound = sound
        self._filters = filters(sound)
        self._window = np.hanning(sound.fft_size + 1)[:-1]

    def hear(self, samples: Floats) -> Floats:
        """`(mel_bins, frames)` of a whole window: shorter sounds end in silence. Longer ones are the caller's fault."""
        sound = self._sound
        whole = np.zeros(sound.window_s * sound.sampling_hz)
        whole[: len(samples)] = samples
        padded = np.pad(whole, sound.fft_size // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, sound.fft_size)[:: sound.hop]
        power = np.abs(np.fft.rfft(frames[: sound.frames] * self._window, axis=1)) ** 2
        logs = np.log10(np.maximum(power @ self._filters, _LEAST)).T
        found: Floats = np.ascontiguousarray((np.maximum(logs, logs.max() - _RANGE) + 4) / 4, np.float32)
        return found


def filters(sound: Sound) -> Any:
    """How much each frequency of the transform counts in each band, `(fft_size // 2 + 1, mel_bins)`."""
    edges = _hz(np.linspace(0, _mel(_HIGHEST_HZ), sound.mel_bins + 2))
    own = np.linspace(0, sound.sampling_hz / 2, sound.fft_size // 2 + 1)[:, None]
    rising = (own - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - own) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])


def _mel(hz: float) -> float:
    return float(_LINEAR_HZ / _HZ_A_MEL + np.log(hz / _LINEAR_HZ) * _MELS_A_LOG)


def _hz(mels: Any) -> Any:
    logs = np.exp((mels - _LINEAR_HZ / _HZ_A_MEL) / _MELS_A_LOG) * _LINEAR_HZ
    return np.where(mels < _LINEAR_HZ / _HZ_A_MEL, mels * _HZ_A_MEL, logs)

"""What the graphs of a model that hears are judged with: sounds that edgeml makes, heard as the runtime hears them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from edgeml_runtime.types import Speech

_WRITTEN = 12  # tokens after those that begin an answer
_STEP = 37  # between them: any that spreads over a vocabulary


class Heard:
    """What a model hears of each made sound, and what it may write about it."""

    def __init__(self, speech: Speech) -> None:
        from edgeml_runtime.mel import Ear

        self._speech, self._ear = speech, Ear(speech.sound)
        self.features = cache(self._features)

    def tokens(self, row: int) -> Any:
        """An answer, `(1, tokens)`; text has the lower ids, those that begin an answer come after it."""
        start = self._speech.start_tokens
        words = max(start[0], 1)
        made = ((row + 1) * _STEP * place % words for place in range(1, _WRITTEN + 1))
        return np.array([[*start, *made]], np.int64)

    def _features(self, row: int) -> Any:
        """`(1, mel bins, frames)`."""
        from edgeml_runtime.sound import read_wave, resampled
        from edgeml_runtime.tones import SOUNDS, tone

        return self._ear.hear(resampled(read_wave(tone(SOUNDS[row])), self._speech.sound.sampling_hz))[None]

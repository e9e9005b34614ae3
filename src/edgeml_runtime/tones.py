"""Sounds that anybody may have: made by arithmetic, so that a self-test needs none of its user's."""

from __future__ import annotations

import io
import wave

import numpy as np

SOUNDS = ("a low tone", "a high tone", "a rising tone", "clicks", "two tones in turn", "a hum in noise", "a chord")
_SECONDS = 0.75  # within the window of any model
_RATES = {"a high tone": 8_000, "a chord": 44_100}  # resampling is tested too


def tone(name: str) -> bytes:
    """The content of a WAV file of 16 bits and one channel."""
    hz = _RATES.get(name, 16_000)
    count = int(_SECONDS * hz)
    time = np.arange(count) / hz
    noise = (np.arange(count) * 7919 % 10_007) * 104_729 % 65_537 / 65_537 - 0.5
    drawn = {
        "a low tone": _wave(220 * time),
        "a high tone": _wave(1900 * time),
        "a rising tone": _wave((200 + 900 * time) * time),
        "clicks": (np.arange(count) % 1600 < 12) * 1.0,
        "two tones in turn": _wave(np.where(time * 8 % 2 < 1, 330, 880) * time),
        "a hum in noise": 0.5 * _wave(110 * time) + noise,
        "a chord": (_wave(262 * time) + _wave(330 * time) + _wave(392 * time)) / 3,
    }
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(hz)
        file.writeframes((drawn[name] * 12_000).round().astype("<i2").tobytes())
    return written.getvalue()


def _wave(turns: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * turns)

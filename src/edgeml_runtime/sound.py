"""From the bytes of a WAV file to samples of one channel at the rate that a model hears.

The parts of the file are read here: Python's own reader refuses recordings that other programs read, such as those of
more than two channels or 16 bits (WAVE_FORMAT_EXTENSIBLE), and those that were piped.

Resampling is a sum of neighbours weighted by a sinc under a Kaiser window, one set of weights for each place between
two samples (polyphase). The window has 32 zero crossings a side and beta 9, so that what the new rate cannot hold is
90 dB down, and what is below 82 % of its highest frequency stays as it is. Source: Kaiser, "Nonrecursive digital filter
design using the I0-sinh window function", 1974: beta = 0.1102 (A - 8.7), width = (A - 8) / (2.285 N).
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgeml_runtime.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml_runtime.session import Floats

HINT = "make it a plain WAV file: ffmpeg -i YOURS -ac 1 -ar 16000 -c:a pcm_s16le sound.wav"
RATES = (4_000, 384_000)  # samples a second; others are a broken header
_MOST_CHANNELS, _MOST_PARTS = 64, 1000
_INTEGERS, _FLOATS, _EXTENSIBLE = 1, 3, 0xFFFE  # wFormatTag in mmreg.h
_WIDTHS = {_INTEGERS: (1, 2, 3, 4), _FLOATS: (4, 8)}  # bytes a sample
_GUID = bytes.fromhex("000000001000800000aa00389b71")  # of a WAVEFORMATEXTENSIBLE, after the format's own two bytes
_LOUDEST = 2.0**31  # of floats: those of integers that nobody divided are below, and their squares stay finite
# What is written as a size where it is not known yet: by arecord 0x80000000, by SoX 0x7ffff000, by FFmpeg the highest.
_UNKNOWN_FROM = 0x7FFFF000
_NAMES = (b"fmt ", b"data", b"LIST", b"fact", b"bext", b"cue ", b"id3 ", b"JUNK", b"PEAK")
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


class _Form(NamedTuple):
    """How samples are stored: as integers or floats, of so many bytes each."""

    kind: int
    channels: int
    hz: int
    width: int


def read_wave(content: bytes, *, most_s: float | None = None) -> Wave:
    """The sound in a WAV file of integers (8, 16, 24 or 32 bits) or floats (32 or 64); several channels become a mean.

    Of a recording that was piped or broken off, so that its header does not say how long it is, all that is there.

    Raises EdgemlError for another format, a file that ends too early, and one that lasts longer than `most_s` seconds.
    """
    form, raw, promised = _opened(content)
    frame = form.channels * form.width
    frames, told = len(raw) // frame, promised // frame
    if not frames and not told:
        raise EdgemlError("it holds no sound", hint="record it again")
    if frames < told:
        raise EdgemlError(f"it holds {frames} of the {told} samples that its header tells of", hint="copy it again")
    if most_s is not None and frames > most_s * form.hz:
        message = f"it lasts {frames / form.hz:.1f} s, and at most {most_s:g} s are heard"
        raise EdgemlError(message, hint="cut it into parts, at pauses if there are any")
    numbers = _numbers(raw[: frames * frame], form)
    return Wave(numbers.reshape(frames, form.channels).mean(axis=1, dtype=np.float32), form.hz)


def _opened(content: bytes) -> tuple[_Form, bytes, int]:
    """How the samples are stored, their bytes, and how many of those the header promises: 0 where it does not know."""
    if len(content) < 12 or content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise _unreadable("it does not begin as one")
    whole = int.from_bytes(content[4:8], "little") + 8
    form, place = None, 12
    for _ in range(_MOST_PARTS):
        name, size = content[place : place + 4], int.from_bytes(content[place + 4 : place + 8], "little")
        place += 8
        if place > len(content):
            break
        if name == b"data" and form is not None:
            unknown = size >= _UNKNOWN_FROM or (size == 0 and not place < whole <= len(content))
            return form, content[place : None if unknown else place + size], 0 if unknown else size
        if name == b"fmt ":
            form = _form(content[place : place + size])
        place += size
        if size % 2 and content[place : place + 4] not in _NAMES:  # the byte that makes it even is left out by some
            place += 1
    raise _unreadable("it ends early")


def _form(stored: bytes) -> _Form:
    """What the part `fmt ` says; raises the refusal of what is not read here. Source: mmreg.h, WAVEFORMATEXTENSIBLE."""
    if len(stored) < 16:
        raise _unreadable("it ends early")
    kind, channels, hz, _, frame, bits = struct.unpack_from("<HHIIHH", stored)
    if kind == _EXTENSIBLE and stored[26:40] == _GUID:
        kind = int.from_bytes(stored[24:26], "little")
    width = (bits + 7) // 8
    if kind not in _WIDTHS:
        raise _unreadable(f"unknown format: {kind}")
    if not RATES[0] <= hz <= RATES[1] or not 0 < channels <= _MOST_CHANNELS or width not in _WIDTHS[kind]:
        stands = "integers" if kind == _INTEGERS else "floats"
        raise EdgemlError(f"its header says {channels} channels of {bits} bits ({stands}) at {hz} Hz", hint=HINT)
    if frame not in (0, channels * width):
        raise _unreadable(f"its header says {frame} bytes a frame, and {channels * width} are one")
    return _Form(kind, channels, hz, width)


def _unreadable(reason: str) -> EdgemlError:
    return EdgemlError(f"it is no WAV file that can be read: {reason}", hint=HINT)


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


def _numbers(raw: bytes, form: _Form) -> Floats:
    """Samples from -1 to 1, and floats as they are; those of one byte are unsigned."""
    width = form.width
    if form.kind == _FLOATS:
        floats = np.frombuffer(raw, f"<f{width}")
        if not (np.abs(floats) <= _LOUDEST).all():  # nor is it so of NaN
            raise _unreadable("it holds floats that are no sound")
        return floats.astype(np.float32)
    if width == 1:
        return (np.frombuffer(raw, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
    if width == 3:  # the three bytes become the upper ones of four
        bytes4 = np.zeros((len(raw) // 3, 4), np.uint8)
        bytes4[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        raw, width = bytes4.tobytes(), 4
    found: Floats = np.frombuffer(raw, f"<i{width}").astype(np.float32) / np.float32(2 ** (8 * width - 1))
    return found

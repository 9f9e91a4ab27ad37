"""Places clips within a sound or a video: evenly spaced spans, in exact fractions of seconds."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from data.readers.payload import Floats, Waveform


def clip_spans(
    duration_s: Fraction | float, *, clips: int, seconds: Fraction | float
) -> list[tuple[Fraction, Fraction]]:
    """`clips` spans [start, end) of `seconds` each: the first begins at 0, the last ends with the recording.

    The rule of pytorchvideo's `ConstantClipsPerVideoSampler`, which ImageBind uses (video: 5 clips of 2 s,
    sound: 3 clips of 2 s): starts at i / (clips − 1) of the remaining duration. All spans of a recording
    shorter than `seconds` begin at 0 and extend beyond its end.
    """
    length = Fraction(seconds)
    step = max(Fraction(duration_s) - length, Fraction(0)) / max(clips - 1, 1)
    return [(step * i, step * i + length) for i in range(clips)]


def clip_samples(sound: Waveform, *, clips: int, seconds: float) -> list[Floats]:
    """The samples float32[≤ seconds · rate] of each of `clip_spans`; shorter only where the sound is."""
    spans = clip_spans(Fraction(len(sound.samples_T), sound.rate), clips=clips, seconds=seconds)
    return [sound.samples_T[int(start * sound.rate) : int(end * sound.rate)] for start, end in spans]


def third_starts(total: int, length: int) -> list[int]:
    """The starts of three pieces of a longer sequence: the middle of each third of the possible starts.

    CLAP's and LanguageBind's official code draws a start at random in each third (`np.array_split`); this is
    the mean of what it draws. 0 for an empty third.
    """
    thirds = np.array_split(np.arange(total - length + 1), 3)
    return [int(third[len(third) // 2]) if len(third) else 0 for third in thirds]

"""Where the clips of a sound or a video lie: evenly spaced spans, in exact fractions of seconds."""

from __future__ import annotations

from fractions import Fraction

from data.readers.payload import Floats, Waveform


def clip_spans(
    duration_s: Fraction | float, *, clips: int, seconds: Fraction | float
) -> list[tuple[Fraction, Fraction]]:
    """`clips` spans [start, end) of `seconds` each: the first begins at 0, the last ends with the recording.

    The rule of pytorchvideo's `ConstantClipsPerVideoSampler`, which ImageBind uses (video: 5 clips of 2 s,
    sound: 3 clips of 2 s): starts at i / (clips − 1) of what is left over. All spans of a recording shorter
    than `seconds` begin at 0 and reach beyond its end.
    """
    length = Fraction(seconds)
    step = max(Fraction(duration_s) - length, Fraction(0)) / max(clips - 1, 1)
    return [(step * i, step * i + length) for i in range(clips)]


def clip_samples(sound: Waveform, *, clips: int, seconds: float) -> list[Floats]:
    """The samples float32[≤ seconds · rate] of each of `clip_spans`; shorter only where the sound is."""
    spans = clip_spans(Fraction(len(sound.samples_T), sound.rate), clips=clips, seconds=seconds)
    return [sound.samples_T[int(start * sound.rate) : int(end * sound.rate)] for start, end in spans]

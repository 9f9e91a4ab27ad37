"""Clips of sounds and videos: evenly spaced, exact."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from data.readers.payload import Waveform
from data.readers.spans import clip_samples, clip_spans, third_starts


def test_imagebinds_spans_by_hand() -> None:
    """Five clips of 2 s in 10 s begin at 0, 2, 4, 6 and 8; three of 2 s in 5 s at 0, 1.5 and 3."""
    assert clip_spans(10, clips=5, seconds=2) == [(2 * i, 2 * i + 2) for i in range(5)]
    assert [start for start, _ in clip_spans(5, clips=3, seconds=2)] == [0, Fraction(3, 2), 3]


@pytest.mark.parametrize(("clips", "duration"), [(1, 7), (4, 1.5), (3, 2)])
def test_what_is_left_over_decides(clips: int, duration: float) -> None:
    """A single clip, and all clips of a recording no longer than one, begin at 0."""
    assert clip_spans(duration, clips=clips, seconds=2) == [(0, 2)] * clips


def test_samples_of_clips() -> None:
    """The clips of a sound hold its samples from int(start · rate) on; a short sound gives what it has."""
    sound = Waveform(np.arange(5 * 16_000, dtype=np.float32), 16_000)
    cut = clip_samples(sound, clips=3, seconds=2)
    assert [(int(clip[0]), len(clip)) for clip in cut] == [(0, 32_000), (24_000, 32_000), (48_000, 32_000)]
    assert [
        len(clip) for clip in clip_samples(Waveform(sound.samples_T[:999], 16_000), clips=3, seconds=2)
    ] == [999] * 3


def test_pieces_begin_in_the_middle_of_each_third() -> None:
    """Of 31 places 0…10, 11…20 and 21…30; where a third holds no place, the piece begins at 0."""
    assert third_starts(40, 10) == [5, 16, 26]
    assert third_starts(11, 10) == [0, 1, 0]

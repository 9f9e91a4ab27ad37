"""Videos as uniform clips of a few frames each, as ImageBind and LanguageBind take them.

Shape legend: C clips, F frames of a clip, P frames of the video, H height, W width.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from fractions import Fraction
from pathlib import Path

import numpy as np

from data.readers.payload import Bytes
from data.readers.spans import clip_spans
from data.readers.video import SHORT_SIDE, decode_at, timeline

# Containers with a time unit up to this round frame times to it (Matroska: 1 ms); AVI counts frames, exactly.
ROUNDED_S = Fraction(1, 1000)


def read_clips(
    path: Path,
    *,
    clips: int,
    frames: int,
    seconds: float | None = None,
    short_side: int = SHORT_SIDE,
) -> Bytes:
    """`frames` frames of each of `clips` evenly spaced clips, uint8[C, F, H, W, 3].

    ImageBind: `clips=5, seconds=2, frames=2`. Without `seconds` a clip is the whole video; LanguageBind:
    `clips=1, frames=8`. Clips are placed by `data.readers.spans.clip_spans`. A clip's frames are those shown
    at evenly spaced moments between the first and the last frame that starts in it. At a constant frame rate
    these are the frames that pytorchvideo's `UniformTemporalSubsample` picks by number; at a variable rate
    they are evenly spaced in time. If no frame starts in a clip, the one shown at its start is taken.

    Upright, no larger than `short_side` on their short side. Raises `SampleError` as `read_video` does.
    """
    film = timeline(path)
    first = film.moments_P[0]
    duration_s = (film.end - first) * film.unit
    half_tick = Fraction(1, 2) if film.unit <= ROUNDED_S else Fraction(0)
    spans = clip_spans(duration_s, clips=clips, seconds=duration_s if seconds is None else seconds)
    picks_CF = [
        _picks(film.moments_P, first + start / film.unit, first + stop / film.unit, frames, half_tick)
        for start, stop in spans
    ]
    wanted = sorted({pick for picks_F in picks_CF for pick in picks_F})
    decoded = dict(zip(wanted, decode_at(path, film, wanted, short_side=short_side), strict=True))
    return np.stack([np.stack([decoded[pick] for pick in picks_F]) for picks_F in picks_CF])


def _picks(
    moments_P: list[int], start: Fraction, stop: Fraction, frames: int, half_tick: Fraction
) -> list[int]:
    """The start times of the frames of the clip [start, stop), in the video's time unit."""
    low, high = bisect_left(moments_P, start - half_tick), bisect_left(moments_P, stop - half_tick)
    if low == high:
        return [moments_P[max(low - 1, 0)]] * frames
    here, last = moments_P[low], moments_P[high - 1]
    wanted = [here + Fraction((last - here) * i, max(frames - 1, 1)) for i in range(frames)]
    # The distance of two rounded moments is exact to one tick.
    return [moments_P[bisect_right(moments_P, min(moment + 2 * half_tick, last)) - 1] for moment in wanted]

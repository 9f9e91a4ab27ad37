"""Videos as pictures: the frames at the middle of each quarter."""

from __future__ import annotations

from data.readers.payload import Bytes, Clip
from data.render.canvas import SIZE, shrink

VIEWS = 4


def quarter_frames(clip: Clip, *, size: int = SIZE) -> list[Bytes]:
    """Four uint8[H, W, 3] frames, evenly spaced; a shorter clip gives as many as it has.

    Larger frames are reduced to `size` pixels on their short side.
    """
    count = len(clip.frames_FHW3)
    picks = sorted({(2 * i + 1) * count // (2 * VIEWS) for i in range(VIEWS)})
    return [shrink(clip.frames_FHW3[pick], size) for pick in picks]

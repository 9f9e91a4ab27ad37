"""The one picture of a sample that a vision model is sent: drawn, reduced and compressed.

`MediaFiles` (kb_builder/describers/media.py) has it made in the decoder processes, which keep all cores busy;
the threads of the process that asks would wait for each other.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from data.readers.payload import Bytes, Clip, Payload, Picture, ThermalPicture
from data.render import render
from data.render.canvas import contact_sheet, heat_picture, quarter_frames

# Smaller pictures are enlarged to this long side: vision models cut pictures into patches of a fixed size,
# and see little of a spectrogram of 224 pixels or an event picture of 131.
ENLARGE_TO = 448

_DRAW: dict[type, Callable[[Any, int], list[Bytes]]] = {
    Picture: lambda payload, size: [payload.rgb_HW3],
    ThermalPicture: lambda payload, size: [heat_picture(payload, size=size)],
    Clip: lambda payload, size: quarter_frames(payload, size=size),
}


def jpeg(payload: Payload, *, max_side: int, quality: int) -> Bytes:
    """`picture`, as the bytes of a JPEG file with full colour resolution, uint8[N]."""
    encoded = io.BytesIO()
    drawn = Image.fromarray(picture(payload, max_side=max_side))
    drawn.save(encoded, "JPEG", quality=quality, subsampling=0)
    return np.frombuffer(encoded.getbuffer(), np.uint8)


def picture(payload: Payload, *, max_side: int) -> Bytes:
    """A payload as one uint8[H, W, 3] picture whose long side is at most `max_side`.

    Renderings with more detail than the encoders' small ones are drawn at full size.
    """
    draw = _DRAW.get(type(payload))
    views = render(payload) if draw is None else draw(payload, max_side)
    return _fit(contact_sheet(views), max_side)


def _fit(rgb_HW3: Bytes, max_side: int) -> Bytes:
    height, width = rgb_HW3.shape[:2]
    long_side = max(height, width)
    target = min(max(long_side, ENLARGE_TO), max_side)
    if target == long_side:
        return rgb_HW3
    scale = target / long_side
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(rgb_HW3).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0))

"""Canvas: the size of renderings, scaling, a colour scale, contact sheets; draws videos and thermal pictures.

Shape legend: H height, W width, the last axis red, green, blue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from data.readers.payload import Bytes, Clip, Floats, ThermalPicture

SIZE = 224  # pixels: the input side of most vision encoders
GAP = 4  # pixels between the views of a contact sheet
VIEWS = 4  # of a video, one from each quarter
TAIL_PERCENT = 0.1  # of a thermal picture's pixels that may saturate at each end: dead pixels and glints
LEAST_SPAN = {"kelvin": 5.0, "counts": 1.0}  # of a thermal picture: without it a flat scene would show noise

# A colour scale whose lightness increases evenly, so that it reads the same in grey (matplotlib's "inferno",
# CC0, at eighths).
_ANCHORS = (
    (0, 0, 4),
    (31, 12, 72),
    (85, 15, 109),
    (136, 34, 106),
    (186, 54, 85),
    (227, 89, 51),
    (249, 140, 10),
    (249, 201, 50),
    (252, 255, 164),
)


def _scale() -> Bytes:
    at_9, to_256 = np.linspace(0, 255, len(_ANCHORS)), np.arange(256)
    channels = [np.interp(to_256, at_9, channel) for channel in zip(*_ANCHORS, strict=True)]
    scale: Bytes = np.rint(np.stack(channels, axis=1)).astype(np.uint8)
    return scale


COLOUR_SCALE_256x3 = _scale()


def to_byte(values: Floats, *, low: float, high: float) -> Bytes:
    """Map [low, high] linearly to 0…255; values outside are clipped."""
    scaled = (values - np.float32(low)) * np.float32(255 / (high - low))
    grey: Bytes = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    return grey


def shrink(rgb_HW3: Bytes, size: int = SIZE) -> Bytes:
    """Scale a picture down to a short side of `size` pixels; smaller pictures are returned unchanged."""
    height, width = rgb_HW3.shape[:2]
    scale = size / min(height, width)
    if scale >= 1:
        return rgb_HW3
    sides = max(1, round(width * scale)), max(1, round(height * scale))
    # A box average by an integer factor first, then bicubic for the rest: 4 × faster on photos.
    return np.array(Image.fromarray(rgb_HW3).resize(sides, Image.Resampling.BICUBIC, reducing_gap=2.0))


def stretch(grey_HW: Bytes, *, width: int, height: int) -> Bytes:
    """Resample a grey picture to any size and aspect ratio (triangle filter, averaging where it shrinks)."""
    return np.array(Image.fromarray(grey_HW).resize((width, height), Image.Resampling.BILINEAR))


def contact_sheet(views: Sequence[Bytes]) -> Bytes:
    """All views on one white sheet, in reading order, in the most nearly square grid.

    Smaller views are centred in their cells. Raises ValueError without views.
    """
    if not views:
        raise ValueError("a contact sheet needs at least one view")
    columns = math.ceil(math.sqrt(len(views)))
    rows = math.ceil(len(views) / columns)
    height, width = max(v.shape[0] for v in views), max(v.shape[1] for v in views)
    sheet = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, np.uint8)
    for i, view in enumerate(views):
        top = i // columns * (height + GAP) + (height - view.shape[0]) // 2
        left = i % columns * (width + GAP) + (width - view.shape[1]) // 2
        sheet[top : top + view.shape[0], left : left + view.shape[1]] = view
    return sheet


def quarter_frames(clip: Clip, *, size: int = SIZE) -> list[Bytes]:
    """The frames at the middle of each quarter of a clip, up to four uint8[H, W, 3].

    Larger frames are reduced to `size` pixels on their short side.
    """
    count = len(clip.frames_FHW3)
    picks = sorted({(2 * i + 1) * count // (2 * VIEWS) for i in range(VIEWS)})
    return [shrink(clip.frames_FHW3[pick], size) for pick in picks]


def heat_picture(picture: ThermalPicture, *, size: int = SIZE) -> Bytes:
    """A thermal picture in grey, warm is bright, uint8[H, W, 3], scaled between `heat_limits`.

    A larger picture is reduced to `size` pixels on its short side.
    """
    low, high = heat_limits(picture)
    grey_HW = to_byte(picture.values_HW, low=low, high=high)
    return np.repeat(shrink(grey_HW, size)[:, :, None], 3, axis=2)


def heat_limits(picture: ThermalPicture) -> tuple[float, float]:
    """(value drawn black, value drawn white) of a thermal picture, in its unit.

    The percentiles `TAIL_PERCENT` and 100 − `TAIL_PERCENT`, widened around their middle to `LEAST_SPAN`.
    """
    low, high = (float(v) for v in np.percentile(picture.values_HW, (TAIL_PERCENT, 100 - TAIL_PERCENT)))
    lacking = max(0.0, LEAST_SPAN[picture.unit] - (high - low))
    return low - lacking / 2, high + lacking / 2


def thermal_grey(picture: ThermalPicture) -> Bytes:
    """A thermal picture in grey and in its size, for models of thermal pictures, uint8[H, W, 3].

    8-bit counts are unchanged, as in the models' training data; deeper counts and kelvin are scaled as in
    renderings.
    """
    values_HW = picture.values_HW
    if picture.unit == "counts" and values_HW.min() >= 0 and values_HW.max() <= 255:
        grey_HW: Bytes = np.rint(values_HW).astype(np.uint8)
    else:
        low, high = heat_limits(picture)
        grey_HW = to_byte(values_HW, low=low, high=high)
    return np.repeat(grey_HW[:, :, None], 3, axis=2)

"""What encoders of CLIP's squares share: its colours, films scaled as pytorchvideo does, thermal greys.

Shape legend: V pictures, F frames, H height, W width.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from data.readers.payload import Bytes, Floats, ThermalPicture
from data.render.canvas import to_byte
from data.render.thermal import heat_limits

CLIP_MEAN = np.array((0.48145466, 0.4578275, 0.40821073), np.float32)  # of red, green, blue
CLIP_STD = np.array((0.26862954, 0.26130258, 0.27577711), np.float32)
LARGEST_FILM = 1080  # frames are scaled without averaging, as pytorchvideo does; 4K would take 250 MB
BYTE_MAX = 255.0


def normed(pictures_VHW3: Bytes) -> Floats:
    """float32[V, 3, H, W] of bytes."""
    unit = pictures_VHW3.astype(np.float32) / np.float32(BYTE_MAX)
    found: Floats = np.ascontiguousarray(((unit - CLIP_MEAN) / CLIP_STD).transpose(0, 3, 1, 2))
    return found


def scaled_film(clip_FHW3: Bytes, side: int) -> Floats:
    """float32[F, 3, h, w], the short side `side`: bilinearly, without averaging (`short_side_scale`)."""
    height, width = clip_FHW3.shape[1:3]
    if width < height:
        sides = (math.floor(height / width * side), side)
    else:
        sides = (side, math.floor(width / height * side))
    unit_F3HW = torch.from_numpy(clip_FHW3.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(BYTE_MAX))
    scaled = torch.nn.functional.interpolate(unit_F3HW, size=sides, mode="bilinear", align_corners=False)
    found: Floats = (scaled.numpy() - CLIP_MEAN[:, None, None]) / CLIP_STD[:, None, None]
    return found


def thermal_grey(picture: ThermalPicture) -> Bytes:
    """uint8[H, W, 3]: 8-bit counts as they are (the models' own data); deeper ones and kelvin as rendered."""
    values_HW = picture.values_HW
    if picture.unit == "counts" and values_HW.min() >= 0 and values_HW.max() <= BYTE_MAX:
        grey_HW: Bytes = np.rint(values_HW).astype(np.uint8)
    else:
        low, high = heat_limits(picture)
        grey_HW = to_byte(values_HW, low=low, high=high)
    return np.repeat(grey_HW[:, :, None], 3, axis=2)

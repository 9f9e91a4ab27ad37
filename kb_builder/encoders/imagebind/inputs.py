"""Preprocessing of ImageBind: samples as the inputs of its towers, as in its training.

| modality | tower | input |
|---|---|---|
| image | vision | short side to 224, middle square; CLIP's mean and deviation |
| video | vision | 5 clips of 2 s, two frames each; three squares of every clip |
| audio | audio | 3 clips of 2 s, Kaldi's filter bank of 128 bands, mean −4.268 and deviation 9.138 |
| thermal | thermal | one channel from 0 to 1, short side to 224, middle square |
| event, point | vision | their renderings, as pictures |

Shape legend: V views (clips × squares, or renderings), F frames, H height, W width, M mel bands, T windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from data.errors import SampleError
from data.modality import Modality
from data.readers import read, read_clips, read_prepared
from data.readers.payload import Bytes, Floats, Picture, Waveform
from data.readers.spans import clip_samples
from data.render import RENDER_VERSION, drawn
from data.signal.kaldi import kaldi_mel
from kb_builder.encoders.pictures import (
    BYTE_MAX,
    LARGEST_FILM,
    THERMAL_STEP,
    clip_normalize,
    scaled_film,
    trim_long_side,
)

VERSION = f"imagebind-1/{RENDER_VERSION}"
SIDE = 224
SOUND_MEAN, SOUND_STD = -4.268, 9.138
SOUND_CLIPS, FILM_CLIPS, CLIP_S, CLIP_FRAMES = 3, 5, 2, 2
MELS, WINDOWS = 128, 204


@dataclass(frozen=True, slots=True)
class Views:
    """The inputs of a tower for one sample: float32[V, …], see `ImageBind.forward`."""

    tower: str
    inputs: Floats


def prepare_media(modality: Modality, path: Path) -> Views:
    """Prepare a sample of any modality but text. Raises SampleError for a bad file."""
    special = _SPECIAL.get(modality)
    if special is not None:
        return special(path)
    pictures = [_photo(path)] if modality == "image" else drawn(modality, path)
    squares = np.stack([square(trim_long_side(picture)) for picture in pictures])
    return Views("vision", clip_normalize(squares)[:, :, None])


def _photo(path: Path) -> Bytes:
    picture = read("image", path)
    assert isinstance(picture, Picture)
    return picture.rgb_HW3


def square(picture: Bytes) -> Bytes:
    """The middle SIDE × SIDE pixels, the short side scaled to SIDE (bicubic, with antialiasing)."""
    height, width = picture.shape[:2]
    short = min(height, width)
    new_w, new_h = int(SIDE * width / short), int(SIDE * height / short)
    scaled = Image.fromarray(picture).resize((new_w, new_h), Image.Resampling.BICUBIC)
    left, top = round((new_w - SIDE) / 2), round((new_h - SIDE) / 2)
    return np.asarray(scaled.crop((left, top, left + SIDE, top + SIDE)))


def _video(path: Path) -> Views:
    clips_CFHW3 = read_clips(
        path, clips=FILM_CLIPS, frames=CLIP_FRAMES, seconds=CLIP_S, short_side=LARGEST_FILM
    )
    return Views("vision", np.concatenate([film_squares(clip_FHW3) for clip_FHW3 in clips_CFHW3]))


def film_squares(clip_FHW3: Bytes) -> Floats:
    """Three squares of a clip, float32[3, 3, F, SIDE, SIDE]: left, middle and right, or top to bottom."""
    film_F3HW = scaled_film(clip_FHW3, SIDE)
    high, wide = film_F3HW.shape[2:]
    over = max(high, wide) - SIDE
    crops = []
    for start in (0, math.ceil(over / 2), over):
        down, right = (start, 0) if high > wide else (0, start)
        crops.append(film_F3HW[:, :, down : down + SIDE, right : right + SIDE].transpose(1, 0, 2, 3))
    return np.ascontiguousarray(np.stack(crops), dtype=np.float32)


def _audio(path: Path) -> Views:
    sound = read("audio", path)
    assert isinstance(sound, Waveform)
    clips = clip_samples(sound, clips=SOUND_CLIPS, seconds=CLIP_S)
    banks = [_bank(samples_T, sound.rate) for samples_T in clips]
    if not all(len(bank_TM) for bank_TM in banks):
        needed = Fraction(25, 1000)
        raise SampleError(f"{path}: {sound.seconds:.3f} s are too short; {float(needed)} s are the least")
    return Views("audio", np.stack([_padded(bank_TM) for bank_TM in banks])[:, None])


def _bank(samples_T: Floats, rate: int) -> Floats:
    return kaldi_mel(samples_T - samples_T.mean(), rate, mels=MELS)


def _padded(bank_TM: Floats) -> Floats:
    """float32[M, WINDOWS]: truncated, or padded with zeros before normalisation, as in the official code."""
    filled_MT = np.zeros((MELS, WINDOWS), np.float32)
    some = bank_TM[:WINDOWS].T
    filled_MT[:, : some.shape[1]] = some
    found: Floats = ((filled_MT - SOUND_MEAN) / SOUND_STD).astype(np.float32)
    return found


def _thermal(path: Path) -> Views:
    grey_HW3 = read_prepared("thermal", path, THERMAL_STEP)
    unit_HW = square(trim_long_side(grey_HW3))[:, :, 0].astype(np.float32) / np.float32(BYTE_MAX)
    return Views("thermal", unit_HW[None, None])


_SPECIAL: dict[str, Callable[[Path], Views]] = {"video": _video, "audio": _audio, "thermal": _thermal}

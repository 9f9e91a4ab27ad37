"""Preprocessing of LanguageBind: samples as the inputs of its towers, as in its training.

| modality | tower | input |
|---|---|---|
| image | image | short side to the tower's 224, middle square; CLIP's mean and deviation |
| video | video | 8 evenly spaced frames, short side to 224, middle square |
| audio | audio | Kaldi's filter bank, 112 bands × 1,036 windows at three places, as one picture |
| thermal | thermal | grey, prepared as an image |
| event, point | image | their renderings, as images |

Random choices of the official code (positions in a sound, mirrored videos) are replaced by fixed ones.

Shape legend: V views, F frames, H height, W width, M mel bands, T windows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from data.errors import SampleError
from data.modality import Modality
from data.readers import read, read_audio, read_clips, read_prepared
from data.readers.axes import File, path_of
from data.readers.payload import Bytes, Floats, Picture
from data.readers.spans import third_starts
from data.render import RENDER_VERSION, drawn
from data.signal.kaldi import WINDOW_S, kaldi_mel
from kb_builder.encoders.languagebind.folder import MediaTrunk
from kb_builder.encoders.paired import Inputs
from kb_builder.encoders.pictures import (
    BYTE_MAX,
    CLIP_MEAN,
    CLIP_STD,
    LARGEST_FILM,
    THERMAL_STEP,
    scaled_film,
    trim_long_side,
)

VERSION = f"languagebind-1/{RENDER_VERSION}"


def prepare_media(modality: Modality, file: File, trunk: MediaTrunk) -> Inputs:
    """`pixel_values` float32[V, F, 3, H, W] of one sample. Raises SampleError for a bad file."""
    if modality == "audio":
        pixels = _sound(path_of(file), trunk)[None, None]
    elif modality == "video":
        pixels = _film(path_of(file), trunk)[None]
    else:
        squares = [square(trim_long_side(view), trunk.size[0]) for view in _pictures(modality, file)]
        pixels = np.stack(squares)[:, None]
    return {"pixel_values": pixels}


def _pictures(modality: Modality, file: File) -> list[Bytes]:
    if modality == "image":
        picture = read(modality, file)
        assert isinstance(picture, Picture)
        return [picture.rgb_HW3]
    if modality == "thermal":
        return [read_prepared(modality, file, THERMAL_STEP)]
    return drawn(modality, file)


def square(picture: Bytes, side: int) -> Floats:
    """The middle square, float32[3, side, side], of a picture whose short side is scaled to `side`.

    Bicubic with antialiasing, in float, as torchvision's `Resize` of tensors: edges may overshoot 0 and 1.
    """
    height, width = picture.shape[:2]
    short = min(height, width)
    sides = (int(side * height / short), int(side * width / short))
    unit_3HW = torch.from_numpy(picture.transpose(2, 0, 1).astype(np.float32) / np.float32(BYTE_MAX))
    scaled = torch.nn.functional.interpolate(
        unit_3HW[None], size=sides, mode="bicubic", align_corners=False, antialias=True
    )
    cut_3HW = _middle(scaled[0].numpy(), side)
    return ((cut_3HW - CLIP_MEAN[:, None, None]) / CLIP_STD[:, None, None]).astype(np.float32)


def _middle(pictures: Floats, side: int) -> Floats:
    """The middle `side` pixels of the last two axes."""
    down, right = (round((long - side) / 2) for long in pictures.shape[-2:])
    return np.ascontiguousarray(pictures[..., down : down + side, right : right + side])


def _film(path: Path, trunk: MediaTrunk) -> Floats:
    clip_FHW3 = read_clips(path, clips=1, frames=trunk.num_frames, short_side=LARGEST_FILM)[0]
    return _middle(scaled_film(clip_FHW3, trunk.size[0]), trunk.size[0])


def _sound(path: Path, trunk: MediaTrunk) -> Floats:
    samples_T = read_audio(path, rate=trunk.audio_sample_rate).samples_T
    mel_TM = kaldi_mel(samples_T - samples_T.mean(), trunk.audio_sample_rate, mels=trunk.num_mel_bins)
    if not len(mel_TM):
        seconds = len(samples_T) / trunk.audio_sample_rate
        raise SampleError(f"{path}: {seconds:.3f} s are too short; {WINDOW_S} s are the least")
    return three_pieces(mel_TM, trunk)


def three_pieces(mel_TM: Floats, trunk: MediaTrunk) -> Floats:
    """float32[3, M, target_length]: three pieces of a long sound; of a short one, three equal repetitions."""
    length = trunk.target_length
    if len(mel_TM) > length:
        starts = third_starts(len(mel_TM), length)
        pieces = [mel_TM[start : start + length] for start in starts]
    else:
        pieces = [np.tile(mel_TM, (length // len(mel_TM) + 1, 1))[:length]] * 3
    found_3TM = (np.stack(pieces) - trunk.audio_mean) / (2 * trunk.audio_std)
    return np.ascontiguousarray(found_3TM.transpose(0, 2, 1), dtype=np.float32)

"""Decode and prepare samples by our readers and by bare decoders: Pillow, soundfile, PyAV, NumPy, tifffile.

The preparation is the same on both sides, so that the comparison shows the cost of the checks (bounded,
whole, finite, on the sensor), of the decoder process, and of the exact choice of frames. `agree` bounds the
difference of the results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import soxr
import tifffile
from PIL import Image

from data.readers import read, read_clips, read_prepared, reading_ahead
from data.readers.payload import Events, ThermalPicture, Waveform
from data.readers.points.geometry import farthest_points, unit_sphere
from data.readers.spans import clip_samples
from data.render import drawn
from data.render.canvas import heat_picture
from data.render.event import polarity_histogram
from data.signal.kaldi import kaldi_mel

SIDE = 224
CLOUD, POINTS = 10_000, 1024
VIDEO_CLIPS, AUDIO_CLIPS, CLIP_S, CLIP_FRAMES = 5, 3, 2, 2  # ImageBind


@dataclass(frozen=True)
class Ways:
    """`ours` and `bare` turn a batch of files into an encoder's input; `what` describes that."""

    ours: Callable[[Sequence[Path]], Sequence[Any]]
    bare: Callable[[Sequence[Path]], Sequence[Any]]
    decoder: str
    what: str
    agree: float = 0.0  # the largest difference of a value


def _image_bare(path: Path) -> Any:
    picture = Image.open(path).convert("RGB")
    scale = SIDE / min(picture.size)
    sides = round(picture.width * scale), round(picture.height * scale)
    return np.array(picture.resize(sides, Image.Resampling.BICUBIC, reducing_gap=2.0))


def _mels(sound: Waveform) -> Any:
    clips = clip_samples(sound, clips=AUDIO_CLIPS, seconds=CLIP_S)
    return np.stack([kaldi_mel(clip_T - clip_T.mean(), sound.rate) for clip_T in clips])


def _audio_bare(path: Path) -> Any:
    samples_TC, rate = soundfile.read(path, dtype="float32")
    return _mels(Waveform(soxr.resample(samples_TC.mean(axis=1), rate, 16_000, quality="HQ"), 16_000))


def _video_bare(path: Path) -> Any:
    """Frames by number, as pytorchvideo selects them from a video of constant rate."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        rate, count = Fraction(stream.average_rate), stream.frames
        spare = count / rate - CLIP_S
        starts = [spare * clip / (VIDEO_CLIPS - 1) for clip in range(VIDEO_CLIPS)]
        wanted = [(ceil(rate * start), ceil(rate * (start + CLIP_S)) - 1) for start in starts]
        last, numbers = max(map(max, wanted)), {number for pair in wanted for number in pair}
        frames = {}
        for number, frame in enumerate(container.decode(stream)):
            if number in numbers:
                sides = round(frame.width * SIDE / frame.height), SIDE
                frames[number] = frame.reformat(
                    *sides, format="rgb24", interpolation="AREA", threads=1
                ).to_ndarray()
            if number == last:
                break
    return np.stack([[frames[number] for number in pair] for pair in wanted])


def _sampled(clouds: Sequence[Any]) -> Any:
    unit_BN3 = np.stack([unit_sphere(xyz_N3) for xyz_N3 in clouds])
    return np.take_along_axis(unit_BN3, farthest_points(unit_BN3, POINTS)[:, :, None], axis=1)


def _thermal_bare(path: Path) -> Any:
    return heat_picture(ThermalPicture(tifffile.imread(path) * np.float32(0.01), "kelvin"))


def _event_bare(path: Path) -> Any:
    raw_N5 = np.fromfile(path, np.uint8).reshape(-1, 5).astype(np.int64)
    t_N = (raw_N5[:, 2] & 127) << 16 | raw_N5[:, 3] << 8 | raw_N5[:, 4]
    x_N, y_N = raw_N5[:, 0].astype(np.uint16), raw_N5[:, 1].astype(np.uint16)
    return polarity_histogram(Events(x_N, y_N, t_N, raw_N5[:, 2] > 127, 240, 180))[0]


def _ours_audio(path: Path) -> Any:
    sound = read("audio", path)
    assert isinstance(sound, Waveform)
    return _mels(sound)


def _ours_point(path: Path) -> Any:
    channels_N6, middles_P = read_prepared(
        "point", path, "data.signal.clouds:cloud_patches", most=CLOUD, up="z", patches=POINTS
    )
    return channels_N6[middles_P, :3]


def _drawn(modality: Any) -> Callable[[Sequence[Path]], Sequence[Any]]:
    return _ahead(modality, lambda path: drawn(modality, path)[0])


def _ahead(modality: str, way: Callable[[Path], Any]) -> Callable[[Sequence[Path]], Sequence[Any]]:
    """A batch, read as in the encode stage: by a decoder process, a few files ahead."""

    def ours(paths: Sequence[Path]) -> Sequence[Any]:
        with reading_ahead([(modality, path) for path in paths]):
            return [way(path) for path in paths]

    return ours


def _each(way: Callable[[Path], Any]) -> Callable[[Sequence[Path]], Sequence[Any]]:
    return lambda paths: [way(path) for path in paths]


WAYS: dict[str, Ways] = {
    "image": Ways(_drawn("image"), _each(_image_bare), "Pillow", "a JPEG of 500 × 375 → 224 px"),
    "audio": Ways(
        _ahead("audio", _ours_audio),
        _each(_audio_bare),
        "soundfile",
        "5 s of stereo at 44.1 kHz → 3 × 2 s of mel bands",
        1e-4,
    ),
    "video": Ways(
        _ahead(
            "video",
            partial(read_clips, clips=VIDEO_CLIPS, seconds=CLIP_S, frames=CLIP_FRAMES, short_side=SIDE),
        ),
        _each(_video_bare),
        "PyAV",
        "10 s of 320 × 240 in H.264 → 5 clips of 2 frames",
    ),
    "point": Ways(
        _ahead("point", _ours_point),
        lambda paths: _sampled([np.load(path)[:, :3] for path in paths]),
        "NumPy",
        f"{CLOUD:,} points → the {POINTS:,} farthest",
    ),
    "thermal": Ways(
        _drawn("thermal"),
        _each(_thermal_bare),
        "tifffile",
        "640 × 512 pixels of 16 bits → 224 px of grey",
        1.0,
    ),
    "event": Ways(_drawn("event"), _each(_event_bare), "NumPy", "115,000 events → histogram"),
}

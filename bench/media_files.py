"""Generate files like those of the benchmarks, for `make bench-media`."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
import tifffile
from PIL import Image

COPIES = 32  # of each file: one batch of the encode stage


def make_files(folder: Path) -> dict[str, list[Path]]:
    """Modality -> files, written into `folder`."""
    return {modality: [make(folder, number) for number in range(COPIES)] for modality, make in MAKERS.items()}


def _photo(width: int, height: int, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Smooth shapes with grain, so that a JPEG of it has a photo's size."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 24, width // 24, 3)).astype(np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    return (smooth + rng.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8)


def _image(folder: Path, number: int) -> Path:
    """A JPEG of ImageNet's usual size, about 100 kB."""
    path = folder / f"{number}.jpg"
    Image.fromarray(_photo(500, 375, number)).save(path, quality=92)
    return path


def _audio(folder: Path, number: int) -> Path:
    """5 s of 44.1 kHz, two channels, 16 bits: ESC-50 is 5 s of one channel."""
    path = folder / f"{number}.wav"
    rng = np.random.default_rng(number)
    soundfile.write(path, rng.normal(0, 0.1, (5 * 44_100, 2)), 44_100, subtype="PCM_16")
    return path


def _video(folder: Path, number: int) -> Path:
    """10 s of 320 × 240 at 25 frames a second in H.264: UCF-101's size, MSR-VTT's codec."""
    path = folder / f"{number}.mp4"
    wide = _photo(820, 240, number)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for at in range(250):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(wide[:, 2 * at : 2 * at + 320]))
            frame.pts, frame.time_base = at, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _point(folder: Path, number: int) -> Path:
    """10,000 points with normals: ModelNet40's resampled clouds."""
    path = folder / f"{number}.npy"
    unit = np.random.default_rng(number).normal(size=(10_000, 3)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    np.save(path, np.hstack([unit * np.float32([1, 0.5, 0.3]), unit]))
    return path


def _thermal(folder: Path, number: int) -> Path:
    """640 × 512 pixels of 16 bits, in hundredths of a kelvin."""
    path = folder / f"{number}.tif"
    values = 29_000 + 8 * _photo(640, 512, number)[:, :, 0].astype(np.uint16)
    tifffile.imwrite(path, values, metadata={"unit": "kelvin", "scale": 0.01})
    return path


def _event(folder: Path, number: int) -> Path:
    """115,000 events of five bytes, N-Caltech101's mean."""
    path = folder / f"{number}.bin"
    rng = np.random.default_rng(number)
    count = 115_000
    word = np.sort(rng.integers(0, 300_000, count)) | rng.integers(0, 2, count) << 23
    columns = [
        rng.integers(0, 240, count),
        rng.integers(0, 180, count),
        word >> 16,
        word >> 8 & 255,
        word & 255,
    ]
    path.write_bytes(np.stack(columns, axis=1).astype(np.uint8).tobytes())
    return path


MAKERS: dict[str, Callable[[Path, int], Path]] = {
    "image": _image,
    "audio": _audio,
    "video": _video,
    "point": _point,
    "thermal": _thermal,
    "event": _event,
}

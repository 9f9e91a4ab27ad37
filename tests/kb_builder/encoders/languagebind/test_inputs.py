"""What LanguageBind's towers are shown, against other implementations.

`GOLDEN` comes from the official processors as `languagebind` 0.1.0 packages them, run once with torchvision
0.29.1, torchaudio 2.11.0 and pytorchvideo 0.1.5 on the files that `_files` writes; its lots were fixed (the
middle of each third of a sound, no mirrored video).
"""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from data.errors import SampleError
from data.modality import Modality
from kb_builder.encoders.languagebind.folder import MediaTrunk
from kb_builder.encoders.languagebind.inputs import prepare_media, square, three_pieces

TRUNK = MediaTrunk(num_frames=8)
HEARING = MediaTrunk(num_mel_bins=112, target_length=1036, audio_mean=-4.2677393, audio_std=4.5689974)
FILES: dict[str, tuple[Modality, MediaTrunk]] = {
    "large.png": ("image", TRUNK),
    "small.png": ("image", TRUNK),
    "grey.png": ("thermal", TRUNK),
    "film.avi": ("video", TRUNK),
    "short.wav": ("audio", HEARING),
    "long.wav": ("audio", HEARING),
}
PLACES = ((0, 0, 0), (1, 50, 60), (2, 111, 223), (0, 90, 150))


def _files(folder: Path) -> None:
    draw = np.random.default_rng(0)
    Image.fromarray(draw.integers(0, 256, (447, 301, 3), dtype=np.uint8)).save(folder / "large.png")
    Image.fromarray(draw.integers(0, 256, (97, 101, 3), dtype=np.uint8)).save(folder / "small.png")
    Image.fromarray(draw.integers(0, 256, (260, 331), dtype=np.uint8)).save(folder / "grey.png")
    with av.open(str(folder / "film.avi"), "w") as container:
        stream = container.add_stream("rawvideo", rate=10)
        stream.width, stream.height, stream.pix_fmt = 322, 240, "bgr24"
        for pixels in draw.integers(0, 256, (23, 240, 322, 3), dtype=np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    for name, seconds in (("short", 3), ("long", 25)):
        noise_T = draw.normal(0.02, 0.1, seconds * 16_000).astype(np.float32)
        soundfile.write(folder / f"{name}.wav", noise_T, 16_000, subtype="FLOAT")


GOLDEN = {  # at PLACES (channel, row, column) of the last frame
    "large.png": [0.76287, 0.69688, -0.15657, -0.46283],
    "small.png": [-1.57944, -0.96925, 1.72163, 0.77672],
    "grey.png": [0.52419, -0.61789, -1.14213, 0.07845],
    "film.avi": [-0.7679, -0.55867, -0.7561, 0.83749],
    "short.wav": [-0.31195, 0.44648, 0.85927, 0.68275],
    "long.wav": [-0.53904, 0.26577, 0.80141, 0.86172],
}


@pytest.mark.parametrize("name", FILES)
def test_inputs_are_those_of_the_official_processors(tmp_path: Path, name: str) -> None:
    """Photos, thermal pictures, frames of videos and spectrograms of short and long sounds, to 1e-4."""
    _files(tmp_path)
    modality, trunk = FILES[name]
    pixels = prepare_media(modality, tmp_path / name, trunk)["pixel_values"]
    size = (112, 1036) if modality == "audio" else (224, 224)
    assert pixels.shape == (1, 8 if modality == "video" else 1, 3, *size)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose([pixels[0, -1][place] for place in PLACES], GOLDEN[name], atol=1e-4)


def _kernel(inside: int, outside: int) -> np.ndarray:
    """Weights [outside, inside] of Keys' cubic (a = −0.5), widened where it shrinks."""
    scale = inside / outside
    wide = max(scale, 1.0)
    at = np.abs((np.arange(inside) + 0.5 - (np.arange(outside)[:, None] + 0.5) * scale) / wide)
    near, far = 1.5 * at**3 - 2.5 * at**2 + 1, -0.5 * at**3 + 2.5 * at**2 - 4 * at + 2
    weights: np.ndarray = np.where(at < 1, near, np.where(at < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("height", "width"), [(300, 451), (451, 300), (224, 224), (100, 90)])
def test_pictures_are_cut_as_in_training(height: int, width: int) -> None:
    """The short side to 224 by a cubic that averages, in float, then the middle; to 1e-4."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    high, wide = int(224 * height / min(height, width)), int(224 * width / min(height, width))
    red = _kernel(height, high) @ (pixels[:, :, 0] / 255) @ _kernel(width, wide).T
    top, left = round((high - 224) / 2), round((wide - 224) / 2)
    expected = (red[top : top + 224, left : left + 224] - 0.48145466) / 0.26862954
    np.testing.assert_allclose(square(pixels, 224)[0], expected, atol=1e-4)


def test_a_short_sound_is_repeated_and_a_long_one_is_heard_at_three_places() -> None:
    """Windows of the spectrogram, not samples, are repeated; normalised by twice the deviation."""
    trunk = MediaTrunk(num_mel_bins=2, target_length=10, audio_mean=1.0, audio_std=2.0)
    short_TM, long_TM = (np.arange(2 * n, dtype=np.float32).reshape(n, 2) for n in (4, 40))
    short, long = three_pieces(short_TM, trunk), three_pieces(long_TM, trunk)
    assert short.shape == long.shape == (3, 2, 10)
    np.testing.assert_allclose(short[1, 0], (2 * (np.arange(10) % 4) - 1) / 4)
    starts = [int(piece[0, 0] * 4 + 1) // 2 for piece in long]
    assert starts == [5, 16, 26]  # of the places 0…10, 11…20 and 21…30
    np.testing.assert_allclose(long[2, 1], (2 * np.arange(26, 36) + 1 - 1) / 4)
    whole = three_pieces(long_TM[:10], trunk)
    np.testing.assert_array_equal(whole[0], whole[2])


def test_renderings_are_seen_as_pictures(sensor_files: Path) -> None:
    """A cloud's views and an event picture come as several inputs or one, each of three channels."""
    for modality, file, views in (("point", "ball.npy", 4), ("event", "events.npz", 1)):
        pixels = prepare_media(modality, sensor_files / file, TRUNK)["pixel_values"]  # type: ignore[arg-type]
        assert pixels.shape == (views, 1, 3, 224, 224)


def test_a_click_is_too_short(tmp_path: Path) -> None:
    """Not one window fits into it; the file is named."""
    soundfile.write(tmp_path / "click.wav", np.ones(200), 16_000)
    with pytest.raises(SampleError, match=r"click\.wav: 0\.013 s are too short; 0\.025 s are the least"):
        prepare_media("audio", tmp_path / "click.wav", HEARING)

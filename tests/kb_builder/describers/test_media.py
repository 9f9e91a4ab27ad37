"""describers.media: what a vision endpoint is sent is the sample, bounded, whole, and still the same file."""

from __future__ import annotations

import base64
import io
import json
import os
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from data.errors import SampleError
from data.files import hash_file
from data.modality import guess_modality
from data.readers import read
from data.render import contact_sheet, render, sent
from data.render.sent import ENLARGE_TO, jpeg
from kb_builder.ask.request import Media
from kb_builder.describers import media as media_module
from kb_builder.describers.media import MediaFiles, media_for
from kb_builder.settings import DescribeSamples
from kb_builder.tables.schemas import read_rows

OPENAI = DescribeSamples(describer="openai", model="m")
NATIVE = DescribeSamples(describer="openai", model="m", native=("audio", "video"))


def media_of(folder: Path, uri: str, modality: str, settings: DescribeSamples = OPENAI) -> Media:
    sample = {"modality": modality, "uri": uri, "sha256": hash_file(folder / uri)}
    (media,) = media_for(sample, settings)
    return media


def part_of(folder: Path, uri: str, modality: str, settings: DescribeSamples = OPENAI) -> dict[str, Any]:
    media = media_of(folder, uri, modality, settings)
    return MediaFiles(folder, [(media.sha256, uri)]).part(media)


def payload_of(part: dict[str, Any], mime: str) -> bytes:
    kind = part["type"]
    start = f"data:{mime};base64,"
    assert part[kind]["url"].startswith(start)
    return base64.b64decode(part[kind]["url"].removeprefix(start), validate=True)


def picture_of(part: dict[str, Any]) -> np.ndarray[Any, Any]:
    assert part["type"] == "image_url"
    with Image.open(io.BytesIO(payload_of(part, "image/jpeg"))) as picture:
        assert picture.mode == "RGB"
        return np.asarray(picture).astype(int)


def test_the_photo_arrives_as_itself(sensor_files: Path) -> None:
    """A small photo comes enlarged, left half red and right half blue, and nothing cut off."""
    arrived = picture_of(part_of(sensor_files, "photo.png", "image"))
    assert arrived.shape == (round(60 * ENLARGE_TO / 90), ENLARGE_TO, 3)
    assert np.abs(arrived[:, :200] - (200, 30, 30)).max() <= 12
    assert np.abs(arrived[:, 250:] - (30, 30, 200)).max() <= 12


@pytest.mark.parametrize(
    ("uri", "modality"),
    [("tone.flac", "audio"), ("ball.npy", "point"), ("events.npz", "event"), ("drawn.png", "event")],
)
def test_other_modalities_arrive_as_their_rendering(sensor_files: Path, uri: str, modality: Any) -> None:
    """What arrives is the rendering that the encoders see, enlarged where it is small."""
    arrived = picture_of(part_of(sensor_files, uri, modality))
    drawn = contact_sheet(render(read(modality, sensor_files / uri)))
    assert max(arrived.shape) == max(ENLARGE_TO, *drawn.shape)
    back = Image.fromarray(arrived.astype(np.uint8)).resize(drawn.shape[1::-1], Image.Resampling.NEAREST)
    assert np.abs(np.asarray(back).astype(int) - drawn).mean() < 6


@pytest.mark.parametrize(
    ("uri", "modality"),
    [
        ("photo.png", "image"),
        ("tone.flac", "audio"),
        ("ball.npy", "point"),
        ("warm.tif", "thermal"),
        ("clip.mp4", "video"),
        ("events.npz", "event"),
    ],
)
def test_pictures_are_drawn_in_decoder_processes(
    sensor_files: Path, monkeypatch: pytest.MonkeyPatch, uri: str, modality: Any
) -> None:
    """With the bytes that this process would draw, and nothing of it is done here."""
    payload = read(modality, sensor_files / uri)
    drawn = jpeg(payload, max_side=OPENAI.max_side, quality=media_module.JPEG_QUALITY)
    monkeypatch.setattr(sent, "picture", None)
    assert payload_of(part_of(sensor_files, uri, modality), "image/jpeg") == drawn.tobytes()


def test_thermal_arrives_with_warm_bright(sensor_files: Path) -> None:
    """The warm middle is white, the cold border black, all channels equal."""
    arrived = picture_of(part_of(sensor_files, "warm.tif", "thermal"))
    height, width, _ = arrived.shape
    assert arrived[height // 2, width // 2].min() > 240
    assert arrived[:20].max() < 15
    assert np.ptp(arrived, axis=2).max() <= 2


def test_video_arrives_as_four_frames_in_reading_order(sensor_files: Path) -> None:
    """The green bar moves to the right from the upper left frame to the lower right one."""
    arrived = picture_of(part_of(sensor_files, "clip.mp4", "video"))
    height, width, _ = arrived.shape
    frames = [
        arrived[top : top + height // 2 - 8, left : left + width // 2 - 8]
        for top in (0, height // 2 + 8)
        for left in (0, width // 2 + 8)
    ]
    green = [np.argwhere(frame[..., 0] < 120)[:, 1].mean() for frame in frames]
    assert green == sorted(green)
    assert green[-1] - green[0] > 0.4 * frames[0].shape[1]


def test_large_pictures_are_reduced_to_the_longer_side(tmp_path: Path) -> None:
    """A 12-megapixel photo arrives at exactly `max_side`, its parts where they were, and in few bytes."""
    photo = np.zeros((3000, 4000, 3), np.uint8)
    photo[:1500, :2000] = (250, 240, 20)
    photo[1500:, 2000:] = (20, 30, 240)
    Image.fromarray(photo).save(tmp_path / "photo.jpg", quality=90)
    for max_side in (64, 768, 1500):
        settings = DescribeSamples(describer="openai", model="m", max_side=max_side)
        part = part_of(tmp_path, "photo.jpg", "image", settings)
        arrived = picture_of(part)
        assert arrived.shape == (max_side * 3 // 4, max_side, 3)
        assert np.abs(arrived[max_side // 4, max_side // 4] - (250, 240, 20)).max() < 12
        assert np.abs(arrived[max_side * 5 // 8, max_side * 3 // 4] - (20, 30, 240)).max() < 12
        assert len(payload_of(part, "image/jpeg")) < 100_000


def test_native_sound(sensor_files: Path) -> None:
    """WAV is sent to the byte; another format becomes 16-bit WAV of the same sound."""
    soundfile.write(sensor_files / "tone.wav", np.sin(np.arange(4000) / 9) * 0.5, 8000)
    sent = part_of(sensor_files, "tone.wav", "audio", NATIVE)
    assert sent["type"] == "input_audio"
    assert sent["input_audio"]["format"] == "wav"
    assert base64.b64decode(sent["input_audio"]["data"]) == (sensor_files / "tone.wav").read_bytes()
    sent = part_of(sensor_files, "tone.flac", "audio", NATIVE)
    assert sent["input_audio"]["format"] == "wav"
    with wave.open(io.BytesIO(base64.b64decode(sent["input_audio"]["data"]))) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, 16_000)
        arrived_T = np.frombuffer(sound.readframes(sound.getnframes()), "<i2") / 32767
    assert np.abs(arrived_T - 0.3 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)).max() < 1e-3


def test_native_sound_beyond_full_scale_is_scaled_not_clipped(tmp_path: Path) -> None:
    """A float file that peaks at 4 arrives at full scale in the same shape."""
    wave_T = (4 * np.sin(np.arange(8000) / 5)).astype(np.float32)
    soundfile.write(tmp_path / "loud.aiff", wave_T, 16_000, subtype="FLOAT")
    content = base64.b64decode(part_of(tmp_path, "loud.aiff", "audio", NATIVE)["input_audio"]["data"])
    arrived_T, _ = soundfile.read(io.BytesIO(content))
    assert np.abs(arrived_T - wave_T / np.abs(wave_T).max()).max() < 1e-3


def test_native_video(sensor_files: Path) -> None:
    """The file itself, as what vLLM takes; only the modalities that are named are native."""
    sent = part_of(sensor_files, "clip.mp4", "video", NATIVE)
    assert sent["type"] == "video_url"
    assert payload_of(sent, "video/mp4") == (sensor_files / "clip.mp4").read_bytes()
    assert part_of(sensor_files, "photo.png", "image", NATIVE)["type"] == "image_url"


def test_native_media_are_bounded(sensor_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file beyond the limit is turned away before it is encoded, with its remedy."""
    monkeypatch.setattr(media_module, "NATIVE_MAX_BYTES", 1000)
    for uri, modality in (("clip.mp4", "video"), ("tone.flac", "audio")):
        with pytest.raises(SampleError, match="out of `native`"):
            part_of(sensor_files, uri, modality, NATIVE)


def test_keys_need_no_files(sensor_kb: Path) -> None:
    """Media follow from the samples table alone; size, native and the file's content change them."""
    rows = {row["sample_id"]: row for row in read_rows(sensor_kb / "samples.parquet")}
    for row in rows.values():
        (sensor_kb.parent / "data" / row["uri"]).unlink()
    assert media_for(rows["text"], OPENAI) == ()
    (media,) = media_for(rows["image"], OPENAI)
    assert media.kind == "image"
    assert media.sha256 == rows["image"]["sha256"]
    recipe = json.loads(media.recipe)
    assert recipe["modality"] == "image"
    assert recipe["max_side"] == 768
    smaller = DescribeSamples(describer="openai", model="m", max_side=512)
    assert media_for(rows["image"], smaller) != (media,)
    assert media_for(rows["image"], NATIVE) == (media,)
    assert [m.kind for name in ("sound", "video") for m in media_for(rows[name], NATIVE)] == [
        "audio",
        "video",
    ]


def test_a_changed_or_missing_file_is_not_sent(sensor_files: Path) -> None:
    """What is sent is what was read in; each failure is remembered with its words."""
    media = media_of(sensor_files, "photo.png", "image")
    files = MediaFiles(sensor_files, [(media.sha256, "photo.png")])
    (sensor_files / "photo.png").write_bytes((sensor_files / "drawn.png").read_bytes())
    with pytest.raises(SampleError, match="changed since ingest"):
        files.part(media)
    assert "changed since ingest" in files.unreadable[media]
    (sensor_files / "photo.png").unlink()
    with pytest.raises(SampleError, match=r"photo\.png: No such file"):
        files.part(media)
    with pytest.raises(SampleError, match="no sample has the content"):
        MediaFiles(sensor_files, []).part(media)
    with pytest.raises(SampleError, match="is absolute"):
        MediaFiles(sensor_files, [(media.sha256, "/etc/passwd.png")]).part(media)


def test_an_equal_copy_serves_where_the_first_is_gone(sensor_files: Path) -> None:
    """Two samples with one content are one medium; either file will do."""
    (sensor_files / "copy.png").write_bytes((sensor_files / "photo.png").read_bytes())
    media = media_of(sensor_files, "photo.png", "image")
    (sensor_files / "photo.png").unlink()
    files = MediaFiles(sensor_files, [(media.sha256, "photo.png"), (media.sha256, "copy.png")])
    assert files.part(media)["type"] == "image_url"


@pytest.mark.parametrize("settings", [OPENAI, NATIVE])
def test_hostile_files_are_turned_away(tmp_path: Path, settings: DescribeSamples) -> None:
    """Random bytes under every ending end in one SampleError with the file's name, never anything else."""
    endings = ("jpg", "png", "wav", "mp3", "mp4", "mov", "ply", "npy", "pt", "tif", "bin", "npz")
    for number, ending in enumerate(endings):
        uri = f"evil.{ending}"
        (tmp_path / uri).write_bytes(np.random.default_rng(number).bytes(4096))
        modality = guess_modality(Path(uri))
        assert modality is not None
        if ending == "bin":
            (tmp_path / uri).write_bytes(os.urandom(4096))  # no multiple of five
        with pytest.raises(SampleError, match=uri):
            part_of(tmp_path, uri, modality, settings)


def test_real_files_arrive(real_files: Path) -> None:
    """Seven real files in six modalities become pictures of a sensible size."""
    for path in sorted(real_files.iterdir()):
        if path.suffix != ".md":
            arrived = picture_of(part_of(real_files, path.name, path.stem.split("_")[0]))
            assert 448 <= max(arrived.shape) <= 768
            assert arrived.std() > 5

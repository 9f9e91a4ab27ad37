"""Clips of videos against a reference that decodes every frame."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from data.errors import SampleError
from data.readers.clips import read_clips
from data.readers.payload import Bytes

WIDTH, HEIGHT = 64, 48


def number_frame(number: int) -> Bytes:
    """A frame that shows its number: eight black or white columns are its bits."""
    columns = np.repeat(np.array([number >> bit & 1 for bit in range(8)], np.uint8) * 255, WIDTH // 8)
    return np.broadcast_to(columns[None, :, None], (HEIGHT, WIDTH, 3)).copy()


def numbers_of(clips_CFHW3: Bytes) -> list[list[int]]:
    row = clips_CFHW3[:, :, clips_CFHW3.shape[2] // 2].mean(axis=3)
    bits = row.reshape(*row.shape[:2], 8, -1).mean(axis=3) > 127
    found: list[list[int]] = (bits << np.arange(8)).sum(axis=2).tolist()
    return found


def write_video(path: Path, moments_ms: list[int], *, codec: str = "libx264", unit: int = 1000) -> None:
    """A film whose frames begin at given moments, in units of 1 / `unit` s; the last one shows for 40 ms."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, unit)
        for number, moment in enumerate(moments_ms):
            frame = av.VideoFrame.from_ndarray(number_frame(number), format="rgb24")
            frame.pts, frame.time_base = moment, Fraction(1, unit)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_steady(path: Path, count: int, rate: int | Fraction) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(number_frame(number), format="rgb24")))
        container.mux(stream.encode())


def by_number(count: int, rate: Fraction, clips: int, seconds: Fraction, frames: int) -> list[list[int]]:
    """What pytorchvideo takes of a steady film: of frames ceil(rate · start) … ceil(rate · end) − 1."""
    spare = max(count / rate - seconds, Fraction(0))
    found = []
    for clip in range(clips):
        start = spare * clip / max(clips - 1, 1)
        numbers = range(math.ceil(rate * start), min(math.ceil(rate * (start + seconds)), count))
        places = [i * (len(numbers) - 1) // max(frames - 1, 1) for i in range(frames)]
        found.append([numbers[place] for place in places])
    return found


def by_decoding(path: Path, clips: int, seconds: Fraction, frames: int, end: Fraction) -> list[list[int]]:
    """The numbers on show at even moments of each clip, from a film decoded whole, by linear search."""
    with av.open(str(path)) as container:
        shown = sorted(frame.pts * frame.time_base for frame in container.decode(video=0))
    spare = max(end - seconds, Fraction(0))
    found = []
    for clip in range(clips):
        start = spare * clip / max(clips - 1, 1)
        inside = [moment for moment in shown if start <= moment < start + seconds]
        if not inside:
            found.append([max(n for n, moment in enumerate(shown) if moment <= start)] * frames)
            continue
        moments = [
            inside[0] + (inside[-1] - inside[0]) * Fraction(i, max(frames - 1, 1)) for i in range(frames)
        ]
        found.append([max(n for n, moment in enumerate(shown) if moment <= wanted) for wanted in moments])
    return found


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize(
    ("count", "rate", "clips", "seconds", "frames"),
    [
        (250, 25, 5, 2, 2),  # ImageBind
        (251, Fraction(30000, 1001), 5, 2, 2),
        (61, 30, 1, None, 3),
        (97, 24, 3, Fraction(3, 2), 5),
        (20, 10, 5, 2, 2),
        (7, 10, 5, 2, 2),  # shorter than a clip
        (1, 10, 2, 2, 4),
    ],
)
def test_steady_films_give_the_frames_that_pytorchvideo_takes(
    ending: str,
    count: int,
    rate: int | Fraction,
    clips: int,
    seconds: Fraction | None,
    frames: int,
    tmp_path: Path,
) -> None:
    """At a constant rate the choice by time is the choice by number, whatever a container rounds."""
    write_steady(tmp_path / f"a.{ending}", count, rate)
    found = read_clips(
        tmp_path / f"a.{ending}",
        clips=clips,
        frames=frames,
        seconds=None if seconds is None else float(seconds),
    )
    exact = Fraction(rate)
    length = Fraction(seconds) if seconds is not None else count / exact
    assert numbers_of(found) == by_number(count, exact, clips, length, frames)


@pytest.mark.parametrize(("clips", "seconds", "frames"), [(5, 2, 2), (1, None, 8)])
def test_a_real_video_gives_the_frames_that_pytorchvideo_takes(
    clips: int, seconds: int | None, frames: int, real_files: Path
) -> None:
    """Of a published film, decoded whole, ImageBind's and LanguageBind's frames, pixel for pixel."""
    path = real_files / "video_education.mp4"
    found = read_clips(path, clips=clips, seconds=seconds, frames=frames)
    height, width = found.shape[2:4]
    with av.open(str(path)) as container:
        rate = Fraction(container.streams.video[0].average_rate or 0)
        film = [
            frame.reformat(width, height, format="rgb24", interpolation="AREA").to_ndarray()
            for frame in container.decode(video=0)
        ]
    length = Fraction(seconds) if seconds else len(film) / rate
    for clip, numbers in zip(found, by_number(len(film), rate, clips, length, frames), strict=True):
        np.testing.assert_array_equal(clip, np.stack([film[number] for number in numbers]))


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_films_of_variable_rate_are_sampled_by_time(ending: str, tmp_path: Path) -> None:
    """Of a film that is dense at first and sparse later, the frames on show at even moments are taken."""
    dense, sparse = [40 * i for i in range(50)], [2000 + 400 * i for i in range(20)]
    write_video(tmp_path / f"a.{ending}", [*dense, *sparse])
    found = numbers_of(read_clips(tmp_path / f"a.{ending}", clips=1, frames=5))
    with av.open(str(tmp_path / f"a.{ending}")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    end = max((packet.pts + packet.duration) * packet.time_base for packet in packets)
    assert found == by_decoding(tmp_path / f"a.{ending}", 1, end, 5, end)
    assert found == [[0, 50 + 1, 50 + 7, 50 + 13, 69]]  # 0, 2.4, 4.8, 7.2 and 9.6 s
    for clips, seconds, frames in ((5, 2, 2), (4, 1, 3)):
        found = numbers_of(read_clips(tmp_path / f"a.{ending}", clips=clips, seconds=seconds, frames=frames))
        assert found == by_decoding(tmp_path / f"a.{ending}", clips, Fraction(seconds), frames, end)


def test_a_clip_in_which_no_frame_begins_shows_the_standing_one(tmp_path: Path) -> None:
    """Slides of ten seconds: a clip of two seconds in the middle of one shows it."""
    write_video(tmp_path / "a.mp4", [0, 10_000, 20_000, 30_000])
    found = numbers_of(read_clips(tmp_path / "a.mp4", clips=4, seconds=2, frames=2))
    with av.open(str(tmp_path / "a.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    end = max((packet.pts + packet.duration) * packet.time_base for packet in packets)
    assert found == by_decoding(tmp_path / "a.mp4", 4, Fraction(2), 2, end)
    assert found[1] == [1, 1]


def test_films_that_begin_late_count_from_their_first_frame(tmp_path: Path) -> None:
    """An offset of all moments changes nothing."""
    moments = [40 * i for i in range(100)]
    write_video(tmp_path / "a.mkv", moments)
    write_video(tmp_path / "late.mkv", [moment + 5000 for moment in moments])
    prompt, late = (
        read_clips(tmp_path / f"{name}.mkv", clips=5, seconds=2, frames=2) for name in ("a", "late")
    )
    assert numbers_of(prompt) == numbers_of(late)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_clips_are_upright(degrees: int, tmp_path: Path) -> None:
    """A phone's display matrix (ISO/IEC 14496-12, 8.3.2) turns every frame clockwise by its angle."""
    path = tmp_path / "a.mp4"
    write_steady(path, 50, 25)
    upright = read_clips(path, clips=2, seconds=1, frames=2)
    raw = bytearray(path.read_bytes())
    matrix_at = raw.find(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of times, ids and volume
    cosine, sine = round(math.cos(math.radians(degrees))), round(math.sin(math.radians(degrees)))
    matrix = (cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30)
    raw[matrix_at : matrix_at + 36] = b"".join(entry.to_bytes(4, "big", signed=True) for entry in matrix)
    path.write_bytes(raw)
    turned = read_clips(path, clips=2, seconds=1, frames=2)
    np.testing.assert_array_equal(turned, np.rot90(upright, -degrees // 90, axes=(2, 3)))


def test_frames_of_changing_size_are_refused(tmp_path: Path) -> None:
    """A film whose pictures frame size changes on the way is refused by name."""
    parts = []
    for width in (64, 128):
        with av.open(str(tmp_path / f"{width}.ts"), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
            for number in range(50):
                frame = av.VideoFrame.from_ndarray(np.full((48, width, 3), 90, np.uint8), format="rgb24")
                frame.pts, frame.time_base = number + (50 if width == 128 else 0), Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        parts.append((tmp_path / f"{width}.ts").read_bytes())
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    with pytest.raises(SampleError, match="frame size changes"):
        read_clips(tmp_path / "a.ts", clips=1, frames=8)


def test_large_frames_are_reduced(tmp_path: Path) -> None:
    """The short side is the one asked for."""
    write_steady(tmp_path / "a.mp4", 10, 10)
    assert read_clips(tmp_path / "a.mp4", clips=1, frames=2, short_side=24).shape == (1, 2, 24, 32, 3)

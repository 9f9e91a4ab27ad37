"""Videos: frames at the right moments, upright, from whole files only."""

from __future__ import annotations

import math
from pathlib import Path

import av
import numpy as np
import pytest

from data.errors import SampleError
from data.readers import read_here as read
from data.readers import video
from data.readers.payload import Bytes, Clip

WIDTH, HEIGHT = 64, 48


def clip_of(path: Path) -> Clip:
    payload = read("video", path)
    assert isinstance(payload, Clip)
    return payload


def number_frame(number: int, *, width: int = WIDTH, height: int = HEIGHT) -> Bytes:
    """A frame that shows its number: eight black or white columns are its bits."""
    bits = np.array([number >> bit & 1 for bit in range(8)], np.uint8) * 255
    columns = np.repeat(bits, width // 8)
    return np.broadcast_to(columns[None, :, None], (height, width, 3)).copy()


def numbers_of(clip: Clip) -> list[int]:
    columns = (
        clip.frames_FHW3[:, clip.frames_FHW3.shape[1] // 2].mean(axis=2).reshape(len(clip.frames_FHW3), 8, -1)
    )
    return [int(((row > 127) << np.arange(8)).sum()) for row in columns.mean(axis=2)]


def write_video(
    path: Path,
    count: int,
    *,
    rate: int = 10,
    codec: str = "mpeg4",
    gop: int = 12,
    form: str | None = None,
) -> None:
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = gop
        for number in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(number_frame(number), format="rgb24")))
        container.mux(stream.encode())


def expected_numbers(count: int) -> list[int]:
    """The frame on show at the middle of each twelfth of the duration."""
    return [math.floor(count * (2 * i + 1) / (2 * video.FRAMES)) for i in range(video.FRAMES)]


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "mov"])
@pytest.mark.parametrize("count", [12, 37, 250])
def test_the_right_frames_are_taken(ending: str, count: int, tmp_path: Path) -> None:
    """In every container the frames are exactly those on show at the wanted moments."""
    write_video(tmp_path / f"a.{ending}", count)
    clip = clip_of(tmp_path / f"a.{ending}")
    assert clip.duration_s == pytest.approx(count / 10, abs=0.002)
    assert numbers_of(clip) == expected_numbers(count)
    np.testing.assert_allclose(clip.times_s_F, np.array(expected_numbers(count)) / 10, atol=0.002)


@pytest.mark.parametrize("count", [12, 37, 250])
def test_reordered_frames_in_avi_are_counted(count: int, tmp_path: Path) -> None:
    """AVI holds no presentation times; H.264 with reordered frames in it still gives the right ones."""
    write_video(tmp_path / "a.avi", count, codec="libx264", gop=20)
    assert numbers_of(clip_of(tmp_path / "a.avi")) == expected_numbers(count)


def test_b_frames_and_seeking_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """H.264 with reordered frames gives the same bits whether gaps are crossed by seeking or by decoding."""
    write_video(tmp_path / "a.mp4", 250, codec="libx264", gop=20)
    monkeypatch.setattr(video, "SEEK_AHEAD_S", 1e9)
    decoded = clip_of(tmp_path / "a.mp4")
    monkeypatch.setattr(video, "SEEK_AHEAD_S", 0.5)
    sought = clip_of(tmp_path / "a.mp4")
    assert numbers_of(decoded) == expected_numbers(250)
    np.testing.assert_array_equal(decoded.frames_FHW3, sought.frames_FHW3)


def test_a_video_of_one_frame_shows_it_throughout(tmp_path: Path) -> None:
    """One frame of a tenth of a second fills the clip."""
    write_video(tmp_path / "a.mp4", 1)
    clip = clip_of(tmp_path / "a.mp4")
    assert clip.duration_s == pytest.approx(0.1)
    assert len(clip.frames_FHW3) == video.FRAMES
    assert (clip.frames_FHW3 == clip.frames_FHW3[0]).all()


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_is_honoured(degrees: int, tmp_path: Path) -> None:
    """A phone's display matrix (ISO/IEC 14496-12, 8.3.2) turns the frames clockwise by its angle."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        frame[:24, :32] = 255  # the upper left corner
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    raw = bytearray(path.read_bytes())
    matrix_at = raw.find(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of times, ids and volume
    cosine, sine = round(math.cos(math.radians(degrees))), round(math.sin(math.radians(degrees)))
    matrix = (cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30)
    raw[matrix_at : matrix_at + 36] = b"".join(entry.to_bytes(4, "big", signed=True) for entry in matrix)
    path.write_bytes(raw)
    seen = clip_of(path).frames_FHW3[0].mean(axis=2)
    np.testing.assert_allclose(seen, np.rot90(frame.mean(axis=2), -degrees // 90), atol=40)


def test_large_frames_are_reduced(tmp_path: Path) -> None:
    """Frames come with a short side of at most SHORT_SIDE, in their shape."""
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((720, 1280, 3), 90, np.uint8))))
        container.mux(stream.encode())
    frames = clip_of(tmp_path / "a.mp4").frames_FHW3
    assert frames.shape == (video.FRAMES, video.SHORT_SIDE, 640, 3)
    assert abs(int(frames.mean()) - 90) <= 2


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_truncated_videos_are_refused(ending: str, share: float, tmp_path: Path) -> None:
    """A video cut before its end is refused in every container, indexed or not."""
    write_video(tmp_path / f"a.{ending}", 100)
    whole = (tmp_path / f"a.{ending}").read_bytes()
    (tmp_path / f"a.{ending}").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(SampleError):
        read("video", tmp_path / f"a.{ending}")


def test_a_truncated_video_with_its_index_in_front_is_refused(tmp_path: Path) -> None:
    """An MP4 for streaming still tells its whole duration when its end is missing."""
    with av.open(str(tmp_path / "a.mp4"), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(100):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(number_frame(number), format="rgb24")))
        container.mux(stream.encode())
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: int(len(whole) * 0.7)])
    with pytest.raises(SampleError, match="truncated"):
        read("video", tmp_path / "a.mp4")


@pytest.mark.parametrize("ending", ["mkv", "mp4", "avi"])
def test_zero_length_videos_are_refused(ending: str, tmp_path: Path) -> None:
    """A container with a video stream but no frames in it is refused."""
    with av.open(str(tmp_path / f"a.{ending}"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        container.start_encoding()
    with pytest.raises(SampleError, match=r"zero length|not a readable|no video stream"):
        read("video", tmp_path / f"a.{ending}")


def test_a_sound_file_is_no_video(tmp_path: Path) -> None:
    """A sound file, even in a video container, is refused as video."""
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(SampleError, match="no video stream"):
        read("video", tmp_path / "a.mp4")


@pytest.mark.parametrize(
    "script",
    [
        "ffconcat version 1.0\nfile good.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:2,\ngood.mp4\n#EXT-X-ENDLIST\n",
    ],
)
def test_play_lists_open_no_other_file(script: str, tmp_path: Path) -> None:
    """Scripts that FFmpeg would follow to other files or addresses are refused, though the file is there."""
    write_video(tmp_path / "good.mp4", 12)
    (tmp_path / "list.m3u8").write_text(script)
    with av.open(str(tmp_path / "list.m3u8")) as container:  # FFmpeg left alone does follow them
        assert container.format.name in {"concat", "hls"}
    with pytest.raises(SampleError, match="not a readable video"):
        read("video", tmp_path / "list.m3u8")


def write_held(path: Path, *, frames: int, seconds: int) -> None:
    """A screen recording at a variable rate: a few frames, the last of which stands still to the end."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        pictures = (
            av.VideoFrame.from_ndarray(number_frame(number), format="rgb24") for number in range(frames)
        )
        packets = [packet for picture in pictures for packet in stream.encode(picture)] + stream.encode()
        packets = [packet for packet in packets if packet.size]
        packets[-1].duration = round((seconds - (frames - 1) / 10) / packets[-1].time_base)
        container.mux(packets)


@pytest.mark.parametrize("ending", ["mkv", "mp4", "mov"])
@pytest.mark.parametrize("frames", [1, 2, 11])
def test_a_last_picture_that_stands_still_is_no_truncation(ending: str, frames: int, tmp_path: Path) -> None:
    """The file is whole, and the last frame is on show at every moment after it begins."""
    write_held(tmp_path / f"a.{ending}", frames=frames, seconds=30)
    clip = clip_of(tmp_path / f"a.{ending}")
    assert clip.duration_s == pytest.approx(30, abs=0.2)
    assert numbers_of(clip)[1:] == [frames - 1] * (video.FRAMES - 1)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_cut_recording_is_refused_whatever_stands_still(share: float, tmp_path: Path) -> None:
    """Its own structure tells a cut Matroska file from one whose picture stands still."""
    write_held(tmp_path / "a.mkv", frames=11, seconds=30)
    whole = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "a.mkv").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(SampleError, match=r"truncated|not a readable"):
        read("video", tmp_path / "a.mkv")


@pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov", "frag_keyframe+default_base_moof", "dash"])
def test_fragments_are_read_whole_or_refused(flags: str, tmp_path: Path) -> None:
    """An MP4 of fragments has no index of the whole: its boxes show where it is cut or overwritten."""
    with av.open(str(tmp_path / "a.mp4"), "w", options={"movflags": flags}) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = 4
        for number in range(24):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(number_frame(number), format="rgb24")))
        container.mux(stream.encode())
    film = (tmp_path / "a.mp4").read_bytes()
    assert numbers_of(clip_of(tmp_path / "a.mp4")) == expected_numbers(24)
    (tmp_path / "b.mp4").write_bytes(film + bytes(500))  # padding is no damage
    assert numbers_of(clip_of(tmp_path / "b.mp4")) == expected_numbers(24)
    box = film.rindex(b"moof", 0, int(len(film) * 0.6)) - 4
    for torn in (film[: box + 60], film[: len(film) * 9 // 10], film[:box] + bytes(8) + film[box + 8 :]):
        (tmp_path / "b.mp4").write_bytes(torn)
        with pytest.raises(SampleError, match="truncated or damaged within its last fragment"):
            read("video", tmp_path / "b.mp4")


@pytest.mark.parametrize(("ending", "codec"), [("mpg", "mpeg1video"), ("ts", "mpeg2video")])
def test_joined_mpeg_films_are_refused(ending: str, codec: str, tmp_path: Path) -> None:
    """Each film's clock begins at 0, so the frames of the second would hide behind those of the first."""
    form = {"mpg": "mpeg", "ts": "mpegts"}[ending]
    write_video(tmp_path / f"a.{ending}", 48, rate=24, codec=codec, form=form)
    clip_of(tmp_path / f"a.{ending}")
    film = (tmp_path / f"a.{ending}").read_bytes()
    (tmp_path / f"b.{ending}").write_bytes(film + film)
    with pytest.raises(SampleError, match="clock begins again"):
        read("video", tmp_path / f"b.{ending}")


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
def test_joined_films_are_refused(ending: str, tmp_path: Path) -> None:
    """Of `cat a b` FFmpeg reads the first film alone: refused, as a film and as a sound."""
    write_video(tmp_path / f"a.{ending}", 12)
    film = (tmp_path / f"a.{ending}").read_bytes()
    (tmp_path / f"b.{ending}").write_bytes(film + film)
    with pytest.raises(SampleError, match="several files are joined to one"):
        read("video", tmp_path / f"b.{ending}")
    (tmp_path / f"c.{ending}").write_bytes(film + bytes(500))  # padding is no film
    assert numbers_of(clip_of(tmp_path / f"c.{ending}")) == list(range(12))


def test_a_joined_sound_of_an_mp4_is_refused(tmp_path: Path) -> None:
    """`cat` of two .m4a files would be heard in part."""
    with av.open(str(tmp_path / "a.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="flt", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    sound = (tmp_path / "a.m4a").read_bytes()
    (tmp_path / "b.m4a").write_bytes(sound + sound)
    read("audio", tmp_path / "a.m4a")
    with pytest.raises(SampleError, match="several files are joined to one"):
        read("audio", tmp_path / "b.m4a")

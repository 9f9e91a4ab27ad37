"""Reads videos with PyAV: a few frames at evenly spaced moments, exact to the frame."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from data.errors import SampleError
from data.readers.container import open_container
from data.readers.matroska import is_joined_matroska, is_whole_matroska
from data.readers.payload import Bytes, Clip
from data.readers.untrusted import MEBIBYTE, decoding

MAX_BYTES = 2048 * MEBIBYTE
MAX_PIXELS = 7680 * 4320  # of one frame
FRAMES = 12  # every third, from the second on, is the middle of a quarter: these four are rendered
SHORT_SIDE = 360  # pixels: enough for every encoder here; twelve 4K frames would take 300 MB
SEEK_AHEAD_S = 4.0  # up to about this gap, decoding is cheaper than seeking
PATIENCE_S = 1.0  # a video counts as damaged if a frame is further from its time than this
# AVI stores no presentation times; where these codecs reorder frames, FFmpeg guesses them wrong.
REORDERING = ("h264", "hevc", "vc1")
MOST_BACK_S = 0.25  # decoding times only grow; a joined MPEG film begins again at 0
TRUNCATED_SHARE = 0.1  # of the declared duration; trimmed files lack a few frames, truncated ones more


def read_video(path: Path) -> Clip:
    """Read `FRAMES` frames: those shown at (i + 1/2) / FRAMES of the duration, i = 0 … FRAMES − 1.

    The packets are listed first, without decoding, so times are those of the frames, not of the header.
    Rotation is applied; frames with a short side above `SHORT_SIDE` are scaled down to it. A video with fewer
    frames than `FRAMES` gives some of them more than once. Raises `SampleError` for a video without frames,
    and for a truncated one, whose header declares a tenth more than the file has.
    """
    film = timeline(path)
    first, length = film.moments_P[0], film.end - film.moments_P[0]
    middles = [first + length * Fraction(2 * i + 1, 2 * FRAMES) for i in range(FRAMES)]
    picks = [film.moments_P[bisect_right(film.moments_P, middle) - 1] for middle in middles]
    return Clip(
        frames_FHW3=np.stack(decode_at(path, film, picks)),
        times_s_F=np.array([float((pick - first) * film.unit) for pick in picks]),
        duration_s=float(length * film.unit),
    )


@dataclass(frozen=True, slots=True)
class Timeline:
    """The start times of the P frames of a video, and the end of the last one, in units of `unit` seconds."""

    moments_P: list[int]  # sorted
    end: int
    unit: Fraction
    counted: bool  # times of decoded frames are unreliable; only their order counts


def _video_stream(container: Any, path: Path) -> Any:
    """The first video stream that is not the cover picture of an audio file."""
    for stream in container.streams.video:
        if stream.disposition & stream.disposition.attached_pic:
            continue
        if stream.codec_context is None:
            raise SampleError(f"{path}: its video codec is unknown; encode it again as H.264")
        pixels = stream.codec_context.width * stream.codec_context.height
        if pixels > MAX_PIXELS:
            raise SampleError(
                f"{path}: {pixels:,} pixels a frame are more than {MAX_PIXELS:,}; scale it down"
            )
        return stream
    raise SampleError(f"{path}: contains no video stream; use another file")


def timeline(path: Path) -> Timeline:
    """The start times of a video's frames, from its packets, without decoding.

    Raises `SampleError` for a video without frames and for a truncated one.
    """
    moments: dict[int, int] = {}  # start -> duration
    last_s = 0.0  # the end of the longest stream
    if path.is_file() and is_joined_matroska(path):
        raise SampleError(
            f"{path}: several files are joined to one, of which only the first would be read; split it"
        )
    with open_container(path, what="video", max_bytes=MAX_BYTES) as container:
        stream = _video_stream(container, path)
        unit: Fraction = stream.time_base
        with decoding(path, "video"):
            rate = stream.average_rate or stream.guessed_rate
            counted = container.format.name == "avi" and stream.codec_context.name in REORDERING
            latest: int | None = None
            for packet in container.demux():
                latest = _require_later(path, stream, packet, latest)
                # AVI has no presentation times.
                start = packet.dts if counted or packet.pts is None else packet.pts
                if start is None or not packet.size or packet.is_discard:
                    continue
                duration = packet.duration or 0
                last_s = max(last_s, float((start + duration) * packet.time_base))
                if packet.stream_index == stream.index:
                    moments[start] = duration or (round(1 / (rate * unit)) if rate else 0)
        end = max((start + duration for start, duration in moments.items()), default=0)
        if not moments or end <= min(moments):
            raise SampleError(f"{path}: zero length, it contains no frames; record or fetch it again")
        here_s = float((end - min(moments)) * unit)
        # Each format declares its duration elsewhere, and FFmpeg shortens that of a truncated AVI by itself.
        if container.format.name == "avi" and rate:
            promised_s = float(stream.frames / rate)
        elif stream.duration:
            promised_s = float(stream.duration * unit)
        else:  # Matroska: one duration, that of the longest stream
            here_s, promised_s = last_s, (container.duration or 0) / av.time_base
        whole = is_whole_matroska(path)
        if whole and here_s < promised_s * (1 - TRUNCATED_SHARE):
            # At a variable frame rate the last frame is shown until the declared end.
            end, here_s = max(end, round(promised_s / unit)), promised_s
    if whole is False or here_s < promised_s * (1 - TRUNCATED_SHARE):
        raise SampleError(f"{path}: truncated, {here_s:.1f} of {promised_s:.1f} s are there; fetch it again")
    return Timeline(sorted(moments), end, unit, counted)


def _require_later(path: Path, stream: Any, packet: Any, latest: int | None) -> int | None:
    """The decoding time of the stream's latest packet, in its time unit, given that of the one before.

    Raises `SampleError` where the clock starts anew: frames of two films would have the same times.
    """
    if packet.stream_index != stream.index or packet.dts is None:
        return latest
    if latest is not None and (latest - packet.dts) * stream.time_base > MOST_BACK_S:
        raise SampleError(
            f"{path}: its clock begins again at {float(latest * stream.time_base):.1f} s: several files are "
            "joined to one; split it"
        )
    return int(packet.dts)


def decode_at(
    path: Path, film: Timeline, picks: list[int], *, short_side: int = SHORT_SIDE, may_seek: bool = True
) -> list[Bytes]:
    """The frames that start at `picks` (sorted, from `film.moments_P`), upright, uint8[H, W, 3] each.

    Frames with a short side above `short_side` are scaled down to it. Long gaps are crossed by seeking to the
    key frame before the pick. If the index leads past it (poorly muxed files), the file is read again
    sequentially.
    """
    seek_ahead, patience = round(SEEK_AHEAD_S / film.unit), round(PATIENCE_S / film.unit)
    frames: list[Bytes] = []
    with open_container(path, what="video", max_bytes=MAX_BYTES) as container, decoding(path, "video"):
        stream = _video_stream(container, path)
        stream.thread_count = 1  # whole samples are decoded in parallel, not frames
        decoder = _times(container, stream, film)
        shown, ahead = None, next(decoder, None)
        for pick in picks:
            if may_seek and not film.counted and ahead is not None and pick - ahead[0] > seek_ahead:
                container.seek(pick, stream=stream)
                decoder = _times(container, stream, film)
                shown, ahead = None, next(decoder, None)
                if ahead is None or ahead[0] > pick:
                    return decode_at(path, film, picks, short_side=short_side, may_seek=False)
            while ahead is not None and (shown is None or ahead[0] <= pick):
                shown, ahead = ahead, next(decoder, None)
            if shown is None or abs(shown[0] - pick) > patience:
                raise SampleError(
                    f"{path}: damaged, no picture at {float(pick * film.unit):.1f} s; fetch it again"
                )
            frames.append(_upright(shown[1], short_side))
    if len({frame.shape for frame in frames}) > 1:
        raise SampleError(f"{path}: the frame size changes within the video; encode it again at one size")
    return frames


def _times(container: Any, stream: Any, film: Timeline) -> Iterator[tuple[int, Any]]:
    """(start, frame) of a stream's frames, in presentation order."""
    if film.counted:
        return zip(film.moments_P, container.decode(stream), strict=False)
    return ((frame.pts if frame.pts is not None else frame.dts, frame) for frame in container.decode(stream))


def _upright(frame: Any, short_side: int) -> Bytes:
    """uint8[H, W, 3] of a decoded frame, no larger than `short_side`, rotated by its display matrix."""
    shrink = min(1.0, short_side / min(frame.width, frame.height))
    width, height = (max(1, round(side * shrink)) for side in (frame.width, frame.height))
    how = {"interpolation": "AREA"} if shrink < 1 else {}
    # One thread, as for decoding: PyAV would start one per core for each frame, for the same bits.
    rgb_HW3: Bytes = frame.reformat(width, height, format="rgb24", threads=1, **how).to_ndarray()
    # FFmpeg's angle is counter-clockwise, as is np.rot90's.
    return np.ascontiguousarray(np.rot90(rgb_HW3, round(frame.rotation / 90)))

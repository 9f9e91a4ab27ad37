"""Videos, through PyAV: a few frames at evenly spaced moments, exact to the frame."""

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
from data.readers.matroska import is_whole_matroska
from data.readers.payload import Bytes, Clip
from data.readers.untrusted import MEBIBYTE, decoding

MAX_BYTES = 2048 * MEBIBYTE
MAX_PIXELS = 7680 * 4320  # of one frame
FRAMES = 12  # every third, from the second on, stands at the middle of a quarter: the four that are drawn
SHORT_SIDE = 360  # enough for every encoder here, and twelve 4K frames would take 300 MB
SEEK_AHEAD_S = 4.0  # decoding on is cheaper than seeking up to about here
PATIENCE_S = 1.0  # how far from its moment a frame may be before the video counts as damaged
# AVI has no presentation times, and where these codecs reorder frames FFmpeg guesses them wrong.
REORDERING = ("h264", "hevc", "vc1")
TRUNCATED_SHARE = 0.1  # trimmed files miss a few frames of what their header says; truncated ones miss more


def read_video(path: Path) -> Clip:
    """Read `FRAMES` frames: the ones on show at (i + 1/2) / FRAMES of the duration, i = 0 … FRAMES − 1.

    The packets are listed first, without decoding, so the times are the frames' own, not the header's. Raises
    `SampleError` for a video without frames, and for one whose header promises a tenth more than there is: it
    was truncated. Rotation is applied; frames with a short side above `SHORT_SIDE` are scaled down to it. A
    video of fewer frames than `FRAMES` shows some of them more than once.
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
    """When each of the P frames of a video begins to show, and when the last one ends, in `unit` seconds."""

    moments_P: list[int]  # sorted
    end: int
    unit: Fraction
    counted: bool  # a decoded frame's own moment is not to be trusted, only its place among the others


def _moving_picture(container: Any, path: Path) -> Any:
    """The first video stream that is not the cover picture of a sound file."""
    for stream in container.streams.video:
        if stream.disposition & stream.disposition.attached_pic:
            continue
        if stream.codec_context is None:
            raise SampleError(
                f"{path}: names no codec that is known for its pictures; encode it again, as H.264"
            )
        pixels = stream.codec_context.width * stream.codec_context.height
        if pixels > MAX_PIXELS:
            raise SampleError(
                f"{path}: {pixels:,} pixels a frame are more than {MAX_PIXELS:,}; scale it down"
            )
        return stream
    raise SampleError(f"{path}: holds no moving picture; use another file")


def timeline(path: Path) -> Timeline:
    """The moments of a video's frames, from its packets, without decoding.

    Raises `SampleError` for no frames and for a truncated video.
    """
    moments: dict[int, int] = {}  # start -> duration
    last_s = 0.0  # the end of the longest stream
    with open_container(path, what="video", max_bytes=MAX_BYTES) as container:
        stream = _moving_picture(container, path)
        unit: Fraction = stream.time_base
        with decoding(path, "video"):
            rate = stream.average_rate or stream.guessed_rate
            counted = container.format.name == "avi" and stream.codec_context.name in REORDERING
            for packet in container.demux():
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
            raise SampleError(f"{path}: zero length, it holds no frames; record or fetch it again")
        here_s = float((end - min(moments)) * unit)
        # Each format keeps what it promises elsewhere, and FFmpeg cuts the duration of a cut AVI by itself.
        if container.format.name == "avi" and rate:
            promised_s = float(stream.frames / rate)
        elif stream.duration:
            promised_s = float(stream.duration * unit)
        else:  # Matroska: one duration, that of the longest stream
            here_s, promised_s = last_s, (container.duration or 0) / av.time_base
        whole = is_whole_matroska(path)
        if whole and here_s < promised_s * (1 - TRUNCATED_SHARE):
            # The last picture of a recording at a variable rate stands still to the end.
            end, here_s = max(end, round(promised_s / unit)), promised_s
    if whole is False or here_s < promised_s * (1 - TRUNCATED_SHARE):
        raise SampleError(f"{path}: truncated, {here_s:.1f} of {promised_s:.1f} s are there; fetch it again")
    return Timeline(sorted(moments), end, unit, counted)


def decode_at(
    path: Path, film: Timeline, picks: list[int], *, short_side: int = SHORT_SIDE, may_seek: bool = True
) -> list[Bytes]:
    """The frames that begin to show at `picks` (sorted, of `film.moments_P`), upright, uint8[H, W, 3] each.

    Frames with a short side above `short_side` are scaled down to it. Long gaps are crossed by seeking to the
    key frame before the pick. An index that leads past it (poorly muxed files) costs a second, sequential
    reading.
    """
    seek_ahead, patience = round(SEEK_AHEAD_S / film.unit), round(PATIENCE_S / film.unit)
    frames: list[Bytes] = []
    with open_container(path, what="video", max_bytes=MAX_BYTES) as container, decoding(path, "video"):
        stream = _moving_picture(container, path)
        stream.thread_count = 1  # samples are decoded in parallel, not frames
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
        raise SampleError(f"{path}: its pictures change their size on the way; encode it again at one size")
    return frames


def _times(container: Any, stream: Any, film: Timeline) -> Iterator[tuple[int, Any]]:
    """(start, frame) of a stream's frames, in the order in which they show."""
    if film.counted:
        return zip(film.moments_P, container.decode(stream), strict=False)
    return ((frame.pts if frame.pts is not None else frame.dts, frame) for frame in container.decode(stream))


def _upright(frame: Any, short_side: int) -> Bytes:
    """uint8[H, W, 3] of a decoded frame, no larger than `short_side`, turned as its display matrix says."""
    shrink = min(1.0, short_side / min(frame.width, frame.height))
    width, height = (max(1, round(side * shrink)) for side in (frame.width, frame.height))
    how = {"interpolation": "AREA"} if shrink < 1 else {}
    # One thread, as for decoding: PyAV would start one per core for each frame, to the same bits.
    rgb_HW3: Bytes = frame.reformat(width, height, format="rgb24", threads=1, **how).to_ndarray()
    # FFmpeg gives the angle counter-clockwise, as np.rot90 takes it.
    return np.ascontiguousarray(np.rot90(rgb_HW3, round(frame.rotation / 90)))

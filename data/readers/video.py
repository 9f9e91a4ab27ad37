"""Videos, through PyAV: a few frames at evenly spaced moments, exact to the frame."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from data.errors import SampleError
from data.readers.container import open_container
from data.readers.payload import Bytes, Clip
from data.readers.untrusted import MEBIBYTE, decoding

MAX_BYTES = 2048 * MEBIBYTE
MAX_PIXELS = 7680 * 4320  # of one frame
FRAMES = 12  # every third, from the second on, stands at the middle of a quarter: the four that are drawn
SHORT_SIDE = 360  # enough for every encoder here, and twelve 4K frames would take 300 MB
SEEK_AHEAD_S = 4.0  # decoding on is cheaper than seeking up to about here
PATIENCE_S = 1.0  # how far from its moment a frame may be before the video counts as damaged
TRUNCATED_SHARE = 0.1  # trimmed files miss a few frames of what their header says; truncated ones miss more


def read_video(path: Path) -> Clip:
    """Read `FRAMES` frames: the ones on show at (i + 1/2) / FRAMES of the duration, i = 0 … FRAMES − 1.

    The packets are listed first, without decoding, so the times are the frames' own, not the header's. Raises
    `SampleError` for a video without frames, and for one whose header promises a tenth more than there is: it
    was truncated. Rotation is applied; frames with a short side above `SHORT_SIDE` are scaled down to it. A
    video of fewer frames than `FRAMES` shows some of them more than once.
    """
    moments_P, end, unit = _timeline(path)
    first = moments_P[0]
    middles = [first + (end - first) * Fraction(2 * i + 1, 2 * FRAMES) for i in range(FRAMES)]
    picks = [moments_P[bisect_right(moments_P, middle) - 1] for middle in middles]
    frames = _decode(path, picks, unit)
    return Clip(
        frames_FHW3=np.stack(frames),
        times_s_F=np.array([float((pick - first) * unit) for pick in picks]),
        duration_s=float((end - first) * unit),
    )


def _moving_picture(container: Any, path: Path) -> Any:
    """The first video stream that is not the cover picture of a sound file."""
    for stream in container.streams.video:
        if stream.disposition & stream.disposition.attached_pic:
            continue
        pixels = stream.codec_context.width * stream.codec_context.height
        if pixels > MAX_PIXELS:
            raise SampleError(
                f"{path}: {pixels:,} pixels a frame are more than {MAX_PIXELS:,}; scale it down"
            )
        return stream
    raise SampleError(f"{path}: holds no moving picture; use another file")


def _timeline(path: Path) -> tuple[list[int], int, Fraction]:
    """When each frame begins to show (sorted), when the last one ends, and the unit of both in seconds."""
    moments: dict[int, int] = {}  # start -> duration
    last_s = 0.0  # the end of the longest stream
    with open_container(path, what="video", max_bytes=MAX_BYTES) as container:
        stream = _moving_picture(container, path)
        unit: Fraction = stream.time_base
        with decoding(path, "video"):
            rate = stream.average_rate or stream.guessed_rate
            for packet in container.demux():
                start = packet.pts if packet.pts is not None else packet.dts  # AVI has no presentation times
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
    if here_s < promised_s * (1 - TRUNCATED_SHARE):
        raise SampleError(f"{path}: truncated, {here_s:.1f} of {promised_s:.1f} s are there; fetch it again")
    return sorted(moments), end, unit


def _decode(path: Path, picks: list[int], unit: Fraction, *, may_seek: bool = True) -> list[Bytes]:
    """The frames on show at `picks` (sorted, in units of `unit` seconds), upright, uint8[H, W, 3] each.

    Long gaps are crossed by seeking to the key frame before the pick. An index that leads past it (poorly
    muxed files) costs a second, sequential reading.
    """
    seek_ahead, patience = round(SEEK_AHEAD_S / unit), round(PATIENCE_S / unit)
    frames: list[Bytes] = []
    with open_container(path, what="video", max_bytes=MAX_BYTES) as container, decoding(path, "video"):
        stream = _moving_picture(container, path)
        stream.thread_count = 1  # samples are decoded in parallel, not frames
        decoder = _times(container, stream)
        shown, ahead = None, next(decoder, None)
        for pick in picks:
            if may_seek and ahead is not None and pick - ahead[0] > seek_ahead:
                container.seek(pick, stream=stream)
                decoder = _times(container, stream)
                shown, ahead = None, next(decoder, None)
                if ahead is None or ahead[0] > pick:
                    return _decode(path, picks, unit, may_seek=False)
            while ahead is not None and (shown is None or ahead[0] <= pick):
                shown, ahead = ahead, next(decoder, None)
            if shown is None or abs(shown[0] - pick) > patience:
                raise SampleError(
                    f"{path}: damaged, no picture at {float(pick * unit):.1f} s; fetch it again"
                )
            frames.append(_upright(shown[1]))
    return frames


def _times(container: Any, stream: Any) -> Iterator[tuple[int, Any]]:
    """(start, frame) of a stream's frames, in the order in which they show."""
    return ((frame.pts if frame.pts is not None else frame.dts, frame) for frame in container.decode(stream))


def _upright(frame: Any) -> Bytes:
    """uint8[H, W, 3] of a decoded frame, no larger than `SHORT_SIDE`, turned as its display matrix says."""
    shrink = min(1.0, SHORT_SIDE / min(frame.width, frame.height))
    width, height = (max(1, round(side * shrink)) for side in (frame.width, frame.height))
    how = {"interpolation": "AREA"} if shrink < 1 else {}
    rgb_HW3: Bytes = frame.reformat(width, height, format="rgb24", **how).to_ndarray()
    # FFmpeg gives the angle counter-clockwise, as np.rot90 takes it.
    return np.ascontiguousarray(np.rot90(rgb_HW3, round(frame.rotation / 90)))

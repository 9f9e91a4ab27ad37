"""A short film of the object, held just above the table and turned before a camera in a slightly unsteady
hand.

It turns about a tilted axis, so that a ring or a cone shows its sides; the camera sways a little, so that
even a polished ball, which looks the same however it is turned, moves against the table.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from numpy.typing import NDArray

from data.tabletop.objects import ObjectSpec, random_of
from data.tabletop.scene import Body, frame_camera, rotation, upright
from data.tabletop.shading import draw_setting, luminance, photograph, to_srgb
from data.tabletop.shapes import F32

SECONDS = 1


@dataclass(frozen=True, slots=True)
class Film:
    """What the camera saw: linear light for the event sensor, and 8-bit sRGB for the video.

    `light_FHW` is relative luminance, `frames_FHW3` uint8; frame f was taken f / F seconds after the start.
    """

    light_FHW: F32
    frames_FHW3: NDArray[np.uint8]


def film(spec: ObjectSpec, solid: Any, *, side: int, frames: int) -> Film:
    """Film an object for one second: `frames` frames, `side` pixels square."""
    rng = random_of(spec, "video")
    azimuth = float(rng.uniform(0, 2 * np.pi))
    setting = draw_setting(rng, azimuth)
    standing = upright(spec, solid)
    reach = standing.reach
    tilt = rotation((float(np.cos(azimuth)), float(np.sin(azimuth)), 0.0), float(rng.uniform(-0.6, 0.6)))
    centre_3 = np.array([0, 0, reach * rng.uniform(1.05, 1.3)], np.float32)
    turn = float(rng.choice((-1, 1)) * rng.uniform(0.7, 1.2))  # radians in all: slow enough for 16 frames
    lean = float(rng.uniform(-0.5, 0.5))
    elevation, span = float(rng.uniform(0.35, 0.75)), float(reach * rng.uniform(2.3, 2.9))
    sway_phase = float(rng.uniform(0, 2 * np.pi))
    light, pictures = [], []
    exposure = 0.0
    for frame in range(frames):
        moment = frame / frames
        turned = rotation((float(np.sin(lean)), 0.0, float(np.cos(lean))), turn * moment)
        body = Body(spec, solid, (tilt @ turned @ standing.rotation_33).astype(np.float32), centre_3)
        sway = 2 * np.pi * moment + sway_phase
        aim_3 = centre_3 + np.float32(0.10 * reach) * np.array(
            [-np.sin(azimuth) * np.cos(sway), np.cos(azimuth) * np.cos(sway), np.sin(sway)], np.float32
        )
        camera = frame_camera(
            aim_3, span=span, azimuth=azimuth, elevation=elevation, width=side, height=side, view_angle=0.5
        )
        linear_HW3 = photograph(body, setting, camera, soft=1)
        light.append(luminance(linear_HW3))
        exposure = exposure or (0.24 / float(light[0].mean())) ** 0.6
        pictures.append(to_srgb(linear_HW3, exposure=exposure))
    return Film(np.stack(light), np.stack(pictures))


def write_video(frames_FHW3: NDArray[np.uint8], path: Path) -> None:
    """Write frames as an H.264 MP4. Equal frames give equal bytes.

    That takes one thread, the bit-exact flags, and the one preset without look-ahead: with look-ahead, the
    bits of small videos change from run to run (seen with PyAV 18.1 on 32 to 64 pixels; without it, never).
    """
    count, height, width = frames_FHW3.shape[:3]
    mp4 = io.BytesIO()  # FFmpeg reports a full disk less clearly than Python does
    with av.open(mp4, "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(count, SECONDS), options={"crf": "20", "preset": "ultrafast"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.flags |= Flags.bitexact
        for picture_HW3 in frames_FHW3:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture_HW3, format="rgb24")))
        container.mux(stream.encode())
    path.write_bytes(mp4.getvalue())

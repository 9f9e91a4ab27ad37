"""The output of the readers: one frozen record per modality, checked (finite, not empty, in range).

Shape legend: H height, W width, N points or events, T sound samples, F frames; the last axis of a picture
is red, green, blue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Bytes: TypeAlias = npt.NDArray[np.uint8]
Floats: TypeAlias = npt.NDArray[np.float32]
Doubles: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Picture:
    """A photo, or an event stream already rendered as a picture: upright, sRGB, transparency on white.

    A large JPEG is reduced by 2, 4 or 8, to a short side of at least
    `data.readers.pictures.image.SHORT_SIDE`.
    """

    rgb_HW3: Bytes


@dataclass(frozen=True, slots=True)
class Waveform:
    """A sound as one channel; full scale is ±1."""

    samples_T: Floats
    rate: int  # samples per second

    @property
    def seconds(self) -> float:
        return len(self.samples_T) / self.rate


@dataclass(frozen=True, slots=True)
class Points:
    """A cloud in the units and order of its file; `points.geometry.unit_sphere` normalises it."""

    xyz_N3: Floats
    rgb_N3: Bytes | None = None


@dataclass(frozen=True, slots=True)
class ThermalPicture:
    """Temperatures in kelvin if the file states a unit; else the sensor's raw counts, of unknown scale."""

    values_HW: Floats
    unit: Literal["kelvin", "counts"]


@dataclass(frozen=True, slots=True)
class Clip:
    """Frames taken at evenly spaced moments of a video.

    `times_s_F`: the start times of the frames in seconds from the start of the video. The frames are upright,
    and no larger than `data.readers.video.SHORT_SIDE` on their short side.
    """

    frames_FHW3: Bytes
    times_s_F: Doubles
    duration_s: float


@dataclass(frozen=True, slots=True)
class Events:
    """The events of an event camera, in file order. Polarity is true where brightness increased."""

    x_N: npt.NDArray[np.uint16]
    y_N: npt.NDArray[np.uint16]
    t_us_N: Integers
    polarity_N: npt.NDArray[np.bool_]
    width: int  # of the sensor, in pixels
    height: int


@dataclass(frozen=True, slots=True)
class Text:
    """A text without byte-order mark and outer white space."""

    text: str


Payload: TypeAlias = Picture | Waveform | Points | ThermalPicture | Clip | Events | Text
AnyArray: TypeAlias = npt.NDArray[Any]

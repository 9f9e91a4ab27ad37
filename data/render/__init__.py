"""Renderings: draws every modality as pictures, for encoders, vision LLMs and reports that need pictures.

| modality | drawn as | views |
|---|---|---|
| image | the picture itself, reduced | 1 |
| audio | log-mel spectrogram, fixed decibel range | 1 |
| point | shaded depth, from four sides | 4 |
| thermal | grey, between the picture's own robust limits | 1 |
| video | the frames at the middle of each quarter | 4 |
| event | polarity histogram (or another of `event.py`); an event picture is passed through | 1 (or 4) |

All are uint8[H, W, 3], about `canvas.SIZE` pixels, and depend on the payload alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from data.modality import Modality
from data.readers import read_prepared
from data.readers.axes import File
from data.readers.payload import Bytes, Clip, Events, Payload, Picture, Points, Text, ThermalPicture, Waveform
from data.render.canvas import contact_sheet, heat_picture, quarter_frames, shrink
from data.render.depth import depth_views
from data.render.event import EVENT_DRAWINGS, EventRepresentation
from data.render.spectrogram import mel_picture

DEFAULT_EVENTS: EventRepresentation = "histogram"


def render_version(events: EventRepresentation = DEFAULT_EVENTS) -> str:
    """The version string of all renderings, with the given representation of events."""
    return f"3:mel128-60dB,depth4,heat-p0.1,quarters4,{EVENT_DRAWINGS[events].version}"


# Part of an encoder's identity: change it whenever a reader or a rendering changes by a single bit, because
# stored vectors then no longer match the pictures.
RENDER_VERSION = render_version()

RENDERERS: dict[type, Callable[[Any], list[Bytes]]] = {
    Picture: lambda payload: [shrink(payload.rgb_HW3)],
    Waveform: lambda payload: [mel_picture(payload)],
    Points: depth_views,
    ThermalPicture: lambda payload: [heat_picture(payload)],
    Clip: quarter_frames,
    Events: EVENT_DRAWINGS[DEFAULT_EVENTS].draw,
}


def drawn(modality: Modality, file: File) -> list[Bytes]:
    """`render(read(modality, file))`, both in the decoder process: it holds no lock of this one, and the
    pictures are smaller than the payload. Raises SampleError for a bad file, and ValueError for a text."""
    views: list[Bytes] = read_prepared(modality, file, "data.render:render")
    return views


def render(payload: Payload, *, events: EventRepresentation = DEFAULT_EVENTS) -> list[Bytes]:
    """Draw a payload as one or more uint8[H, W, 3] views. Raises ValueError for a text.

    `events`: the representation of event streams; `render_version(events)` is the matching version string.
    """
    if isinstance(payload, Text):
        raise ValueError("a text has no rendering; encode it with a text encoder")
    if isinstance(payload, Events):
        return EVENT_DRAWINGS[events].draw(payload)
    return RENDERERS[type(payload)](payload)


__all__ = ["RENDER_VERSION", "EventRepresentation", "contact_sheet", "drawn", "render", "render_version"]

"""Sounds on the report: the first seconds of a sample as a player that needs no other file."""

from __future__ import annotations

import io
import math

import numpy as np
import soundfile as sf

from data.readers.payload import Waveform
from pipeline.html.elements import Html, data_uri, el

_SECONDS = 2.0  # at 16,000 samples per second 64 kB


def player(sound: Waveform, *, label: str) -> Html:
    """An `<audio>` element with the first two seconds as a 16-bit WAV in a `data:` address."""
    short = sound.samples_T[: math.ceil(_SECONDS * sound.rate)]
    buffer = io.BytesIO()
    sf.write(buffer, np.clip(short, -1, 1), sound.rate, format="WAV", subtype="PCM_16")
    return el(
        "audio",
        src=data_uri(buffer.getvalue(), "audio/wav"),
        controls="",
        preload="none",
        aria_label=label,
    )

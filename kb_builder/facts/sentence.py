"""The describer `facts`: the measurements of a sample in one plain sentence, without any model.

The sentences use graded words (`a bright, long-ringing strike`) rather than figures, because a text encoder
reads words; figures are given where they are informative by themselves. A sentence never guesses what the
thing is. Two samples with equal grades get the same sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from data.readers.payload import Clip, Events, Payload, Picture, Points, Text, ThermalPicture, Waveform
from kb_builder.facts.events import describe_events
from kb_builder.facts.pictures import describe_clip, describe_picture, describe_thermal
from kb_builder.facts.points import describe_points
from kb_builder.facts.sound import describe_sound

FACTS_VERSION = "1"  # raise it when the same file would give another sentence


def describe_text(text: Text) -> str:
    """The text itself, with single spaces for its white space."""
    return " ".join(text.text.split())


_DESCRIBE: dict[type, Callable[[Any], str]] = {
    Picture: describe_picture,
    Waveform: describe_sound,
    Points: describe_points,
    ThermalPicture: describe_thermal,
    Clip: describe_clip,
    Events: describe_events,
    Text: describe_text,
}


def measure(payload: Payload) -> str:
    """The measured facts of a sample in one sentence of fewer than 60 words; of a text, the text itself."""
    return _DESCRIBE[type(payload)](payload)

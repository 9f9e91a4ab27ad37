"""kb_builder.facts.sentence: every payload has one short, repeatable sentence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.readers.payload import Clip, Events, Payload, Picture, Points, Text, ThermalPicture, Waveform
from kb_builder.facts.sentence import measure


def payloads(seed: int, size: int) -> list[Payload]:
    """One random payload of every kind, `size` long, wide or many."""
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 256, size=(3, size, size + 1, 3), dtype=np.uint8)
    place = draw.integers(0, size, size=(2, size)).astype(np.uint16)
    moments = np.sort(draw.integers(0, 10**6, size=size))
    return [
        Picture(pixels[0]),
        Waveform(draw.uniform(-1, 1, size=size).astype(np.float32), 8000),
        Points(draw.normal(size=(size, 3)).astype(np.float32), pixels[0, :, 0]),
        ThermalPicture(draw.uniform(200, 400, size=(size, size)).astype(np.float32), "kelvin"),
        ThermalPicture(draw.uniform(0, 65535, size=(size, size)).astype(np.float32), "counts"),
        Clip(pixels, np.arange(3) / 3, 1.0),
        Events(place[0], place[1], moments, moments % 2 == 0, size, size),
    ]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 40))
def test_one_short_sentence_for_anything(seed: int, size: int) -> None:
    """Random payloads, down to one pixel or event: fewer than 60 words, no NaN, repeatable."""
    for payload in payloads(seed, size):
        text = measure(payload)
        assert text == measure(payload)
        assert len(text.split()) < 60
        assert text[0].isupper()
        assert text.endswith(".")
        assert "nan" not in text
        assert "inf" not in text
        assert "\n" not in text


def test_a_text_is_its_own_fact() -> None:
    """A text is told as it is, on one line."""
    assert measure(Text("A wooden\n  ball. ")) == "A wooden ball."


def test_no_other_payload() -> None:
    """What no reader hands over is a bug of ours, not a sentence."""
    with pytest.raises(KeyError):
        measure("text")  # type: ignore[arg-type]

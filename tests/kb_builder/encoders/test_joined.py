"""Encoders of one space as one: what cannot be joined is refused, where the joint would say nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.errors import InputError
from kb_builder.encoders import load_encoder
from kb_builder.encoders.base import unit_rows
from kb_builder.encoders.joined import join


@dataclass(frozen=True)
class Stub:
    """An encoder whose vector is the same for everything."""

    name: str
    modalities: frozenset[str]
    direction: tuple[float, float] = (1.0, 0.0)
    identity: str = "x"
    dim: int = 2
    licence: str = "MIT"
    parameters: int = 0

    def prepare(self, modality: str, source: Path | str) -> Any:
        return source

    def encode(self, batch: Sequence[Any]) -> Any:
        return unit_rows(np.tile(np.array(self.direction), (len(batch), 1)))


CLIP = Stub("clip:a", frozenset({"text", "image", "point"}))
POINT = Stub("point:b", frozenset({"point"}))


def test_an_encoder_that_would_see_nothing_is_refused() -> None:
    """`point + clip` would silently take the CLIP for clouds, too."""
    joined = join("clip:a + point:b", [CLIP, POINT])
    assert [joined.owner(modality) for modality in ("text", "image", "point")] == [0, 0, 1]
    with pytest.raises(InputError, match=r"point:b would encode nothing.*name it last"):
        join("point:b + clip:a", [POINT, CLIP])


def test_spaces_of_their_own_are_refused() -> None:
    """CLIP and CLAP may have as many dimensions; a text lies elsewhere in each."""
    other = Stub("clap:c", frozenset({"text", "audio"}), (0.0, 1.0))
    with pytest.raises(InputError, match=r"clip:a and clap:c do not share a space .* cosine of 0\.00"):
        join("clip:a + clap:c", [CLIP, other])
    same = Stub("clip:d", frozenset({"text", "audio"}), (1.0, 0.1))
    assert join("clip:a + clip:d", [CLIP, same]).owner("audio") == 1


def test_a_real_model_agrees_with_itself(save_clip: Callable[[str], Path]) -> None:
    """The trial text goes through a real tokenizer and tower."""
    clip = f"clip:{save_clip('clip')}"
    assert load_encoder(f"{clip} + {clip}").modalities == load_encoder(clip).modalities

"""Your own encoder: a class with seven members, a function that loads it, and one line in a table.

    python examples/own_encoder.py

This one hashes words into 96 numbers and pictures into a coarse grid of colours. It shows the form, not a
good encoder; put your model where `_of_text` and `_of_picture` are.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.files import hash_text
from data.modality import Modality
from data.readers import read
from kb_builder.encoders import FACTORIES, load_encoder
from kb_builder.encoders.base import Floats, Source, as_file, unit_rows

DIM, GRID = 96, 4


@dataclass(frozen=True)
class WordsAndColours:
    """Texts and photos as unit vectors of 96 numbers."""

    name: str = "words"
    # All that decides the vectors belongs into the identity: vectors of different ones are never mixed.
    identity: str = hash_text("words and colours, version 1, 96 dimensions")
    dim: int = DIM
    modalities: frozenset[str] = frozenset({"text", "image"})
    licence: str = "MIT"
    parameters: int = 0
    # Of a text encoder: how long a text may be. Longer descriptions are rejected as `too_long`, not cut.
    token_limit: int = 256

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def prepare(self, modality: Modality, source: Source) -> Floats:
        """Decode one sample, in any thread; `read` refuses bad files with a SampleError of one line."""
        if modality == "text":
            words = source if isinstance(source, str) else read("text", source).text  # type: ignore[union-attr]
            return _of_text(words)
        return _of_picture(read(modality, as_file(source)).rgb_HW3)  # type: ignore[union-attr]

    def encode(self, batch: Sequence[Any]) -> Floats:
        """The model's part: float32[N, D], rows of unit length."""
        return unit_rows(np.stack(batch)) if len(batch) else np.zeros((0, DIM), np.float32)


def _of_text(text: str) -> Floats:
    counts_D = np.full(DIM, 1e-3, np.float32)
    for word in text.lower().replace(".", " ").replace(",", " ").split():
        counts_D[zlib.crc32(word.encode()) % DIM] += 1  # not `hash`, which differs from process to process
    return counts_D


def _of_picture(rgb_HW3: np.ndarray) -> Floats:
    rows = [cell for band in np.array_split(rgb_HW3, GRID) for cell in np.array_split(band, GRID, axis=1)]
    colours = np.concatenate([cell.mean(axis=(0, 1)) for cell in rows]) / 255
    return np.concatenate([colours, np.full(DIM - len(colours), 1e-3)]).astype(np.float32)


def load_words(detail: str = "", *, device: str = "cpu") -> WordsAndColours:
    """Called with what follows the colon of the name (`words:DETAIL`) and with one device."""
    return WordsAndColours()


# Two places: this file, and this line. In the project file: [encode] text = "words", samples = "words".
FACTORIES["words"] = "own_encoder:load_words"


def main() -> None:
    encoder = load_encoder("words")
    two_ND = encoder.encode([encoder.prepare("text", each) for each in ("a red cup", "a red ball")])
    print(f"{encoder.name}: float32{list(two_ND.shape)}, cosine {two_ND[0] @ two_ND[1]:.2f}")


if __name__ == "__main__":
    main()

"""Imported vectors of another tool, as the encoder `imported:NAME`; it cannot encode anything new.

`unibind kb import` (kb_builder/encode/exchange.py) writes them into the embedding store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from data.errors import InputError, SampleError
from data.files import hash_json
from data.modality import Modality
from kb_builder.encoders.base import Floats, Source
from kb_builder.store.cards import card_or_empty

PREFIX = "imported:"


@dataclass(frozen=True)
class ImportedVectors:
    """An encoder whose vectors were imported."""

    name: str  # with the prefix
    dim: int
    modalities: frozenset[str]
    licence: str = "unknown"
    parameters: int = 0

    @property
    def identity(self) -> str:
        """SHA-256 (hex) over the name and the dimension; the model itself is not known."""
        return hash_json([self.name, self.dim])

    def prepare(self, modality: Modality, source: Source) -> NoReturn:
        """Raise SampleError: a sample without an imported vector cannot be encoded."""
        shown = f"“{source[:60]}”" if isinstance(source, str) else source
        raise SampleError(f"{shown}: no vector of it was imported as {self.name!r}; see `unibind kb import`")

    def encode(self, batch: Sequence[object]) -> Floats:
        """float32[0, D]: no sample can be prepared, so the batch is empty."""
        assert not batch
        return np.zeros((0, self.dim), np.float32)


def find_imported(kb: Path, name: str) -> ImportedVectors:
    """The encoder of imported vectors by its full name. Raises InputError if a knowledge base has none."""
    cards = {card["name"]: card for path in kb.glob("embeddings/*/") if (card := card_or_empty(path))}
    if name in cards:
        return ImportedVectors(name, cards[name]["dim"], frozenset(cards[name]["modalities"]))
    available = sorted(known for known in cards if known.startswith(PREFIX))
    raise InputError(
        f"[encode] {name!r}: nothing was imported under this name"
        + (f" (there is {', '.join(available)})" if available else "")
        + "; run `unibind kb import`"
    )


def is_imported(path: Path) -> bool:
    """Whether a file of the embedding store lies in a folder of imported vectors."""
    return any(
        str(card_or_empty(folder).get("name", "")).startswith(PREFIX)
        for folder in path.parents
        if folder.parent.name == "embeddings"
    )


def cannot_encode(name: str, *, device: str) -> NoReturn:
    """Raise InputError: imported vectors cannot encode anything new."""
    raise InputError(
        f"{PREFIX}{name}: its vectors were imported, so nothing new can be encoded with it; encode with the"
        " tool that made them, and import the result"
    )

"""Joined encoder: several encoders with one vector space as one, each for its own modalities.

`clip:A + point:B` encodes photos with A and point clouds with B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.errors import InputError
from data.files import hash_json
from data.modality import Modality
from kb_builder.encoders.base import Encoder, Floats, Source

# A test text, and the least cosine of its vectors if two encoders share a space.
_TRIED, _SAME = "a photo of a dog", 0.98


@dataclass(frozen=True)
class JoinedEncoder:
    """Each modality goes to the last encoder that takes it, but texts to the first.

    Whether the encoders share a space is tested with a text. An encoder that takes no texts cannot be tested:
    that a point encoder was trained towards the CLIP beside it is the user's claim.
    """

    name: str
    each: tuple[Encoder, ...]

    @property
    def identity(self) -> str:
        """SHA-256 (hex) over the identities of all, in order."""
        return hash_json([encoder.identity for encoder in self.each])

    @property
    def dim(self) -> int:
        """D, the dimension of the vectors."""
        return self.each[0].dim

    @property
    def modalities(self) -> frozenset[str]:
        """The modalities that any of them takes."""
        return frozenset().union(*(encoder.modalities for encoder in self.each))

    @property
    def licence(self) -> str:
        """Their licences, each once."""
        return ", ".join(dict.fromkeys(encoder.licence for encoder in self.each))

    @property
    def parameters(self) -> int:
        """The number of parameters of all together."""
        return sum(encoder.parameters for encoder in self.each)

    def prepare(self, modality: Modality, source: Source) -> tuple[int, Any]:
        """The index of the encoder for this modality, and the sample as that encoder prepared it."""
        number = self.owner(modality)
        return number, self.each[number].prepare(modality, source)

    def owner(self, modality: str) -> int:
        """The index in `each` of the encoder for a modality."""
        takes = [number for number, encoder in enumerate(self.each) if modality in encoder.modalities]
        return takes[0 if modality == "text" else -1]

    def encode(self, batch: Sequence[tuple[int, Any]]) -> Floats:
        """float32[N, D], unit rows."""
        vectors_ND = np.zeros((len(batch), self.dim), np.float32)
        for number, encoder in enumerate(self.each):
            rows = [row for row, (owner, _) in enumerate(batch) if owner == number]
            if rows:
                vectors_ND[rows] = encoder.encode([batch[row][1] for row in rows])
        return vectors_ND


def join(name: str, each: Sequence[Encoder]) -> JoinedEncoder:
    """Join encoders under one name.

    Raises InputError if they cannot share a space, since their dimensions or their vectors of a text differ,
    and if all modalities of one would go to others.
    """
    if len({encoder.dim for encoder in each}) > 1:
        dimensions = ", ".join(f"{encoder.name} has {encoder.dim}" for encoder in each)
        raise InputError(
            f"{name}: these encoders cannot share a space: their dimensions differ ({dimensions}); name"
            " encoders that were trained into one space"
        )
    joined = JoinedEncoder(name, tuple(each))
    used = {joined.owner(modality) for modality in joined.modalities}
    idle = next((encoder for number, encoder in enumerate(each) if number not in used), None)
    if idle is not None:
        raise InputError(
            f"{name}: {idle.name} would encode nothing, since each modality goes to the last encoder that"
            " takes it (texts to the first); remove it, or name it last"
        )
    reading = [encoder for encoder in each if "text" in encoder.modalities]
    for encoder in reading[1:]:
        cosine = float(_tried(reading[0]) @ _tried(encoder))
        if cosine < _SAME:
            raise InputError(
                f"{name}: {reading[0].name} and {encoder.name} do not share a space (their vectors of one"
                f" text have a cosine of {cosine:.2f}); name encoders that were trained into one space"
            )
    return joined


def _tried(encoder: Encoder) -> Floats:
    vector_D: Floats = encoder.encode([encoder.prepare("text", _TRIED)])[0]
    return vector_D

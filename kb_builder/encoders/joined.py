"""Several encoders of one space as one: `clip:A + point:B` sees photos with A and point clouds with B."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.errors import InputError
from data.files import hash_json
from data.modality import Modality
from kb_builder.encoders.base import Encoder, Floats, Source

_TRIED, _SAME = "a photo of a dog", 0.98  # a text, and the least cosine of its vectors in one space


@dataclass(frozen=True)
class JoinedEncoder:
    """Each modality goes to the last of the encoders that takes it, but texts to the first.

    That their spaces are one is the user's word where one has no texts: point encoders are trained towards a
    given CLIP. Of several with texts it is tried.
    """

    name: str
    each: tuple[Encoder, ...]

    @property
    def identity(self) -> str:
        """SHA-256 over the identities of all, in their order."""
        return hash_json([encoder.identity for encoder in self.each])

    @property
    def dim(self) -> int:
        """D."""
        return self.each[0].dim

    @property
    def modalities(self) -> frozenset[str]:
        """What any of them takes."""
        return frozenset().union(*(encoder.modalities for encoder in self.each))

    @property
    def licence(self) -> str:
        """Every licence once."""
        return ", ".join(dict.fromkeys(encoder.licence for encoder in self.each))

    @property
    def parameters(self) -> int:
        """Of all together."""
        return sum(encoder.parameters for encoder in self.each)

    def prepare(self, modality: Modality, source: Source) -> tuple[int, Any]:
        """Which encoder's it is, and what that one prepared."""
        number = self.owner(modality)
        return number, self.each[number].prepare(modality, source)

    def owner(self, modality: str) -> int:
        """Whose a modality is, by the place among `each`."""
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
    """Raises InputError where the spaces cannot be one: their dimensions, or their vectors of a text, differ;
    and where an encoder would be given nothing, since all that it takes goes to others.
    """
    if len({encoder.dim for encoder in each}) > 1:
        told = ", ".join(f"{encoder.name} has {encoder.dim}" for encoder in each)
        raise InputError(
            f"{name}: these encoders cannot share a space, since their dimensions differ ({told})"
        )
    joined = JoinedEncoder(name, tuple(each))
    used = {joined.owner(modality) for modality in joined.modalities}
    idle = next((encoder for number, encoder in enumerate(each) if number not in used), None)
    if idle is not None:
        raise InputError(
            f"{name}: {idle.name} would be given nothing, since each modality goes to the last that takes it"
            " (texts to the first); leave it out, or name it last"
        )
    reading = [encoder for encoder in each if "text" in encoder.modalities]
    for encoder in reading[1:]:
        cosine = float(_tried(reading[0]) @ _tried(encoder))
        if cosine < _SAME:
            raise InputError(
                f"{name}: {reading[0].name} and {encoder.name} have spaces of their own (their vectors of one"
                f" text have a cosine of {cosine:.2f}); name encoders that were trained into one space"
            )
    return joined


def _tried(encoder: Encoder) -> Floats:
    vector_D: Floats = encoder.encode([encoder.prepare("text", _TRIED)])[0]
    return vector_D

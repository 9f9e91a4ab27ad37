"""Encoder: the interface of every frozen model.

Shape legend: N samples, D dimensions, V views, S picture side in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from data.errors import InputError
from data.modality import Modality
from data.readers.axes import File

Floats = npt.NDArray[np.float32]
Source: TypeAlias = File | str  # the file of a sample, or a text itself
JOIN = " + "  # joins the names of encoders in one space


class Encoder(Protocol):
    """A frozen model that turns texts or samples into unit vectors.

    `prepare` decodes and preprocesses on the CPU, `encode` runs the model; both may be called from several
    threads at once. Vectors of encoders with different identities must never be compared or mixed.
    """

    @property
    def name(self) -> str:
        """The name that `load_encoder` takes."""

    @property
    def identity(self) -> str:
        """SHA-256 (hex) over all that decides the vectors: weights, preprocessing, renderings, dimension."""

    @property
    def dim(self) -> int:
        """D, the dimension of the vectors."""

    @property
    def modalities(self) -> frozenset[str]:
        """The modalities that `prepare` takes."""

    @property
    def licence(self) -> str:
        """The licence of the weights, as their package states it."""

    @property
    def parameters(self) -> int:
        """The number of frozen parameters."""

    def prepare(self, modality: Modality, source: Source) -> Any:
        """Decode one sample; for `text`, a str is the text itself. Raises SampleError for a bad file."""

    def encode(self, batch: Sequence[Any]) -> Floats:
        """float32[N, D], unit rows in the order of the batch of prepared samples."""


@runtime_checkable
class CountsTokens(Protocol):
    """What a text encoder may say, too: how long a text is for it. Longer ones are rejected, not cut."""

    @property
    def token_limit(self) -> int:
        """How many tokens of a text it reads."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text, special ones included."""


def as_file(source: Source) -> File:
    """The source of a sample as a file, for encoders that take no texts themselves."""
    return Path(source) if isinstance(source, str) else source


def unit_rows(vectors_ND: npt.NDArray[np.floating]) -> Floats:
    """Scale every row to length 1, in float64, so that only the result is rounded to float32.

    Raises InputError for a row that is zero or holds NaN or infinite values.
    """
    wide_ND = vectors_ND.astype(np.float64)
    length_N1 = np.linalg.norm(wide_ND, axis=1, keepdims=True)
    if not (np.isfinite(length_N1) & (length_N1 > 0)).all():
        raise InputError(
            "the encoder gives vectors that are NaN, infinite or zero: its weights are damaged, or its"
            " precision is too low; fetch the weights again, or name another encoder"
        )
    unit_ND: Floats = (wide_ND / length_N1).astype(np.float32)
    return unit_ND

"""Near-duplicates: an index that finds the earlier texts of a category which a new text resembles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

# Texts are compared by embedding only where the Jaccard similarity of their 3-grams is at least this. Among a
# real model's texts on 24 categories, no pair with a cosine of 0.95 or more had a similarity below 0.48;
# embedding every text would make the encoder, not the endpoint, limit the speed of a run.
COSINE_FROM_JACCARD = 0.4

Floats = npt.NDArray[np.float32]
Embed = Callable[[list[str]], Floats]  # N texts -> [N, D], unit rows


@dataclass(frozen=True, slots=True)
class SimilarTexts:
    """A text's number in the index; earlier texts' numbers, and their Jaccard similarities to it."""

    number: int
    others: npt.NDArray[np.intp]
    jaccard: npt.NDArray[np.float64]


@dataclass
class TrigramIndex:
    """The 3-grams of texts; gives a new text's exact Jaccard similarity to each of them.

    `_flat[_starts[i]:_starts[i + 1]]` are the numbers of text i's 3-grams: the shared ones are counted by one
    gather over all of them and one sum per text. For 1,000 texts that takes about 0.1 ms.
    """

    texts: list[str] = field(default_factory=list)
    row_ids: list[str] = field(default_factory=list)
    kept: list[bool] = field(default_factory=list)
    vectors: dict[int, Floats] = field(default_factory=dict)  # of those texts that were embedded
    _numbers: dict[str, int] = field(default_factory=dict)
    _flat: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(4096, np.int32))
    _starts: npt.NDArray[np.intp] = field(default_factory=lambda: np.zeros(64, np.intp))

    def gram_ids(self, plain: str) -> npt.NDArray[np.int32]:
        """The numbers of a normalised text's distinct 3-grams; new ones are given numbers."""
        numbers = self._numbers
        ids = [numbers.setdefault(gram, len(numbers)) for gram in trigrams(plain)]
        return np.array(ids, np.int32)

    def find_similar(
        self, grams: npt.NDArray[np.int32], floor: float
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """The texts (by number) with a Jaccard similarity of at least `floor`, and the similarities."""
        count = len(self.texts)
        if not count:
            return np.zeros(0, np.intp), np.zeros(0)
        starts = self._starts[: count + 1]
        mine = np.zeros(len(self._numbers), np.int16)
        mine[grams] = 1
        shared = np.add.reduceat(mine[self._flat[: starts[-1]]], starts[:-1])
        jaccard = shared / (np.diff(starts) + len(grams) - shared)
        found = np.flatnonzero(jaccard >= floor)
        return found, jaccard[found]

    def add(self, text: str, row_id: str, grams: npt.NDArray[np.int32]) -> int:
        """Add a text, not marked as kept; returns its number."""
        number = len(self.texts)
        end = self._starts[number] + len(grams)
        if end > len(self._flat):
            self._flat = np.concatenate([self._flat, np.zeros(max(len(self._flat), len(grams)), np.int32)])
        if number + 1 == len(self._starts):
            self._starts = np.concatenate([self._starts, np.zeros(len(self._starts), np.intp)])
        self._flat[self._starts[number] : end] = grams
        self._starts[number + 1] = end
        self.texts.append(text)
        self.row_ids.append(row_id)
        self.kept.append(False)
        return number


def trigrams(plain: str) -> frozenset[str]:
    """The character 3-grams of a normalised text; of a shorter text, the text itself."""
    return frozenset(plain[i : i + 3] for i in range(max(1, len(plain) - 2)))

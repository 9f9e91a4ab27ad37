"""Near-duplicates: an index that finds the earlier texts of a category which a new text resembles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

# Texts are compared by embedding only where the Jaccard similarity of their 3-grams is at least this. Among a
# real model's texts on 24 categories, no pair with a cosine of 0.95 or more had a similarity below 0.48;
# embedding every text would make the encoder, not the endpoint, limit the speed of a run.
COSINE_FROM_JACCARD = 0.4

_BITS = 1024  # of a text's signature
_WORDS = _BITS // 64
# Odd numbers of 32 bits, by which the three letters of a 3-gram choose its bit (multiplicative hashing).
_FACTORS = (np.uint32(0x9E3779B1), np.uint32(0x85EBCA77), np.uint32(0xC2B2AE3D))
_SHIFT = np.uint32(32 - _BITS.bit_length() + 1)
_LETTER = np.uint64(21)  # bits of a letter
_ROUNDING = 1e-6

Floats = npt.NDArray[np.float32]
Embed = Callable[[list[str]], Floats]  # N texts -> [N, D], unit rows


@dataclass(frozen=True, slots=True)
class SimilarTexts:
    """A text's number in the index; earlier texts' numbers, and their Jaccard similarities to it."""

    number: int
    others: list[int]
    jaccard: list[float]


@dataclass(frozen=True, slots=True)
class Grams:
    """A normalised text, how many distinct 3-grams it has, and its signature: a set bit for each of them."""

    plain: str
    count: int
    signature: npt.NDArray[np.uint64]  # [_WORDS]
    bits: int  # that are set


@dataclass
class TrigramIndex:
    """The 3-grams of texts; gives the texts whose Jaccard similarity to a new one is at least `floor`.

    Signatures bound the similarity from above: two texts share at most as many 3-grams as they share bits,
    and one more for each 3-gram of the new text that has not its own bit. So the signatures of all texts are
    compared, and the 3-grams of those few texts alone whose bound reaches `floor`.
    """

    floor: float
    texts: list[str] = field(default_factory=list)
    row_ids: list[str] = field(default_factory=list)
    kept: list[bool] = field(default_factory=list)
    vectors: dict[int, Floats] = field(default_factory=dict)  # of those texts that were embedded
    _plain: list[str] = field(default_factory=list)
    _signatures: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros((_WORDS, 64), np.uint64))
    _least: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(64))  # `_share` of its 3-grams

    @property
    def _share(self) -> float:
        """Texts with a similarity of `floor` share this much of the sum of their 3-grams."""
        return self.floor / (1.0 + self.floor)

    def find_similar(self, grams: Grams) -> tuple[list[int], list[float]]:
        """The texts (by number, ascending) with a Jaccard similarity of at least `floor`, and that."""
        similar: list[int] = []
        jaccard: list[float] = []
        candidates = self._candidates(grams)
        mine = trigrams(grams.plain) if candidates else frozenset()
        for other in candidates:
            theirs = trigrams(self._plain[other])
            shared = len(mine & theirs)
            value = shared / (len(mine) + len(theirs) - shared)
            if value >= self.floor:
                similar.append(other)
                jaccard.append(value)
        return similar, jaccard

    def _candidates(self, grams: Grams) -> list[int]:
        """The texts whose signatures allow a similarity of `floor`."""
        count = len(self.texts)
        both = self._signatures[:, :count] & grams.signature[:, None]
        shared = np.add.reduce(np.bitwise_count(both), axis=0, dtype=np.uint16)
        without_bit = grams.count - grams.bits
        least = self._least[:count] + (self._share * grams.count - without_bit - _ROUNDING)
        found: list[int] = (shared >= least).nonzero()[0].tolist()
        return found

    def add(self, text: str, row_id: str, grams: Grams) -> int:
        """Add a text, not marked as kept; returns its number."""
        number = len(self.texts)
        if number == len(self._least):
            self._signatures = np.concatenate([self._signatures, np.zeros_like(self._signatures)], axis=1)
            self._least = np.concatenate([self._least, np.zeros_like(self._least)])
        self._signatures[:, number] = grams.signature
        self._least[number] = self._share * grams.count
        self._plain.append(grams.plain)
        self.texts.append(text)
        self.row_ids.append(row_id)
        self.kept.append(False)
        return number


def read_grams(texts: Sequence[str]) -> list[Grams]:
    """The 3-grams of normalised texts (N of at most L letters), and their signatures."""
    if not texts:
        return []
    lengths_N = np.array([len(text) for text in texts])
    longest = max(3, int(lengths_N.max()))
    padded = "".join([text.ljust(longest) for text in texts]).encode("utf-32-le", "surrogatepass")
    letters_NL = np.frombuffer(padded, np.uint32).reshape(len(texts), longest)
    ones = (letters_NL[:, :-2], letters_NL[:, 1:-1], letters_NL[:, 2:])
    first, second, third = (part * factor for part, factor in zip(ones, _FACTORS, strict=True))
    places = (first ^ second ^ third) >> _SHIFT
    real = np.arange(longest - 2) < (lengths_N - 2)[:, None]  # the others are padding
    bits = np.zeros((len(texts), _BITS), np.uint8)
    bits[np.nonzero(real)[0], places[real]] = 1
    signatures = np.packbits(bits, axis=1).view(np.uint64)
    codes = np.zeros(real.shape, np.uint64)
    for part in ones:
        codes = (codes << _LETTER) | part
    codes[~real] = 0  # no 3-gram: a normalised text has no NUL
    codes.sort(axis=1)
    counts = (codes[:, 1:] != codes[:, :-1]).sum(axis=1) + (codes[:, 0] != 0)
    return [
        Grams(text, max(1, count), signature, set_bits)
        for text, count, signature, set_bits in zip(
            texts, counts.tolist(), signatures, bits.sum(axis=1).tolist(), strict=True
        )
    ]


def trigrams(plain: str) -> frozenset[str]:
    """The character 3-grams of a normalised text; of a shorter text, the text itself."""
    return frozenset([plain[i : i + 3] for i in range(max(1, len(plain) - 2))])

"""Coarse scores of segments, by which `screen` proposes: from products of floats, or of bytes.

Every way of scoring says how far it may be wrong. Products of floats have the bound of their arithmetic.
Products of bytes are exact, and several times as fast where the processor has instructions for them; what
rounding to bytes changes is measured for every vector: |x · d - x̂ · d̂| ≤ |x - x̂| |d| + |x̂| |d - d̂|. A mean is
taken off the keys before they are rounded, which adds the same to all scores of a query.

Shapes: Q queries of a block, M keys, K keys and S segments of a tile, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trainer.records import Doubles, Floats
from trainer.score.blas import Bytes, Product, byte_product, largest_error, parallel_map
from trainer.score.segments import TILE, Keys

_LARGEST_BYTE = 127
_TINY = 1e-30  # the reciprocal of a smaller step overflows
_SAMPLED = 1024  # keys whose mean is taken off all
_MARGIN = 1.001  # for the arithmetic of lengths and errors in float32


@dataclass(frozen=True)
class Block:
    """The coarse scores of one block of queries."""

    # How far below the T-th best coarse score a segment's score may lie if it belongs to the T best.
    slack_Q: Floats
    # The best score of each segment first … last - 1: [S, Q], overwritten by the next call. Only scores of
    # one query are comparable.
    scores: Callable[[int, int], Floats]


class Coarse(Protocol):
    """A way to score segments coarsely, with a known error."""

    @property
    def decides(self) -> bool:
        """Whether its error is so small that its scores decide most orders."""

    def block(self, queries_QD: Floats, norms_Q: Doubles) -> Block:
        """The scores for some queries; `norms_Q` are their lengths, finite."""


@dataclass(frozen=True)
class ByProduct:
    """Scores from products of floats."""

    keys: Keys
    product: Product
    longest: float  # the length of the longest key

    @property
    def decides(self) -> bool:
        """See `Coarse`."""
        return self.product.unit == 0

    def block(self, queries_QD: Floats, norms_Q: Doubles) -> Block:
        """See `Coarse`."""
        keys, multiply = self.keys, self.product.multiply
        queries_DQ = np.ascontiguousarray(queries_QD.T)
        found = np.empty((TILE, len(queries_QD)), np.float32)
        best = np.empty_like(found)

        def scores(first: int, last: int) -> Floats:
            return best_of_segments(
                keys,
                first,
                last,
                lambda start, stop, out_KQ: multiply(keys.float32(start, stop), queries_DQ, out_KQ),
                found,
                best,
            )

        return Block(float_slack(self.longest * norms_Q, queries_QD.shape[1], self.product.unit), scores)


class ByBytes:
    """Scores from products of bytes; the rounded keys take a byte per number."""

    decides = False

    def __init__(self, keys: Keys, multiply: Callable[[Bytes, Bytes, Any], object] = byte_product) -> None:
        """Round the keys, which are finite and not longer than 10⁶; call it within `one_thread_each`."""
        self._keys, self._multiply = keys, multiply
        every = max(1, len(keys.vectors_MD) // _SAMPLED)
        mean_D = keys.vectors_MD[::every].mean(axis=0, dtype=np.float64).astype(np.float32)
        self._values_MD = np.empty(keys.vectors_MD.shape, np.int8)
        self._steps_S = np.empty(len(keys.bounds) - 1, np.float32)

        def round_tile(tile: tuple[int, int]) -> tuple[float, float]:
            first, last = tile
            pieces = keys.pieces(first, last)
            largest_K = np.concatenate([np.abs(keys.float32(*rows) - mean_D).max(axis=1) for rows in pieces])
            starts_S = np.asarray(keys.bounds[first:last]) - pieces[0][0]
            self._steps_S[first:last] = _steps(np.maximum.reduceat(largest_K, starts_S))
            steps_K = np.repeat(self._steps_S[first:last], np.diff(starts_S, append=len(largest_K)))
            longest = error = 0.0
            for start, stop in pieces:
                off_KD = keys.float32(start, stop) - mean_D
                longest = max(longest, float(np.sqrt(np.vecdot(off_KD, off_KD)).max()))
                here = slice(start - pieces[0][0], stop - pieces[0][0])
                errors_K = _round(off_KD, steps_K[here], self._values_MD[start:stop])
                error = max(error, float(errors_K.max()))
            return longest, error

        longest, largest_errors = zip(*parallel_map(round_tile, keys.tiles()), strict=True)
        self._longest = max(longest) * _MARGIN
        self._error = max(largest_errors) * _MARGIN + 1e-6 * self._longest

    def block(self, queries_QD: Floats, norms_Q: Doubles) -> Block:
        """See `Coarse`. The scores are in units of the query's step."""
        n, dim = queries_QD.shape
        steps_Q = _steps(np.abs(queries_QD).max(axis=1))
        values_QD = np.empty((n, dim), np.int8)
        x_QD = np.array(queries_QD)
        errors_Q = _round(x_QD, steps_Q, values_QD).astype(np.float64) * _MARGIN + 1e-6 * norms_Q
        values_DQ = np.ascontiguousarray(values_QD.T)
        found, best = (np.empty((TILE, n), np.int32) for _ in range(2))
        scaled = np.empty((TILE, n), np.float32)

        def scores(first: int, last: int) -> Floats:
            best_SQ = best_of_segments(
                self._keys,
                first,
                last,
                lambda start, stop, out_KQ: self._multiply(self._values_MD[start:stop], values_DQ, out_KQ),
                found,
                best,
            )
            scaled_SQ = scaled[: last - first]
            np.copyto(scaled_SQ, best_SQ, casting="same_kind")
            scaled_SQ *= self._steps_S[first:last, None]
            return scaled_SQ

        rounded_norms_Q = norms_Q * _MARGIN + errors_Q
        slack_Q = 2 * (errors_Q * self._longest + rounded_norms_Q * self._error)
        slack_Q += 2.0**-20 * rounded_norms_Q * (self._longest + self._error) + 2e-9
        return Block((slack_Q / steps_Q * _MARGIN).astype(np.float32), scores)


def float_slack(norms_Q: Doubles, dim: int, unit: float) -> Floats:
    """The slack of products of floats, from that of lengths: both scores may be wrong.

    The lengths themselves and the difference are float32, and rounding to decimals ties differences of up to
    10⁻⁹.
    """
    norm_error = 1 + largest_error(dim, 0.0)
    return ((2 * largest_error(dim, unit) * norm_error**2 + 2.0**-21) * norms_Q + 2e-9).astype(np.float32)


def best_of_segments(
    keys: Keys,
    first: int,
    last: int,
    multiply: Callable[[int, int, Any], object],
    product_KQ: npt.NDArray[Any],
    best_SQ: npt.NDArray[Any],
) -> npt.NDArray[Any]:
    """The largest product of each segment first … last - 1: [S, Q], in one of the two buffers.

    `multiply` writes the products of the keys start … stop - 1 into its third argument.
    """
    (start, stop), *rest = keys.pieces(first, last)
    scores_KQ = product_KQ[: stop - start]
    multiply(start, stop, scores_KQ)
    if keys.single:
        return scores_KQ
    best_SQ = best_SQ[: last - first]
    bounds = np.asarray(keys.bounds[first : last + 1])
    sizes_S = np.diff(bounds)
    if rest or (sizes_S == sizes_S[0]).all():
        scores_KQ.reshape(len(sizes_S), -1, product_KQ.shape[1]).max(axis=1, out=best_SQ)
    else:
        for segment, (above, below) in enumerate(pairwise((bounds - start).tolist())):
            scores_KQ[above:below].max(axis=0, out=best_SQ[segment])
    for start, stop in rest:
        multiply(start, stop, product_KQ[: stop - start])
        np.maximum(best_SQ, product_KQ[: stop - start].max(axis=0), out=best_SQ)
    return best_SQ


def _steps(largest_N: Floats) -> Floats:
    """The difference of two neighbouring bytes, for vectors whose largest number is given."""
    steps_N = largest_N / np.float32(_LARGEST_BYTE)
    return np.where(steps_N > _TINY, steps_N, np.float32(1))


def _round(x_ND: Floats, steps_N: Floats, values_ND: Bytes) -> Floats:
    """Write the vectors as bytes, in steps; returns how far each is from them. `x_ND` is overwritten."""
    steps_N1 = steps_N[:, None]
    scaled_ND = np.rint(x_ND / steps_N1)
    np.clip(scaled_ND, -_LARGEST_BYTE, _LARGEST_BYTE, out=scaled_ND)
    np.copyto(values_ND, scaled_ND, casting="unsafe")
    scaled_ND *= steps_N1
    x_ND -= scaled_ND
    errors_N: Floats = np.sqrt(np.vecdot(x_ND, x_ND))
    return errors_N

"""Score segments of keys in float64, rounded to nine decimals, with each segment's best key.

These scores decide in `topk`; the coarse ones of `screen` only propose. Why they are rounded: see
`geometry.SCORE_DECIMALS`.

Shapes: Q queries of a block, M keys, K keys and S segments of a tile, D dimensions, T best, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.records import Doubles, Floats, Ints
from trainer.score.geometry import rounded

TILE = 500  # keys compared at a time: with 512 queries, their float32 product fits the core's cache
BLOCK = 64  # queries of one float64 product
_PAIRS = 128  # scored together: larger temporary arrays are returned to the system each time, which is slow


@dataclass(frozen=True)
class Keys:
    """Rows to compare with, in segments: segment s is the rows bounds[s] … bounds[s + 1] - 1."""

    vectors_MD: Floats | npt.NDArray[np.float16]
    bounds: Ints | range  # [S + 1]; a range where every row is a segment, which takes no memory

    @property
    def single(self) -> bool:
        """Whether every segment is one key."""
        return len(self.bounds) - 1 == len(self.vectors_MD)

    def tiles(self) -> list[tuple[int, int]]:
        """Ranges of whole segments with at most TILE keys; a larger segment is a range by itself."""
        if self.single:
            return self.pieces(0, len(self.vectors_MD))
        tiles, first = [], 0
        while first < len(self.bounds) - 1:
            last = int(np.searchsorted(self.bounds, self.bounds[first] + TILE, side="right")) - 1
            last = max(first + 1, last)
            tiles.append((first, last))
            first = last
        return tiles

    def pieces(self, first: int, last: int) -> list[tuple[int, int]]:
        """The rows of a tile, at most TILE at a time: one range, unless its only segment is oversized."""
        start, stop = int(self.bounds[first]), int(self.bounds[last])
        return [(here, min(here + TILE, stop)) for here in range(start, stop, TILE)]

    def float32(self, start: int, stop: int) -> Floats:
        """Some keys as C-contiguous float32; not copied where they are that already."""
        return np.require(self.vectors_MD[start:stop], np.float32, ["C", "A"])


@dataclass(frozen=True)
class Top:
    """The T best segments of each query, best first."""

    segments_NT: Ints
    scores_NT: Doubles
    keys_NT: Ints  # the row of the best key of the segment


def concatenate(parts: Sequence[Top]) -> Top:
    """The results of several blocks of queries as one."""
    return Top(
        np.concatenate([part.segments_NT for part in parts]),
        np.concatenate([part.scores_NT for part in parts]),
        np.concatenate([part.keys_NT for part in parts]),
    )


def compare_all(queries_QD: Floats, keys: Keys, *, top: int) -> Top:
    """The T best segments of at most BLOCK queries, by comparing with every key."""
    x_QD = queries_QD.astype(np.float64)
    # Placeholders with score -∞, which the first segments replace.
    segments_QT, best_keys_QT = (np.full((len(x_QD), top), -1, dtype=np.int64) for _ in range(2))
    scores_QT = np.full((len(x_QD), top), -np.inf)
    scratch = _Scratch(x_QD.shape[1])
    for first, last in keys.tiles():
        best_QS, key_QS = _best_of_tile(x_QD, keys, first, last, scratch)
        # Segments found before have lower numbers: they come first, and win ties.
        rows = np.flatnonzero((best_QS > scores_QT[:, -1:]).any(axis=1))
        if len(rows) == 0:
            continue
        numbers_RS = np.broadcast_to(np.arange(first, last), (len(rows), last - first))
        both = np.concatenate([scores_QT[rows], best_QS[rows]], axis=1)
        order_RT = np.argsort(-both, axis=1, kind="stable")[:, :top]
        scores_QT[rows] = np.take_along_axis(both, order_RT, axis=1)
        for kept_QT, new_RS in ((segments_QT, numbers_RS), (best_keys_QT, key_QS[rows])):
            chosen = np.concatenate([kept_QT[rows], new_RS], axis=1)
            kept_QT[rows] = np.take_along_axis(chosen, order_RT, axis=1)
    return Top(segments_QT, scores_QT, best_keys_QT)


def compare_pairs(queries_ND: Floats, keys: Keys, query_P: Ints, segment_P: Ints) -> tuple[Doubles, Ints]:
    """Each pair's score and best key: float64[P], int64[P]; fastest where pairs are sorted by segment."""
    score_P = np.empty(len(query_P), dtype=np.float64)
    if keys.single:
        for start in range(0, len(query_P), _PAIRS):
            chunk = slice(start, start + _PAIRS)
            x_PD = queries_ND[query_P[chunk]].astype(np.float64)
            y_PD = keys.vectors_MD[segment_P[chunk]].astype(np.float64)
            np.vecdot(x_PD, y_PD, out=score_P[chunk])
        return rounded(score_P), segment_P
    key_P = np.empty(len(query_P), dtype=np.int64)
    scratch = _Scratch(queries_ND.shape[1])
    runs = np.flatnonzero(np.diff(segment_P, prepend=-1, append=-1))
    for start, stop in zip(runs[:-1].tolist(), runs[1:].tolist(), strict=True):
        segment = int(segment_P[start])
        for here in range(start, stop, BLOCK):
            chunk = slice(here, min(here + BLOCK, stop))
            x_QD = queries_ND[query_P[chunk]].astype(np.float64)
            best_Q1, key_Q1 = _best_of_tile(x_QD, keys, segment, segment + 1, scratch)
            score_P[chunk], key_P[chunk] = best_Q1[:, 0], key_Q1[:, 0]
    return score_P, key_P


def approximate_pairs(queries_ND: Floats, keys: Keys, query_P: Ints, segment_P: Ints) -> Floats:
    """Each pair's score as a float32 product gives it; pairs are sorted by segment unless keys are single."""
    score_P = np.empty(len(query_P), dtype=np.float32)
    if keys.single:
        for start in range(0, len(query_P), _PAIRS):
            chunk = slice(start, start + _PAIRS)
            x_PD = queries_ND[query_P[chunk]].astype(np.float32, copy=False)
            y_PD = keys.vectors_MD[segment_P[chunk]].astype(np.float32, copy=False)
            np.vecdot(x_PD, y_PD, out=score_P[chunk])
        return score_P
    runs = np.flatnonzero(np.diff(segment_P, prepend=-1, append=-1))
    for start, stop in zip(runs[:-1].tolist(), runs[1:].tolist(), strict=True):
        segment = int(segment_P[start])
        x_QD = queries_ND[query_P[start:stop]].astype(np.float32, copy=False)
        first, *rest = keys.pieces(segment, segment + 1)
        best_Q = (x_QD @ keys.float32(*first).T).max(axis=1, out=score_P[start:stop])
        for piece in rest:
            np.maximum(best_Q, (x_QD @ keys.float32(*piece).T).max(axis=1), out=best_Q)
    return score_P


class _Scratch:
    """Buffers for one float64 tile, allocated once: fresh pages would cost more than the product."""

    def __init__(self, dim: int) -> None:
        self.keys_KD = np.empty((TILE, dim), dtype=np.float64)
        self.scores = np.empty(BLOCK * TILE, dtype=np.float64)


def _best_of_tile(
    x_QD: Doubles, keys: Keys, first: int, last: int, scratch: _Scratch
) -> tuple[Doubles, Ints]:
    """The rounded score and the best key of each segment first … last - 1: float64[Q, S], int64[Q, S].

    The scores may be a view of `scratch`: use them before the next call.
    """
    (start, stop), *rest = keys.pieces(first, last)
    starts_S = np.asarray(keys.bounds[first:last])
    scores_QK = _scores(x_QD, keys, start, stop, scratch)
    if len(starts_S) == stop - start:
        return scores_QK, np.broadcast_to(starts_S, scores_QK.shape)
    if len(starts_S) > 1:
        best_QS = np.maximum.reduceat(scores_QK, starts_S - start, axis=1)
        wins_QK = scores_QK == np.repeat(best_QS, np.diff(starts_S, append=stop), axis=1)
        places_QK = np.where(wins_QK, np.arange(start, stop), stop)
        return best_QS, np.minimum.reduceat(places_QK, starts_S - start, axis=1)
    best_Q1, key_Q1 = _best_column(scores_QK, start)
    for start, stop in rest:
        more_Q1, later_Q1 = _best_column(_scores(x_QD, keys, start, stop, scratch), start)
        np.copyto(key_Q1, later_Q1, where=more_Q1 > best_Q1)
        np.maximum(best_Q1, more_Q1, out=best_Q1)
    return best_Q1, key_Q1


def _best_column(scores_QK: Doubles, start: int) -> tuple[Doubles, Ints]:
    place_Q1 = np.argmax(scores_QK, axis=1, keepdims=True)
    return np.take_along_axis(scores_QK, place_Q1, axis=1), place_Q1 + start


def _scores(x_QD: Doubles, keys: Keys, start: int, stop: int, scratch: _Scratch) -> Doubles:
    keys_KD = scratch.keys_KD[: stop - start]
    np.copyto(keys_KD, keys.vectors_MD[start:stop])
    scores_QK = scratch.scores[: len(x_QD) * len(keys_KD)].reshape(len(x_QD), len(keys_KD))
    np.matmul(x_QD, keys_KD.T, out=scores_QK)
    return rounded(scores_QK)

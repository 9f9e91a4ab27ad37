"""Screen one block of queries coarsely: find every segment that may be among the T best, and few others.

Products are formed tile by tile as [keys, queries], so that the maximum over a segment's keys runs along
whole rows. A query's threshold is its T-th best score so far minus the error bound of the product; segments
below it are dropped.

Shapes: Q queries of the block, K keys and S segments of a tile, D dimensions, T best, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.records import Bools, Floats, Ints
from trainer.score.coarse import Block

SPARE_PAIRS = 256  # a query with more than 2 T + this many pairs overflows
_GROUPS = 4  # groups of segments per result, whose maxima set a first threshold
_SEGMENTS = 100  # compared with the thresholds together
_GATHERED = 16  # pairs per query, at least, that are gathered before they raise the threshold


@dataclass(frozen=True)
class CloseSegments:
    """Segments that may be among a query's best, sorted by query; queries that overflow have none."""

    query_P: Ints  # within the block
    segment_P: Ints
    score_P: Floats
    overflow_Q: Bools  # queries with too many segments, which this product cannot decide


def screen(block: Block, tiles: Sequence[tuple[int, int]], *, top: int) -> CloseSegments:
    """The pairs whose coarse score is at least the T-th best of these tiles minus the slack."""
    slack_Q = block.slack_Q
    n = len(slack_Q)
    groups = _grouped(tiles)
    score_SQ = np.empty((max(group[-1][1] - group[0][0] for group in groups), n), dtype=np.float32)
    hit_SQ = np.empty(score_SQ.shape, dtype=np.bool_)
    threshold_Q = np.full(n, -np.inf, dtype=np.float32)
    gathered, n_gathered = [_no_pairs(n)], 0
    for group in groups:
        first, last = group[0][0], group[-1][1]
        scores_SQ, hits_SQ = score_SQ[: last - first], hit_SQ[: last - first]
        if len(group) == 1:
            scores_SQ = block.scores(first, last)
        else:
            for start, stop in group:
                scores_SQ[start - first : stop - first] = block.scores(start, stop)
        if top == 1:
            np.maximum(threshold_Q, scores_SQ.max(axis=0) - slack_Q, out=threshold_Q)
        np.greater_equal(scores_SQ, threshold_Q, out=hits_SQ)
        if np.count_nonzero(hits_SQ) > _GROUPS * top * n:
            np.maximum(threshold_Q, first_threshold(scores_SQ, top) - slack_Q, out=threshold_Q)
            np.greater_equal(scores_SQ, threshold_Q, out=hits_SQ)
        found_P = np.flatnonzero(hits_SQ)
        segment_P, query_P = np.divmod(found_P, n)
        gathered.append(
            CloseSegments(query_P, segment_P + first, scores_SQ.ravel()[found_P], gathered[0].overflow_Q)
        )
        n_gathered += len(found_P)
        if n_gathered > n * max(2 * top, _GATHERED):
            pairs, threshold_Q = _best(gathered, top=top, slack_Q=slack_Q, threshold_Q=threshold_Q)
            gathered, n_gathered = [pairs], 0
    return _best(gathered, top=top, slack_Q=slack_Q, threshold_Q=threshold_Q)[0]


def _grouped(tiles: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Neighbouring tiles with so many segments together that comparing them costs little per segment."""
    groups: list[list[tuple[int, int]]] = []
    for first, last in tiles:
        if groups and groups[-1][-1][1] == first and last - groups[-1][0][0] <= _SEGMENTS:
            groups[-1].append((first, last))
        else:
            groups.append([(first, last)])
    return groups


def merge_parts(parts: Sequence[CloseSegments], *, top: int, slack_Q: Floats) -> CloseSegments:
    """The pairs of one block of queries that was screened against several parts of the keys."""
    if len(parts) == 1:
        return parts[0]
    threshold_Q = np.full(len(slack_Q), -np.inf, dtype=np.float32)
    return _best(parts, top=top, slack_Q=slack_Q, threshold_Q=threshold_Q)[0]


def first_threshold(scores_SQ: npt.NDArray[np.floating], top: int) -> npt.NDArray[np.floating]:
    """A lower bound of the T-th best score of each query: the T-th best maximum of groups of segments."""
    n_groups = min(_GROUPS * top, len(scores_SQ))
    size = len(scores_SQ) // n_groups
    highest_GQ = scores_SQ[: size * n_groups].reshape(n_groups, size, -1).max(axis=1)
    threshold_Q: npt.NDArray[np.floating] = np.partition(highest_GQ, n_groups - top, axis=0)[n_groups - top]
    return threshold_Q


def _best(
    parts: Sequence[CloseSegments], *, top: int, slack_Q: Floats, threshold_Q: Floats
) -> tuple[CloseSegments, Floats]:
    """Raise thresholds to the T-th best of all pairs, drop pairs below, and mark queries that overflow."""
    n = len(slack_Q)
    query_P = np.concatenate([p.query_P for p in parts])
    segment_P = np.concatenate([p.segment_P for p in parts])
    score_P = np.concatenate([p.score_P for p in parts])
    overflow_Q = np.logical_or.reduce([p.overflow_Q for p in parts])
    # Best first, then by query: stable, and in int16 a radix sort. `lexsort` takes ten times as long.
    order_P = np.argsort(-score_P)
    order_P = order_P[np.argsort(query_P[order_P].astype(np.int16), kind="stable")]
    query_P, segment_P, score_P = query_P[order_P], segment_P[order_P], score_P[order_P]
    counts_Q = np.bincount(query_P, minlength=n)
    full_Q = np.flatnonzero(counts_Q >= top)
    level = score_P[(np.cumsum(counts_Q) - counts_Q)[full_Q] + top - 1]
    threshold_Q = threshold_Q.copy()
    threshold_Q[full_Q] = np.maximum(threshold_Q[full_Q], level - slack_Q[full_Q])
    kept_P = score_P >= threshold_Q[query_P]
    overflow_Q = overflow_Q | (np.bincount(query_P[kept_P], minlength=n) > 2 * top + SPARE_PAIRS)
    threshold_Q[overflow_Q] = np.inf
    kept_P &= ~overflow_Q[query_P]
    return CloseSegments(query_P[kept_P], segment_P[kept_P], score_P[kept_P], overflow_Q), threshold_Q


def _no_pairs(n: int) -> CloseSegments:
    none = np.zeros(0, dtype=np.int64)
    return CloseSegments(none, none, np.zeros(0, dtype=np.float32), np.zeros(n, dtype=np.bool_))

"""Exact top-k: the best segments of keys for each query; the kernel of recognition, prediction and retrieval.

A segment is a run of keys that belong together: a category's centers, or a single sample of a gallery. Its
score is its best key's inner product with the query, in float64 and rounded to nine decimals; ties go to the
lower segment, and within it to the earlier key.

Coarser products, several times as fast, only propose: `screen` keeps every segment that may be among the best
within their error bound, and `segments` scores those again in float64. Where too many segments remain, the
query overflows and is given to the next product: bytes, then bfloat16, then float32, then (where many keys
are equal or zero) float64 with all keys. Which comes first is decided by the clock: the coarsest is fastest
and proposes most. So the result never depends on the BLAS, the tiles or the threads, and the N × M matrix is
never stored.

Shapes: N queries, M keys, S segments, D dimensions, T best, P pairs of a query and a segment.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from data.environment import cores
from trainer.records import Doubles, Floats, Ints
from trainer.score.blas import bytes_pay, fastest_products, one_thread_each, parallel_map
from trainer.score.coarse import ByBytes, ByProduct, Coarse, float_slack
from trainer.score.geometry import require_finite
from trainer.score.pairs import best_places, in_order, surely_best
from trainer.score.screen import SPARE_PAIRS, CloseSegments, merge_parts, screen
from trainer.score.segments import (
    BLOCK,
    Keys,
    Top,
    approximate_pairs,
    compare_all,
    compare_pairs,
    concatenate,
)

# Up to this many multiplications, float64 alone is faster than starting threads and choosing a product.
_SMALL = 2**27
_QUERIES = 512  # of one float32 product
_ROUND = 2**22  # pairs in memory at a time, at most
_PAIRS = 4096  # scored again by one job
_NORM_ROWS = 1024
_TRIALS = 8  # as many queries as one small round has, times this: enough to try products on the first of them
_MANY = 1024  # queries that pay for rounding the keys to bytes
_MOST_BYTES = 2**26  # of keys
# Up to this length of a vector, float32 neither overflows nor loses precision that matters; else float64.
_LARGEST_NORM = 1e6


def top_segments(
    queries_ND: Floats,
    keys_MD: Floats | npt.NDArray[np.float16],
    starts_S: Ints | None = None,
    *,
    top: int,
    keys_name: str = "keys",
    order_only: bool = False,
) -> Top:
    """The T = min(top, S) best of the segments that begin at the rows `starts_S` (default: at every row).

    Queries and keys are float32 or float16, and are converted in parts. `order_only`: only the segments are
    asked for, so that float64 need not decide where float32 does; scores and keys are undefined. Beside the
    result it needs at most 400 MB and four bytes for each query and key. Raises ValueError for NaN and
    infinity (with their row; `keys_name` names the keys in messages), for no keys, for starts that are not
    0 < … < M, and for dimensions that differ.
    """
    if len(keys_MD) == 0 or top < 1:
        raise ValueError(f"cannot take the best {top} of {len(keys_MD)}")
    if queries_ND.shape[1] != keys_MD.shape[1]:
        raise ValueError(
            f"queries have {queries_ND.shape[1]} dimensions and {keys_name} have {keys_MD.shape[1]}"
        )
    keys = Keys(keys_MD, range(len(keys_MD) + 1)) if starts_S is None else _make_keys(keys_MD, starts_S)
    top = min(top, len(keys.bounds) - 1)
    multiplications = len(queries_ND) * keys_MD.size
    if multiplications <= _SMALL:
        require_finite(queries_ND, "queries")
        require_finite(keys_MD, keys_name)
        blocks = range(0, max(1, len(queries_ND)), BLOCK)
        return concatenate([compare_all(queries_ND[i : i + BLOCK], keys, top=top) for i in blocks])
    products = fastest_products(multiplications)
    with_bytes = len(queries_ND) >= _MANY and keys_MD.size <= _MOST_BYTES and bytes_pay(multiplications)
    with one_thread_each():
        norms_N = _norms(queries_ND, "queries").astype(np.float64)
        longest = float(_norms(keys_MD, keys_name).max())
        if max(longest, float(norms_N.max())) > _LARGEST_NORM:
            return _compared(queries_ND, np.arange(len(queries_ND)), keys, top)
        ways: list[Coarse] = [ByBytes(keys)] if with_bytes else []
        ways += [ByProduct(keys, product, longest) for product in products]
        task = _Task(queries_ND, norms_N, keys, longest, top, order_only)
        return concatenate(_in_rounds(task, ways))


def nearest(
    queries_ND: Floats, gallery_MD: Floats | npt.NDArray[np.float16], top: int
) -> tuple[Ints, Doubles]:
    """The `top` rows of the gallery with the largest inner product for each query, best first.

    Returns indices int64[N, T] and scores float64[N, T] with T = min(top, M). Scores are computed in float64
    and rounded to nine decimals; ties go to the lower index. A float16 gallery is converted tile by tile.
    Raises ValueError for NaN and infinity (with the row) and for an empty gallery.
    """
    best = top_segments(queries_ND, gallery_MD, top=top, keys_name="gallery")
    return best.segments_NT, best.scores_NT


def nearest_keys(queries_ND: Floats, keys_MD: Floats, starts_S: Ints, segments_NT: Ints) -> Ints:
    """The nearest key within given segments of each query, as in `top_segments`: rows int64[N, T]."""
    segment_P = segments_NT.ravel()
    query_P = np.repeat(np.arange(len(segments_NT)), segments_NT.shape[1])
    order_P = np.argsort(segment_P, kind="stable")
    key_P = np.empty(len(segment_P), dtype=np.int64)
    keys = _make_keys(keys_MD, starts_S)
    key_P[order_P] = compare_pairs(queries_ND, keys, query_P[order_P], segment_P[order_P])[1]
    return key_P.reshape(segments_NT.shape)


def _make_keys(keys_MD: Floats | npt.NDArray[np.float16], starts_S: Ints) -> Keys:
    bounds = np.append(starts_S, len(keys_MD)).astype(np.int64)
    if bounds[0] != 0 or (np.diff(bounds) < 1).any():
        raise ValueError("the starts of the segments must begin with 0 and rise")
    return Keys(keys_MD, bounds)


@dataclass(frozen=True)
class _Task:
    """Some queries, and what is asked about them."""

    queries_ND: Floats
    norms_N: Doubles
    keys: Keys
    longest: float  # the length of the longest key
    top: int
    order_only: bool

    def of(self, rows: slice) -> _Task:
        return replace(self, queries_ND=self.queries_ND[rows], norms_N=self.norms_N[rows])


@dataclass(frozen=True)
class _Proposed:
    """The pairs of one block of queries that may be among the best."""

    rows_Q: Ints  # the queries of the block
    close: CloseSegments
    slack_Q: Floats  # of the scores in `close`


def _in_rounds(task: _Task, ways: list[Coarse]) -> list[Top]:
    """The best segments, some queries after the other; `ways` are the coarse scores, coarsest first.

    The first round is small: a way that overflows for most of its queries is not used again. Of many queries,
    the first small rounds find out where the ways should begin: further on while that takes less time.
    """
    n = len(task.queries_ND)
    step = max(1, _ROUND // (2 * task.top + SPARE_PAIRS) // _QUERIES) * _QUERIES
    small = min(step, cores() * _QUERIES)
    trying, least, best_ways = n >= _TRIALS * small, math.inf, ways
    found: list[Top] = []
    start = 0
    while start < n:
        stop = min(start + (small if trying or start == 0 else step), n)
        first, began = ways[0], time.process_time()
        found.append(_screened(task.of(slice(start, stop)), ways))
        took = time.process_time() - began
        start = stop
        if not trying or ways[0] is not first:
            continue
        if took < least:
            least, best_ways = took, ways
        trying = best_ways is ways and len(ways) > 1
        ways = ways[1:] if trying else best_ways
    return found


def _screened(task: _Task, ways: list[Coarse]) -> Top:
    """The best segments by one coarse score after the other; for queries that remain, by all keys in float64.

    A way that overflows for more than half of its queries is removed from `ways`, unless it is the last.
    """
    shape = (len(task.queries_ND), task.top)
    best = Top(np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape, np.int64))
    rows = np.arange(len(task.queries_ND))
    for way in list(ways):
        blocks = _proposed(task, rows, way)
        _choose(task, _settled(task, way, blocks, best) if task.order_only else blocks, best)
        left = rows[np.concatenate([block.close.overflow_Q for block in blocks])]
        if len(left) == 0:
            return best
        if 2 * len(left) > len(rows) and way is not ways[-1]:
            ways.remove(way)
        rows = left
    exact = _compared(task.queries_ND, rows, task.keys, task.top)
    best.segments_NT[rows] = exact.segments_NT
    best.scores_NT[rows] = exact.scores_NT
    best.keys_NT[rows] = exact.keys_NT
    return best


def _proposed(task: _Task, rows: Ints, way: Coarse) -> list[_Proposed]:
    """The segments that may be among the best for some of the queries, block by block."""
    blocks = [slice(i, i + _QUERIES) for i in range(0, len(rows), _QUERIES)]
    # Few queries against many keys: the keys are divided among the threads too.
    tiles = task.keys.tiles()
    parts = min(len(tiles), -(-2 * cores() // len(blocks)) if len(blocks) < 2 * cores() else 1)
    cuts = np.linspace(0, len(tiles), parts + 1).astype(int).tolist()

    def propose(job: tuple[slice, int, int]) -> _Proposed:
        block, first, last = job
        asking = rows[block]
        scored = way.block(np.asarray(task.queries_ND[asking], dtype=np.float32), task.norms_N[asking])
        return _Proposed(asking, screen(scored, tiles[first:last], top=task.top), scored.slack_Q)

    found = parallel_map(propose, [(block, *cut) for block in blocks for cut in pairwise(cuts)])
    return [
        replace(
            found[i],
            close=merge_parts(
                [part.close for part in found[i : i + parts]], top=task.top, slack_Q=found[i].slack_Q
            ),
        )
        for i in range(0, len(found), parts)
    ]


def _settled(task: _Task, way: Coarse, blocks: list[_Proposed], best: Top) -> list[_Proposed]:
    """Write the best segments of queries whose order float32 decides; returns the pairs of the others."""
    scores = [block.close.score_P for block in blocks]
    slacks = [block.slack_Q for block in blocks]
    if not way.decides:
        query_P, segment_P, order_P = _by_segment(task.keys, blocks)
        score_P = np.empty(len(query_P), dtype=np.float32)

        def score(first: int) -> None:
            pairs = order_P[first : first + _PAIRS]
            score_P[pairs] = approximate_pairs(task.queries_ND, task.keys, query_P[pairs], segment_P[pairs])

        parallel_map(score, range(0, len(query_P), _PAIRS))
        scores = np.split(score_P, np.cumsum([len(part) for part in scores])[:-1])
        dim = task.queries_ND.shape[1]
        slacks = [float_slack(task.norms_N[block.rows_Q] * task.longest, dim, 0.0) for block in blocks]

    def settle(number: int) -> _Proposed:
        block, close = blocks[number], blocks[number].close
        sure_A, best_AT, is_left_P = surely_best(close.query_P, scores[number], slacks[number], task.top)
        best.segments_NT[block.rows_Q[sure_A]] = close.segment_P[best_AT]
        left = replace(
            close,
            query_P=close.query_P[is_left_P],
            segment_P=close.segment_P[is_left_P],
            score_P=close.score_P[is_left_P],
        )
        return replace(block, close=left)

    return parallel_map(settle, range(len(blocks)))


def _choose(task: _Task, blocks: list[_Proposed], best: Top) -> None:
    """Write the best of the proposed pairs, by their float64 scores, into the rows of their queries."""
    query_P, segment_P, order_P = _by_segment(task.keys, blocks)
    score_P = np.empty(len(query_P), dtype=np.float64)
    key_P = np.empty(len(query_P), dtype=np.int64)

    def score_again(first: int) -> None:
        pairs = order_P[first : first + _PAIRS]
        score_P[pairs], key_P[pairs] = compare_pairs(
            task.queries_ND, task.keys, query_P[pairs], segment_P[pairs]
        )

    parallel_map(score_again, range(0, len(query_P), _PAIRS))
    stops = np.cumsum([len(block.close.query_P) for block in blocks]).tolist()

    def choose(block: int) -> None:
        close = blocks[block].close
        chunk = slice(stops[block] - len(close.query_P), stops[block])
        order_P = in_order(close.query_P, score_P[chunk], close.segment_P)
        asked, best_AT = best_places(close.query_P, order_P, task.top)
        asked = blocks[block].rows_Q[asked]
        best.segments_NT[asked] = close.segment_P[best_AT]
        best.scores_NT[asked] = score_P[chunk][best_AT]
        best.keys_NT[asked] = key_P[chunk][best_AT]

    parallel_map(choose, range(len(blocks)))


def _by_segment(keys: Keys, blocks: list[_Proposed]) -> tuple[Ints, Ints, Ints]:
    """The query and the segment of all pairs, and an order in which each segment's keys are read once."""
    query_P = np.concatenate([block.rows_Q[block.close.query_P] for block in blocks])
    segment_P = np.concatenate([block.close.segment_P for block in blocks])
    order_P = np.arange(len(query_P)) if keys.single else np.argsort(segment_P, kind="stable")
    return query_P, segment_P, order_P


def _compared(queries_ND: Floats, rows: Ints, keys: Keys, top: int) -> Top:
    """The best segments for some of the queries, by comparing with every key."""
    blocks = [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]
    return concatenate(parallel_map(lambda block: compare_all(queries_ND[block], keys, top=top), blocks))


def _norms(x_ND: Floats | npt.NDArray[np.float16], what: str) -> Floats:
    """Every row's length, infinite where float32 overflows; ValueError for a row that is not finite."""
    norms_N = np.empty(len(x_ND), dtype=np.float32)

    def measure(start: int) -> None:
        rows = slice(start, start + _NORM_ROWS)
        x_RD = np.asarray(x_ND[rows], dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            np.sqrt(np.vecdot(x_RD, x_RD), out=norms_N[rows])

    parallel_map(measure, range(0, len(x_ND), _NORM_ROWS))
    suspect = np.flatnonzero(~np.isfinite(norms_N))
    for row in suspect.tolist():
        require_finite(x_ND[row : row + 1], what, first=row)
    return norms_N

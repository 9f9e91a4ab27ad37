"""Exact top-k: the best segments of keys for each query; the kernel of recognition, prediction and retrieval.

A segment is a run of keys that belong together: a category's centers, or a single sample of a gallery. Its
score is its best key's inner product with the query, in float64 and rounded to nine decimals; ties go to the
lower segment, and within it to the earlier key.

Coarser products, several times as fast, only propose: `screen` keeps every segment that may be among the best
within their error bound, and `segments` scores those again in float64. Where too many segments remain, the
query overflows and is given to the next product: bfloat16, then float32, then (where many keys are equal or
zero) float64 with all keys. So the result never depends on the BLAS, the tiles or the threads, and the N × M
matrix is never stored.

Shapes: N queries, M keys, S segments, D dimensions, T best, P pairs of a query and a segment.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from data.environment import cores
from trainer.records import Doubles, Floats, Ints
from trainer.score.blas import Product, fastest_products, largest_error, one_thread_each, parallel_map
from trainer.score.geometry import require_finite
from trainer.score.screen import SPARE_PAIRS, CloseSegments, merge_parts, screen
from trainer.score.segments import BLOCK, Keys, Top, compare_all, compare_pairs, concatenate

# Up to this many multiplications, float64 alone is faster than starting threads and choosing a product.
_SMALL = 2**27
_QUERIES = 512  # of one float32 product
_ROUND = 2**22  # pairs in memory at a time, at most
_PAIRS = 4096  # scored again by one job
_NORM_ROWS = 1024
# Up to this length of a vector, float32 neither overflows nor loses precision that matters; else float64.
_LARGEST_NORM = 1e6


def top_segments(
    queries_ND: Floats,
    keys_MD: Floats | npt.NDArray[np.float16],
    starts_S: Ints | None = None,
    *,
    top: int,
    keys_name: str = "keys",
) -> Top:
    """The T = min(top, S) best of the segments that begin at the rows `starts_S` (default: at every row).

    Queries and keys are float32 or float16, and are converted in parts. Beside the result it needs at most
    300 MB and four bytes for each query and key. Raises ValueError for NaN and infinity (with their row;
    `keys_name` names the keys in messages), for no keys, for starts that are not 0 < … < M, and for
    dimensions that differ.
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
    products = list(fastest_products(multiplications))
    with one_thread_each():
        query_norms_N, key_norms_M = _norms(queries_ND, "queries"), _norms(keys_MD, keys_name)
        largest = float(key_norms_M.max())
        if max(largest, float(query_norms_N.max())) > _LARGEST_NORM:
            return _compared(queries_ND, np.arange(len(queries_ND)), keys, top)
        norms_N = query_norms_N.astype(np.float64) * largest
        step = max(1, _ROUND // (2 * top + SPARE_PAIRS) // _QUERIES) * _QUERIES
        # The first round is small: a product that overflows for most of its queries is not used again.
        starts = [0, *range(min(step, cores() * _QUERIES), len(queries_ND), step), len(queries_ND)]
        rounds = [slice(*pair) for pair in pairwise(starts)]
        return concatenate([_screened(queries_ND[r], norms_N[r], keys, top, products) for r in rounds])


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


def _slack(norms_N: Doubles, dim: int, unit: float) -> Floats:
    """How far below the T-th best coarse score a segment's score may lie if it belongs to the T best.

    Both scores may be wrong; the norms themselves and the difference are float32, and rounding to decimals
    ties differences of up to 10⁻⁹.
    """
    norm_error = 1 + largest_error(dim, 0.0)
    slack_N = (2 * largest_error(dim, unit) * norm_error**2 + 2.0**-21) * norms_N + 2e-9
    return slack_N.astype(np.float32)


def _screened(queries_ND: Floats, norms_N: Doubles, keys: Keys, top: int, products: list[Product]) -> Top:
    """The best segments by one product after the other; for queries that remain, by all keys in float64.

    A product that overflows for more than half of its queries is removed from `products`, unless it is the
    last.
    """
    shape = (len(queries_ND), top)
    best = Top(np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape, np.int64))
    rows = np.arange(len(queries_ND))
    for product in list(products):
        slack_R = _slack(norms_N[rows], queries_ND.shape[1], product.unit)
        blocks = _proposed(queries_ND, rows, keys, top, slack_R, product)
        _choose(queries_ND, rows, keys, blocks, best)
        left = rows[np.concatenate([block.overflow_Q for block in blocks])]
        if len(left) == 0:
            return best
        if 2 * len(left) > len(rows) and product is not products[-1]:
            products.remove(product)
        rows = left
    exact = _compared(queries_ND, rows, keys, top)
    best.segments_NT[rows] = exact.segments_NT
    best.scores_NT[rows] = exact.scores_NT
    best.keys_NT[rows] = exact.keys_NT
    return best


def _proposed(
    queries_ND: Floats, rows: Ints, keys: Keys, top: int, slack_R: Floats, product: Product
) -> list[CloseSegments]:
    """The segments that may be among the best for some of the queries, block by block."""
    blocks = [slice(i, i + _QUERIES) for i in range(0, len(rows), _QUERIES)]
    # Few queries against many keys: the keys are divided among the threads too.
    tiles = keys.tiles()
    parts = min(len(tiles), -(-2 * cores() // len(blocks)) if len(blocks) < 2 * cores() else 1)
    cuts = np.linspace(0, len(tiles), parts + 1).astype(int).tolist()

    def propose(job: tuple[slice, int, int]) -> CloseSegments:
        block, first, last = job
        x_QD = np.asarray(queries_ND[rows[block]], dtype=np.float32)
        return screen(x_QD, keys, tiles[first:last], top=top, slack_Q=slack_R[block], product=product)

    found = parallel_map(propose, [(block, *cut) for block in blocks for cut in pairwise(cuts)])
    return [
        merge_parts(found[i * parts : (i + 1) * parts], top=top, slack_Q=slack_R[block])
        for i, block in enumerate(blocks)
    ]


def _choose(queries_ND: Floats, rows: Ints, keys: Keys, blocks: list[CloseSegments], best: Top) -> None:
    """Write the best of the proposed pairs, by their float64 scores, into the rows of their queries."""
    query_P = rows[np.concatenate([p.query_P + i * _QUERIES for i, p in enumerate(blocks)])]
    segment_P = np.concatenate([p.segment_P for p in blocks])
    score_P = np.empty(len(query_P), dtype=np.float64)
    key_P = np.empty(len(query_P), dtype=np.int64)
    # Sorted by segment, so that its keys are converted once for many queries.
    order_P = np.arange(len(query_P)) if keys.single else np.argsort(segment_P, kind="stable")

    def score_again(first: int) -> None:
        pairs = order_P[first : first + _PAIRS]
        score_P[pairs], key_P[pairs] = compare_pairs(queries_ND, keys, query_P[pairs], segment_P[pairs])

    parallel_map(score_again, range(0, len(query_P), _PAIRS))
    stops = np.cumsum([len(p.query_P) for p in blocks])

    def choose(block: int) -> None:
        chunk = slice(stops[block] - len(blocks[block].query_P), stops[block])
        asked, firsts = np.unique(query_P[chunk], return_index=True)
        order = np.lexsort((segment_P[chunk], -score_P[chunk], query_P[chunk])) + chunk.start
        pairs = order[firsts[:, None] + np.arange(best.segments_NT.shape[1])]
        best.segments_NT[asked] = segment_P[pairs]
        best.scores_NT[asked] = score_P[pairs]
        best.keys_NT[asked] = key_P[pairs]

    parallel_map(choose, range(len(blocks)))


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

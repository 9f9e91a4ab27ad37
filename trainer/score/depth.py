"""The exact rank of the first relevant item in each query's list, at any depth.

Shapes: N queries, Q queries of a block, M gallery items, K items of a tile, D dimensions, T nearest,
L levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.records import Bools, Doubles, Floats, Ints
from trainer.score.blas import largest_error, one_thread_each, parallel_map
from trainer.score.geometry import rounded

_QUERIES = 256  # of one product
_TILE = 512
_PAIRS = 2**13  # of a query and an item that are scored again together


def first_ranks(
    queries_ND: Floats,
    gallery_MD: Floats,
    places_NT: Ints,
    levels: Sequence[tuple[Ints, Ints]],
) -> list[tuple[Ints, Ints]]:
    """For each level, the answerable queries and the 1-based rank of the first relevant item of each.

    A level is (labels of the queries, labels of the gallery): an item is relevant if it has the query's
    label; -1 is no label; a query is answerable if it has a relevant item. `places_NT` are the nearest items
    in the order of `topk.nearest`; only queries without a relevant item among these are compared with the
    whole gallery. Ties go to the earlier gallery item, as there.
    """
    ranks: list[tuple[Ints, Ints]] = []
    deep: list[tuple[Ints, Ints]] = []  # (query, its place in the result) of each level
    for of_query_N, of_gallery_M in levels:
        asked = np.flatnonzero((of_query_N >= 0) & np.isin(of_query_N, of_gallery_M))
        relevant_NT = of_gallery_M[places_NT[asked]] == of_query_N[asked, None]
        ranks.append((asked, relevant_NT.argmax(axis=1) + 1))
        places = np.flatnonzero(~relevant_NT.any(axis=1))
        deep.append((asked[places], places))
    rows = np.unique(np.concatenate([queries for queries, _ in deep])) if deep else np.zeros(0, np.int64)
    if len(rows) == 0:
        return ranks
    with one_thread_each():
        found = [
            _first_relevant(queries_ND, gallery_MD, rows, queries, *level)
            for (queries, _), level in zip(deep, levels, strict=True)
        ]
        before_LR = _count_before(queries_ND, gallery_MD, rows, found)
    for (_, rank_A), (queries, places), before_R in zip(ranks, deep, before_LR, strict=True):
        rank_A[places] = before_R[np.searchsorted(rows, queries)] + 1
    return ranks


def _first_relevant(
    queries_ND: Floats, gallery_MD: Floats, rows: Ints, queries: Ints, of_query_N: Ints, of_gallery_M: Ints
) -> tuple[Doubles, Ints]:
    """The score of each row's best relevant item, and its place; infinity for rows that are not in `queries`.

    Of equal scores, the first item.
    """
    best_R, place_R = np.full(len(rows), np.inf), np.zeros(len(rows), np.int64)
    items = np.argsort(of_gallery_M, kind="stable")
    order = np.argsort(of_query_N[queries], kind="stable")
    label_A = of_query_N[queries[order]]
    groups = np.split(order, np.flatnonzero(np.diff(label_A)) + 1) if len(order) else []
    jobs = [group[i : i + _QUERIES] for group in groups for i in range(0, len(group), _QUERIES)]
    sorted_M = of_gallery_M[items]

    def find(group: Ints) -> None:
        asking = queries[group]
        label = of_query_N[asking[0]]
        own = items[np.searchsorted(sorted_M, label) : np.searchsorted(sorted_M, label, side="right")]
        x_QD = queries_ND[asking].astype(np.float64)
        every_Q = np.arange(len(asking))
        best_Q, place_Q = np.full(len(asking), -np.inf), np.zeros(len(asking), np.int64)
        for start in range(0, len(own), _TILE):
            tile = own[start : start + _TILE]
            scores_QK = rounded(x_QD @ gallery_MD[tile].astype(np.float64).T)
            top_Q = scores_QK.argmax(axis=1)
            better_Q = scores_QK[every_Q, top_Q] > best_Q
            place_Q[better_Q] = tile[top_Q[better_Q]]
            best_Q[better_Q] = scores_QK[every_Q, top_Q][better_Q]
        where = np.searchsorted(rows, asking)
        best_R[where], place_R[where] = best_Q, place_Q

    parallel_map(find, jobs)
    return best_R, place_R


def _count_before(
    queries_ND: Floats, gallery_MD: Floats, rows: Ints, found: Sequence[tuple[Doubles, Ints]]
) -> Ints:
    """The number of items that rank before the found one, at each level: int64[L, R].

    float32 decides where the scores differ by more than its error bound; the few other items are scored again
    in float64 and rounded.
    """
    before_LR = np.zeros((len(found), len(rows)), dtype=np.int64)
    largest = float(np.sqrt(np.max(np.vecdot(gallery_MD, gallery_MD, dtype=np.float64))))
    error = largest_error(queries_ND.shape[1], 0.0)

    def count(start: int) -> None:
        block = slice(start, start + _QUERIES)
        x_QD = np.ascontiguousarray(queries_ND[rows[block]])
        norms_Q1 = np.sqrt(np.vecdot(x_QD, x_QD, dtype=np.float64))[:, None]
        doubt_Q1 = (error + 1e-7) * largest * norms_Q1 + 2e-9  # 1e-7: the limits are float32, too
        limits = [
            (
                np.asarray(best_R[block, None] + doubt_Q1, np.float32),
                np.asarray(best_R[block, None] - doubt_Q1, np.float32),
            )
            for best_R, _ in found
        ]
        scores_QK = np.empty((len(x_QD), _TILE), dtype=np.float32)
        for first in range(0, len(gallery_MD), _TILE):
            tile_KD = gallery_MD[first : first + _TILE]
            seen_QK = scores_QK[:, : len(tile_KD)]
            np.matmul(x_QD, tile_KD.T, out=seen_QK)
            for level, ((best_R, place_R), (above_Q1, below_Q1)) in enumerate(
                zip(found, limits, strict=True)
            ):
                sure_QK = seen_QK > above_Q1
                before_LR[level, block] += np.count_nonzero(sure_QK, axis=1)
                query_P, item_P = np.nonzero((seen_QK >= below_Q1) & ~sure_QK)
                for pair in range(0, len(query_P), _PAIRS):
                    q, item = query_P[pair : pair + _PAIRS], item_P[pair : pair + _PAIRS] + first
                    wins_P = _ranks_before(
                        x_QD[q], gallery_MD[item], item, best_R[block][q], place_R[block][q]
                    )
                    before_LR[level, block] += np.bincount(q[wins_P], minlength=len(x_QD))

    parallel_map(count, range(0, len(rows), _QUERIES))
    return before_LR


def _ranks_before(x_PD: Floats, y_PD: Floats, item_P: Ints, best_P: Doubles, place_P: Ints) -> Bools:
    """Whether each item ranks before the one at `place_P`, which has the score `best_P`."""
    score_P = rounded(np.vecdot(x_PD.astype(np.float64), y_PD.astype(np.float64)))
    wins_P: Bools = (score_P > best_P) | ((score_P == best_P) & (item_P < place_P))
    wins_P &= item_P != place_P  # the two products may round the item's own score differently
    return wins_P

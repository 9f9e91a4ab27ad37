"""Pairs of a query and a candidate in order, and which orders coarse scores decide already.

Shapes: Q queries, P pairs, A queries of which something is known, T best.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainer.records import Bools, Doubles, Floats, Ints

Scores = npt.NDArray[np.floating]

_NARROW = 2**15


def in_order(query_P: Ints, score_P: Scores, owner_P: Ints | None = None) -> Ints:
    """The places of the pairs by query, then the best score first, then the lower owner, if owners matter."""
    # Stable sorts, the last of 16-bit numbers by radix: `lexsort` takes several times as long.
    first_P = np.arange(len(query_P)) if owner_P is None else np.argsort(_narrow(owner_P), kind="stable")
    order_P: Ints = first_P[np.argsort(-score_P[first_P], kind="stable")]
    return order_P[np.argsort(_narrow(query_P[order_P]), kind="stable")]


def best_places(query_P: Ints, order_P: Ints, top: int) -> tuple[Ints, Ints]:
    """The queries that have pairs, and the places of the first T of each: int64[A], int64[A, T].

    `order_P` as `in_order` gives it; a query with pairs has at least T.
    """
    counts_Q = np.bincount(query_P)
    asked = np.flatnonzero(counts_Q)
    starts_Q = np.cumsum(counts_Q) - counts_Q
    return asked, order_P[starts_Q[asked][:, None] + np.arange(top)]


def surely_best(
    query_P: Ints, score_P: Scores, slack_Q: Doubles | Floats, top: int
) -> tuple[Ints, Ints, Bools]:
    """The queries whose T best are decided by coarse scores, as `best_places`; and the pairs that are left.

    They are decided where each of the T is ahead of the next by more than the query's slack, which is twice
    the largest error of a score. All pairs that may be among the T best are given.
    """
    if len(query_P) == 0:
        return np.zeros(0, np.int64), np.zeros((0, top), np.int64), np.zeros(0, np.bool_)
    order_P = in_order(query_P, score_P)
    sorted_P = query_P[order_P]
    counts_Q = np.bincount(query_P, minlength=len(slack_Q))
    rank_P = np.arange(len(order_P)) - (np.cumsum(counts_Q) - counts_Q)[sorted_P]
    ahead_P = score_P[order_P[:-1]] - score_P[order_P[1:]]
    doubtful_P = (sorted_P[:-1] == sorted_P[1:]) & (rank_P[:-1] < top) & (ahead_P <= slack_Q[sorted_P[:-1]])
    is_left_Q = np.zeros(len(slack_Q), dtype=np.bool_)
    is_left_Q[sorted_P[:-1][doubtful_P]] = True
    asked, best_AT = best_places(query_P, order_P, top)
    sure_A = ~is_left_Q[asked]
    return asked[sure_A], best_AT[sure_A], is_left_Q[query_P]


def _narrow(numbers_P: Ints) -> npt.NDArray[np.integer]:
    return numbers_P.astype(np.int16) if numbers_P.max(initial=0) < _NARROW else numbers_P

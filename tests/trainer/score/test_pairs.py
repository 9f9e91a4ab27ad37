"""Pairs in order, and what their coarse scores decide, against plain sorts."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.score.pairs import best_places, in_order, surely_best


@pytest.mark.parametrize("owners", [9, 2**20])
def test_pairs_are_ordered_by_query_score_and_owner(owners: int) -> None:
    """As `lexsort` orders them, with ties, and with owners of more than 16 bits."""
    rng = np.random.default_rng(0)
    query_P, owner_P = rng.integers(0, 20, 400), rng.integers(0, owners, 400)
    score_P = rng.integers(0, 4, 400) / 4
    order_P = in_order(query_P, score_P, owner_P)
    expected_P = np.lexsort((owner_P, -score_P, query_P))
    for each in (query_P, score_P, owner_P):
        assert (each[order_P] == each[expected_P]).all()


def test_the_best_places_are_those_of_queries_that_have_pairs() -> None:
    """The first two of each."""
    query_P = np.array([4, 1, 4, 1, 1, 4])
    score_P = np.array([0.1, 0.2, 0.3, 0.4, 0.3, 0.5])
    asked, best_AT = best_places(query_P, in_order(query_P, score_P), 2)
    assert (asked.tolist(), best_AT.tolist()) == ([1, 4], [[3, 4], [5, 2]])


@pytest.mark.parametrize(
    ("scores", "is_sure"),
    [
        ((0.9, 0.5, 0.3), True),
        ((0.5, 0.3, 0.9), True),
        ((0.9, 0.85, 0.3), False),  # the first two may be the other way round
        ((0.9, 0.5, 0.45), False),  # the third may be second
        ((0.9, 0.5, 0.2, 0.19), True),  # which one is third does not matter
        ((0.9, 0.5), True),
    ],
)
def test_an_order_is_sure_where_every_step_is_wider_than_the_slack(
    scores: tuple[float, ...], is_sure: bool
) -> None:
    """Beside a query that is sure, and one without pairs."""
    score_P = np.array([*scores, 0.8, 0.6], np.float32)
    query_P = np.array([2] * len(scores) + [0, 0])
    asked, best_AT, is_left_P = surely_best(query_P, score_P, np.full(4, 0.1), 2)
    first = np.argsort(-np.array(scores))[:2].tolist()
    sure = [len(scores), len(scores) + 1]
    assert asked.tolist() == ([0, 2] if is_sure else [0])
    assert best_AT.tolist() == ([sure, first] if is_sure else [sure])
    assert is_left_P.tolist() == [not is_sure] * len(scores) + [False, False]


def test_no_pairs_decide_nothing() -> None:
    """Empty, in the right shapes."""
    none = np.zeros(0, np.int64)
    asked, best_AT, is_left_P = surely_best(none, np.zeros(0, np.float32), np.full(3, 0.1), 2)
    assert (asked.shape, best_AT.shape, is_left_P.shape) == ((0,), (0, 2), (0,))

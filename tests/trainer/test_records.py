"""Texts that represent categories, and encoded samples, cut by rows, categories and splits."""

from __future__ import annotations

import numpy as np

from trainer.records import Centers, SampleSet


def _centers() -> Centers:
    return Centers(
        categories=("a", "b", "c"),
        row_ids=("a0", "a1", "a2", "c0"),
        category_N=np.array([0, 0, 0, 2]),
        vectors_ND=np.arange(8, dtype=np.float32).reshape(4, 2),
    )


def test_counts_include_categories_without_rows() -> None:
    """Every category is counted, the empty one with zero."""
    assert _centers().counts().tolist() == [3, 0, 1]


def test_first_keeps_the_best_rows_of_each_category() -> None:
    """`first` takes the first rows of each category, as many as are asked for and there."""
    assert _centers().first(np.array([2, 5, 5])).row_ids == ("a0", "a1", "c0")


def test_of_drops_rows_but_no_category() -> None:
    """`of` keeps the numbering of categories, so labels stay valid."""
    some = _centers().of(np.array([False, True, True]))
    assert some.row_ids == ("c0",)
    assert some.categories == ("a", "b", "c")
    assert some.category_N.tolist() == [2]
    assert some.vectors_ND.tolist() == [[6.0, 7.0]]


def test_a_split_keeps_all_columns_in_step() -> None:
    """Taking a split cuts ids, labels, objects and vectors alike."""
    samples = SampleSet(
        modality="audio",
        sample_ids=("x", "y", "z"),
        splits_N=np.array(["train", "test", "test"]),
        category_N=np.array([0, 1, -1]),
        object_N=np.array([5, 6, 7]),
        vectors_ND=np.eye(3, dtype=np.float32),
    )
    test = samples.split("test")
    assert len(test) == 2
    assert test.sample_ids == ("y", "z")
    assert test.category_N.tolist() == [1, -1]
    assert test.object_N.tolist() == [6, 7]
    assert test.vectors_ND.argmax(axis=1).tolist() == [1, 2]

"""Which samples are classified among which categories, and by which texts: the centers and their controls."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.evaluate.tasks import anchor_sets, derangement, permute, tasks
from trainer.records import Centers, SampleSet

SEEN_C = np.array([True, False, True])


def _samples() -> SampleSet:
    return SampleSet(
        modality="audio",
        sample_ids=("a", "b", "c", "d", "e"),
        splits_N=np.array(["test", "test", "train", "test", "val"]),
        category_N=np.array([0, 1, 2, -1, 1]),
        object_N=np.full(5, -1),
        vectors_ND=np.eye(5, dtype=np.float32),
    )


def test_with_labels_test_samples_are_named_by_whether_their_category_was_seen() -> None:
    """Seen among seen, unseen among unseen, both among all; unlabelled samples nowhere."""
    found = [
        (task.split, task.of(_samples()).sample_ids, task.candidates_C.tolist())
        for task in tasks(SEEN_C, labels_used=True)
    ]
    assert found == [
        ("seen", ("a",), [True, False, True]),
        ("unseen", ("b",), [False, True, False]),
        ("seen_among_all", ("a",), [True, True, True]),
        ("unseen_among_all", ("b",), [True, True, True]),
    ]


def test_where_every_category_is_seen_all_are_the_seen_ones() -> None:
    """The task would repeat `seen`, so it is left out."""
    splits = [task.split for task in tasks(np.ones(3, bool), labels_used=True)]
    assert splits == ["seen", "unseen", "unseen_among_all"]


def test_without_labels_every_labelled_sample_is_unseen() -> None:
    """Samples of every split, among all categories."""
    (task,) = tasks(SEEN_C, labels_used=False)
    assert (task.split, task.of(_samples()).sample_ids) == ("unseen", ("a", "b", "c", "e"))
    assert task.candidates_C.all()


def _texts(counts: list[int], start: str = "r") -> Centers:
    category_N = np.repeat(np.arange(len(counts)), counts)
    row_ids = tuple(f"{start}{c}.{i}" for c, n in enumerate(counts) for i in range(n))
    vectors_ND = np.arange(2 * len(row_ids), dtype=np.float32).reshape(-1, 2)
    return Centers(tuple(f"c{c}" for c in range(len(counts))), row_ids, category_N, vectors_ND)


def test_controls_have_the_number_of_the_centers() -> None:
    """Templates and random words are cut to a category's number of centers; the name stays one."""
    centers = _texts([3, 1, 0])
    controls = {
        "class_name": _texts([1, 1, 1]),
        "templates": _texts([5, 5, 5]),
        "random_words": _texts([2, 5, 5]),
    }
    sets = anchor_sets(centers, controls, seed=0)
    assert {name: s.texts.counts().tolist() for name, s in sets.items()} == {
        "llm_centers": [3, 1, 0],
        "class_name": [1, 1, 1],
        "templates": [3, 1, 0],
        "random_words": [2, 1, 0],  # fewer texts than centers: all of them
        "permuted": [1, 3, 0],
    }
    assert sets["templates"].texts.row_ids == ("r0.0", "r0.1", "r0.2", "r1.0")


@pytest.mark.parametrize("n", [2, 3, 10, 101])
def test_a_derangement_moves_everything(n: int) -> None:
    """Every place is taken once and none by its owner; the seed decides."""
    places = derangement(n, 5)
    assert sorted(places.tolist()) == list(range(n))
    assert not (places == np.arange(n)).any()
    assert np.array_equal(places, derangement(n, 5))


def test_all_derangements_come_equally_often() -> None:
    """Of four things there are nine derangements; over many seeds each comes about as often."""
    drawn = [tuple(derangement(4, seed).tolist()) for seed in range(1800)]
    counts = [drawn.count(one) for one in set(drawn)]
    assert len(counts) == 9
    assert 140 < min(counts) <= max(counts) < 260


def test_permuting_moves_texts_whole_and_keeps_rows_sorted() -> None:
    """Category c gets all texts of its giver, in their order."""
    permuted = permute(_texts([2, 1, 2]), np.array([1, 2, 0]), np.array([0, 1, 2]))
    assert permuted.owner_C is not None
    assert permuted.owner_C.tolist() == [2, 0, 1]
    moved = permuted.texts
    assert moved.row_ids == ("r1.0", "r2.0", "r2.1", "r0.0", "r0.1")
    assert moved.category_N.tolist() == [0, 1, 1, 2, 2]
    assert moved.vectors_ND[0].tolist() == [4.0, 5.0]


def test_one_category_cannot_be_permuted() -> None:
    """With a single category that has centers the control is absent, and a derangement of one is refused."""
    assert "permuted" not in anchor_sets(_texts([0, 4]), {}, seed=0)
    with pytest.raises(ValueError, match="at least 2 items"):
        derangement(1, 0)

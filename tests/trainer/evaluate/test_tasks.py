"""Which samples are to be named, among which categories."""

from __future__ import annotations

import numpy as np

from trainer.evaluate.tasks import tasks
from trainer.records import SampleSet

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
    """Seen among seen, unseen among unseen, and unseen among all; unlabelled samples nowhere."""
    found = [
        (task.split, task.of(_samples()).sample_ids, task.candidates_C.tolist())
        for task in tasks(SEEN_C, labels_used=True)
    ]
    assert found == [
        ("seen", ("a",), [True, False, True]),
        ("unseen", ("b",), [False, True, False]),
        ("unseen_among_all", ("b",), [True, True, True]),
    ]


def test_without_labels_every_labelled_sample_is_unseen() -> None:
    """Of whatever split, among all categories."""
    (task,) = tasks(SEEN_C, labels_used=False)
    assert (task.split, task.of(_samples()).sample_ids) == ("unseen", ("a", "b", "c", "e"))
    assert task.candidates_C.all()

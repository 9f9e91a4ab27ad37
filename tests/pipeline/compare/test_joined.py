"""Joined answers: only what all have, whole objects, groups by their columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline.compare.joined import JoinedAnswers, columns, joined


def _table(names: str, answers: list[bool], objects: list[str | None]) -> pa.Table:
    modality = ["image" if name.islower() else "audio" for name in names]
    return pa.table({"modality": modality, "sample_id": list(names), "object_id": objects, "hit": answers})


def test_rows_that_all_have_are_joined_in_order() -> None:
    """By key, whatever the order in the files; the object is the first run's."""
    first = _table("bacX", [True, False, True, True], ["o", "o", None, "o"])
    second = _table("Xab", [False, True, True], [None, None, None])
    both = joined([first, second], ["modality", "sample_id"], "hit")
    assert both["sample_id"].to_pylist() == ["X", "a", "b"]
    assert both["object_id"].to_pylist() == ["o", "o", "o"]
    assert columns(both, 2).tolist() == [[1, 0], [0, 1], [1, 1]]


def test_a_summary_draws_objects_over_all_groups() -> None:
    """Two objects in two modalities: a resample has one twice or both; groups are averaged, not samples."""
    both = joined(
        [
            _table("abAB", [True, False, True, False], ["o", "p", "o", "p"]),
            _table("abAB", [True, True, True, False], ["o", "p", "o", "p"]),
        ],
        ["modality", "sample_id"],
        "hit",
    )
    answers = JoinedAnswers.of(both, ["modality"], columns(both, 2) > 0)
    summary = answers.summary(lambda shares: np.asarray(shares.mean(axis=-1)), resamples=500, seed=0)
    assert summary.value_R == pytest.approx([0.5, 0.75])
    assert set(np.round(summary.ahead_BR[:, 0], 6)) == {0.0, 0.25, 0.5}
    assert summary.p == [1.0]
    assert summary.n == 4


def test_samples_without_an_object_stand_alone() -> None:
    """Nulls are not one big object; an object may be called as a sample is."""
    table = _table("ab", [True, False], [None, "a"])
    both = joined([table, table], ["modality", "sample_id"], "hit")
    assert len(set(JoinedAnswers.of(both, ["modality"], columns(both, 2) > 0).unit_N.tolist())) == 2

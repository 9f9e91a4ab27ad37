"""Sweeps are recognition with fewer centers, or another scorer."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from trainer.evaluate.predictions import predict_tasks
from trainer.evaluate.recognition import recognition_rows, sweep_rows
from trainer.evaluate.tasks import CENTERS, tasks
from trainer.records import Centers, SampleSet
from trainer.score.geometry import unit_rows
from trainer.settings import Scorer


@pytest.mark.parametrize("scorer", get_args(Scorer))
def test_each_row_is_recognition_in_another_way(scorer: Scorer) -> None:
    """k below the localized number with the run's scorer, and every scorer with all of them."""
    rng = np.random.default_rng(0)
    category_N = np.repeat(np.arange(3), (12, 12, 7))
    centers = Centers(
        tuple("abc"),
        tuple(f"r{i}" for i in range(31)),
        category_N,
        unit_rows(rng.normal(size=(31, 5)).astype(np.float32)),
    )
    samples = SampleSet(
        "event",
        tuple(f"s{i}" for i in range(40)),
        np.full(40, "test"),
        rng.integers(0, 3, 40),
        np.full(40, -1),
        unit_rows(rng.normal(size=(40, 5)).astype(np.float32)),
    )
    to_do = tasks(np.array([True, True, False]), labels_used=True)
    asked = predict_tasks(samples, {CENTERS: centers}, to_do, scorer=scorer, sweeps=True)
    rows = sweep_rows(asked, model="aligned", resamples=20, seed=0)
    seen = [(row["k"], row["scorer"]) for row in rows if row["split"] == "seen"]
    assert seen == [(1, scorer), (5, scorer), (10, scorer), *((12, s) for s in get_args(Scorer))]
    for row in rows:
        few = centers.first(np.full(3, row["k"]))
        own = [task for task in to_do if task.split == row["split"]]
        again = predict_tasks(samples, {CENTERS: few}, own, scorer=row["scorer"], sweeps=False)
        expected, _ = recognition_rows(again, model="aligned", resamples=20, seed=0)
        assert {**row, "k": 0, "map": 0} == {**expected[0], "k": 0, "map": 0}

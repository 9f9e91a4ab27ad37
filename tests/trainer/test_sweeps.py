"""Sweeps are recognition with fewer centers, or another scorer."""

from __future__ import annotations

from typing import get_args

import numpy as np

from trainer.geometry import unit_rows
from trainer.recognition import recognise, tasks
from trainer.records import Centers, SampleSet
from trainer.settings import Evaluate, Scorer
from trainer.sweeps import sweep_rows


def test_each_row_is_recognition_in_another_way() -> None:
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
    settings = Evaluate(bootstrap=20, scorer="mean")
    rows = sweep_rows({"event": samples}, centers, to_do, model="aligned", settings=settings)
    seen = [(row["k"], row["scorer"]) for row in rows if row["split"] == "seen"]
    assert seen == [(1, "mean"), (5, "mean"), (10, "mean"), *((12, s) for s in get_args(Scorer))]
    for row in rows:
        few = centers.first(np.full(3, row["k"]))
        expected, _ = recognise(
            {"event": samples},
            {"llm_centers": few},
            [task for task in to_do if task.split == row["split"]],
            model="aligned",
            scorer=row["scorer"],
            resamples=20,
            seed=0,
        )
        assert {**row, "k": 0, "map": 0} == {**expected[0], "k": 0, "map": 0}

"""Few-shot rows, and the draw behind them."""

from __future__ import annotations

import numpy as np

from trainer.few_shot import draw_shots, few_shot_rows
from trainer.probe import fit_probe
from trainer.records import SampleSet
from trainer.settings import Evaluate

SEEN_C = np.ones(4, dtype=bool)


def _samples(n: int = 200) -> SampleSet:
    rng = np.random.default_rng(0)
    category_N = np.minimum(rng.geometric(0.4, size=n) - 1, 3)
    return SampleSet(
        modality="point",
        sample_ids=tuple(f"s{i:03d}" for i in range(n)),
        splits_N=rng.choice(["train", "val", "test"], size=n),
        category_N=category_N,
        object_N=np.full(n, -1),
        vectors_ND=(np.eye(4)[category_N] + 0.5 * rng.normal(size=(n, 4))).astype(np.float32),
    )


def test_a_draw_is_even_nested_and_seeded() -> None:
    """So many of each category, all of a small one; more shots hold the fewer; the order stays."""
    train = _samples().split("train")
    has_C = np.bincount(train.category_N, minlength=4)
    held: set[str] = set()
    for shots in (1, 2, 4, 8, 1000):
        drawn = draw_shots(train, shots, seed=3)
        assert (np.bincount(drawn.category_N, minlength=4) == np.minimum(has_C, shots)).all()
        assert list(drawn.sample_ids) == sorted(drawn.sample_ids)
        assert held <= set(drawn.sample_ids)
        held = set(drawn.sample_ids)
    assert draw_shots(train, 2, seed=3).sample_ids == draw_shots(train, 2, seed=3).sample_ids
    assert draw_shots(train, 2, seed=3).sample_ids != draw_shots(train, 2, seed=4).sample_ids


def test_rows_are_those_of_probes_on_the_draws() -> None:
    """Each row's top-1 is that of a probe fitted on the draw; `[]` gives none."""
    samples = _samples()
    test = samples.split("test")
    settings = Evaluate(bootstrap=50, few_shot=(1, 4), seed=5)
    rows = few_shot_rows({"point": samples}, SEEN_C, settings)
    assert [row["shots"] for row in rows] == [1, 4]
    for row in rows:
        drawn = draw_shots(samples.split("train"), row["shots"], seed=5)
        probe = fit_probe(drawn, samples.split("val"))
        assert probe is not None
        named_N = probe.named(test.vectors_ND, 1)[:, 0]
        assert row["top1"] == np.mean(named_N == test.category_N)
        assert (row["n"], row["n_train"]) == (len(test), len(drawn))
        assert row["top1_low"] <= row["top1"] <= row["top1_high"]
    assert few_shot_rows({"point": samples}, SEEN_C, Evaluate(few_shot=())) == []

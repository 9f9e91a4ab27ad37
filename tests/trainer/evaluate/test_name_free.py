"""Evaluation without class names: which texts stand for a category, and what they gain over the name."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from trainer.evaluate.name_free import name_free, name_free_rows, texts_left
from trainer.evaluate.outcomes import RecognitionOutcomes
from trainer.evaluate.tasks import anchor_sets
from trainer.records import Bools, Centers, SampleSet


def _centers(rows: list[tuple[str, int]], first: float = 0.0) -> Centers:
    vectors_ND = first + np.arange(2 * len(rows), dtype=np.float32).reshape(-1, 2)
    category_N = np.array([category for _, category in rows], dtype=np.int64)
    return Centers(("a", "b", "c"), tuple(row_id for row_id, _ in rows), category_N, vectors_ND)


NAMES = _centers([("name-a", 0), ("name-b", 1), ("name-c", 2)], 100.0)
TEXTS = _centers([("r0", 0), ("r1", 0), ("r2", 0), ("r9", 1)], 200.0)  # by the rows they stand for


def test_the_name_comes_once_and_texts_in_the_order_of_the_centers() -> None:
    """A center without such a text and the name as a center are left out, and categories without centers."""
    centers = _centers([("name-a", 0), ("r2", 0), ("r0", 0), ("gone", 0), ("r5", 1)])
    found = name_free(centers, TEXTS, NAMES)
    assert found is not None
    assert found.row_ids == ("name-a", "r2", "r0", "name-b")
    assert found.category_N.tolist() == [0, 0, 0, 1]
    assert found.vectors_ND.tolist() == [[100, 101], [204, 205], [200, 201], [102, 103]]
    assert texts_left(found) == {"texts_mean": 1.0, "texts_least": 0, "texts_most": 2, "without_texts": 1}
    sets = anchor_sets(centers, {"class_name": NAMES, "name_free": TEXTS}, seed=0)
    assert sets["name_free"].texts.row_ids == found.row_ids


def test_without_texts_or_names_there_is_no_such_set() -> None:
    """An older knowledge base has no such texts, and centers that are a control's texts have none."""
    assert name_free(_centers([("gone", 0)]), TEXTS, NAMES) is None
    assert name_free(_centers([("r0", 0)]), TEXTS, None) is None
    sets = anchor_sets(_centers([("gone", 0), ("r5", 1)]), {"class_name": NAMES, "name_free": TEXTS}, seed=0)
    assert "name_free" not in sets


def _outcome(modality: str, anchors: str, hit_N: Bools, object_N: list[int]) -> RecognitionOutcomes:
    n = len(hit_N)
    shown = SampleSet(
        modality=modality,
        sample_ids=tuple(f"{modality}{i}" for i in range(n)),
        splits_N=np.array(["test"] * n),
        category_N=np.zeros(n, np.int64),
        object_N=np.array(object_N),
        vectors_ND=np.zeros((n, 2), np.float32),
    )
    return RecognitionOutcomes("unseen", anchors, shown, np.zeros(n, np.int64), hit_N, hit_N)


def _outcomes(seed: int = 0, n: int = 40) -> list[RecognitionOutcomes]:
    rng = np.random.default_rng(seed)
    objects = [*range(n - 5), *[-1] * 5]
    return [
        _outcome(modality, anchors, rng.random(n) < share, objects)
        for modality, free in (("image", 0.8), ("audio", 0.6), ("text", 0.9))
        for anchors, share in (("llm_centers", 0.9), ("class_name", 0.4), ("name_free", free))
    ]


def test_the_gain_is_over_the_bare_name_on_the_same_samples() -> None:
    """Difference, interval, McNemar's p by scipy; the mean leaves text out and stands first."""
    found = _outcomes()
    rows = name_free_rows({"aligned": found}, TEXTS, resamples=400, seed=0)
    assert [row["modality"] for row in rows] == [None, "image", "audio", "text"]
    by = {(each.shown.modality, each.anchors): each.hit_N for each in found}
    for row in rows[1:]:
        free, named = by[row["modality"], "name_free"], by[row["modality"], "class_name"]
        assert (row["name_free"], row["class_name"]) == (free.mean(), named.mean())
        assert row["gain"] == pytest.approx(free.mean() - named.mean())
        assert row["gain_low"] < row["gain"] < row["gain_high"]
        b, c = int((free & ~named).sum()), int((named & ~free).sum())
        assert row["p"] == pytest.approx(binomtest(b, b + c).pvalue)
    mean = rows[0]
    assert mean["gain"] == pytest.approx(np.mean([row["gain"] for row in rows[1:3]]))
    assert mean["n"] == 80
    assert mean["texts_most"] == 2


def test_the_means_interval_draws_whole_objects() -> None:
    """Each resample of the objects, drawn one by one: the quantiles are those of the bootstrap."""
    found = _outcomes(1)
    mean = name_free_rows({"aligned": found}, TEXTS, resamples=4000, seed=0)[0]
    by = {(each.shown.modality, each.anchors): each.hit_N.astype(float) for each in found}
    ahead_N2 = np.stack([by[m, "name_free"] - by[m, "class_name"] for m in ("image", "audio")], axis=1)
    # 35 objects have one sample in each modality; 5 samples of each modality are their own objects.
    objects = [[(m, ahead_N2[i, m]) for m in (0, 1)] for i in range(35)]
    objects += [[(m, ahead_N2[i, m])] for i in range(35, 40) for m in (0, 1)]
    rng, drawn = np.random.default_rng(5), []
    for _ in range(4000):
        some = [pair for place in rng.integers(0, len(objects), len(objects)) for pair in objects[place]]
        drawn.append(np.mean([np.mean([ahead for m, ahead in some if m == modality]) for modality in (0, 1)]))
    assert (mean["gain_low"], mean["gain_high"]) == pytest.approx(
        np.quantile(drawn, (0.025, 0.975)), abs=0.02
    )


def test_without_the_control_there_are_no_rows() -> None:
    """Nothing is claimed that was not measured."""
    assert name_free_rows({"aligned": _outcomes()}, None, resamples=10, seed=0) == []
    named = [each for each in _outcomes() if each.anchors != "name_free"]
    assert name_free_rows({"aligned": named}, TEXTS, resamples=10, seed=0) == []

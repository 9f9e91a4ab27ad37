"""Recognition rows, average precision and sweeps, against counting by hand and scikit-learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, recall_score, top_k_accuracy_score

from trainer.evaluate import recognition
from trainer.evaluate.outcomes import RecognitionOutcomes
from trainer.evaluate.predictions import predict_tasks
from trainer.evaluate.recognition import (
    average_precision,
    mean_average_precision,
    recognition_rows,
    sweep_rows,
)
from trainer.evaluate.tasks import CENTERS, AnchorSet, Task, tasks
from trainer.records import Centers, SampleSet
from trainer.score.geometry import unit_rows
from trainer.score.scoring import category_scores
from trainer.settings import Scorer

SEEN_C = np.array([True, True, False, False, True, False])


def _centers(seed: int = 0) -> Centers:
    category_N = np.array([0, 0, 1, 2, 2, 2, 3, 4])  # category 5 has no text
    vectors_ND = unit_rows(np.random.default_rng(seed).normal(size=(8, 5)).astype(np.float32))
    return Centers(tuple("abcdef"), tuple(f"r{i}" for i in range(8)), category_N, vectors_ND)


def _samples(n: int = 200) -> SampleSet:
    rng = np.random.default_rng(1)
    return SampleSet(
        modality="audio",
        sample_ids=tuple(f"s{i}" for i in range(n)),
        splits_N=rng.choice(["train", "val", "test"], size=n),
        category_N=rng.integers(-1, 6, size=n),
        object_N=np.full(n, -1),
        vectors_ND=unit_rows(rng.normal(size=(n, 5)).astype(np.float32)),
    )


def _recognised(
    sets: dict[str, SampleSet],
    anchors: dict[str, Centers],
    to_do: list[Task],
    *,
    model: str,
    resamples: int,
    scorer: Scorer = "nearest",
) -> tuple[list[dict[str, Any]], list[RecognitionOutcomes]]:
    anchor_sets = {name: AnchorSet(texts) for name, texts in anchors.items()}
    predictions = [
        each
        for s in sets.values()
        for each in predict_tasks(s, anchor_sets, to_do, scorer=scorer, sweeps=False)
    ]
    return recognition_rows(predictions, model=model, resamples=resamples, seed=0)


def _by_hand(shown: set[int], among: set[int], splits: set[str], depth: int) -> tuple[float, int]:
    samples, centers = _samples(), _centers()
    hits = n = 0
    for x_D, category, split in zip(
        samples.vectors_ND, samples.category_N.tolist(), samples.splits_N, strict=True
    ):
        if split not in splits or category not in shown:
            continue
        best: dict[int, float] = {}
        for owner, z_D in zip(centers.category_N.tolist(), centers.vectors_ND, strict=True):
            if owner in among:
                best[owner] = max(best.get(owner, -2.0), float(x_D.astype(np.float64) @ z_D))
        n += 1
        hits += category in sorted(best, key=lambda c: -best[c])[:depth]
    return hits / n, n


def test_rows_agree_with_counting_by_hand() -> None:
    """Top-1, top-5, chance and n of the four tasks are those of a plain loop."""
    rows, _ = _recognised(
        {"audio": _samples()},
        {"llm_centers": _centers()},
        tasks(SEEN_C, labels_used=True),
        model="aligned",
        resamples=200,
    )
    seen, unseen = {0, 1, 4}, {2, 3, 5}
    expected = {
        "seen": (seen, seen),
        "unseen": (unseen, unseen),
        "seen_among_all": (seen, seen | unseen),
        "unseen_among_all": (unseen, seen | unseen),
    }
    assert [row["split"] for row in rows] == list(expected)
    for row in rows:
        shown, among = expected[row["split"]]
        top1, n = _by_hand(shown, among, {"test"}, 1)
        top5, _ = _by_hand(shown, among, {"test"}, 5)
        assert (row["top1"], row["top5"], row["n"]) == (pytest.approx(top1), pytest.approx(top5), n)
        assert row["chance"] == 1 / len(among)  # a candidate without a text is one all the same
        assert row["top1_low"] <= row["top1"] <= row["top1_high"]
        assert row["k"] == (2 if row["split"] == "seen" else 3)
        assert (row["modality"], row["anchors"], row["scorer"], row["model"]) == (
            "audio",
            "llm_centers",
            "nearest",
            "aligned",
        )


def test_without_labels_every_sample_is_scored() -> None:
    """Where no label was used, samples of every split count, among all categories."""
    (row,), _ = _recognised(
        {"audio": _samples()},
        {"llm_centers": _centers()},
        tasks(SEEN_C, labels_used=False),
        model="zero_shot",
        resamples=10,
    )
    top1, n = _by_hand(set(range(6)), set(range(6)), {"train", "val", "test"}, 1)
    assert (row["split"], row["top1"], row["n"]) == ("unseen", pytest.approx(top1), n)
    assert row["chance"] == 1 / 6


def test_what_cannot_be_asked_has_no_row() -> None:
    """No test samples, or no text for any candidate: no row, no NaN."""
    rows, _ = _recognised(
        {
            "audio": _samples().take(_samples().splits_N == "train"),
            "image": replace(_samples(), modality="image"),
        },
        {"llm_centers": _centers().of(SEEN_C)},
        tasks(SEEN_C, labels_used=True),
        model="aligned",
        resamples=10,
    )
    assert [(row["modality"], row["split"]) for row in rows] == [
        ("image", "seen"),
        ("image", "seen_among_all"),
        ("image", "unseen_among_all"),
    ]


def test_accuracies_are_those_of_scikit_learn() -> None:
    """Top-1, top-5, mean recall and mean average precision of nine categories."""
    rng = np.random.default_rng(8)
    label_N = rng.permutation(np.arange(150) % 9)
    vectors_ND = unit_rows(rng.normal(size=(150, 5)).astype(np.float32))
    samples = replace(_samples(150), category_N=label_N, vectors_ND=vectors_ND)
    z_CD = unit_rows(rng.normal(size=(9, 5)).astype(np.float32))
    centers = Centers(tuple("abcdefghi"), tuple("abcdefghi"), np.arange(9), z_CD)
    (row,), (outcome,) = _recognised(
        {"audio": samples},
        {"llm_centers": centers},
        tasks(np.ones(9, dtype=bool), labels_used=False),
        model="aligned",
        resamples=10,
    )
    scores_NC = vectors_ND.astype(np.float64) @ z_CD.T.astype(np.float64)
    assert row["top1"] == pytest.approx(top_k_accuracy_score(label_N, scores_NC, k=1))
    assert row["top5"] == pytest.approx(top_k_accuracy_score(label_N, scores_NC, k=5))
    assert row["mean_recall"] == pytest.approx(
        recall_score(label_N, scores_NC.argmax(axis=1), average="macro")
    )
    onehot_NC = label_N[:, None] == np.arange(9)
    assert row["map"] == pytest.approx(average_precision_score(onehot_NC, scores_NC, average="macro"))
    assert (outcome.predicted_N == scores_NC.argmax(axis=1)).all()
    assert outcome.hit5_N.mean() == row["top5"]


def test_any_of_several_categories_is_right() -> None:
    """A second label makes hits of what was wrong; recall counts the sample for each of its labels."""
    one = _samples()
    more_N1 = np.random.default_rng(3).integers(-1, 5, size=(len(one), 1))
    more_N1[more_N1[:, 0] == one.category_N] = -1
    several = replace(one, more_NL=more_N1)
    (row,), (outcome,) = _recognised(
        {"audio": several},
        {"llm_centers": _centers()},
        tasks(SEEN_C, labels_used=False),
        model="zero_shot",
        resamples=10,
    )
    shown = one.category_N >= 0
    labels = [{int(a), int(b)} - {-1} for a, b in zip(one.category_N[shown], more_N1[shown, 0], strict=True)]
    hits = [named in own for named, own in zip(outcome.predicted_N.tolist(), labels, strict=True)]
    assert row["top1"] == pytest.approx(np.mean(hits))
    recalls = [np.mean([hit for hit, own in zip(hits, labels, strict=True) if c in own]) for c in range(6)]
    assert row["mean_recall"] == pytest.approx(np.mean(recalls))


def test_controls_say_how_far_the_centers_are_ahead() -> None:
    """lead is the difference of the two top-1, within its interval; the centers themselves have none."""
    rows, outcomes = _recognised(
        {"audio": _samples()},
        {"llm_centers": _centers(), "permuted": _centers(1)},
        tasks(SEEN_C, labels_used=False),
        model="zero_shot",
        resamples=300,
    )
    ours, control = rows
    assert "lead" not in ours
    assert control["lead"] == pytest.approx(ours["top1"] - control["top1"])
    assert control["lead_low"] <= control["lead"] <= control["lead_high"]
    b = int((outcomes[0].hit_N & ~outcomes[1].hit_N).sum())
    c = int((outcomes[1].hit_N & ~outcomes[0].hit_N).sum())
    assert control["p"] == pytest.approx(binomtest(b, b + c).pvalue)
    assert ours["map"] is not None
    assert control["map"] is None


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_average_precision_agrees_with_scikit_learn(decimals: int) -> None:
    """Rounded scores tie in groups: each group is one step of the curve."""
    rng = np.random.default_rng(decimals)
    scores_N, relevant_N = np.round(rng.normal(size=80), decimals), rng.random(80) < 0.3
    expected = average_precision_score(relevant_N, scores_N)
    assert average_precision(scores_N, relevant_N) == pytest.approx(expected)
    with pytest.raises(ValueError, match="nothing"):
        average_precision(scores_N, np.zeros(80, dtype=bool))


@pytest.mark.parametrize("block", [2, 64])
def test_mean_average_precision_is_over_the_shown_categories(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples with two labels count for both; a category without samples or not shown counts for nothing."""
    monkeypatch.setattr(recognition, "_BLOCK", block)
    rng = np.random.default_rng(5)
    vectors_ND = unit_rows(rng.normal(size=(60, 5)).astype(np.float32))
    labels_NL = np.column_stack([rng.integers(0, 4, 60), rng.choice([-1, 5], 60)])
    owners = np.array([0, 0, 1, 2, 2, 4, 5])  # category 3 has no center
    centers = Centers(
        tuple("abcdef"),
        tuple("tuvwxyz"),
        owners,
        unit_rows(rng.normal(size=(7, 5)).astype(np.float32)),
    )
    scores_NC = category_scores(vectors_ND, centers)
    shown_C = np.array([False, True, True, True, True, True])
    ranked_NC = np.where(np.isinf(scores_NC), 0, scores_NC)
    expected = [average_precision_score((labels_NL == c).any(axis=1), ranked_NC[:, c]) for c in (1, 2, 3, 5)]
    expected[2] = float((labels_NL == 3).any(axis=1).mean())  # nothing is ranked: all tie
    found = mean_average_precision(scores_NC, labels_NL, shown_C)
    assert found == pytest.approx(np.mean(expected))
    nothing_C = np.arange(6) == 4
    assert mean_average_precision(scores_NC, labels_NL, nothing_C) is None


@pytest.mark.parametrize("scorer", get_args(Scorer))
def test_each_row_of_a_sweep_is_recognition_in_another_way(scorer: Scorer) -> None:
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
    anchors = {CENTERS: AnchorSet(centers)}
    asked = predict_tasks(samples, anchors, to_do, scorer=scorer, sweeps=True)
    rows = sweep_rows(asked, model="aligned", resamples=20, seed=0)
    seen = [(row["k"], row["scorer"]) for row in rows if row["split"] == "seen"]
    assert seen == [(1, scorer), (5, scorer), (10, scorer), *((12, s) for s in get_args(Scorer))]
    for row in rows:
        few = centers.first(np.full(3, row["k"]))
        own = [task for task in to_do if task.split == row["split"]]
        again = predict_tasks(samples, {CENTERS: AnchorSet(few)}, own, scorer=row["scorer"], sweeps=False)
        expected, _ = recognition_rows(again, model="aligned", resamples=20, seed=0)
        assert {**row, "k": 0, "map": 0} == {**expected[0], "k": 0, "map": 0}

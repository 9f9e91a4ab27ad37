"""Predictions from one product equal those of each set of texts by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from trainer.evaluate import predictions as module
from trainer.evaluate.predictions import COUNTS, predict_tasks
from trainer.evaluate.tasks import CENTERS, AnchorSet, Task, anchor_sets, tasks
from trainer.records import Centers, SampleSet
from trainer.score.geometry import unit_rows
from trainer.score.scoring import category_scores, score
from trainer.settings import Scorer

SEEN_C = np.array([True, True, False, False, True, False, True])
C = len(SEEN_C)


def _centers(seed: int, counts: tuple[int, ...], prefix: str) -> Centers:
    category_N = np.repeat(np.arange(C), counts)
    vectors_ND = unit_rows(np.random.default_rng(seed).normal(size=(len(category_N), 5)).astype(np.float32))
    return Centers(
        tuple("abcdefg"), tuple(f"{prefix}{i}" for i in range(len(category_N))), category_N, vectors_ND
    )


def _anchors() -> dict[str, AnchorSet]:
    """Category f has no center; the others up to 12."""
    controls = {"class_name": _centers(1, (1,) * C, "n"), "templates": _centers(2, (12,) * C, "t")}
    return anchor_sets(_centers(0, (12, 3, 7, 12, 1, 0, 5), "r"), controls, seed=4)


def _samples(n: int = 90) -> SampleSet:
    rng = np.random.default_rng(5)
    ids, splits_N = tuple(f"s{i}" for i in range(n)), rng.choice(["train", "val", "test"], n)
    x_ND = unit_rows(rng.normal(size=(n, 5)).astype(np.float32))
    return SampleSet("point", ids, splits_N, rng.integers(-1, C, n), np.full(n, -1), x_ND)


def _alone(shown: SampleSet, texts: Centers, task: Task, scorer: Scorer) -> list[list[int]]:
    ranked = score(shown.vectors_ND, texts.of(task.candidates_C), scorer=scorer, top=5)
    return ranked.categories_NT.tolist()


@pytest.mark.parametrize("labels_used", [True, False])
@pytest.mark.parametrize("scorer", get_args(Scorer))
def test_each_answer_is_that_of_its_texts_alone(scorer: Scorer, labels_used: bool) -> None:
    """Every task, anchor set and sweep; scores of every category."""
    samples, anchors = _samples(), _anchors()
    to_do = tasks(SEEN_C, labels_used=labels_used)
    asked = predict_tasks(samples, anchors, to_do, scorer=scorer, sweeps=True)
    assert [each.task.split for each in asked] == [task.split for task in to_do]
    for each in asked:
        assert each.shown.sample_ids == each.task.of(samples).sample_ids
        assert [named.anchors for named in each.by_anchors] == list(anchors)
        for named in each.by_anchors:
            texts = anchors[named.anchors].texts
            assert named.categories_NT.tolist() == _alone(each.shown, texts, each.task, scorer)
            assert named.k == texts.of(each.task.candidates_C).counts().max()
        ways = [(k, scorer) for k in COUNTS if k < 12] + [(12, other) for other in get_args(Scorer)]
        swept = each.task.split != "seen_among_all"
        assert [(named.k, named.scorer) for named in each.by_sweep] == (ways if swept else [])
        for named in each.by_sweep:
            few = anchors[CENTERS].texts.first(np.full(C, named.k))
            assert named.categories_NT.tolist() == _alone(each.shown, few, each.task, named.scorer)
        candidates_C = each.task.candidates_C
        expected_NC = category_scores(each.shown.vectors_ND, anchors[CENTERS].texts, scorer)
        np.testing.assert_allclose(
            each.scores_NC[:, candidates_C], expected_NC[:, candidates_C], rtol=0, atol=1.1e-9
        )


def test_permuted_centers_are_not_multiplied_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their predictions come from the product with the centers; other texts are multiplied by themselves."""
    asked_alone: list[Centers] = []

    def best_categories(queries_ND: object, texts: Centers, **given: object) -> np.ndarray:
        asked_alone.append(texts)
        return np.zeros((1, 1), np.int64)

    monkeypatch.setattr(module, "best_categories", best_categories)
    anchors = {name: _anchors()[name] for name in (CENTERS, "permuted")}
    one = tasks(SEEN_C, labels_used=False)
    predict_tasks(_samples(), anchors, one, scorer="nearest", sweeps=False)
    assert asked_alone == []
    other = anchors | {"permuted": replace(anchors["permuted"], owner_C=None)}
    predict_tasks(_samples(), other, one, scorer="nearest", sweeps=False)
    assert len(asked_alone) == 1


def test_what_cannot_be_asked_has_no_answer() -> None:
    """No samples: no answers. No centers among the candidates: only the controls answer, and no sweep."""
    samples, anchors = _samples(), _anchors()
    to_do = tasks(SEEN_C, labels_used=True)
    train = samples.take(samples.splits_N == "train")
    assert predict_tasks(train, anchors, to_do, scorer="nearest", sweeps=True) == []
    seen_only = anchors | {CENTERS: AnchorSet(anchors[CENTERS].texts.of(SEEN_C))}
    by_split = {
        each.task.split: each
        for each in predict_tasks(samples, seen_only, to_do, scorer="nearest", sweeps=True)
    }
    unseen = by_split["unseen"]
    assert CENTERS not in [named.anchors for named in unseen.by_anchors]
    assert "class_name" in [named.anchors for named in unseen.by_anchors]
    assert unseen.by_sweep == ()
    assert len(by_split["unseen_among_all"].by_sweep) == 7


@pytest.mark.parametrize("broken", ["samples", "centers"])
def test_what_is_not_finite_is_refused(broken: str) -> None:
    """A comparison with NaN is silently false."""
    samples, centers = _samples(), _anchors()[CENTERS].texts
    (samples if broken == "samples" else centers).vectors_ND[:] = np.nan
    one = tasks(SEEN_C, labels_used=False)
    with pytest.raises(ValueError, match="row 0 holds NaN"):
        predict_tasks(samples, {CENTERS: AnchorSet(centers)}, one, scorer="nearest", sweeps=False)

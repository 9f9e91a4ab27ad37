"""The gallery of all modalities, against scikit-learn and plain loops."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from trainer.evaluate.gallery import gallery_measures, most_frequent, nearest_others
from trainer.records import SampleSet
from trainer.score.geometry import unit_rows


def _set(modality: str, n: int, seed: int) -> SampleSet:
    rng = np.random.default_rng(seed)
    return SampleSet(
        modality=modality,
        sample_ids=tuple(f"{modality}{i:03d}" for i in range(n)),
        splits_N=np.full(n, "test"),
        category_N=rng.integers(-1, 6, size=n),
        object_N=np.arange(n),
        vectors_ND=unit_rows(rng.normal(size=(n, 5)).astype(np.float32)),
    )


@pytest.mark.parametrize("copies", [1, 15])
def test_measures_are_those_of_scikit_learn_and_of_loops(copies: int) -> None:
    """The query itself is left out; also where it drowns among its copies."""
    sets = {"audio": _set("audio", 50, 6), "point": _set("point", 40, 5)}
    if copies > 1:
        sets["audio"] = sets["audio"].take(np.repeat(np.arange(4), copies))
    x_ND = np.concatenate([s.vectors_ND for s in sets.values()]).astype(np.float64)
    category_N = np.concatenate([s.category_N for s in sets.values()])
    modality_N = np.repeat([0, 1], [len(s) for s in sets.values()])
    ndcg, precision, share, guessed = [], [], [], []
    for i in range(len(x_ND)):
        others = np.flatnonzero(np.arange(len(x_ND)) != i)
        # the rule for ties is the order of the gallery
        cosine = np.round(x_ND[others] @ x_ND[i], 6) - 1e-9 * np.arange(len(others))
        best = others[np.argsort(-cosine)]
        share.append((modality_N[best[:10]] != modality_N[i]).mean())
        votes = Counter(modality_N[best[:5]].tolist())
        guessed.append(votes.most_common(1)[0][0] == modality_N[i])
        relevant = (category_N[others] == category_N[i]).astype(float)
        if category_N[i] >= 0 and relevant.any():
            ndcg.append(ndcg_score([relevant], [cosine], k=10))
            precision.append((category_N[best[:10]] == category_N[i]).mean())
    assert gallery_measures(sets) == pytest.approx(
        {
            "mixed_share": np.mean(share),
            "modality_probe_knn": np.mean(guessed),
            "mixed_precision10": np.mean(precision),
            "mixed_ndcg10": np.mean(ndcg),
        }
    )


def test_of_equal_votes_the_nearest_decides() -> None:
    assert most_frequent(np.array([[2, 1, 1, 2, 0], [3, 1, 1, 1, 3]])).tolist() == [2, 1]


def test_a_row_is_never_its_own_neighbour() -> None:
    x_ND = np.ones((14, 2), np.float32) / np.float32(2**0.5)
    near = nearest_others(x_ND, 10)
    assert near.shape == (14, 10)
    assert not (near == np.arange(14)[:, None]).any()


def test_without_relatives_nothing_is_relevant() -> None:
    """Unlabelled samples, and a category of one sample, ask nothing; what needs no label is measured."""
    audio = _set("audio", 3, 7)
    alone = SampleSet(
        "audio", audio.sample_ids, audio.splits_N, np.array([-1, 0, 1]), audio.object_N, audio.vectors_ND
    )
    assert set(gallery_measures({"audio": alone})) == {"mixed_share", "modality_probe_knn"}

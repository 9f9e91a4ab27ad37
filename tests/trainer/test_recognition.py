"""Recognition rows, against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.geometry import unit_rows
from trainer.recognition import recognise, tasks
from trainer.records import Centers, SampleSet

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
    """Top-1, top-5, chance and n of the three tasks are those of a plain loop."""
    rows, _ = recognise(
        {"audio": _samples()},
        {"llm_centers": _centers()},
        tasks(SEEN_C, labels_used=True),
        model="aligned",
        scorer="nearest",
        resamples=200,
        seed=0,
    )
    seen, unseen = {0, 1, 4}, {2, 3, 5}
    expected = {"seen": (seen, seen), "unseen": (unseen, unseen), "unseen_among_all": (unseen, seen | unseen)}
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
    (row,), _ = recognise(
        {"audio": _samples()},
        {"llm_centers": _centers()},
        tasks(SEEN_C, labels_used=False),
        model="zero_shot",
        scorer="nearest",
        resamples=10,
        seed=0,
    )
    top1, n = _by_hand(set(range(6)), set(range(6)), {"train", "val", "test"}, 1)
    assert (row["split"], row["top1"], row["n"]) == ("unseen", pytest.approx(top1), n)
    assert row["chance"] == 1 / 6


def test_what_cannot_be_asked_has_no_row() -> None:
    """No test samples, or no text for any candidate: no row, no NaN."""
    rows, _ = recognise(
        {"audio": _samples().take(_samples().splits_N == "train"), "image": _samples()},
        {"llm_centers": _centers().of(SEEN_C)},
        tasks(SEEN_C, labels_used=True),
        model="aligned",
        scorer="nearest",
        resamples=10,
        seed=0,
    )
    assert [(row["modality"], row["split"]) for row in rows] == [
        ("image", "seen"),
        ("image", "unseen_among_all"),
    ]

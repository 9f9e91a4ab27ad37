"""Recall over pairs of modalities, against a brute-force loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trainer.evaluate.retrieval import DEPTHS, retrieval_rows
from trainer.records import SampleSet
from trainer.score.geometry import unit_rows


def _set(modality: str, n: int, seed: int) -> SampleSet:
    rng = np.random.default_rng(seed)
    return SampleSet(
        modality=modality,
        sample_ids=tuple(f"{modality}{i}" for i in range(n)),
        splits_N=np.full(n, "test"),
        category_N=rng.integers(-1, 8, size=n),
        object_N=rng.integers(-1, 40, size=n),
        vectors_ND=unit_rows(rng.normal(size=(n, 6)).astype(np.float32)),
    )


def _recalls(sets: dict[str, SampleSet]) -> list[dict[str, Any]]:
    return retrieval_rows(sets, resamples=200, seed=0)[0]


def test_agrees_with_a_brute_force_loop() -> None:
    """Every number of every row is that of sorting the gallery for one query at a time."""
    sets = {"point": _set("point", 50, 0), "audio": _set("audio", 70, 1), "video": _set("video", 9, 2)}
    rows = _recalls(sets)
    assert [(r["query"], r["gallery"]) for r in rows if r["level"] == "category"] == [
        ("audio", "point"),
        ("audio", "video"),
        ("point", "audio"),
        ("point", "video"),
        ("video", "audio"),
        ("video", "point"),
    ]
    for row in rows:
        asked, found = sets[row["query"]], sets[row["gallery"]]
        key = "category_N" if row["level"] == "category" else "object_N"
        hits, n, ranks = dict.fromkeys(DEPTHS, 0), 0, []
        for x_D, wanted in zip(asked.vectors_ND.astype(np.float64), getattr(asked, key), strict=True):
            relevant = getattr(found, key) == wanted
            if wanted < 0 or not relevant.any():
                continue
            n += 1
            order = np.argsort(-(found.vectors_ND.astype(np.float64) @ x_D), kind="stable")
            ranks.append(int(np.flatnonzero(relevant[order])[0]) + 1)
            for k in DEPTHS:
                hits[k] += bool(relevant[order[:k]].any())
        assert row["n"] == n
        assert row["median_rank"] == np.median(ranks)
        assert [row[f"r{k}"] for k in DEPTHS] == pytest.approx([hits[k] / n for k in DEPTHS])
        assert all(0 <= row[f"r{k}_low"] <= row[f"r{k}"] <= row[f"r{k}_high"] <= 1 for k in DEPTHS)


def test_seven_modalities_have_42_pairs() -> None:
    """All ordered pairs, at both levels."""
    names = ("image", "text", "audio", "point", "thermal", "video", "event")
    rows = _recalls({name: _set(name, 60, seed) for seed, name in enumerate(names)})
    assert len(rows) == 84
    assert sum(row["level"] == "object" for row in rows) == 42


def test_the_same_thing_is_found_first() -> None:
    """Equal vectors in two modalities: recall@1 is 1 by object."""
    audio = _set("audio", 12, 3)
    audio = SampleSet(
        "audio", audio.sample_ids, audio.splits_N, audio.category_N, np.arange(12), audio.vectors_ND
    )
    rows = [row for row in _recalls({"audio": audio, "point": audio}) if row["level"] == "object"]
    assert [row["r1"] for row in rows] == [1.0, 1.0]


def test_nothing_relevant_means_no_row() -> None:
    """Unlabelled samples and empty sets give no row."""
    unknown = _set("audio", 5, 4)
    unknown = SampleSet(
        "audio", unknown.sample_ids, unknown.splits_N, np.full(5, -1), np.full(5, -1), unknown.vectors_ND
    )
    empty = unknown.take(np.zeros(5, dtype=bool))
    assert _recalls({"audio": unknown, "point": unknown}) == []
    assert _recalls({"audio": _set("audio", 5, 4), "point": empty}) == []

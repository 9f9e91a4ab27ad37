"""Localization against every rule as its docstring states it: one text at a time, in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kb_builder.store.table import read_vectors
from kb_builder.tables.schemas import read_rows
from trainer.localize.choose import localize
from trainer.settings import Localize

MakeKb = Callable[..., Path]
Ranking = list[tuple[str, float]]
TEXTS = Path("embeddings/txt-0/category_texts")
CONTROLS = Path("embeddings/txt-0/controls")
ZERO_SHOT = Path("embeddings/zs-0/samples")


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _stored(folder: Path) -> dict[str, np.ndarray]:
    stored = read_vectors(folder)
    return dict(zip(stored.ids, _unit(stored.vectors_ND.astype(np.float64)), strict=True))


def _texts(kb: Path) -> dict[str, dict[str, np.ndarray]]:
    """Category -> row id -> unit vector, of the valid descriptions."""
    vectors, texts = _stored(kb / TEXTS), {}
    for row in read_rows(kb / "descriptions" / "category"):
        if row["status"] == "ok":
            texts.setdefault(row["category_id"], {})[row["row_id"]] = vectors[row["row_id"]]
    return {category: dict(sorted(texts[category].items())) for category in sorted(texts)}


def _best(scores: dict[str, float], k: int) -> Ranking:
    return sorted(scores.items(), key=lambda item: (-round(item[1], 9), item[0]))[:k]


def _distinct(rows: dict[str, np.ndarray], meanings: dict[str, np.ndarray], own: str, k: int) -> Ranking:
    """Cosine with what the own category means, less the largest with what another means."""
    scores = {}
    for row_id, x in rows.items():
        rival = max(x @ meaning for c, meaning in meanings.items() if c != own)
        scores[row_id] = float(x @ meanings[own] - rival)
    return _best(scores, k)


def _text(texts: dict[str, dict[str, np.ndarray]], own: str, k: int) -> Ranking:
    """A category means the mean of its texts."""
    return _distinct(texts[own], {c: _unit(sum(rows.values())) for c, rows in texts.items()}, own, k)


def _neighbours(
    texts: dict[str, dict[str, np.ndarray]], names: dict[str, np.ndarray], own: str, k: int
) -> Ranking:
    """Cosine with the own texts' mean, less the mean cosine with those of the five nearest names."""
    means = {c: _unit(sum(rows.values())) for c, rows in texts.items()}
    rivals = sorted((c for c in texts if c != own), key=lambda c: -round(float(names[own] @ names[c]), 9))[:5]
    scores = {
        row_id: float(x @ means[own] - np.mean([x @ means[c] for c in rivals]))
        for row_id, x in texts[own].items()
    }
    return _best(scores, k)


def _visual(rows: dict[str, np.ndarray], guides: list[np.ndarray], nearest: int | None, k: int) -> Ranking:
    """Cosine with the guides' mean, or the mean cosine with the nearest guides."""
    if nearest is None:
        return _best({row_id: float(x @ _unit(np.mean(guides, axis=0))) for row_id, x in rows.items()}, k)
    closest = {row_id: sorted((float(x @ y) for y in guides), reverse=True) for row_id, x in rows.items()}
    return _best({row_id: float(np.mean(cosines[:nearest])) for row_id, cosines in closest.items()}, k)


def _diverse(rows: dict[str, np.ndarray], guides: list[np.ndarray], k: int) -> Ranking:
    """The row whose choice raises the samples' mean largest cosine most, then that of the own texts."""
    chosen: Ranking = []
    for covered in (guides, list(rows.values())):
        while covered and len(chosen) < min(k, len(rows)):
            now = [max((rows[c] @ y for c, _ in chosen), default=0.0) for y in covered]
            gains = {
                row_id: float(
                    np.mean([max(x @ y, was) if chosen else x @ y for y, was in pairs]) - np.mean(now)
                )
                for row_id, x in rows.items()
                if row_id not in dict(chosen)
                for pairs in [list(zip(covered, now, strict=True))]
            }
            ((row_id, gain),) = _best(gains, 1)
            if chosen and round(gain, 9) <= 0:
                break
            chosen.append((row_id, gain))
    return chosen


def _pseudo_labels(texts: dict[str, dict[str, np.ndarray]], samples: list[np.ndarray], k: int) -> list[str]:
    """The category of the nearest text that rule `text` would choose."""
    centers = {c: [texts[c][row_id] for row_id, _ in _text(texts, c, k)] for c in texts}
    return [max(texts, key=lambda c: max(round(float(x @ y), 9) for x in centers[c])) for y in samples]


def _reference(kb: Path, settings: Localize) -> dict[str, Ranking]:
    """All rules as their docstring states them, one text at a time, in float64."""
    texts, vectors = _texts(kb), _stored(kb / ZERO_SHOT)
    k = 10**6 if settings.k == "all" else settings.k
    images = [row for row in read_rows(kb / "samples.parquet") if row["modality"] == "image"]
    if settings.rule == "pseudo":
        labels = _pseudo_labels(texts, [vectors[row["sample_id"]] for row in images], k)
    else:
        images = [row for row in images if row["split"] in settings.guide.split("+")]
        labels = [row["category_id"] for row in images]
    control = _stored(kb / CONTROLS)
    names = {c: control[f"class_name-{c}-0"] for c in texts}
    guided = {
        c: [vectors[row["sample_id"]] for row, label in zip(images, labels, strict=True) if label == c]
        for c in texts
    }
    seen = {c: _unit(sum(guides)) for c, guides in guided.items() if guides}
    expected = {}
    for category, rows in texts.items():
        guides = guided[category]
        if settings.rule == "diverse":
            expected[category] = _diverse(rows, guides, k)
        elif settings.rule == "name":
            expected[category] = _distinct(rows, names, category, k)
        elif settings.rule == "neighbours":
            expected[category] = _neighbours(texts, names, category, k)
        elif settings.rule == "text" or not guides:
            expected[category] = _text(texts, category, k)
        elif settings.rule == "distinct":
            expected[category] = _distinct(rows, seen, category, k)
        else:
            expected[category] = _visual(rows, guides, settings.nearest_samples, k)
    return expected


@pytest.mark.parametrize("k", [1, 5, 50, "all"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"guide": "val"},
        {"guide": "train+val"},
        {"nearest_samples": 2},
        {"nearest_samples": 99, "guide": "train+val"},
        {"rule": "text"},
        {"rule": "name"},
        {"rule": "neighbours"},
        {"rule": "distinct"},
        {"rule": "distinct", "guide": "train+val"},
        {"rule": "diverse"},
        {"rule": "diverse", "guide": "val"},
        {"rule": "pseudo", "transductive": True},
        {"rule": "pseudo", "transductive": True, "nearest_samples": 3},
    ],
    ids=str,
)
def test_agrees_with_a_float64_reference(make_kb: MakeKb, options: dict[str, Any], k: int | str) -> None:
    """The chosen rows, their order and their scores are those of a plain loop."""
    kb = make_kb()
    settings = Localize(k=k, **options)  # type: ignore[arg-type]
    localize(kb, settings)
    expected = _reference(kb, settings)
    rows = sorted(read_rows(kb / "centers.parquet"), key=lambda row: (row["category_id"], row["rank"]))
    wanted = [(c, rank, *best) for c, ranking in expected.items() for rank, best in enumerate(ranking)]
    assert [(row["category_id"], row["rank"], row["row_id"]) for row in rows] == [each[:3] for each in wanted]
    np.testing.assert_allclose([row["score"] for row in rows], [each[3] for each in wanted], atol=2e-9)

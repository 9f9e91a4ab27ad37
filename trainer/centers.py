"""Embedding center localization: which of a category's descriptions stand for it.

Shapes: N texts, D dimensions, C categories.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from data.errors import KnowledgeBaseError
from kb_builder.schemas import CENTERS, read_rows, write_table
from kb_builder.store import read_vectors
from trainer.geometry import unit_rows
from trainer.inputs import KnowledgeBase, load_descriptions, load_samples, open_kb
from trainer.records import Centers, Floats, Ints
from trainer.settings import Localize

Doubles = npt.NDArray[np.float64]

# Scores are float64 products rounded to this, so that equal texts tie and the row id decides, not the BLAS.
_DECIMALS = 9


def localize(kb: Path, settings: Localize) -> dict[str, Any]:
    """Choose up to `settings.k` centers of every category and write `<kb>/centers.parquet`.

    Rule `visual`: a category's descriptions ranked by cosine with the mean of its encoded samples, in the
    space of the zero-shot encoder, which it shares with the texts. Only samples of the train split guide;
    categories without any (and knowledge bases without such an encoder) fall back to rule `text`.

    Rule `text`: ranked by the cosine with the mean of the category's own descriptions, less the largest
    cosine with another category's mean. A text that would fit a neighbour as well says little about its own
    category, however typical it is.

    Ties go by row id. Returns counts: `centers`, categories `by_rule`, `fewer_than_k` (category: number of
    centers), `without_centers` (category ids), `guiding_samples`, `texts_without_vector`. Raises
    KnowledgeBaseError where there is no description or the spaces do not fit.
    """
    base = open_kb(kb)
    texts, missing = load_descriptions(base)
    if len(texts.row_ids) == 0:
        raise KnowledgeBaseError(f"{kb}: no valid description of any category; see `unibind kb stats`")
    guides_CD, guiding = _guides(base, texts) if settings.rule == "visual" else ({}, 0)
    rows = _rank_all(texts, guides_CD, settings.k, encoder=base.encoder("text").name)
    write_table(kb / "centers.parquet", rows, CENTERS)

    chosen_C = dict.fromkeys(base.categories, 0)
    for row in rows:
        chosen_C[row["category_id"]] += 1
    firsts = [row for row in rows if row["rank"] == 0]
    return {
        "k": settings.k,
        "centers": len(rows),
        "by_rule": {rule: sum(row["rule"] == rule for row in firsts) for rule in ("visual", "text")},
        "fewer_than_k": {name: n for name, n in chosen_C.items() if 0 < n < settings.k},
        "without_centers": [name for name, n in chosen_C.items() if n == 0],
        "guiding_samples": guiding,
        **missing,
    }


def load_centers(kb: KnowledgeBase) -> Centers:
    """The localized centers, rows sorted by (category, rank); stale ones raise KnowledgeBaseError."""
    rows = _center_rows(kb)
    vectors = read_vectors(kb.encoder("text") / "category_texts")
    place = {row_id: row for row, row_id in enumerate(vectors.ids)}
    stale = [row for row in rows if row["row_id"] not in place or row["encoder"] != kb.encoder("text").name]
    if stale or any(row["category_id"] not in kb.index for row in rows):
        raise KnowledgeBaseError(
            f"{kb.folder / 'centers.parquet'}: chosen from other texts or by another encoder;"
            " run `unibind localize` again"
        )
    rows.sort(key=lambda row: (kb.index[row["category_id"]], row["rank"]))
    return Centers(
        categories=kb.categories,
        row_ids=tuple(row["row_id"] for row in rows),
        category_N=np.array([kb.index[row["category_id"]] for row in rows], dtype=np.int64),
        vectors_ND=unit_rows(vectors.vectors_ND[[place[row["row_id"]] for row in rows]]),
    )


def labels_guided(kb: KnowledgeBase) -> bool:
    """Whether labelled samples had a say in the choice of any center."""
    return any(row["guided_by"] is not None for row in _center_rows(kb))


def _center_rows(kb: KnowledgeBase) -> list[dict[str, Any]]:
    path = kb.folder / "centers.parquet"
    if not path.exists():
        raise KnowledgeBaseError(f"{path}: missing; run `unibind localize`")
    return read_rows(path)


def _guides(kb: KnowledgeBase, texts: Centers) -> tuple[dict[int, Doubles], int]:
    """The unit mean of each category's encoded train samples, where it has some; and how many guide."""
    if kb.encoders.get("zero_shot") is None:
        return {}, 0
    sets, _ = load_samples(kb, "zero_shot")
    # Text samples are left out: the rule asks what the category looks like, not what is said of it.
    train = [s.split("train") for modality, s in sets.items() if modality != "text"]
    guides: dict[int, Doubles] = {}
    guiding = 0
    for category in range(len(kb.categories)):
        members = [s.vectors_ND[s.category_N == category].astype(np.float64) for s in train]
        x_ND = np.concatenate(members) if members else np.zeros((0, texts.vectors_ND.shape[1]))
        if x_ND.shape[1] != texts.vectors_ND.shape[1]:
            raise KnowledgeBaseError(
                f"{kb.encoder('zero_shot').name} gives {x_ND.shape[1]} dimensions and the texts have"
                f" {texts.vectors_ND.shape[1]}: a zero-shot encoder must share the text encoder's space"
            )
        mean_D = x_ND.mean(axis=0) if len(x_ND) else np.zeros(1)
        # Samples that cancel out (or are all zero) point nowhere: they do not guide.
        if np.linalg.norm(mean_D) > 0:
            guides[category] = mean_D / np.linalg.norm(mean_D)
            guiding += len(x_ND)
    return guides, guiding


def _rank_all(texts: Centers, guides: dict[int, Doubles], k: int, *, encoder: str) -> list[dict[str, Any]]:
    vectors_ND = unit_rows(texts.vectors_ND)
    centroids_CD = category_means(vectors_ND, texts.category_N, len(texts.categories))
    rows: list[dict[str, Any]] = []
    for category in tqdm(np.unique(texts.category_N), desc="localize", unit="category", disable=None):
        members = np.flatnonzero(texts.category_N == category)
        own_ND = vectors_ND[members].astype(np.float64)
        guide_D = guides.get(int(category))
        if guide_D is not None:
            rule, score_N = "visual", own_ND @ guide_D
        else:
            rule, score_N = "text", _distinctness(own_ND, centroids_CD, int(category))
        score_N = np.round(score_N, _DECIMALS)
        best_first = sorted(range(len(members)), key=lambda i: (-score_N[i], texts.row_ids[members[i]]))
        rows += [
            {
                "category_id": texts.categories[category],
                "rank": rank,
                "row_id": texts.row_ids[members[i]],
                "score": float(score_N[i]),
                "rule": rule,
                "guided_by": "train" if rule == "visual" else None,
                "encoder": encoder,
            }
            for rank, i in enumerate(best_first[:k])
        ]
    return rows


def category_means(vectors_ND: Floats, category_N: Ints, n_categories: int) -> Doubles:
    """The unit mean of each category's rows: float64[C, D]; zero for a category without rows."""
    sums_CD = np.zeros((n_categories, vectors_ND.shape[1]))
    np.add.at(sums_CD, category_N, vectors_ND.astype(np.float64))
    lengths_C1 = np.linalg.norm(sums_CD, axis=1, keepdims=True)
    means_CD: Doubles = sums_CD / np.where(lengths_C1 > 0, lengths_C1, 1.0)
    return means_CD


def _distinctness(own_ND: Doubles, centroids_CD: Doubles, category: int) -> Doubles:
    """cos(text, own centroid) - max over the other categories of cos(text, their centroid): float64[N]."""
    cosine_NC = own_ND @ centroids_CD.T
    own_N: Doubles = cosine_NC[:, category].copy()
    # Categories without texts have a zero centroid: they are no rivals.
    rivals_C = np.any(centroids_CD != 0, axis=1)
    rivals_C[category] = False
    if not rivals_C.any():
        return own_N
    difference_N: Doubles = own_N - cosine_NC[:, rivals_C].max(axis=1)
    return difference_N

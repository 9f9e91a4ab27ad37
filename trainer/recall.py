"""Retrieval: recall@k for every ordered pair of modalities, by category and by object."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np

from trainer.records import SampleSet
from trainer.retrieval import nearest

DEPTHS = (1, 5, 10, 20)


def recalls(sets: dict[str, SampleSet]) -> list[dict[str, Any]]:
    """Rows {query, gallery, level, r1, r5, r10, r20, n} over all ordered pairs of modalities.

    `sets` hold the test samples in one space. recall@k is the share of queries with at least one relevant
    item among their k nearest: of the same category (level `category`), the same object (`object`). Only
    queries that have a relevant item in the gallery count, `n` of them; a pair with none has no row.
    """
    rows: list[dict[str, Any]] = []
    for query, gallery in permutations(sorted(sets), 2):
        asked, found = sets[query], sets[gallery]
        if len(asked) == 0 or len(found) == 0:
            continue
        places_NT, _ = nearest(asked.vectors_ND, found.vectors_ND, max(DEPTHS))
        for level, of_query_N, of_gallery_M in (
            ("category", asked.category_N, found.category_N),
            ("object", asked.object_N, found.object_N),
        ):
            answerable_N = (of_query_N >= 0) & np.isin(of_query_N, of_gallery_M)
            if not answerable_N.any():
                continue
            relevant_NT = of_gallery_M[places_NT[answerable_N]] == of_query_N[answerable_N, None]
            shares = {f"r{k}": float(relevant_NT[:, :k].any(axis=1).mean()) for k in DEPTHS}
            rows.append(
                {"query": query, "gallery": gallery, "level": level, **shares, "n": int(answerable_N.sum())}
            )
    return rows

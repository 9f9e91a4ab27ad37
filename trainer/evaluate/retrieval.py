"""Retrieval: recall@k for every ordered pair of modalities.

Shapes: N queries, A answerable queries, T nearest items, D dimensions.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np

from trainer.evaluate.intervals import share_interval
from trainer.evaluate.outcomes import RetrievalOutcomes
from trainer.records import SampleSet
from trainer.score.depth import first_ranks
from trainer.score.topk import nearest

DEPTHS = (1, 5, 10, 20)


def retrieval_rows(
    sets: dict[str, SampleSet], *, resamples: int, seed: int
) -> tuple[list[dict[str, Any]], list[RetrievalOutcomes]]:
    """Rows {query, gallery, level, r1, r5, r10, r20, median_rank, n} over all ordered pairs of modalities.

    Each recall has its 95% bootstrap interval: r1_low, r1_high, and so on. Also returns the rank of the first
    relevant item for every query that counts.

    `sets` hold the test samples in one space. recall@k is the share of queries with at least one relevant
    item among their k nearest: of the same (first) category (level `category`) or the same object (`object`).
    Only queries that have a relevant item in the gallery count, `n` of them; a pair without any has no row.
    """
    rows: list[dict[str, Any]] = []
    outcomes: list[RetrievalOutcomes] = []
    for query, gallery in permutations(sorted(sets), 2):
        asked, found = sets[query], sets[gallery]
        if len(asked) == 0 or len(found) == 0:
            continue
        places_NT, _ = nearest(asked.vectors_ND, found.vectors_ND, max(DEPTHS))
        levels = {
            "category": (asked.category_N, found.category_N),
            "object": (asked.object_N, found.object_N),
        }
        found_ranks = first_ranks(asked.vectors_ND, found.vectors_ND, places_NT, list(levels.values()))
        for level, (answerable, rank_A) in zip(levels, found_ranks, strict=True):
            if len(answerable) == 0:
                continue
            outcomes.append(RetrievalOutcomes(query, gallery, level, asked.take(answerable), rank_A))
            row: dict[str, Any] = {"query": query, "gallery": gallery, "level": level}
            for k in DEPTHS:
                hits_A = rank_A <= k
                low, high = share_interval(hits_A, resamples=resamples, seed=seed)
                row |= {f"r{k}": float(hits_A.mean()), f"r{k}_low": low, f"r{k}_high": high}
            rows.append({**row, "median_rank": float(np.median(rank_A)), "n": len(rank_A)})
    return rows, outcomes

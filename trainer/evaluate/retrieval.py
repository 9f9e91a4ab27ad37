"""Retrieval: recall@k for every ordered pair of modalities, and NDCG of one mixed gallery of all modalities.

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


def mixed_ndcg(sets: dict[str, SampleSet], depth: int = 10) -> float | None:
    """Mean NDCG@depth of retrieval by category from all modalities together; None if nothing is relevant.

    Every labelled sample is a query; the gallery is all other samples of all modalities, where those of the
    same category have gain 1. NDCG = Σ_r gain_r / log2(r + 1), divided by that of the best possible list
    (Järvelin and Kekäläinen, ACM TOIS 2002). It is low where the nearest items have the query's modality
    rather than its category.
    """
    x_ND = np.concatenate([s.vectors_ND for s in sets.values()])
    category_N = np.concatenate([s.category_N for s in sets.values()])
    relatives_N = np.where(category_N >= 0, np.bincount(category_N + 1)[category_N + 1] - 1, 0)
    asking = np.flatnonzero(relatives_N > 0)
    if len(asking) == 0:
        return None
    places_NT, _ = nearest(x_ND[asking], x_ND, depth + 1)
    # The query itself is in the gallery: remove it, or the last item where the query was not among the
    # nearest.
    itself_NT = places_NT == asking[:, None]
    itself_NT[~itself_NT.any(axis=1), -1] = True
    others_NT = places_NT[~itself_NT].reshape(len(asking), -1)
    discounts_T = 1 / np.log2(np.arange(2, others_NT.shape[1] + 2))
    gains_NT = category_N[others_NT] == category_N[asking][:, None]
    ideal_T = np.cumsum(discounts_T)
    ideal_N = ideal_T[np.minimum(relatives_N[asking], len(ideal_T)) - 1]
    return float(np.mean(gains_NT @ discounts_T / ideal_N))

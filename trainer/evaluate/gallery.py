"""One gallery of all modalities: what lies nearest to a sample, whatever its modality.

In a shared space the nearest items have the query's category, and no modality is preferred. Shapes: N samples
of all modalities, A of them with a relevant item, T nearest items, D dimensions.
"""

from __future__ import annotations

import numpy as np

from trainer.records import Doubles, Floats, Ints, SampleSet
from trainer.score.topk import nearest

DEPTH = 10
_NEIGHBOURS = 5


def gallery_measures(sets: dict[str, SampleSet]) -> dict[str, float]:
    """Measures of the samples of two modalities or more in one space; empty for fewer than two samples.

    Every sample is a query, all other samples are the gallery. `mixed_share`: the share of other modalities
    among the ten nearest. `mixed_precision10`: the share of the query's category among them, and
    `mixed_ndcg10`: NDCG@10 (Järvelin and Kekäläinen, ACM TOIS 2002), both over labelled queries that have a
    relevant item, absent without any. `modality_probe_knn`: the share of samples whose modality is that of
    most of the five nearest (of equal numbers, of the nearest one).
    """
    x_ND = np.concatenate([s.vectors_ND for s in sets.values()])
    if len(x_ND) < 2:
        return {}
    modality_N = np.repeat(np.arange(len(sets)), [len(s) for s in sets.values()])
    category_N = np.concatenate([s.category_N for s in sets.values()])
    near_NT = nearest_others(x_ND, DEPTH)
    others_NT = modality_N[near_NT]
    found = {
        "mixed_share": float((others_NT != modality_N[:, None]).mean()),
        "modality_probe_knn": float((most_frequent(others_NT[:, :_NEIGHBOURS]) == modality_N).mean()),
    }
    relevant_N = np.where(category_N >= 0, np.bincount(category_N + 1)[category_N + 1] - 1, 0)
    asking = np.flatnonzero(relevant_N > 0)
    if len(asking):
        gains_AT = category_N[near_NT[asking]] == category_N[asking][:, None]
        found["mixed_precision10"] = float(gains_AT.mean())
        found["mixed_ndcg10"] = _ndcg(gains_AT, relevant_N[asking])
    return found


def nearest_others(x_ND: Floats, depth: int) -> Ints:
    """The nearest other rows of each unit row, at most `depth` of them, best first: int64[N, T]."""
    places_NT, _ = nearest(x_ND, x_ND, depth + 1)
    # The query itself is among them, or, where more rows than `depth` equal it, the last one is left out.
    itself_NT = places_NT == np.arange(len(x_ND))[:, None]
    itself_NT[~itself_NT.any(axis=1), -1] = True
    return np.asarray(places_NT[~itself_NT].reshape(len(x_ND), -1), dtype=np.int64)


def most_frequent(labels_NT: Ints) -> Ints:
    """The most frequent label of each row; of equally frequent ones the first: int64[N]."""
    counts_NT = (labels_NT[:, :, None] == labels_NT[:, None, :]).sum(axis=2)
    return np.asarray(labels_NT[np.arange(len(labels_NT)), counts_NT.argmax(axis=1)], dtype=np.int64)


def _ndcg(gains_AT: np.ndarray, relevant_A: Ints) -> float:
    """Mean NDCG: Σ_r gain_r / log2(r + 1), divided by that of the best possible list."""
    discounts_T: Doubles = 1 / np.log2(np.arange(2, gains_AT.shape[1] + 2))
    ideal_T = np.cumsum(discounts_T)
    ideal_A = ideal_T[np.minimum(relevant_A, len(ideal_T)) - 1]
    return float(np.mean(gains_AT @ discounts_T / ideal_A))

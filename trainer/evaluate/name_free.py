"""Evaluation without class names: what the descriptions add where they may not repeat the name.

Each category has its bare name once, and beside it the texts of its centers without the name
(kb_builder/gates/without_name.py). What that gains over the bare name alone, it gains by description; other
texts with the name help by repeating it in other words, too (Ma et al., arXiv 2412.11917).

Shapes: N samples, O objects, M modalities, B resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from trainer.evaluate.intervals import interval_of, lead, resampled, sum_by_object, swap_test
from trainer.evaluate.outcomes import RecognitionOutcomes
from trainer.inputs import CLASS_NAME
from trainer.records import Centers

NAME_FREE = "name_free"


def name_free(centers: Centers, texts: Centers, names: Centers | None) -> Centers | None:
    """The bare name of each category that has centers, then its centers' texts without the name, in order.

    `texts` are those of the control, by the rows that they stand for. None where there are no names, or no
    center has such a text.
    """
    if names is None:
        return None
    stands_for = {row_id: row for row, row_id in enumerate(texts.row_ids)}
    place_N = np.array([stands_for.get(row_id, -1) for row_id in centers.row_ids], dtype=np.int64)
    left_X = place_N[place_N >= 0]
    if len(left_X) == 0:
        return None
    named = names.of(centers.counts() > 0)
    category_N = np.concatenate([named.category_N, texts.category_N[left_X]])
    order = np.argsort(category_N, kind="stable")  # so the name comes first
    return replace(
        texts,
        row_ids=tuple(np.array([*named.row_ids, *(texts.row_ids[row] for row in left_X)])[order].tolist()),
        category_N=category_N[order],
        vectors_ND=np.concatenate([named.vectors_ND, texts.vectors_ND[left_X]])[order],
    )


def texts_left(anchors: Centers) -> dict[str, Any]:
    """How many texts without the name a category has: the keys of a row about that, see docs/metrics.md."""
    counts_C = anchors.counts()
    left_F = counts_C[counts_C > 0] - 1  # the name itself
    return {
        "texts_mean": float(left_F.mean()),
        "texts_least": int(left_F.min()),
        "texts_most": int(left_F.max()),
        "without_texts": int((left_F == 0).sum()),
    }


def name_free_rows(
    outcomes: Mapping[str, Sequence[RecognitionOutcomes]],
    anchors: Centers | None,
    *,
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Rows {model, split, modality, class_name, name_free, gain, gain_low, gain_high, p, n, texts_…}.

    `outcomes` by model. `gain` is the accuracy of `name_free` less that of the bare name on the same samples,
    with a paired interval over objects. Where several media modalities were measured, a row of modality null
    gives the unweighted mean over them; its p is by the swap test, of the others by McNemar's. [] without
    `anchors`.
    """
    if anchors is None:
        return []
    rows: list[dict[str, Any]] = []
    for model, of_model in outcomes.items():
        by_set = {(each.split, each.shown.modality, each.anchors): each for each in of_model}
        for split in dict.fromkeys(each.split for each in of_model):
            pairs = {
                modality: (by_set[split, modality, NAME_FREE], by_set[split, modality, CLASS_NAME])
                for s, modality, name in by_set
                if s == split and name == NAME_FREE and (split, modality, CLASS_NAME) in by_set
            }
            found = [_row(*pair, resamples=resamples, seed=seed) for pair in pairs.values()]
            media = [pair for modality, pair in pairs.items() if modality != "text"]
            if len(media) > 1:
                found.insert(0, _mean_row(media, resamples=resamples, seed=seed))
            rows += [{"model": model, "split": split, **row, **texts_left(anchors)} for row in found]
    return rows


def _row(
    free: RecognitionOutcomes, named: RecognitionOutcomes, *, resamples: int, seed: int
) -> dict[str, Any]:
    ahead = lead(free.hit_N, named.hit_N, free.shown.object_N, resamples=resamples, seed=seed)
    return {
        "modality": free.shown.modality,
        "class_name": float(named.hit_N.mean()),
        "name_free": float(free.hit_N.mean()),
        "gain": ahead.value,
        "gain_low": ahead.low,
        "gain_high": ahead.high,
        "p": ahead.p,
        "n": len(free.hit_N),
    }


def _mean_row(
    pairs: Sequence[tuple[RecognitionOutcomes, RecognitionOutcomes]], *, resamples: int, seed: int
) -> dict[str, Any]:
    """The mean over modalities: objects are drawn with all their samples, of every modality."""
    object_N = np.concatenate([free.shown.object_N for free, _ in pairs])
    counts_NM3 = np.zeros((len(object_N), len(pairs), 3))
    start = 0
    for place, (free, named) in enumerate(pairs):
        stop = start + len(free.hit_N)
        counts_NM3[start:stop, place] = np.column_stack([free.hit_N, named.hit_N, np.ones(stop - start)])
        start = stop
    sums_OM3 = sum_by_object(counts_NM3.reshape(len(object_N), -1), object_N).reshape(-1, len(pairs), 3)
    drawn_BK = resampled(sums_OM3.reshape(len(sums_OM3), -1), resamples=resamples, seed=seed)
    drawn_BM3 = drawn_BK.reshape(-1, len(pairs), 3)
    with np.errstate(invalid="ignore"):  # 0 / 0 where no sample of a modality was drawn
        ahead_B = np.nanmean((drawn_BM3[..., 0] - drawn_BM3[..., 1]) / drawn_BM3[..., 2], axis=1)
    low, high = interval_of(ahead_B)
    free_M, named_M, n_M = sums_OM3.sum(axis=0).T
    p = swap_test(
        sums_OM3[..., 1], sums_OM3[..., 0], n_M, lambda x: x.mean(axis=-1), resamples=resamples, seed=seed
    )
    return {
        "modality": None,
        "class_name": float((named_M / n_M).mean()),
        "name_free": float((free_M / n_M).mean()),
        "gain": float(((free_M - named_M) / n_M).mean()),
        "gain_low": low,
        "gain_high": high,
        "p": p,
        "n": int(n_M.sum()),
    }

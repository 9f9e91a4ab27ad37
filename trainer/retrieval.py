"""Exact nearest neighbours, in chunks, so that memory does not grow with the gallery."""

from __future__ import annotations

import numpy as np

from trainer.geometry import SCORE_DECIMALS, require_finite
from trainer.records import Floats, Ints

_QUERY_CHUNK = 1024
_GALLERY_CHUNK = 16384


def nearest(queries_ND: Floats, gallery_MD: Floats, top: int) -> tuple[Ints, Floats]:
    """The `top` rows of the gallery with the largest inner product for each query, best first.

    Returns indices int64[N, T] and scores float32[N, T] with T = min(top, M). Scores are rounded to six
    decimals; ties go to the lower index. Raises ValueError for NaN and for an empty gallery.
    """
    if len(gallery_MD) == 0 or top < 1:
        raise ValueError(f"cannot take the best {top} of {len(gallery_MD)}")
    require_finite(queries_ND, "queries")
    require_finite(gallery_MD, "gallery")
    top = min(top, len(gallery_MD))
    indices_NT = np.empty((len(queries_ND), top), dtype=np.int64)
    scores_NT = np.empty((len(queries_ND), top), dtype=np.float32)
    for start in range(0, len(queries_ND), _QUERY_CHUNK):
        chunk = slice(start, start + _QUERY_CHUNK)
        indices_NT[chunk], scores_NT[chunk] = _nearest_of_chunk(queries_ND[chunk], gallery_MD, top)
    return indices_NT, scores_NT


def _nearest_of_chunk(queries_ND: Floats, gallery_MD: Floats, top: int) -> tuple[Ints, Floats]:
    indices_NT = np.empty((len(queries_ND), 0), dtype=np.int64)
    scores_NT = np.empty((len(queries_ND), 0), dtype=np.float32)
    for start in range(0, len(gallery_MD), _GALLERY_CHUNK):
        block_ND = gallery_MD[start : start + _GALLERY_CHUNK]
        cosine_NM = np.round(queries_ND @ block_ND.T, SCORE_DECIMALS)
        # What was found before has lower indices: it stands first; a stable order keeps the rule for ties.
        here_NM = np.broadcast_to(np.arange(start, start + len(block_ND)), cosine_NM.shape)
        candidates_NM = np.concatenate([indices_NT, here_NM], axis=1)
        cosine_NM = np.concatenate([scores_NT, cosine_NM], axis=1)
        order_NT = _best_columns(cosine_NM, top)
        indices_NT = np.take_along_axis(candidates_NM, order_NT, axis=1)
        scores_NT = np.take_along_axis(cosine_NM, order_NT, axis=1)
    return indices_NT, scores_NT


def _best_columns(scores_NM: Floats, top: int) -> Ints:
    """The columns of the `top` largest scores of each row, best first, ties by column."""
    if scores_NM.shape[1] <= top:
        return np.argsort(-scores_NM, axis=1, kind="stable")
    found_NT = np.argpartition(-scores_NM, top - 1, axis=1)[:, :top]
    # Of those that tie with the last one in, argpartition takes any: where not all fit, choose by column.
    last_N1 = np.take_along_axis(scores_NM, found_NT, axis=1).min(axis=1, keepdims=True)
    for row in np.flatnonzero((scores_NM >= last_N1).sum(axis=1) > top):
        above = np.flatnonzero(scores_NM[row] > last_N1[row])
        level = np.flatnonzero(scores_NM[row] == last_N1[row])
        found_NT[row] = np.concatenate([above, level])[:top]
    found_NT.sort(axis=1)
    order_NT = np.argsort(-np.take_along_axis(scores_NM, found_NT, axis=1), axis=1, kind="stable")
    return np.take_along_axis(found_NT, order_NT, axis=1)

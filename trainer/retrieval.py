"""Exact nearest neighbours over millions of rows, in memory that does not grow with the gallery."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainer.records import Doubles, Floats, Ints
from trainer.topk import top_segments


def nearest(
    queries_ND: Floats, gallery_MD: Floats | npt.NDArray[np.float16], top: int
) -> tuple[Ints, Doubles]:
    """The `top` rows of the gallery with the largest inner product for each query, best first.

    Returns indices int64[N, T] and scores float64[N, T] with T = min(top, M). Scores are computed in float64
    and rounded to nine decimals; ties go to the lower index. A float16 gallery is converted tile by tile.
    Raises ValueError for NaN and infinity (with the row) and for an empty gallery.
    """
    best = top_segments(queries_ND, gallery_MD, top=top, keys_name="gallery")
    return best.segments_NT, best.scores_NT

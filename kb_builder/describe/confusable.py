"""Confusable categories: which other categories each category is most easily confused with, by its texts.

Up to 50 `ok` texts of each category are embedded. The *mixing* of A with B is the share of A's texts whose
nearest other text belongs to B, among A's own texts and those of the 20 categories with the nearest mean
vectors. Equal shares, and equal distances to texts of two other categories, are decided by the cosine of the
mean vectors; a text as near to one of the same category does not count as mixed. Mean vectors are compared in
blocks, and texts only with those of 20 categories, so with 10,000 categories neither all pairs of texts nor
all pairs of categories are in memory at once.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data.reads import columns
from data.reads import names as names_in
from kb_builder.encoders import load_encoder
from kb_builder.encoders.tokens import MINILM

# Shapes: C categories, B categories of a block, N texts, D dimensions, M candidates.

TEXTS_PER_CATEGORY = 50
CANDIDATES = 20
_BLOCK = 512  # categories whose mean vectors are compared with all others at once
_SAME = 1e-6  # cosines within this difference are equal: the last digits depend on the machine's arithmetic

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Confusable:
    """A category, and a rival that it is easily confused with."""

    category_id: str
    rival_id: str
    mixing: float  # share of the category's texts whose nearest other text is the rival's
    cosine: float  # of the mean vectors


def find_confusable(kb: Path, *, pairs: int) -> list[Confusable]:
    """For each category with texts, the `pairs` categories it is most easily confused with, nearest first."""
    texts = {category_id: list(found.values())[:TEXTS_PER_CATEGORY] for category_id, found in ok_texts(kb)}
    if len(texts) < 2:
        return []
    ids = sorted(texts)
    starts_C = np.cumsum([0, *(len(texts[each]) for each in ids)])
    with tempfile.TemporaryDirectory(prefix="unibind-") as folder:
        vectors_ND = _embed([text for each in ids for text in texts[each]], Path(folder) / "vectors")
        return rank_rivals(ids, vectors_ND, starts_C, pairs=pairs)


def rank_rivals(
    ids: Sequence[str], vectors_ND: Floats, starts_C: npt.NDArray[np.intp], *, pairs: int
) -> list[Confusable]:
    """The `pairs` nearest rivals of each category.

    `vectors_ND[starts_C[i]:starts_C[i + 1]]` are the unit vectors of the texts of category `ids[i]`.
    """
    means_CD = np.stack([vectors_ND[start:end].mean(axis=0) for start, end in pairwise(starts_C)])
    means_CD /= np.maximum(np.linalg.norm(means_CD, axis=1, keepdims=True), 1e-12)
    found: list[Confusable] = []
    for start in range(0, len(ids), _BLOCK):
        cosines_BC = means_CD[start : start + _BLOCK] @ means_CD.T
        for row, cosines_C in enumerate(cosines_BC):
            mine = start + row
            cosines_C[mine] = -np.inf
            count = min(CANDIDATES, len(ids) - 1)
            nearest_M = np.argpartition(-cosines_C, count - 1)[:count]
            # Sorted, as argpartition's order depends on the processor.
            nearest_M = nearest_M[np.lexsort((nearest_M, -cosines_C[nearest_M].round(4)))]
            mixing_M = _mixing(mine, nearest_M, vectors_ND, starts_C)
            # Rounded: the last digits depend on the machine's arithmetic.
            rivals = [
                Confusable(ids[mine], ids[other], round(float(mixing), 4), round(float(cosines_C[other]), 4))
                for other, mixing in zip(nearest_M.tolist(), mixing_M, strict=True)
            ]
            rivals.sort(key=lambda pair: (-pair.mixing, -pair.cosine, pair.rival_id))
            found += rivals[:pairs]
    return found


def _mixing(
    mine: int, others_M: npt.NDArray[np.intp], vectors_ND: Floats, starts_C: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    """For each other category, the share of this one's texts whose nearest other text is in it.

    A text as near to several others counts for the first; one as near to its own category counts for none.
    """
    own_ND = np.asarray(vectors_ND[starts_C[mine] : starts_C[mine + 1]])
    own_NN = own_ND @ own_ND.T
    np.fill_diagonal(own_NN, -np.inf)
    best_NM = np.stack(
        [(own_ND @ vectors_ND[starts_C[other] : starts_C[other + 1]].T).max(axis=1) for other in others_M],
        axis=1,
    )
    most_N = best_NM.max(axis=1)
    nearest_N = (best_NM >= most_N[:, None] - _SAME).argmax(axis=1)
    foreign_N = most_N > own_NN.max(axis=1) + _SAME
    return np.bincount(nearest_N[foreign_N], minlength=len(others_M)) / len(own_ND)


def _embed(texts: Sequence[str], path: Path) -> Floats:
    """The texts' vectors, float32[N, D], in a file: of 10,000 categories they are 0.8 GB."""
    from kb_builder.encoders.workers import encode_by_length  # loads torch, which planning does not need

    encoder = load_encoder(MINILM)
    vectors_ND: Floats = np.memmap(path, np.float32, "w+", shape=(len(texts), encoder.dim))
    return encode_by_length(encoder, texts, into_ND=vectors_ND, what="compare categories")


def ok_texts(kb: Path, prefix: str = "part") -> Iterator[tuple[str, Mapping[str, str]]]:
    """For each category, in the order of the parts: row_id -> text, of a pass's `ok` texts."""
    for path in names_in(kb / "descriptions" / "category", f"{prefix}-*.parquet"):
        table = columns(path, ["category_id", "row_id", "text", "status"])
        texts: dict[str, dict[str, str]] = defaultdict(dict)
        for category_id, row_id, text, status in zip(
            *(column.to_pylist() for column in table.columns), strict=True
        ):
            if status == "ok":
                texts[category_id][row_id] = text
        yield from texts.items()

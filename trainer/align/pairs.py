"""Training pairs: each train sample with the texts about it, and with the centers of its category.

Texts about a sample are its descriptions, and the train samples of modality `text` of the same object: a
person's note on an object describes it (not itself, where notes have a head too). Notes of the test and val
splits are not used.

Shapes: N samples of one modality, M texts of all kinds, D dimensions, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data.errors import NothingToTrainError, TrainingError
from trainer.align.shared import SharedSpace
from trainer.inputs import SampleTexts
from trainer.records import Bools, Centers, Floats, Ints, SampleSet


@dataclass(frozen=True)
class Span:
    """A run of rows of the text matrix for every sample: `starts_N[i]` … `starts_N[i] + counts_N[i] - 1`."""

    starts_N: Ints
    counts_N: Ints

    def draw(self, rows_B: Ints, rng: np.random.Generator) -> tuple[Ints, Bools]:
        """Draw one row of the text matrix for each of some samples, uniformly; and whether it has any."""
        counts_B = self.counts_N[rows_B]
        drawn_B = self.starts_N[rows_B] + np.floor(rng.random(len(rows_B)) * counts_B).astype(np.int64)
        return drawn_B, counts_B > 0


@dataclass(frozen=True)
class Pairs:
    """The train samples of one modality and where their texts lie in the common text matrix."""

    samples: SampleSet
    groups_N: Ints  # samples of one group are not negatives of each other
    own: Span  # texts about the samples themselves
    centers: Span  # the centers of their categories


def make_pairs(
    sets: dict[str, SampleSet],
    texts: SampleTexts,
    centers: Centers,
    space: SharedSpace | None = None,
    *,
    text_head: bool = True,
) -> tuple[dict[str, Pairs], Floats, dict[str, int]]:
    """Pair the train samples of every modality with their texts.

    `centers` are those of the shared space. Returns the pairs by modality, the text matrix (unit rows by
    their coordinates in the shared space, float32[M, R]; texts about samples without the mean of their
    modality's) and the counts `train_samples`, `train_without_own_text`, `train_without_label` and
    `train_without_any_text` (neither texts nor centers: not trained on). Without `text_head` text samples are
    not paired. Raises NothingToTrainError where there is nothing to learn, and TrainingError for texts of
    different dimensions.
    """
    space = space or SharedSpace()
    pairs: dict[str, Pairs] = {}
    sources = _own_texts(sets, texts)
    blocks = [centers.vectors_ND]
    offset = len(centers.row_ids)
    counts = dict.fromkeys(
        ("train_samples", "train_without_own_text", "train_without_label", "train_without_any_text"), 0
    )
    center_counts_C = np.append(centers.counts(), 0)  # the last for -1: no category
    center_starts_C = np.cumsum(center_counts_C) - center_counts_C
    for modality, encoded in sets.items():
        train = encoded.split("train")
        if len(train) == 0 or (modality == "text" and not text_head):
            continue
        things = [-1] * len(train) if modality == "text" else train.object_N.tolist()
        own = [sources(s, o) for s, o in zip(train.sample_ids, things, strict=True)]
        own_counts_N = np.array([len(vectors) for vectors in own], dtype=np.int64)
        own_starts_N = offset + np.cumsum(own_counts_N) - own_counts_N
        if any(own):
            blocks.append(np.stack([vector_T for vectors in own for vector_T in vectors]))
        offset += int(own_counts_N.sum())
        labelled_N = train.category_N >= 0
        centers_N = np.where(labelled_N, center_counts_C[train.category_N], 0)
        keep_N = (own_counts_N > 0) | (centers_N > 0)
        counts["train_samples"] += len(train)
        counts["train_without_own_text"] += int((own_counts_N == 0).sum())
        counts["train_without_label"] += int((~labelled_N).sum())
        counts["train_without_any_text"] += int((~keep_N).sum())
        if keep_N.any():
            pairs[modality] = Pairs(
                samples=train.take(keep_N),
                groups_N=_groups(train)[keep_N],
                own=Span(own_starts_N[keep_N], own_counts_N[keep_N]),
                centers=Span(center_starts_C[train.category_N][keep_N], centers_N[keep_N]),
            )
    _require_contrast(pairs, counts, is_text_left_out="text" in sets and not text_head)
    dims = {block.shape[1] for block in blocks}
    if len(dims) > 1:
        raise TrainingError(f"texts of {sorted(dims)} dimensions; run `unibind encode` and `localize` again")
    placed = [centers.vectors_ND, *(space.represent_rows(block) for block in blocks[1:])]
    return _number_lone_groups(pairs), space.coordinates(np.concatenate(placed)), counts


def batches(n: int, size: int, steps: int, rng: np.random.Generator) -> Ints:
    """Rows for each of `steps` batches of `size` (int64[steps, size]): whole permutations, one after another.

    However small a modality is, no sample is repeated before every other was used.
    """
    rounds = -(-steps * size // n)
    return np.concatenate([rng.permutation(n) for _ in range(rounds)])[: steps * size].reshape(steps, size)


def _own_texts(sets: dict[str, SampleSet], texts: SampleTexts) -> Callable[[str, int], list[Floats]]:
    """A function from a sample's id and object to the vectors of the texts about it."""
    notes: dict[int, list[Floats]] = {}
    if "text" in sets:
        train = sets["text"].split("train")
        for thing, vector_D in zip(train.object_N.tolist(), train.vectors_ND, strict=True):
            if thing >= 0:
                notes.setdefault(thing, []).append(vector_D)

    def own(sample: str, thing: int) -> list[Floats]:
        return [texts.vectors_ND[row] for row in texts.rows.get(sample, ())] + notes.get(thing, [])

    return own


def _groups(train: SampleSet) -> Ints:
    """The category where known, else the object (as -2 - object), else -1 (see `_number_lone_groups`)."""
    by_object_N = np.where(train.object_N >= 0, -2 - train.object_N, -1)
    return np.where(train.category_N >= 0, train.category_N, by_object_N).astype(np.int64)


def _number_lone_groups(pairs: dict[str, Pairs]) -> dict[str, Pairs]:
    """Give every sample that has neither category nor object a unique group number."""
    following = 1 + max(int(p.groups_N.max()) for p in pairs.values())
    numbered: dict[str, Pairs] = {}
    for modality, p in pairs.items():
        lone_N = p.groups_N == -1
        groups_N = p.groups_N.copy()
        groups_N[lone_N] = following + np.arange(int(lone_N.sum()))
        following += int(lone_N.sum())
        numbered[modality] = Pairs(p.samples, groups_N, p.own, p.centers)
    return numbered


def _require_contrast(pairs: dict[str, Pairs], counts: dict[str, int], *, is_text_left_out: bool) -> None:
    if not pairs:
        n = counts["train_samples"]
        reason = (
            f"none of the {n} train samples has a description or a category with centers"
            if n
            else "the knowledge base has no encoded train sample"
            + (" besides those of modality text, which train.text_head = false leaves out" * is_text_left_out)
        )
        raise NothingToTrainError(
            f"nothing to train on: {reason}; give the manifest rows of split `train`,"
            " or set `train.enabled = false` for zero-shot recognition"
        )
    groups = np.unique(np.concatenate([p.groups_N for p in pairs.values()]))
    if len(groups) == 1 and groups[0] != -1:
        raise NothingToTrainError(
            "nothing to contrast: every train sample shows the same category; add samples of a second one,"
            " or set `train.enabled = false` for zero-shot recognition"
        )

"""Balance: measures of whether the space separates modalities, and the baseline heads to compare with.

In a balanced space, vectors lie by what a sample shows, not by its modality. All measures take the test
samples of all modalities in one space. Shapes: N samples of all modalities together, D dimensions, M
modalities, L labels, B samples of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import combinations, pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch.optim.adam import adam

from data.errors import TrainingError
from data.threads import one_thread_each, side_by_side
from trainer.align.heads import Heads
from trainer.align.train import fit, recipe_of
from trainer.evaluate.gallery import gallery_measures
from trainer.evaluate.tasks import CENTERS, AnchorSet
from trainer.inputs import CLASS_NAME, KnowledgeBase
from trainer.records import Doubles, Floats, Ints, SampleSet

_ROWS_AT_ONCE = 1024
_FOLDS = 5
_PROBE_PENALTY = 1.0
_MLP_ROWS, _MLP_UNITS, _MLP_STEPS = 2048, 32, 50
_ADAM: dict[str, Any] = {
    "lr": 0.02,
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-8,
    "weight_decay": 0.0,
    "amsgrad": False,
    "maximize": False,
}
_OTHER_ALIGN: dict[Literal["text", "image"], Literal["text", "image"]] = {"text": "image", "image": "text"}


def balance_rows(
    sets: dict[str, SampleSet], retrieval: list[dict[str, Any]], *, anchors: str
) -> list[dict[str, Any]]:
    """Rows {measure, anchors, value} for the space that `anchors` names; none with fewer than two modalities.

    A measure that the data does not allow (alignment without objects, silhouette of one category) is absent.
    `retrieval` holds the rows of `retrieval.retrieval_rows` in the same space.
    """
    sets = {modality: sets[modality] for modality in sorted(sets) if len(sets[modality])}
    if len(sets) < 2:
        return []
    x_ND = np.concatenate([s.vectors_ND for s in sets.values()])
    modality_N = np.repeat(np.arange(len(sets)), [len(s) for s in sets.values()])
    category_N = np.concatenate([s.category_N for s in sets.values()])
    object_N = np.concatenate([s.object_N for s in sets.values()])
    labelled_N = category_N >= 0
    gaps = modality_gaps(x_ND, modality_N)
    values: dict[str, float | None] = {
        "modality_gap_mean": float(np.mean(gaps)),
        "modality_gap_max": float(np.max(gaps)),
        "alignment": alignment(x_ND, modality_N, object_N),
        "uniformity": uniformity(x_ND),
        "modality_probe_accuracy": modality_probe(x_ND, modality_N, object_N),
        "modality_probe_chance": float(np.bincount(modality_N).max() / len(modality_N)),
        "silhouette_by_modality": silhouette(x_ND, modality_N),
        "silhouette_by_category": silhouette(x_ND[labelled_N], category_N[labelled_N]),
        "modality_probe_mlp": modality_probe_mlp(x_ND, modality_N, object_N),
        **gallery_measures(sets),
    }
    for level in ("category", "object"):
        r10 = [row["r10"] for row in retrieval if row["level"] == level]
        if r10:
            values[f"{level}_r10_mean"] = float(np.mean(r10))
            values[f"{level}_r10_spread"] = float(np.std(r10))
            values[f"{level}_r10_worst"] = float(np.min(r10))
    return [
        {"measure": measure, "anchors": anchors, "value": value}
        for measure, value in values.items()
        if value is not None
    ]


def baseline_names(heads: Heads) -> tuple[str, ...]:
    """Bare names in place of the LLM centers, and images in place of texts (or the reverse)."""
    return CLASS_NAME, f"{_OTHER_ALIGN[recipe_of(heads).align]}_centred"


def baseline_heads(
    base: KnowledgeBase, anchors: dict[str, AnchorSet], heads: Heads, *, together: bool = False
) -> dict[str, Heads]:
    """Heads by baseline, each trained with the settings of `heads` but aligned with something else.

    A baseline that the knowledge base does not allow (no names, no train images) is absent. `together`: they
    are trained side by side (`side_by_side`).
    """
    names = baseline_names(heads)
    trained = side_by_side(
        [partial(train_baseline, base, anchors, heads, name) for name in names], together=together
    )
    return {name: found for name, found in zip(names, trained, strict=True) if found is not None}


def train_baseline(
    base: KnowledgeBase, anchors: dict[str, AnchorSet], heads: Heads, name: str
) -> Heads | None:
    """The heads of one baseline (`baseline_heads`); None where the knowledge base does not allow it."""
    recipe = recipe_of(heads)
    if name == CLASS_NAME:
        anchor_set = anchors.get(CLASS_NAME)
    else:
        anchor_set, recipe = anchors[CENTERS], replace(recipe, align=_OTHER_ALIGN[recipe.align])
    if anchor_set is None:
        return None
    try:
        return fit(base, anchor_set.texts, recipe).heads
    except TrainingError:  # no train samples to align with
        return None


def modality_gaps(x_ND: Floats, modality_N: Ints) -> list[float]:
    """‖μ_m - μ_n‖ for every pair of modalities (Liang et al., Mind the Gap, NeurIPS 2022)."""
    means = [x_ND[modality_N == m].mean(axis=0, dtype=np.float64) for m in np.unique(modality_N)]
    return [float(np.linalg.norm(a - b)) for a, b in combinations(means, 2)]


def alignment(x_ND: Floats, modality_N: Ints, object_N: Ints) -> float | None:
    """E ‖x - y‖² over pairs of one object in two modalities (Wang and Isola, ICML 2020), if there are any."""
    distances: list[Doubles] = []
    order = np.argsort(object_N, kind="stable")
    order = order[object_N[order] >= 0]
    for members in np.split(order, np.flatnonzero(np.diff(object_N[order])) + 1):
        first, second = np.triu_indices(len(members), 1)
        differ = modality_N[members[first]] != modality_N[members[second]]
        gap_PD = x_ND[members[first[differ]]].astype(np.float64) - x_ND[members[second[differ]]]
        distances.append(np.sum(gap_PD**2, axis=1))
    pairs = np.concatenate(distances) if distances else np.zeros(0)
    return float(pairs.mean()) if len(pairs) else None


def uniformity(x_ND: Floats) -> float | None:
    """log E exp(-2 ‖x - y‖²) over all pairs of different samples (Wang and Isola, ICML 2020)."""
    n = len(x_ND)
    if n < 2:
        return None
    total = -float(n)  # the n pairs of a sample with itself, each exp(0)
    for start in range(0, n, _ROWS_AT_ONCE):
        total += float(np.exp(-2 * _squared_distances(x_ND[start : start + _ROWS_AT_ONCE], x_ND)).sum())
    return float(np.log(total / (n * (n - 1))))


def modality_probe(x_ND: Floats, modality_N: Ints, object_N: Ints) -> float:
    """The held-out accuracy of a linear classifier of the modality; in a balanced space it is chance.

    Ridge regression onto one-hot modalities (penalty 1 on unit vectors, free intercept); the largest output
    is the prediction. Five folds, all samples of one object in the same fold.
    """
    fold_N = _folds(object_N)
    onehot_NM = (modality_N[:, None] == np.unique(modality_N)[None, :]).astype(np.float64)
    right = 0
    for fold in range(_FOLDS):
        test_N = fold_N == fold
        if not test_N.any() or test_N.all():
            continue
        x_mean_D, y_mean_M = x_ND[~test_N].mean(axis=0, dtype=np.float64), onehot_NM[~test_N].mean(axis=0)
        x_ND_train = x_ND[~test_N] - x_mean_D
        gram_DD = x_ND_train.T @ x_ND_train + _PROBE_PENALTY * np.eye(x_ND.shape[1])
        weight_DM = np.linalg.solve(gram_DD, x_ND_train.T @ (onehot_NM[~test_N] - y_mean_M))
        guess_N = np.argmax((x_ND[test_N] - x_mean_D) @ weight_DM + y_mean_M, axis=1)
        right += int((guess_N == np.argmax(onehot_NM[test_N], axis=1)).sum())
    return right / len(x_ND)


def modality_probe_mlp(x_ND: Floats, modality_N: Ints, object_N: Ints) -> float:
    """The held-out accuracy of a network with one hidden layer that guesses the modality.

    It sees what `modality_probe` cannot: modalities that no plane separates. 32 ReLU units, 50 full-batch
    steps of Adam, on one thread (equal bits on every run); five folds, all samples of one object in the same
    fold. Of more than 2,048 samples, evenly spaced ones are taken.
    """
    n = min(len(x_ND), _MLP_ROWS)
    keep = np.arange(n) * len(x_ND) // n
    x_ND, fold_N = x_ND[keep], _folds(object_N[keep])
    labels, index_N = np.unique(modality_N[keep], return_inverse=True)
    right = 0
    with one_thread_each():
        for fold in range(_FOLDS):
            test_N = fold_N == fold
            if test_N.any() and not test_N.all():
                guess = _fit_mlp(x_ND[~test_N], index_N[~test_N], len(labels), seed=fold)
                right += int((guess(x_ND[test_N]) == index_N[test_N]).sum())
    return right / n


def _fit_mlp(x_ND: Floats, label_N: Ints, labels: int, *, seed: int) -> Callable[[Floats], Ints]:
    """Train the network of `modality_probe_mlp`; a function that guesses the labels of other rows."""
    rng = np.random.default_rng(seed)
    sizes = (x_ND.shape[1], _MLP_UNITS, labels)
    layers = [
        torch.from_numpy(rng.uniform(-1, 1, shape).astype(np.float32) / fan_in**0.5).requires_grad_()
        for fan_in, out in pairwise(sizes)
        for shape in ((fan_in, out), (out,))
    ]

    def outputs(rows_ND: Floats) -> torch.Tensor:
        hidden_NH = torch.relu(torch.from_numpy(rows_ND) @ layers[0] + layers[1])
        return hidden_NH @ layers[2] + layers[3]

    means, squares = ([torch.zeros_like(layer) for layer in layers] for _ in range(2))
    taken = [torch.zeros(()) for _ in layers]
    label = torch.from_numpy(label_N)
    for _ in range(_MLP_STEPS):
        loss = torch.nn.functional.cross_entropy(outputs(x_ND), label)
        slopes = torch.autograd.grad(loss, layers)
        with torch.no_grad():  # by torch's function: the class around it imports torch's compiler
            adam(layers, [*slopes], means, squares, [], taken, **_ADAM)

    def guess(rows_ND: Floats) -> Ints:
        with torch.no_grad():
            return outputs(rows_ND).argmax(dim=1).numpy()

    return guess


def _folds(object_N: Ints) -> Ints:
    """The fold of each sample: all samples of one object in the same fold, others by their place."""
    return np.where(object_N < 0, np.arange(len(object_N)), object_N) % _FOLDS


def silhouette(x_ND: Floats, label_N: Ints) -> float | None:
    """The mean silhouette of labels under Euclidean distance (Rousseeuw 1987); None unless 2 … N-1 labels."""
    labels, index_N = np.unique(label_N, return_inverse=True)
    if not 2 <= len(labels) < len(x_ND):
        return None
    sizes_L = np.bincount(index_N)
    onehot_NL = (index_N[:, None] == np.arange(len(labels))[None, :]).astype(np.float64)
    total = 0.0
    for start in range(0, len(x_ND), _ROWS_AT_ONCE):
        chunk = slice(start, start + _ROWS_AT_ONCE)
        distance_BN = np.sqrt(_squared_distances(x_ND[chunk], x_ND))
        # The distance of a sample from itself is 0, without rounding errors.
        distance_BN[np.arange(len(distance_BN)), np.arange(start, start + len(distance_BN))] = 0
        sums_BL = distance_BN @ onehot_NL
        own_B1 = index_N[chunk, None]
        inside_B = np.take_along_axis(sums_BL, own_B1, axis=1)[:, 0] / np.maximum(
            sizes_L[index_N[chunk]] - 1, 1
        )
        means_BL = sums_BL / sizes_L
        np.put_along_axis(means_BL, own_B1, np.inf, axis=1)
        outside_B = means_BL.min(axis=1)
        larger_B = np.maximum(inside_B, outside_B)
        alone_B = sizes_L[index_N[chunk]] == 1  # by definition 0
        safe_B = np.where(larger_B > 0, larger_B, 1.0)
        total += float(np.where(alone_B, 0.0, (outside_B - inside_B) / safe_B).sum())
    return total / len(x_ND)


def _squared_distances(a_ND: Floats, b_MD: Floats) -> Doubles:
    a, b = a_ND.astype(np.float64), b_MD.astype(np.float64)
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2 * (a @ b.T)
    distances: Doubles = np.maximum(squares, 0.0)
    return distances

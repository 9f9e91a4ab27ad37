"""The linear probe: the accuracy that the frozen features alone allow, with labels and without texts.

Multinomial logistic regression on standardised features of one modality, the usual measure of an encoder's
features (the row "fine-tuned, linear probe" of UniBind's table). It is fitted here, not by scikit-learn: the
objective is the same (a test compares the two), but another solver would end at other bits. Shapes: N
samples, D features, K categories with train samples, R directions, C categories, L labels of a sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.threads import side_by_side
from trainer.align.aligner import threads_for
from trainer.evaluate.intervals import lead
from trainer.evaluate.lbfgs import minimise
from trainer.evaluate.outcomes import RecognitionOutcomes
from trainer.evaluate.recognition import accuracies, average_precision, recognition_outcomes
from trainer.evaluate.tasks import CENTERS, Task
from trainer.records import Bools, Doubles, Floats, Ints, SampleSet

ANCHORS = "linear_probe"
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)  # C of the objective: the larger, the weaker the penalty
_WITHOUT_VAL = 1.0
_STEPS = 200
# Arguments of torch's loss: the mean over samples, no label to leave out, a gradient of one.
_MEAN, _NO_LABEL, _ONE = 1, -100, torch.ones((), dtype=torch.float64)


@dataclass(frozen=True)
class Probe:
    """A fitted probe: float64 weights on standardised features."""

    categories_K: Ints  # ascending
    mean_D: Doubles
    deviation_D: Doubles  # 1 for a constant feature
    weight_KD: Doubles
    bias_K: Doubles
    strength: float  # the C that was chosen

    def scores(self, x_ND: Floats) -> Doubles:
        """The logarithm of each category's probability: float64[N, K]."""
        logits_NK = (x_ND - self.mean_D) / self.deviation_D @ self.weight_KD.T + self.bias_K
        logits_NK -= logits_NK.max(axis=1, keepdims=True)
        scores_NK: Doubles = logits_NK - np.log(np.exp(logits_NK).sum(axis=1, keepdims=True))
        return scores_NK

    def predict(self, x_ND: Floats, top: int) -> Ints:
        """The `top` likeliest categories of each sample, best first; ties go to the lower index."""
        order_NK = np.argsort(-self.scores(x_ND), axis=1, kind="stable")
        predicted_NT: Ints = self.categories_K[order_NK[:, :top]]
        return predicted_NT


def fit_probe(train: SampleSet, val: SampleSet) -> Probe | None:
    """The probe of labelled train samples; None where they are of fewer than two categories.

    Minimises Σ_i -log p(y_i | x_i) + |W|² / (2 C), the intercept free, as scikit-learn's LogisticRegression
    does. C is the value in `STRENGTHS` with the best accuracy on val samples of the train samples' categories
    (the smallest of equals); without such samples it is 1.
    """
    categories_K, label_N = np.unique(train.category_N, return_inverse=True)
    if len(categories_K) < 2:
        return None
    known = val.take(np.isin(val.category_N, categories_K))
    x_ND = train.vectors_ND.astype(np.float64)
    mean_D, deviation_D = x_ND.mean(axis=0), x_ND.std(axis=0)
    deviation_D[deviation_D == 0] = 1.0
    x_ND = (x_ND - mean_D) / deviation_D
    # The best weights lie in the span of the samples, which has fewer directions where samples are few.
    basis_DR = np.linalg.qr(x_ND.T)[0] if len(x_ND) < x_ND.shape[1] else None
    x_NR = x_ND if basis_DR is None else x_ND @ basis_DR

    best: Probe | None = None
    most = -1.0
    weight_KR, bias_K = np.zeros((len(categories_K), x_NR.shape[1])), np.zeros(len(categories_K))
    for strength in STRENGTHS if len(known) else (_WITHOUT_VAL,):
        weight_KR, bias_K = logistic_regression(x_NR, label_N, strength, (weight_KR, bias_K))
        weight_KD = weight_KR if basis_DR is None else weight_KR @ basis_DR.T
        probe = Probe(categories_K, mean_D, deviation_D, weight_KD, bias_K, strength)
        right = (
            float(np.mean(probe.predict(known.vectors_ND, 1)[:, 0] == known.category_N)) if len(known) else 0
        )
        if right > most:
            best, most = probe, right
    return best


def logistic_regression(
    x_ND: Doubles, label_N: Ints, strength: float, start: tuple[Doubles, Doubles]
) -> tuple[Doubles, Doubles]:
    """The weights [K, D] and intercepts [K] of `fit_probe`'s objective, by full-batch L-BFGS from `start`.

    The objective is convex: the start changes how long the fit takes, not where it ends.
    """
    x, labels, (k, d) = torch.from_numpy(x_ND), torch.from_numpy(label_N), start[0].shape
    decay = 1 / (2 * strength * len(x_ND))

    def loss(flat: Tensor) -> tuple[float, Tensor]:
        # Value and gradient by the operators that autograd would call: on these sizes it takes longer itself.
        weight, bias = flat[: k * d].view(k, d), flat[k * d :]
        logs = torch.log_softmax(torch.addmm(bias, x, weight.T), 1)
        value, total = torch.ops.aten.nll_loss_forward(logs, labels, None, _MEAN, _NO_LABEL)
        slopes = torch.ops.aten.nll_loss_backward(_ONE, logs, labels, None, _MEAN, _NO_LABEL, total)
        slopes = torch.ops.aten._log_softmax_backward_data(slopes, logs, 1, logs.dtype)
        of_weight = slopes.T.mm(x).add_(weight.mul(2).mul_(decay))
        return float(value + decay * weight.square().sum()), torch.cat([of_weight.view(-1), slopes.sum(0)])

    with threads_for(x_ND.size * len(start[1])):
        found = minimise(loss, torch.from_numpy(np.append(start[0].ravel(), start[1])), iterations=_STEPS)
    return found[: k * d].view(k, d).numpy(), found[k * d :].numpy()


def fit_probes(sets: Mapping[str, SampleSet], *, together: bool = False) -> dict[str, Probe | None]:
    """The probe of all labelled train samples, by modality. `together`: side by side (`side_by_side`)."""
    jobs = [partial(fit_probe, labelled(each, "train"), each.split("val")) for each in sets.values()]
    return dict(zip(sets, side_by_side(jobs, together=together), strict=True))


def probe_rows(
    sets: dict[str, SampleSet],
    probes: Mapping[str, Probe | None],
    seen_C: Bools,
    outcomes: list[RecognitionOutcomes],
    *,
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Recognition rows of split `seen` with anchors `linear_probe`, k 0, model `probe`; by modality.

    `sets` hold the frozen features, and `probes` are those of `fit_probes`. Besides the keys of recognition
    rows there are `strength` (C) and `n_train`; where `outcomes` holds those of the LLM centers for the same
    samples, also lead, lead_low, lead_high and p: how far the centers are ahead of the probe. A modality
    without train samples of two categories has no row.
    """
    task = Task("seen", seen_C, seen_C)
    ours = {
        each.shown.modality: each for each in outcomes if (each.split, each.anchors) == (task.split, CENTERS)
    }
    rows: list[dict[str, Any]] = []
    for modality, encoded in sets.items():
        probe = probes[modality]
        train, shown = labelled(encoded, "train"), task.of(encoded)
        if probe is None or len(shown) == 0:
            continue
        outcome = recognition_outcomes(
            probe.predict(shown.vectors_ND, 5), shown, split=task.split, anchors=ANCHORS
        )
        row: dict[str, Any] = {
            "modality": modality,
            "split": task.split,
            "anchors": ANCHORS,
            "k": 0,
            "scorer": "logistic",
            "model": "probe",
            **accuracies(outcome, task, resamples=resamples, seed=seed),
            "map": _map(probe, shown, seen_C),
            "strength": probe.strength,
            "n_train": len(train),
        }
        rival = ours.get(modality)
        if rival is not None and rival.shown.sample_ids == shown.sample_ids:
            row |= lead(rival.hit_N, outcome.hit_N, shown.object_N, resamples=resamples, seed=seed).as_row()
        rows.append(row)
    return rows


def labelled(samples: SampleSet, split: str) -> SampleSet:
    """The samples of one split that have a category."""
    return samples.take((samples.splits_N == split) & (samples.category_N >= 0))


def _map(probe: Probe, shown: SampleSet, seen_C: Bools) -> float:
    """Mean average precision, as in recognition; for a category without train samples, all samples tie."""
    scores_NC = np.full((len(shown), len(seen_C)), -np.inf)
    scores_NC[:, probe.categories_K] = probe.scores(shown.vectors_ND)
    labels_NL = shown.labels()
    categories = np.intersect1d(labels_NL, np.flatnonzero(seen_C))
    return float(
        np.mean(
            [average_precision(scores_NC[:, c], (labels_NL == c).any(axis=1)) for c in categories.tolist()]
        )
    )

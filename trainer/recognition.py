"""Recognition: which category is it? Per modality, on seen and unseen categories, beside the controls.

Shapes: N samples, C categories, L labels of a sample, T best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trainer.bootstrap import interval
from trainer.outcomes import Naming
from trainer.paired import lead
from trainer.precision import mean_average_precision
from trainer.records import Bools, Centers, Ints, SampleSet
from trainer.scoring import score
from trainer.settings import Scorer

CENTERS = "llm_centers"  # the anchor set that the others are controls of


@dataclass(frozen=True)
class Task:
    """Which samples are to be named, and among which categories."""

    split: Literal["seen", "unseen", "unseen_among_all"]
    shown_C: Bools  # samples of these categories
    candidates_C: Bools  # are named among these
    test_only: bool = True

    def of(self, samples: SampleSet) -> SampleSet:
        """The samples that are to be named: by their first category, and by their split."""
        allowed_N = (samples.splits_N == "test") | (not self.test_only)
        return samples.take(allowed_N & (samples.category_N >= 0) & self.shown_C[samples.category_N])


def tasks(seen_C: Bools, *, labels_used: bool) -> list[Task]:
    """The recognition tasks of a run.

    seen: test samples of categories with train samples, among these categories. unseen: those of the other
    categories, among the others. unseen_among_all: the same samples, among all. Where no label was used at
    all, everything is unseen and every sample, of whatever split, may be scored.
    """
    everything_C = np.ones_like(seen_C)
    if not labels_used:
        return [Task("unseen", everything_C, everything_C, test_only=False)]
    return [
        Task("seen", seen_C, seen_C),
        Task("unseen", ~seen_C, ~seen_C),
        Task("unseen_among_all", ~seen_C, everything_C),
    ]


def recognise(
    sets: dict[str, SampleSet],
    anchors: dict[str, Centers],
    tasks: list[Task],
    *,
    model: str,
    scorer: Scorer,
    resamples: int,
    seed: int,
) -> tuple[list[dict[str, Any]], list[Naming]]:
    """Rows {modality, split, anchors, k, scorer, model, top1, top1_low, top1_high, top5, mean_recall, map,
    chance, n}, and of every sample what it was named.

    `sets` hold vectors in the text space. A sample is named rightly by any of its categories. `k` is the
    largest number of texts per candidate, `chance` is one over the number of candidates. A candidate without
    a text can never be named; its samples count as errors. Tasks without samples or texts give no row.
    `mean_recall` is told in `mean_recall`; `map`, of the LLM centers only, in `precision`. Rows of controls
    have lead, lead_low, lead_high and p beside (`paired.Lead`): how far the LLM centers are ahead.
    """
    rows: list[dict[str, Any]] = []
    namings: list[Naming] = []
    precisions: dict[tuple[bool, bytes], float | None] = {}  # by what is shown: two tasks may show the same
    for modality, encoded in sets.items():
        precisions.clear()
        for task in tasks:
            shown = task.of(encoded)
            ours: Naming | None = None
            for name, centers in anchors.items():
                among = centers.of(task.candidates_C)
                if len(shown) == 0 or len(among.row_ids) == 0:
                    continue
                naming = name_samples(shown, among, scorer=scorer, split=task.split, anchors=name)
                namings.append(naming)
                row: dict[str, Any] = {
                    "modality": modality,
                    "split": task.split,
                    "anchors": name,
                    "k": int(among.counts().max()),
                    "scorer": scorer,
                    "model": model,
                    **accuracies(naming, task, resamples=resamples, seed=seed),
                    "map": None,
                }
                if name == CENTERS:
                    ours = naming
                    key = (task.test_only, task.shown_C.tobytes())
                    if key not in precisions:
                        precisions[key] = mean_average_precision(
                            shown.vectors_ND, shown.labels(), among, task.shown_C, scorer=scorer
                        )
                    row["map"] = precisions[key]
                elif ours is not None:
                    row |= lead(
                        ours.hit_N, naming.hit_N, shown.object_N, resamples=resamples, seed=seed
                    ).named()
                rows.append(row)
    return rows, namings


def name_samples(shown: SampleSet, among: Centers, *, scorer: Scorer, split: str, anchors: str) -> Naming:
    """What each sample is named by the nearest of some centers, and whether that is one of its categories."""
    named_NT = score(shown.vectors_ND, among, scorer=scorer, top=5).categories_NT
    return naming_of(named_NT, shown, split=split, anchors=anchors)


def naming_of(named_NT: Ints, shown: SampleSet, *, split: str, anchors: str) -> Naming:
    """The same for categories that were found otherwise, best first."""
    hits_NT = (named_NT[:, :, None] == shown.labels()[:, None, :]).any(axis=2)
    return Naming(split, anchors, shown, named_NT[:, 0], hits_NT[:, 0], hits_NT[:, :5].any(axis=1))


def accuracies(naming: Naming, task: Task, *, resamples: int, seed: int) -> dict[str, Any]:
    """The keys of a row that count hits: top1 with its interval, top5, mean_recall, chance and n."""
    low, high = interval(naming.hit_N, resamples=resamples, seed=seed)
    return {
        "top1": float(naming.hit_N.mean()),
        "top1_low": low,
        "top1_high": high,
        "top5": float(naming.hit5_N.mean()),
        "mean_recall": mean_recall(naming, task.shown_C),
        "chance": 1 / int(task.candidates_C.sum()),
        "n": len(naming.hit_N),
    }


def mean_recall(naming: Naming, shown_C: Bools) -> float:
    """The mean over the shown categories of the share of its samples that are named rightly.

    A sample with several of these categories counts for each, as right where it is named any of its own.
    """
    labels_NL = naming.shown.labels()
    rows, columns = np.nonzero((labels_NL >= 0) & shown_C[labels_NL])
    labels = labels_NL[rows, columns]
    n_C = np.bincount(labels, minlength=len(shown_C))
    hits_C = np.bincount(labels, weights=naming.hit_N[rows], minlength=len(shown_C))
    return float(np.mean(hits_C[n_C > 0] / n_C[n_C > 0]))

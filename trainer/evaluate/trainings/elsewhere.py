"""Make the trainings of an evaluation elsewhere: each is an order, and its result a few rows or numbers.

A worker loads the knowledge base and the heads once, and then makes one training after the other, on as many
threads as this process would. A fold's result holds a margin and three flags for each val sample; those of
the other kinds are rows of metrics. What a worker reads is noted here, as if this process had read it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.reads import Note, adopt, recorded
from data.threads import one_thread_each
from data.work import Carry
from trainer.align.heads import has_heads, load_heads
from trainer.evaluate.few_shot import few_shot_fit, few_shot_fits, shots_alike
from trainer.evaluate.tasks import anchor_sets
from trainer.evaluate.trainings.baselines import baseline_rows, baselines_of
from trainer.evaluate.trainings.given import Given, given_of
from trainer.evaluate.trainings.order import Kind, Ready, Training
from trainer.evaluate.trust.repeats import measure_split, shots_of, split_count
from trainer.evaluate.trust.stacking import folds_of, measure_fold
from trainer.inputs import open_kb, seen_categories
from trainer.settings import Evaluate

# The longest kinds first, so that none is left to the end.
_KINDS: tuple[Kind, ...] = ("fold", "baseline", "repeat", "few_shot")


@dataclass(frozen=True)
class MadeTraining:
    """The result of one training, and what was read for it."""

    training: Training
    result: Any
    notes: list[Note]


@dataclass(frozen=True)
class TrainingWork:
    """Makes trainings in any process that sees the knowledge base and the run's folder."""

    kb: Path
    run: Path
    settings: Evaluate
    token: str  # of this evaluation: a worker keeps what it has loaded for as long as it is the same

    def __call__(self, orders: Iterable[Training]) -> Iterator[MadeTraining]:
        """The result of each training. Raises what training raises."""
        for training in orders:
            given, before = _loaded(self)
            with recorded() as recorder, one_thread_each() if given.together else nullcontext():
                result = make_training(given, training)
            yield MadeTraining(training, result, [*before, *recorder.notes()])


def open_given(kb: Path, run: Path, settings: Evaluate) -> Given:
    """Load what an evaluation starts from. Raises TrainingError for heads of other encoders."""
    base = open_kb(kb)
    heads = load_heads(run) if has_heads(run) else None
    return given_of(base, None, heads, settings)


def train_elsewhere(given: Given, kb: Path, run: Path, carry: Carry) -> Ready:
    """Every training of the evaluation, made by `carry`."""
    wanted = trainings_of(given)
    made: dict[Training, Any] = {}
    if not wanted:
        return made
    work = TrainingWork(kb, run, given.settings, secrets.token_hex(8))
    with (
        tqdm(total=len(wanted), desc="trainings of evaluate", unit="training", disable=None) as bar,
        closing(carry(work, wanted)) as results,
    ):
        for each in results:
            made[each.training] = each.result
            adopt(each.notes)
            bar.update()
    return made


def trainings_of(given: Given) -> list[Training]:
    """The trainings that an evaluation makes, the longest first."""
    settings, found = given.settings, baselines_of(given)
    if given.heads is not None and len(given.centers.row_ids):
        _, held_out = folds_of(given.centers, seen_categories(given.base), settings)
        found += [Training("fold", number) for number in range(len(held_out))]
        found += [
            Training("repeat", number, shots)
            for shots in shots_of(settings)
            for number in range(split_count(given.base, settings))
        ]
    found += few_shot_fits(shots_alike(given.base, given.frozen, settings), given.heads)
    return sorted(found, key=lambda each: _KINDS.index(each.kind))


def make_training(given: Given, training: Training) -> Any:
    """The result of one training."""
    base, centers, heads, settings = given.base, given.centers, given.heads, given.settings
    if training.kind == "few_shot":
        return few_shot_fit(base, given.frozen, centers, heads, settings, training)
    assert heads is not None  # `trainings_of`
    if training.kind == "baseline":
        anchors = anchor_sets(centers, given.controls, seed=settings.seed)
        return baseline_rows(given, anchors, training)
    common = given.place, centers, heads
    if training.kind == "repeat":
        return measure_split(
            base, given.spaces, given.frozen, *common, settings, training.number, training.shots
        )
    trained, held_out = folds_of(centers, seen_categories(base), settings)
    return measure_fold(base, given.spaces, *common, trained, held_out[training.number], settings)


@lru_cache(maxsize=1)
def _loaded(work: TrainingWork) -> tuple[Given, list[Note]]:
    with recorded() as recorder:
        given = open_given(work.kb, work.run, work.settings)
    return given, recorder.notes()

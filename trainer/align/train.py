"""Train the heads on embedding centers, and keep for each modality the epoch with the best val accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from tqdm import tqdm

from data.errors import TrainingError
from data.files import hash_file, hash_json
from data.progress import Step
from kb_builder.tables.schemas import write_table
from trainer.align.aligner import MOST_ROWS, Aligner, modality_mean, threads_for
from trainer.align.checkpoint import (
    TRAIN_LOG,
    Checkpoint,
    CheckpointFile,
    LogRow,
    TrainingProgress,
    tensorboard_writer,
)
from trainer.align.heads import Heads, merge_heads, save_heads
from trainer.align.pairs import Pairs
from trainer.align.processes import ALONE, Processes, leave_process_group, process_group
from trainer.align.rounds import Round, rounds
from trainer.inputs import KnowledgeBase, load_sample_texts, load_samples, open_kb, seen_categories
from trainer.localize.centers import load_centers
from trainer.records import Bools, Centers, SampleSet
from trainer.score.scoring import score
from trainer.settings import Train

_CHECKPOINT_SECONDS = 30.0  # at least, between two checkpoints, which are saved at the end of epochs


@dataclass(frozen=True)
class Fitted:
    """Trained heads, the rows of their training log, and the counts to report."""

    heads: Heads
    log: list[LogRow]
    summary: dict[str, Any]


def train(kb: Path, run: Path, settings: Train, *, every: float = _CHECKPOINT_SECONDS) -> dict[str, Any]:
    """Train one head per modality; write `<run>/heads.safetensors` and `<run>/train_log.parquet`.

    All modalities are trained together, each with an equal share of every batch. A labelled sample is
    classified by the mean centers of the trained categories; one without a label is contrasted with the texts
    about it (`settings` name other losses). Each modality keeps the last epoch whose top-1 accuracy on its
    val samples of the trained categories is at most one standard error below the best; without such samples
    the last. Equal inputs and settings give equal bits on one machine, also where training was killed: it
    resumes from `<run>/checkpoint.safetensors`, which is written at the end of an epoch when the last one is
    `every` seconds old, and removed at the end. Under torchrun the processes train as one
    (trainer/align/processes.py). Returns counts, the epochs kept, the mean of their accuracies and the last
    loss. Raises TrainingError where nothing can be learned.
    """
    with process_group() as processes:
        # The others wait for this, while rank 0 runs the stages before training alone.
        processes.broadcast_decision(True)
        return _train(kb, run, settings, processes, every)


def train_as_follower(kb: Path, run: Path, settings: Train) -> None:
    """Train together with rank 0 once it starts; return without training if it finds nothing to train."""
    with process_group() as processes:
        if processes.broadcast_decision(False):
            _train(kb, run, settings, processes, _CHECKPOINT_SECONDS)
    leave_process_group()


def fit(
    base: KnowledgeBase,
    centers: Centers,
    settings: Train,
    *,
    processes: Processes = ALONE,
    checkpoints: CheckpointFile | None = None,
    tensorboard: Path | None = None,
    quiet: bool = False,
) -> Fitted:
    """Train as `train` does, but with the given centers; nothing else is written.

    Checkpoints go to `checkpoints` and curves to the folder `tensorboard`, where given. `quiet`: without a
    progress bar, for one of several trainings that have one bar together.
    """
    sets, without_vector = load_samples(base, "samples")
    texts, missing = load_sample_texts(base)
    found = checkpoints.load() if checkpoints else None
    log = found.log if found else []
    heads = found.earlier if found else None
    counts: dict[str, Any] = {}
    after = log[-1]["step"] if log else -1
    with _matmul_precision(settings), tensorboard_writer(tensorboard, after=after) as write_curves:
        val = validation_set(base, sets, centers)
        fitting = _Fitting(base, settings, val, processes, checkpoints, write_curves, quiet)
        for number, make in enumerate(rounds(sets, texts, centers, settings)):
            if found and found.progress.round > number:  # already finished; only its counts are needed
                counts = _add_counts(counts, make(None))
                continue
            this = make(heads)
            counts = _add_counts(counts, this)
            _require_weight(this.pairs, settings)
            resumed = found if found and found.progress.round == number else None
            best = fitting.run_round(number, this, heads, log, resumed)
            heads = best if heads is None else merge_heads(heads, best)
    assert heads is not None  # there is at least one round
    heads = _with_mean_of_notes(heads, sets)
    reached = [top1 for top1 in heads.metadata["val_top1"].values() if top1 is not None]
    summary = {
        **counts,
        **missing,
        "samples_without_vector": without_vector,
        "steps": log[-1]["step"],
        "epochs_kept": heads.metadata["epochs"],
        "val_top1": sum(reached) / len(reached) if reached else None,
        "loss": log[-1]["loss"],
        "temperature": log[-1]["temperature"],
    }
    return Fitted(heads, log, summary)


def recipe_of(heads: Heads) -> Train:
    """The settings that heads were trained with, to train others alike, but without a TensorBoard log."""
    return replace(TypeAdapter(Train).validate_python(heads.metadata["settings"]), tensorboard=False)


@dataclass(frozen=True)
class ValidationSet:
    """Labelled val samples of categories that are trained on, and among which they are recognised."""

    sets: dict[str, SampleSet]
    centers: Centers  # of all categories: their mean is taken off
    trained_C: Bools

    def top1(self, heads: Heads) -> dict[str, float]:
        """Top-1 accuracy by modality, of those with a head and val samples."""
        centers = heads.represent(self.centers).of(self.trained_C)
        return {
            m: float(
                np.mean(score(heads.map(m, s.vectors_ND), centers, top=1).categories_NT[:, 0] == s.category_N)
            )
            for m, s in self.sets.items()
            if m in heads.weights
        }

    def standard_error(self, modality: str, top1: float) -> float:
        """The standard error of an accuracy on the modality's val samples (Agresti and Coull 1998)."""
        n = len(self.sets[modality])
        share = (top1 * n + 2) / (n + 4)  # of 36 samples that are all right, the 37th may still be wrong
        return math.sqrt(share * (1 - share) / (n + 4))


def validation_set(base: KnowledgeBase, sets: dict[str, SampleSet], centers: Centers) -> ValidationSet:
    """The val samples of trained categories: held-out categories must not influence which epoch is kept."""
    trained_C = seen_categories(base) & (centers.counts() > 0)
    usable_C = np.append(trained_C, False)  # the last for -1: no category
    chosen = {
        m: s.take((s.splits_N == "val") & (s.category_N >= 0) & usable_C[s.category_N])
        for m, s in sets.items()
    }
    return ValidationSet({m: s for m, s in chosen.items() if len(s)}, centers, trained_C)


def _train(kb: Path, run: Path, settings: Train, processes: Processes, every: float) -> dict[str, Any]:
    base = open_kb(kb)
    path = run / "checkpoint.safetensors"
    checkpoints = CheckpointFile(path, _fingerprint(base, settings), every, processes)
    folder = run / "tensorboard" if settings.tensorboard and processes.rank == 0 else None
    fitted = fit(
        base, load_centers(base), settings, processes=processes, checkpoints=checkpoints, tensorboard=folder
    )
    if processes.rank == 0:
        save_heads(run, fitted.heads)
        write_table(run / "train_log.parquet", fitted.log, TRAIN_LOG)
        path.unlink(missing_ok=True)
    return fitted.summary


@dataclass(frozen=True)
class _Fitting:
    """What all rounds of a training share."""

    base: KnowledgeBase
    settings: Train
    validation: ValidationSet
    processes: Processes
    checkpoints: CheckpointFile | None
    write_curves: Callable[[list[LogRow]], None]
    quiet: bool

    def run_round(
        self, number: int, this: Round, earlier: Heads | None, log: list[LogRow], found: Checkpoint | None
    ) -> Heads:
        """Train one round: the heads, each of its modality's best epoch; extends `log`."""
        with threads_for(self._largest_product(this)):
            return self._run_round(number, this, earlier, log, found)

    def _largest_product(self, this: Round) -> int:
        """Multiplications of the largest product between steps: a modality's start, mean, or val."""
        text_dim = this.texts_MR.shape[1]
        rows = {m: min(len(p.samples), MOST_ROWS) for m, p in this.pairs.items()}
        dims = {m: p.samples.vectors_ND.shape[1] for m, p in this.pairs.items()}
        starts = [n * dims[m] * (dims[m] + text_dim) for m, n in rows.items()]
        scored = [s.vectors_ND.size * text_dim for s in self.validation.sets.values()]
        return int(max([*starts, *scored]))

    def _run_round(
        self, number: int, this: Round, earlier: Heads | None, log: list[LogRow], found: Checkpoint | None
    ) -> Heads:
        aligner = Aligner(this.pairs, this.texts_MR, this.owners_M, self.settings, self.processes, this.space)
        # In a second round, the log's numbers of epochs and steps continue.
        first_epoch, first_step = (log[-1]["epoch"] + 1, log[-1]["step"]) if log else (0, 0)
        start, best = 0, None
        if found:
            progress = found.progress
            aligner.restore(found.now, progress.aligner)
            first_epoch, first_step = progress.first_epoch, progress.first_step
            start, best = progress.epoch + 1, found.best
        silent = True if self.quiet or self.processes.rank else None
        taken = log[-1]["step"] - first_step if found else 0
        step = None if silent else Step("train", total=aligner.steps, done=taken)
        with tqdm(total=aligner.steps, initial=taken, desc="train", unit="step", disable=silent) as bar:
            for epoch in range(start, self.settings.epochs + 1):
                with threads_for(aligner.products_per_step):
                    rows = aligner.epoch() if epoch else [aligner.log_row()]
                epoch_in_log = first_epoch + epoch
                for row in rows:
                    row |= {"epoch": epoch_in_log, "step": first_step + row["step"], "val_top1": None}
                if epoch % self.settings.val_every == 0 or epoch == self.settings.epochs:
                    best, rows[-1]["val_top1"] = self._keep_better(aligner, best, epoch_in_log)
                log += rows
                self.write_curves(rows)
                bar.update(len(rows) if epoch else 0)
                if step is not None and epoch:
                    step.add(len(rows))
                bar.set_postfix(loss=rows[-1]["loss"], refresh=False)
                assert best is not None  # set at epoch 0
                if self._have_stopped(best, epoch_in_log):
                    break
                if self.checkpoints and epoch < self.settings.epochs and self.checkpoints.is_due():
                    tensors, state = aligner.state()
                    progress = TrainingProgress(number, epoch, first_epoch, first_step, state)
                    self.checkpoints.save(Checkpoint(progress, log, best, earlier, tensors))
        assert best is not None
        return best

    def _keep_better(self, aligner: Aligner, best: Heads | None, epoch: int) -> tuple[Heads, float | None]:
        """The heads kept so far, with those of this epoch that are no worse; and the mean top-1 on val now.

        No worse: at most one standard error below the best of their modality. A modality without val samples
        takes those of this epoch.
        """
        now = aligner.heads(_provenance(self.base, self.settings))
        reached = self.validation.top1(now)
        before = best.metadata["best_top1"] if best else {}
        highest = {m: max(top1, before.get(m, 0.0)) for m, top1 in reached.items()}
        no_worse = [
            m
            for m in now.weights
            if m not in reached or reached[m] >= highest[m] - self.validation.standard_error(m, highest[m])
        ]
        kept = now.of(no_worse)
        kept.metadata["epochs"] = dict.fromkeys(no_worse, epoch)
        kept.metadata["val_top1"] = {m: reached.get(m) for m in no_worse}
        kept.metadata["best_top1"] = highest
        kept.metadata["improved"] = {
            m: epoch for m, top1 in highest.items() if m not in before or top1 > before[m]
        }
        mean = sum(reached.values()) / len(reached) if reached else None
        return kept if best is None else merge_heads(best, kept), mean

    def _have_stopped(self, best: Heads, epoch: int) -> bool:
        """Whether every modality has stopped; one without val samples never does."""
        if self.settings.patience is None or None in best.metadata["val_top1"].values():
            return False
        return all(epoch - since >= self.settings.patience for since in best.metadata["improved"].values())


def _with_mean_of_notes(heads: Heads, sets: dict[str, SampleSet]) -> Heads:
    """The heads with the mean of the train samples of modality text, where these have no head."""
    if heads.space.mean_T is None or "text" in heads.weights or "text" not in sets:
        return heads
    train = sets["text"].split("train")
    if len(train) == 0:
        return heads
    return replace(heads, means={**heads.means, "text": modality_mean(heads, "text", train)})


@contextmanager
def _matmul_precision(settings: Train) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(settings.precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _fingerprint(base: KnowledgeBase, settings: Train) -> str:
    """The hash of all that training depends on: settings, tables, and the manifests of vectors."""
    tables = ("categories.parquet", "samples.parquet", "centers.parquet")
    files = [base.folder / name for name in tables]
    files += sorted((base.folder / "descriptions" / "sample").glob("*.parquet"))
    text, samples = base.encoder("text"), base.encoder("samples")
    stored = {text / "category_texts", text / "sample_texts", text / "samples", samples / "samples"}
    files += sorted(folder / "manifest.json" for folder in stored)
    hashes = [(file.relative_to(base.folder).as_posix(), hash_file(file)) for file in files if file.exists()]
    encoders = {role: folder.name for role, folder in base.encoders.items() if folder is not None}
    return hash_json([asdict(settings), encoders, hashes])


def _add_counts(counts: dict[str, Any], this: Round) -> dict[str, Any]:
    """The counts so far plus those of one more round."""
    summed = {name: counts.get(name, 0) + n for name, n in this.counts.items()}
    trained = {modality: len(p.samples) for modality, p in this.pairs.items()}
    return {**summed, "modalities": {**counts.get("modalities", {}), **trained}}


def _require_weight(pairs: dict[str, Pairs], settings: Train) -> None:
    """Raise TrainingError for a `center_weight` of 0 where no sample has texts about itself."""
    if settings.center_weight == 0 and not any(p.own.counts_N.any() for p in pairs.values()):
        raise TrainingError(
            "train.center_weight = 0 gives the only texts that the train samples have (their categories with"
            " centers) no weight; choose a value above 0"
        )


def _provenance(base: KnowledgeBase, settings: Train) -> dict[str, Any]:
    folders = {role: folder.name for role, folder in base.encoders.items() if folder is not None}
    return {"encoders": folders, "settings": asdict(settings)}

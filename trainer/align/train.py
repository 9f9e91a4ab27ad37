"""Train the heads by LLM-augmented contrastive learning, and keep the epoch with the best val accuracy."""

from __future__ import annotations

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
from kb_builder.tables.schemas import write_table
from trainer.align.aligner import Aligner, threads_for
from trainer.align.checkpoint import (
    TRAIN_LOG,
    Checkpoint,
    CheckpointFile,
    LogRow,
    TrainingProgress,
    tensorboard_writer,
)
from trainer.align.heads import Heads, save_heads
from trainer.align.pairs import Pairs
from trainer.align.processes import ALONE, Processes, leave_process_group, process_group
from trainer.align.rounds import Round, rounds
from trainer.inputs import KnowledgeBase, load_sample_texts, load_samples, open_kb, seen_categories
from trainer.localize.centers import load_centers
from trainer.records import Centers, SampleSet
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

    All modalities are trained together, each with an equal share of every batch. A sample's positives are a
    text drawn from those about it and, where it is labelled, one drawn from its category's centers. The epoch
    kept has the best top-1 accuracy on val samples of the trained categories (the mean over modalities; the
    earlier of equals); without such samples it is the last. Equal inputs and settings give equal bits on one
    machine, also where training was killed: it resumes from `<run>/checkpoint.safetensors`, which is written
    at the end of an epoch when the last one is `every` seconds old, and removed at the end. Under torchrun
    the processes train as one (trainer/align/processes.py). Returns counts, the epoch kept, its accuracy and
    the last loss. Raises TrainingError where nothing can be learned.
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
            best, epoch, top1 = fitting.run_round(number, this, heads, log, resumed)
            heads = best if heads is None else _merge_heads(heads, best)
    assert heads is not None  # there is at least one round
    summary = {
        **counts,
        **missing,
        "samples_without_vector": without_vector,
        "steps": log[-1]["step"],
        "epoch_kept": epoch,
        "val_top1": top1,
        "loss": log[-1]["loss"],
        "temperature": log[-1]["temperature"],
    }
    return Fitted(heads, log, summary)


def recipe_of(heads: Heads) -> Train:
    """The settings that heads were trained with, to train others alike, but without a TensorBoard log."""
    return replace(TypeAdapter(Train).validate_python(heads.metadata["settings"]), tensorboard=False)


@dataclass(frozen=True)
class ValidationSet:
    """Labelled val samples of categories that are trained on, and those categories' centers."""

    sets: dict[str, SampleSet]
    centers: Centers

    def top1(self, heads: Heads) -> float | None:
        """The mean over modalities of top-1 accuracy; None without val samples."""
        shares = [
            float(
                np.mean(
                    score(heads.map(m, s.vectors_ND), self.centers, top=1).categories_NT[:, 0] == s.category_N
                )
            )
            for m, s in self.sets.items()
            if m in heads.weights
        ]
        return sum(shares) / len(shares) if shares else None


def validation_set(base: KnowledgeBase, sets: dict[str, SampleSet], centers: Centers) -> ValidationSet:
    """The val samples of trained categories: held-out categories must not influence which epoch is kept."""
    seen_C = seen_categories(base)
    centers = centers.of(seen_C)
    usable_C = np.append(seen_C & (centers.counts() > 0), False)  # the last for -1: no category
    chosen = {
        m: s.take((s.splits_N == "val") & (s.category_N >= 0) & usable_C[s.category_N])
        for m, s in sets.items()
    }
    return ValidationSet({m: s for m, s in chosen.items() if len(s)}, centers)


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
    ) -> tuple[Heads, int, float | None]:
        """Train one round: the heads of the best epoch, its number and its top-1 on val; extends `log`."""
        aligner = Aligner(this.pairs, this.texts_MT, this.owners_M, self.settings, self.processes)
        # In a second round, the log's numbers of epochs and steps continue.
        first_epoch, first_step = (log[-1]["epoch"] + 1, log[-1]["step"]) if log else (0, 0)
        start, best, best_epoch, best_top1 = 0, None, 0, None
        if found:
            progress = found.progress
            aligner.restore(found.now, progress.aligner)
            first_epoch, first_step = progress.first_epoch, progress.first_step
            start, best = progress.epoch + 1, found.best
            best_epoch, best_top1 = progress.best_epoch, progress.best_top1
        silent = True if self.quiet or self.processes.rank else None
        taken = log[-1]["step"] - first_step if found else 0
        with (
            threads_for(aligner.products_per_step),
            tqdm(total=aligner.steps, initial=taken, desc="train", unit="step", disable=silent) as bar,
        ):
            for epoch in range(start, self.settings.epochs + 1):
                rows = aligner.epoch() if epoch else [aligner.log_row()]
                epoch_in_log = first_epoch + epoch
                heads = aligner.heads(_provenance(self.base, self.settings, epoch_in_log))
                top1 = self.validation.top1(heads)
                for row in rows:
                    row |= {"epoch": epoch_in_log, "step": first_step + row["step"], "val_top1": None}
                rows[-1]["val_top1"] = top1
                log += rows
                self.write_curves(rows)
                bar.update(len(rows) if epoch else 0)
                bar.set_postfix(loss=rows[-1]["loss"], val=top1, refresh=False)
                if best is None or top1 is None or best_top1 is None or top1 > best_top1:
                    best, best_epoch, best_top1 = heads, epoch_in_log, top1
                if (
                    self.settings.patience
                    and top1 is not None
                    and epoch_in_log - best_epoch >= self.settings.patience
                ):
                    break
                if self.checkpoints and epoch < self.settings.epochs and self.checkpoints.is_due():
                    tensors, state = aligner.state()
                    progress = TrainingProgress(
                        number, epoch, first_epoch, first_step, best_epoch, best_top1, state
                    )
                    self.checkpoints.save(Checkpoint(progress, log, best, earlier, tensors))
        assert best is not None  # set at epoch 0 at the latest
        return best, best_epoch, best_top1


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


def _merge_heads(earlier: Heads, later: Heads) -> Heads:
    """The heads of two rounds, with the metadata of the later one and the parameters of both."""
    parameters = {**earlier.metadata["parameters"], **later.metadata["parameters"]}
    return Heads(
        {**earlier.weights, **later.weights},
        {**earlier.biases, **later.biases},
        {**later.metadata, "parameters": parameters},
        {**earlier.hidden, **later.hidden},
    )


def _require_weight(pairs: dict[str, Pairs], settings: Train) -> None:
    """Raise TrainingError for a `center_weight` that gives all weight to texts that no sample has."""
    weights = {"own": 1 - settings.center_weight, "centers": settings.center_weight}
    if not any(
        weights[kind] > 0 and getattr(p, kind).counts_N.any() for p in pairs.values() for kind in weights
    ):
        have = "categories with centers" if settings.center_weight == 0 else "descriptions"
        raise TrainingError(
            f"train.center_weight = {settings.center_weight:g} gives the only texts that the train samples"
            f" have (their {have}) no weight; choose a value between 0 and 1"
        )


def _provenance(base: KnowledgeBase, settings: Train, epoch: int) -> dict[str, Any]:
    folders = {role: folder.name for role, folder in base.encoders.items() if folder is not None}
    return {"encoders": folders, "settings": asdict(settings), "epoch": epoch}

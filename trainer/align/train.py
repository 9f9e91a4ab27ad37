"""Align the heads: LLM-augmented contrastive training, the epoch that names val samples best is kept."""

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
from trainer.align.checkpoint import TRAIN_LOG, Checkpoint, Facts, Keeper, Row, curves
from trainer.align.heads import Heads, save_heads
from trainer.align.pairs import Pairs
from trainer.align.processes import ALONE, Ranks, part, together
from trainer.align.rounds import Round, rounds
from trainer.inputs import KnowledgeBase, load_sample_texts, load_samples, open_kb, seen_categories
from trainer.localize.centers import load_centers
from trainer.records import Centers, SampleSet
from trainer.score.scoring import score
from trainer.settings import Train

_SECONDS = 30.0  # between two checkpoints, which are made at the end of epochs


@dataclass(frozen=True)
class Fitted:
    """Trained heads, what was logged on the way, and the counts to report."""

    heads: Heads
    log: list[Row]
    summary: dict[str, Any]


def train(kb: Path, run: Path, settings: Train, *, every: float = _SECONDS) -> dict[str, Any]:
    """Train one head per modality; write `<run>/heads.safetensors` and `<run>/train_log.parquet`.

    All modalities are trained together, each with an equal share of every batch. A sample's positives are a
    text drawn from those about it and, where it is labelled, one drawn from its category's centers.
    The epoch kept is the one that names the val samples of the trained categories best (the mean over
    modalities of top-1; the earlier one of equals), the last one where there are none. Equal inputs and
    settings give equal bits on one machine, also where training was killed: `<run>/checkpoint.safetensors`,
    written at the end of an epoch when the last one is `every` seconds old, holds how far it had come, and is
    removed at the end. Under torchrun the processes train as one (trainer/align/processes.py). Returns counts
    and what was reached. Raises TrainingError where nothing can be learned.
    """
    with together() as ranks:
        ranks.agree(True)  # the others wait for this: what comes before training, rank 0 does alone
        return _train(kb, run, settings, ranks, every)


def follow(kb: Path, run: Path, settings: Train) -> None:
    """Help the process that torchrun made rank 0 to train, once it does; nothing where it has no need to."""
    with together() as ranks:
        if ranks.agree(False):
            _train(kb, run, settings, ranks, _SECONDS)
    part()


def _train(kb: Path, run: Path, settings: Train, ranks: Ranks, every: float) -> dict[str, Any]:
    base = open_kb(kb)
    path = run / "checkpoint.safetensors"
    keeper = Keeper(path, _fingerprint(base, settings), every, ranks)
    board = run / "tensorboard" if settings.tensorboard and ranks.rank == 0 else None
    fitted = fit(base, load_centers(base), settings, ranks=ranks, keeper=keeper, board=board)
    if ranks.rank == 0:
        save_heads(run, fitted.heads)
        write_table(run / "train_log.parquet", fitted.log, TRAIN_LOG)
        path.unlink(missing_ok=True)
    return fitted.summary


def fit(
    base: KnowledgeBase,
    centers: Centers,
    settings: Train,
    *,
    ranks: Ranks = ALONE,
    keeper: Keeper | None = None,
    board: Path | None = None,
) -> Fitted:
    """Train as `train` does, with these centers; write checkpoints with a `keeper`, curves to a `board`."""
    sets, without_vector = load_samples(base, "samples")
    texts, missing = load_sample_texts(base)
    found = keeper.found() if keeper else None
    log = found.log if found else []
    heads = found.earlier if found else None
    counts: dict[str, Any] = {}
    with _precision(settings), curves(board, after=log[-1]["step"] if log else -1) as tell:
        fitting = _Fitting(base, settings, validation(base, sets, centers), ranks, keeper, tell)
        for number, make in enumerate(rounds(sets, texts, centers, settings)):
            if found and found.facts.round > number:  # finished before; only what it counts is still wanted
                counts = _add(counts, make(None))
                continue
            this = make(heads)
            counts = _add(counts, this)
            _require_weight(this.pairs, settings)
            resumed = found if found and found.facts.round == number else None
            best, epoch, top1 = fitting.one_round(number, this, heads, log, resumed)
            heads = best if heads is None else _joined(heads, best)
    assert heads is not None  # there is one round at least
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


@dataclass(frozen=True)
class _Fitting:
    """What every round of a training needs."""

    base: KnowledgeBase
    settings: Train
    validation: Validation
    ranks: Ranks
    keeper: Keeper | None
    tell: Callable[[list[Row]], None]

    def one_round(
        self, number: int, this: Round, earlier: Heads | None, log: list[Row], found: Checkpoint | None
    ) -> tuple[Heads, int, float | None]:
        """The heads of the best epoch, its number and its top-1 on val; adds to `log`."""
        aligner = Aligner(this.pairs, this.texts_MT, this.owners_M, self.settings, self.ranks)
        # The log goes on counting epochs and steps in a second round.
        first_epoch, first_step = (log[-1]["epoch"] + 1, log[-1]["step"]) if log else (0, 0)
        start, best, best_epoch, best_top1 = 0, None, 0, None
        if found:
            aligner.restore(found.now, found.facts.aligner)
            first_epoch, first_step = found.facts.first_epoch, found.facts.first_step
            start, best = found.facts.epoch + 1, found.best
            best_epoch, best_top1 = found.facts.best_epoch, found.facts.best_top1
        silent = None if self.ranks.rank == 0 else True
        taken = log[-1]["step"] - first_step if found else 0
        with (
            threads_for(aligner.products_per_step),
            tqdm(total=aligner.steps, initial=taken, desc="train", unit="step", disable=silent) as bar,
        ):
            for epoch in range(start, self.settings.epochs + 1):
                rows = aligner.epoch() if epoch else [aligner.log_row()]
                told = first_epoch + epoch
                heads = aligner.heads(_provenance(self.base, self.settings, told))
                top1 = self.validation.top1(heads)
                for row in rows:
                    row |= {"epoch": told, "step": first_step + row["step"], "val_top1": None}
                rows[-1]["val_top1"] = top1
                log += rows
                self.tell(rows)
                bar.update(len(rows) if epoch else 0)
                bar.set_postfix(loss=rows[-1]["loss"], val=top1, refresh=False)
                if best is None or top1 is None or best_top1 is None or top1 > best_top1:
                    best, best_epoch, best_top1 = heads, told, top1
                if (
                    self.settings.patience
                    and top1 is not None
                    and told - best_epoch >= self.settings.patience
                ):
                    break
                if self.keeper and epoch < self.settings.epochs and self.keeper.is_due():
                    tensors, state = aligner.state()
                    facts = Facts(number, epoch, first_epoch, first_step, best_epoch, best_top1, state)
                    self.keeper.keep(Checkpoint(facts, log, best, earlier, tensors))
        assert best is not None  # epoch 0 was
        return best, best_epoch, best_top1


@contextmanager
def _precision(settings: Train) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(settings.precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _fingerprint(base: KnowledgeBase, settings: Train) -> str:
    """Of all that training depends on: settings, tables, and the manifests of vectors with their sums."""
    tables = ("categories.parquet", "samples.parquet", "centers.parquet")
    files = [base.folder / name for name in tables]
    files += sorted((base.folder / "descriptions" / "sample").glob("*.parquet"))
    text, samples = base.encoder("text"), base.encoder("samples")
    stored = {text / "category_texts", text / "sample_texts", text / "samples", samples / "samples"}
    files += sorted(folder / "manifest.json" for folder in stored)
    hashes = [(file.relative_to(base.folder).as_posix(), hash_file(file)) for file in files if file.exists()]
    encoders = {role: folder.name for role, folder in base.encoders.items() if folder is not None}
    return hash_json([asdict(settings), encoders, hashes])


def _add(counts: dict[str, Any], this: Round) -> dict[str, Any]:
    """The counts of the rounds together."""
    summed = {name: counts.get(name, 0) + n for name, n in this.counts.items()}
    trained = {modality: len(p.samples) for modality, p in this.pairs.items()}
    return {**summed, "modalities": {**counts.get("modalities", {}), **trained}}


def _joined(earlier: Heads, later: Heads) -> Heads:
    """The heads of two rounds; facts of the later, parameters of both."""
    parameters = {**earlier.metadata["parameters"], **later.metadata["parameters"]}
    return Heads(
        {**earlier.weights, **later.weights},
        {**earlier.biases, **later.biases},
        {**later.metadata, "parameters": parameters},
        {**earlier.hidden, **later.hidden},
    )


def _require_weight(pairs: dict[str, Pairs], settings: Train) -> None:
    """Refuse a `center_weight` that gives all weight to texts that no sample has."""
    weights = {"own": 1 - settings.center_weight, "centers": settings.center_weight}
    if not any(
        weights[kind] > 0 and getattr(p, kind).counts_N.any() for p in pairs.values() for kind in weights
    ):
        have = "categories with centers" if settings.center_weight == 0 else "descriptions"
        raise TrainingError(
            f"train.center_weight = {settings.center_weight:g} gives the only texts that the train samples"
            f" have (their {have}) no weight; choose a value between 0 and 1"
        )


def recipe_of(heads: Heads) -> Train:
    """The settings that heads were trained by, to train others alike; without curves of their own."""
    return replace(TypeAdapter(Train).validate_python(heads.metadata["settings"]), tensorboard=False)


def _provenance(base: KnowledgeBase, settings: Train, epoch: int) -> dict[str, Any]:
    folders = {role: folder.name for role, folder in base.encoders.items() if folder is not None}
    return {"encoders": folders, "settings": asdict(settings), "epoch": epoch}


@dataclass(frozen=True)
class Validation:
    """Labelled val samples of categories that are trained on, and those categories' centers."""

    sets: dict[str, SampleSet]
    centers: Centers

    def top1(self, heads: Heads) -> float | None:
        """The mean over modalities of the share named rightly; None without val samples."""
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


def validation(base: KnowledgeBase, sets: dict[str, SampleSet], centers: Centers) -> Validation:
    """The val samples of trained categories: the held-out categories must have no say, not even here."""
    seen_C = seen_categories(base)
    centers = centers.of(seen_C)
    usable_C = np.append(seen_C & (centers.counts() > 0), False)  # the last for -1: no category
    chosen = {
        m: s.take((s.splits_N == "val") & (s.category_N >= 0) & usable_C[s.category_N])
        for m, s in sets.items()
    }
    return Validation({m: s for m, s in chosen.items() if len(s)}, centers)

"""`make bench-epoch`: measure epochs of training and write `bench/results/epoch.json`.

    python -m bench.epoch [--rounds 3]

With frozen encoders a sample's features never change. Ours encodes every sample once, keeps the vectors in
the store and trains on them; the published loop runs the encoder again for every sample in every epoch. Both
get the same encoder, run in the same way on all cores, and the same text vectors; both take the same number
of steps of the same size. Measured with two small encoders; the larger the encoder, the larger the gap.

Shapes: N samples, B rows of a batch, D dimensions of features, T of texts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.contest import QUIET, WAIT_S
from bench.machine import versions, wait_for_quiet
from bench.rows import median, print_rows, publish, row
from bench.train_step import clip_loss
from bench.vectors import texts, unit
from data.modality import Modality
from data.tabletop.materials import MATERIALS
from data.tabletop.objects import SHAPES, draw_object
from data.tabletop.picture import write_picture
from data.tabletop.scene import solid_of
from kb_builder.encoders import Encoder, load_encoder
from kb_builder.encoders.workers import map_batches
from kb_builder.settings import Encode
from kb_builder.store.table import read_vectors, write_vectors
from trainer.align.aligner import Aligner, threads_for
from trainer.align.pairs import Pairs, Span
from trainer.records import SampleSet
from trainer.settings import Train

RESULTS = Path(__file__).parent / "results" / "epoch.json"
PER_CATEGORY, SIDE = 14, 224  # pictures of the tabletop world, and their size in pixels
TEXTS, T = 2_000, 384
B = 128
EPOCHS = (1, 5, 15, 30)
AGREEMENT = 0.9999


@dataclass(frozen=True)
class Task:
    """Samples of one modality on disk or in memory, their frozen encoder, and a text vector for each."""

    title: str
    modality: Modality
    encoder: Encoder
    sources: Sequence[Path | str]
    texts_NT: Any

    def encode(self, rows: Sequence[int]) -> Any:
        """The features of some samples from their sources, on all cores: float32[n, D]."""
        size = min(Encode().batch_size, max(1, len(rows) // torch.get_num_threads()))

        def encode(batch: Sequence[int]) -> Any:
            prepared = [self.encoder.prepare(self.modality, self.sources[i]) for i in batch]
            return self.encoder.encode(prepared)

        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        return np.concatenate(list(map_batches(encode, parts)))


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        for task in (_pictures(Path(place)), _texts()):
            rows += _rows(task, Path(place) / "store", given.rounds)
    publish(given.results, rows, versions=versions(("torch", "numpy")), command="python -m bench.epoch")
    print_rows(rows)


def _pictures(folder: Path) -> Task:
    """Photographs of the sample world's objects."""
    objects = [
        draw_object(material.name, shape, index=index, seed=0)
        for material in MATERIALS
        for shape in SHAPES
        for index in range(PER_CATEGORY)
    ]
    paths = [folder / f"{spec.object_id}.png" for spec in objects]
    for spec, path in zip(objects, paths, strict=True):
        write_picture(spec, solid_of(spec), path, side=SIDE)
    encoder = load_encoder("efficientnet-lite0", "cpu")
    return Task(
        f"{len(paths)} pictures, EfficientNet-Lite0", "image", encoder, paths, unit(len(paths), dim=T)
    )


def _texts() -> Task:
    """Descriptions of 15 to 30 words."""
    encoder = load_encoder("minilm", "cpu")
    return Task(f"{TEXTS:,} texts, MiniLM", "text", encoder, texts(TEXTS), unit(TEXTS, dim=T))


def _rows(task: Task, store: Path, rounds: int) -> list[dict[str, Any]]:
    """Encoding once, an epoch of ours and one of theirs in turns; ratios of the same round."""
    cached_ND = _encode_once(task, store)
    aligner, theirs = _aligner(task, cached_ND), _Theirs(task, cached_ND.shape[1])
    again_ND = np.concatenate([task.encode(rows) for rows in np.array_split(np.arange(len(cached_ND)), 3)])
    cosine = float(np.vecdot(cached_ND, again_ND).min())
    if cosine < AGREEMENT:  # only the store's float16 differs
        raise AssertionError(f"{task.title}: features encoded again are others: cosine {cosine}")
    with threads_for(aligner.products_per_step):
        _seconds(aligner.epoch)  # the first step sets up the optimiser
    took: dict[str, list[float]] = {"once": [], "ours": [], "theirs": []}
    for _ in range(rounds):
        wait_for_quiet(QUIET, at_most_s=WAIT_S)
        took["once"].append(_seconds(lambda: _encode_once(task, store)))
        with threads_for(aligner.products_per_step):
            took["ours"].append(_seconds(aligner.epoch))
        took["theirs"].append(_seconds(theirs.epoch))
    parameters = f"{task.encoder.parameters / 1e6:.1f} M frozen parameters, batches of {B}"
    names = {
        "once": "encoding once, written to the store and read back",
        "ours": "an epoch over cached features",
        "theirs": "an epoch that encodes again",
    }
    rows = [
        row(f"{task.title}: {name}", median(took[key]), "s", runs=took[key], note=parameters)
        for key, name in names.items()
    ]
    for epochs in EPOCHS:
        ratios = [
            epochs * theirs_s / (once_s + epochs * ours_s)
            for once_s, ours_s, theirs_s in zip(*took.values(), strict=True)
        ]
        rows.append(_ratio(f"{task.title}: {epochs} epochs, encoding included", ratios))
    limits = [theirs_s / ours_s for ours_s, theirs_s in zip(took["ours"], took["theirs"], strict=True)]
    rows.append(_ratio(f"{task.title}: an epoch alone, which no number of epochs exceeds", limits))
    return rows


def _ratio(name: str, ratios: Sequence[float]) -> dict[str, Any]:
    found = median(ratios)
    return row(name, found, "times as fast", against="encoding in every epoch", ratio=found, runs=ratios)


def _encode_once(task: Task, store: Path) -> Any:
    """As the stage `encode`: write every sample's vector to the store, and read it as training does."""
    ids = [f"{i:06d}" for i in range(len(task.sources))]
    # Texts sorted by length, as in the stage.
    order = sorted(range(len(ids)), key=lambda i: (len(str(task.sources[i])), i))
    vectors_ND = task.encode(order)
    write_vectors(
        store, ids=[ids[i] for i in order], groups=[task.modality] * len(ids), vectors_ND=vectors_ND
    )
    return read_vectors(store).vectors_ND


def _aligner(task: Task, features_ND: Any) -> Aligner:
    """The trainer's Aligner, with one text for each sample."""
    n = len(features_ND)
    none_N, all_N = np.zeros(n, np.int64), np.arange(n)
    samples = SampleSet(
        task.modality, tuple(map(str, all_N)), np.full(n, "train"), none_N - 1, all_N, features_ND
    )
    pairs = {task.modality: Pairs(samples, all_N, Span(all_N, none_N + 1), Span(none_N, none_N))}
    return Aligner(
        pairs, task.texts_NT, none_N[:0], Train(epochs=10**6, batch_size=B, start="random", device="cpu")
    )


class _Theirs:
    """The published loop: encode a batch without gradients, map it, contrast it, step."""

    def __init__(self, task: Task, dim: int) -> None:
        self._task = task
        torch.manual_seed(0)
        self._head = torch.nn.Linear(dim, T)
        self._log_temperature = torch.nn.Parameter(torch.tensor(-2.66))
        self._adam = torch.optim.AdamW([*self._head.parameters(), self._log_temperature], lr=1e-3)

    def epoch(self) -> None:
        """The published loop, for as many steps as ours."""
        order = np.random.default_rng(0).permutation(len(self._task.sources))
        texts_NT = torch.from_numpy(self._task.texts_NT)
        for start in range(0, len(order), B):
            rows = order[start : start + B]
            x_BD = torch.from_numpy(self._task.encode(rows.tolist()))
            mapped_BT = torch.nn.functional.normalize(self._head(x_BD), dim=1)
            loss = clip_loss(mapped_BT, texts_NT[torch.from_numpy(rows)], (-self._log_temperature).exp())
            self._adam.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            self._adam.step()


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

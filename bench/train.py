"""`make bench-train`: measure training and write `bench/results/train.json`.

    python -m bench.train [--rounds 9]

A step is: a gather of features, one head, the loss with texts that are frozen, the gradients, AdamW.
Shapes: B rows of a batch, N samples, D dimensions of features and texts.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.child import run
from bench.contest import Contest
from bench.machine import versions
from bench.memory import memory_rise
from bench.rows import at_least, at_most, publish, row, tell
from bench.vectors import unit
from trainer.losses import symmetric_infonce

RESULTS = Path(__file__).parent / "results" / "train.json"
N, D, B, LARGE = 20_000, 1_024, 1_024, 8_192
STEPS = 5  # of one turn
WAYS = ("ours", "open_clip's form")


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory_of:
        _tell_memory(given.memory_of)
        return
    rows = [*_steps(given.rounds), *_memory(), *_feeding(given.rounds)]
    publish(RESULTS, rows, versions=versions(("torch", "numpy")), command="python -m bench.train")
    tell(rows)


def clip_loss(x_BD: Tensor, t_BD: Tensor, scale: Tensor) -> Tensor:
    """The form of `open_clip.loss.ClipLoss` on one device: two matrices of logits, two cross entropies."""
    labels_B = torch.arange(len(x_BD))
    per_sample_BB = scale * x_BD @ t_BD.T
    per_text_BB = scale * t_BD @ x_BD.T
    cross_entropy = torch.nn.functional.cross_entropy
    return (cross_entropy(per_sample_BB, labels_B) + cross_entropy(per_text_BB, labels_B)) / 2


class _Head:
    """A linear head, its temperature and their optimiser, over cached features."""

    def __init__(self, batch: int) -> None:
        torch.manual_seed(0)
        self.features_ND, self.texts_ND = (
            torch.from_numpy(unit(N, dim=D)),
            torch.from_numpy(unit(N, dim=D, seed=1)),
        )
        self.weight_DD = (torch.randn(D, D) / math.sqrt(D)).requires_grad_()
        self.log_temperature = torch.tensor(math.log(0.07), requires_grad=True)
        self.optimiser = torch.optim.AdamW([self.weight_DD, self.log_temperature], lr=1e-4)
        self.groups_B = torch.arange(batch)
        self.rows = np.random.default_rng(0).permutation(N)[:batch]

    def step(self, way: str) -> float:
        """One step; gives the loss."""
        rows = torch.from_numpy(self.rows)
        x_BD = torch.nn.functional.normalize(self.features_ND[rows] @ self.weight_DD.T, dim=1)
        if way == "ours":
            loss = symmetric_infonce(x_BD, self.texts_ND[rows], self.groups_B, self.log_temperature)
        else:
            loss = clip_loss(x_BD, self.texts_ND[rows], (-self.log_temperature).exp())
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimiser.step()
        return float(loss.detach())


def _steps(rounds: int) -> list[dict[str, Any]]:
    heads = {way: _Head(B) for way in WAYS}
    losses = [heads[way].step(way) for way in WAYS]
    if abs(losses[0] - losses[1]) > 1e-4:
        raise AssertionError(f"the losses differ: {losses}")
    a_BD, w_DD, s_BB = torch.randn(B, D), torch.randn(D, D), torch.randn(B, B)

    def floor() -> None:
        """Head, logits, and the gradients for the head's output and for its weight."""
        for _ in range(STEPS):
            for left, right in ((a_BD, w_DD), (a_BD, w_DD), (s_BB, a_BD), (s_BB, a_BD)):
                left @ right

    def several(way: str) -> Callable[[], None]:
        def steps() -> None:
            for _ in range(STEPS):
                heads[way].step(way)

        return steps

    contest = Contest({**{way: several(way) for way in WAYS}, "four bare products": floor}, rounds=rounds)
    title = f"a step, batch {B:,}, {D:,} → {D:,}"
    slower = 1 / contest.ratio("ours", "four bare products")
    faster = contest.ratio("ours", "open_clip's form")
    return [
        *(row(f"{title}: {name}", 1e3 * contest.median(name) / STEPS, "ms") for name in contest.seconds),
        row(
            f"{title}: ours, of four bare products",
            slower,
            "times as long",
            against="four bare products",
            ratio=slower,
            **at_most(slower, 1.2, "times"),
        ),
        row(
            f"{title}: ours against open_clip's form",
            faster,
            "times as fast",
            against="open_clip's form",
            ratio=faster,
            **at_least(faster, 1.4),
        ),
    ]


def _memory() -> list[dict[str, Any]]:
    """Of the loss and its gradient alone, each in a process of its own."""
    found: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        for way in WAYS:
            ended = run([sys.executable, "-m", "bench.train", "--memory-of", way], folder=Path(place))
            if ended.code:
                return [row(f"batch {LARGE:,}: {way}", None, "MB", note=ended.failure)]
            found[way] = tuple(json.loads(ended.last_line))
    share = found["ours"][0] / found["open_clip's form"][0]
    return [
        *(
            row(
                f"batch {LARGE:,}: {way}, memory of loss and gradient",
                megabytes,
                "MB",
                note=f"{seconds:.2f} s",
            )
            for way, (megabytes, seconds) in found.items()
        ),
        row(
            f"batch {LARGE:,}: ours, share of open_clip's form's memory",
            share,
            "",
            against="open_clip's form",
            ratio=share,
            **at_most(share, 0.1, "of its memory"),
        ),
    ]


def _tell_memory(way: str) -> None:
    x_BD, t_BD = (torch.from_numpy(unit(LARGE, dim=D, seed=seed)) for seed in (0, 1))
    x_BD.requires_grad_()
    cold, groups_B = torch.tensor(math.log(0.07), requires_grad=True), torch.arange(LARGE)
    torch.randn(64, 64) @ torch.randn(64, 64)  # the product's own buffers
    with memory_rise() as rise:
        start = time.perf_counter()
        loss = (
            symmetric_infonce(x_BD, t_BD, groups_B, cold)
            if way == "ours"
            else clip_loss(x_BD, t_BD, (-cold).exp())
        )
        torch.autograd.backward(loss)
        seconds = time.perf_counter() - start
    print(json.dumps([rise.mb, seconds]))


def _feeding(rounds: int) -> list[dict[str, Any]]:
    """An epoch's batches of cached features and their texts: one gather each, and a DataLoader's samples."""
    features_ND, texts_ND = torch.from_numpy(unit(N, dim=D)), torch.from_numpy(unit(N, dim=D, seed=1))
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(features_ND, texts_ND), batch_size=B, shuffle=True, drop_last=True
    )

    def ours() -> None:
        order = np.random.default_rng(0).permutation(N)
        for start in range(0, N - B + 1, B):
            rows = torch.from_numpy(order[start : start + B])
            features_ND[rows], texts_ND[rows]

    def by_loader() -> None:
        for _ in loader:
            pass

    contest = Contest({"ours": ours, "DataLoader": by_loader}, rounds=rounds)
    ratio = contest.ratio("ours", "DataLoader")
    batches = N // B
    return [
        *(
            row(f"feeding a batch of {B:,}: {n}", 1e3 * contest.median(n) / batches, "ms")
            for n in contest.seconds
        ),
        row(
            "feeding: ours against a per-sample DataLoader",
            ratio,
            "times as fast",
            against="DataLoader",
            ratio=ratio,
            **at_least(ratio, 4.0),
        ),
    ]


if __name__ == "__main__":
    main()

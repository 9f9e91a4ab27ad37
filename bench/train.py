"""`make bench-train`: measure training and write `bench/results/train.json`.

    python -m bench.train [--rounds 9]

Shapes: B rows of a batch, N samples, D dimensions of features and texts.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.child import run
from bench.contest import Contest
from bench.machine import versions
from bench.memory import memory_rise
from bench.rows import at_least, at_most, print_rows, publish, row
from bench.train_step import OURS, THEIRS, Steps, clip_loss, step_rows
from bench.vectors import unit
from trainer.align.losses import symmetric_infonce

RESULTS = Path(__file__).parent / "results" / "train.json"
N, D, B, LARGE, HUGE = 20_000, 1_024, 1_024, 8_192, 32_768
WAYS = (OURS, THEIRS)


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=LARGE, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory_of:
        _print_memory(given.memory_of, given.batch)
        return
    steps = Steps(n=8 * B, dim=D, batch=B, device="cpu")
    title = f"a step, batch {B:,}, {D:,} → {D:,}"
    rows = [*step_rows(steps, title, rounds=given.rounds), *_memory(), *_feeding(given.rounds)]
    publish(RESULTS, rows, versions=versions(("torch", "numpy")), command="python -m bench.train")
    print_rows(rows)


def _memory() -> list[dict[str, Any]]:
    """The memory of the loss and its gradient alone, each measured in a separate process."""
    found: dict[str, tuple[float, float]] = {}
    runs: dict[str, list[float]] = {}
    for way in WAYS:
        measured = []
        for _ in range(5):  # allocation differs from process to process
            ended = run([sys.executable, "-m", "bench.train", "--memory-of", way])
            if ended.code:
                return [row(f"batch {LARGE:,}: {way}", None, "MB", note=ended.failure)]
            measured.append(json.loads(ended.last_line))
        megabytes, seconds = (statistics.median(column) for column in zip(*measured, strict=True))
        found[way] = megabytes, seconds
        runs[way] = [used for used, _ in measured]
    ended = run([sys.executable, "-m", "bench.train", "--memory-of", OURS, "--batch", str(HUGE)])
    huge = tuple(json.loads(ended.last_line)) if ended.code == 0 else None
    share = max(runs[OURS]) / found[THEIRS][0]  # of the worst process
    return [
        *(
            row(
                f"batch {LARGE:,}: {way}, memory of loss and gradient",
                megabytes,
                "MB",
                runs=runs[way],
                note=f"{seconds:.2f} s",
            )
            for way, (megabytes, seconds) in found.items()
        ),
        row(
            f"batch {HUGE:,}: {OURS}, memory of loss and gradient",
            huge[0] if huge else None,
            "MB",
            note=f"{huge[1]:.1f} s" if huge else ended.failure,
        ),
        row(
            f"batch {LARGE:,}: ours, share of open_clip's form's memory",
            share,
            "",
            against="open_clip's form",
            ratio=share,
            **at_most(share, 0.07, "of its memory"),
        ),
    ]


def _print_memory(way: str, batch: int) -> None:
    x_BD, t_BD = (torch.from_numpy(unit(batch, dim=D, seed=seed)) for seed in (0, 1))
    x_BD.requires_grad_()
    cold, groups_B = torch.tensor(math.log(0.07), requires_grad=True), torch.arange(batch)
    torch.randn(64, 64) @ torch.randn(64, 64)  # the product's own buffers
    with memory_rise() as rise:
        start = time.perf_counter()
        loss = (
            symmetric_infonce(x_BD, t_BD, groups_B, cold)
            if way == OURS
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

    gathered = torch.empty(B, D), torch.empty(B, D)

    def ours() -> None:
        """As trainer/align/aligner.py does it: into one buffer for all batches."""
        order = np.random.default_rng(0).permutation(N)
        for start in range(0, N - B + 1, B):
            rows = torch.from_numpy(order[start : start + B])
            for source_ND, place_BD in zip((features_ND, texts_ND), gathered, strict=True):
                torch.index_select(source_ND, 0, rows, out=place_BD)

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

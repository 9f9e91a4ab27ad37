"""`python -m bench.train_gpu`: training steps on a GPU, to `bench/results/train-gpu.json`.

Step times against the bare products and against open_clip's form, by size of batch and precision of the
products; a batch of 32,768 with the loss in blocks; the peak of memory.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.machine import versions
from bench.rows import print_rows, publish, row
from bench.train_step import THEIRS, Steps, step_rows

RESULTS = Path(__file__).parent / "results" / "train-gpu.json"
D, ROUNDS = 1_024, 7
PRECISIONS = {"highest": "float32", "high": "TF32", "medium": "bfloat16 factors"}


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("there is no GPU here")
    rows = []
    for precision, name in PRECISIONS.items():
        torch.set_float32_matmul_precision(precision)
        for batch, n in ((1_024, 64 * 1_024), (8_192, 128 * 1_024), (32_768, 128 * 1_024)):
            title = f"a step, batch {batch:,}, 1,024 → 1,024, {name}"
            compiled = batch == 1_024
            steps = Steps(n=n, dim=D, batch=batch, device="cuda", compiled=compiled)
            rows += step_rows(steps, title, rounds=ROUNDS, compiled=compiled, goals=False)
            ours, theirs = _peak(steps.ours), _peak(steps.theirs)
            rows.append(row(f"{title}: memory of ours beside the data", ours, "MB"))
            rows.append(
                row(
                    f"{title}: memory, ours of {THEIRS}",
                    ours / theirs,
                    "",
                    against=THEIRS,
                    ratio=ours / theirs,
                )
            )
            del steps
            gc.collect()
            torch.cuda.empty_cache()
    used = {**versions(("torch",)), "gpu": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)}
    publish(given.results, rows, versions=used, command="python -m bench.train_gpu")
    print_rows(rows)


def _peak(work: Callable[[], Any]) -> float:
    """The peak memory of tensors during `work`, minus that before: MB."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


if __name__ == "__main__":
    main()

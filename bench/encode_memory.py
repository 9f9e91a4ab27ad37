"""`python -m bench.encode_memory`: memory of the stage `encode` per description, and the bytes it writes.

    python -m bench.encode_memory [--sizes 100000,300000]     writes bench/results/encode-memory.json

The encoder is tiny (it counts letters), so that memory and time are those of the pipeline. Each size is
encoded in a process of its own; the slope between the largest and the smallest size is bytes per description.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.child import run
from bench.machine import versions
from bench.memory import memory_rise
from bench.rows import at_most, print_rows, publish, row
from bench.store_growth import _write_kb

RESULTS = Path(__file__).parent / "results" / "encode-memory.json"
GOAL_BYTES = 150.0


@dataclass(frozen=True)
class Letters:
    """How often each letter is in a text, as a unit vector."""

    name: str = "letters"
    identity: str = "letters"
    dim: int = 8
    modalities: frozenset[str] = frozenset({"text"})
    licence: str = "none"
    parameters: int = 0

    def prepare(self, modality: str, source: Any) -> str:
        """The text."""
        return str(source)

    def encode(self, batch: Sequence[str]) -> Any:
        """float32[N, 8]."""
        counts = np.array([[1 + text.count(letter) for letter in "etaoinsr"] for text in batch], np.float64)
        counts = counts.reshape(-1, 8)
        return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", default="100000,300000")
    sizes = [int(size) for size in parser.parse_args().sizes.split(",")]
    rows, rises = [], []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for size in sizes:
            kb = Path(folder) / str(size)
            _write_kb(kb, size)
            ended = run([sys.executable, "-m", "bench.encode_memory", "--step", kb])
            if ended.code:
                raise RuntimeError(ended.failure)
            seconds, peak_mb, rise_mb, digest = json.loads(ended.last_line)
            rises.append(rise_mb)
            note = f"{peak_mb:.0f} MB at the peak; SHA-256 of all files {digest[:16]}"
            rows.append(row(f"encode {size:,}: memory of the stage", rise_mb, "MB", note=note))
            rows.append(row(f"encode {size:,}: time", seconds, "s"))
    slope = 1e6 * (rises[-1] - rises[0]) / (sizes[-1] - sizes[0])
    rows.append(row("memory per description", slope, "bytes", **at_most(slope, GOAL_BYTES, "bytes")))
    publish(RESULTS, rows, versions=versions(("numpy", "pyarrow")), command="python -m bench.encode_memory")
    print_rows(rows)


def step(kb: Path) -> None:
    """Encode the texts of a knowledge base in this process; prints seconds, megabytes and a hash."""
    import torch  # noqa: F401  (imports are not part of the stage)

    from kb_builder.encode import embed
    from kb_builder.settings import Encode

    vars(embed)["load_encoder"] = lambda name, device="cpu": Letters()
    with memory_rise() as rise:
        start = time.perf_counter()
        embed.embed_texts(kb, Encode())
        seconds = time.perf_counter() - start
    digest = hashlib.sha256()
    for path in sorted((kb / "embeddings").rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(kb).as_posix().encode() + path.read_bytes())
    print(json.dumps([seconds, rise.peak_mb, rise.mb, digest.hexdigest()]))


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--step":
        step(Path(sys.argv[2]))
    else:
        main()

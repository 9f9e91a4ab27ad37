"""`make bench-store`: measure the embedding store and its readers; write `bench/results/store.json`.

    python -m bench.store [--only load|localize|score|encode|growth] [--rounds 5] [--scale 1.0]

Peers come from `make bench-peers`. A part that is left out keeps its earlier rows.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from bench.machine import versions
from bench.rows import last_rows, print_rows, publish

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "store.json"
PEERS = HERE / ".venvs" / "store"
PACKAGES = ("numpy", "torch", "pyarrow", "duckdb", "isal", "sentence-transformers")
PEER_PACKAGES = ("faiss-cpu", "usearch", "embedding-reader", "onnxruntime")
# Part: the module and the function that measure it.
PARTS = {
    "load": ("bench.store_load", "measure_load"),
    "localize": ("bench.store_search", "measure_localize"),
    "score": ("bench.store_search", "measure_score"),
    "index": ("bench.store_index", "measure_index"),
    "encode": ("bench.store_encode", "measure_encode"),
    "growth": ("bench.store_growth", "measure_growth"),
}


def main() -> None:
    """Measure what is asked for, and write the results after each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the sizes that goals are set for")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if not PEERS.is_dir():
        sys.exit("the peers are not installed: run `make bench-peers`")
    sys.path.append(str(PEERS))  # at the end, so that packages installed here have precedence
    parts = {name: rows for name, rows in last_rows(given.results).items() if name in PARTS}
    for name in given.only or PARTS:
        module, function = PARTS[name]
        measured = getattr(importlib.import_module(module), function)(rounds=given.rounds, scale=given.scale)
        parts[name] = measured
        rows = [{"part": part, **row} for part in PARTS for row in parts.get(part, [])]
        command = f"python -m bench.store --scale {given.scale:g}"
        publish(given.results, rows, versions=versions(PACKAGES + PEER_PACKAGES), command=command)
        print_rows(measured)


if __name__ == "__main__":
    main()

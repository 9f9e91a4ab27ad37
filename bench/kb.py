"""`make bench-kb`: measure the knowledge-base builder and write `bench/results/kb.json`.

    python -m bench.kb [--only rate|million] [--rounds 3] [--cycles 1.0] [--scale 1.0]

`rate` compares requests per second with other builders (`make bench-peers` installs them), `million` builds
a knowledge base of a million descriptions. A part that is left out keeps its earlier rows.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.machine import versions
from bench.million import measure_million
from bench.rate import PEERS, measure_rates
from bench.rows import last_rows, print_rows, publish

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "kb.json"
PACKAGES = ("openai", "aiohttp", "duckdb", "pyarrow")
PARTS = ("rate", "million")


def main() -> None:
    """Measure what is asked for, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; default: all")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender")
    parser.add_argument("--cycles", type=float, default=1.0, help="scales the requests of each turn")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the million")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    parts = {name: rows for name, rows in last_rows(given.results).items() if name in PARTS}
    for name in given.only or PARTS:
        parts[name] = (
            measure_rates(Path(sys.executable), rounds=given.rounds, cycles=given.cycles)
            if name == "rate"
            else measure_million(scale=given.scale)
        )
    rows = [{"part": name, **row} for name in PARTS for row in parts.get(name, [])]
    command = "python -m bench.kb " + " ".join(sys.argv[1:])
    publish(given.results, rows, versions=versions(PACKAGES) | _peer_versions(), command=command)
    print_rows(rows)


def _peer_versions() -> dict[str, str]:
    """The versions of the peers that are installed."""
    found = {}
    for peer in PEERS:
        site = HERE / ".venvs" / peer / "lib"
        for info in site.glob(f"*/site-packages/{peer.replace('-', '_')}-*.dist-info"):
            found[peer] = info.name.removesuffix(".dist-info").rpartition("-")[2]
    return found


if __name__ == "__main__":
    main()

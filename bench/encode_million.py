"""`python -m bench.encode_million`: the stage `encode` over a million descriptions, one process per encoder.

    python -m bench.encode_million [--texts 1000000] [--encoders onnx-int8:minilm,minilm]

Writes `bench/results/encode-million.json`. The texts have 15 to 30 words and are all different. The first
encoder is compared with the last one: its speed over the whole stage, and the least cosine of their vectors.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.child import run
from bench.machine import others_share, versions
from bench.memory import memory_rise
from bench.rows import at_least, print_rows, publish, row
from bench.store_growth import _write_kb
from bench.vectors import texts

RESULTS = Path(__file__).parent / "results" / "encode-million.json"
PROBED = 2_000
FASTER, COSINE = 2.5, 0.998  # goals of the 8-bit network


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--encoders", default="onnx-int8:minilm,minilm")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    encoders = given.encoders.split(",")
    rows: list[dict[str, Any]] = []
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        kb = Path(place) / "kb"
        _write_kb(kb, given.texts)
        for name in encoders:
            busy = others_share()
            ended = run([sys.executable, "-m", "bench.encode_million", "--step", kb, name])
            if ended.code:
                raise RuntimeError(ended.failure)
            seconds[name], peak_mb, rise_mb = json.loads(ended.last_line)
            rate = given.texts / seconds[name]
            note = (
                f"{rate:,.0f} texts/s; {ended.cpu_s:,.0f} s of CPU; other programs used {busy:.0%} before it"
            )
            rows.append(row(f"encode {given.texts:,} texts: {name}", seconds[name], "s", note=note))
            note = f"{rise_mb:,.0f} MB its own"
            rows.append(
                row(f"encode {given.texts:,} texts: {name}, peak of memory", peak_mb, "MB", note=note)
            )
            print_rows(rows[-2:])
    first, last = encoders[0], encoders[-1]
    if first != last:
        ratio, cosine = seconds[last] / seconds[first], least_cosine(first, last)
        rows.append(
            row(f"{first} against {last}", ratio, "times as fast", against=last, ratio=ratio)
            | at_least(ratio, FASTER)
        )
        rows.append(
            row(f"{first}: least cosine with {last}", cosine, "", ratio=cosine, note=f"{PROBED:,} texts")
            | at_least(cosine, COSINE)
        )
        print_rows(rows[-2:])
    command = f"python -m bench.encode_million --texts {given.texts} --encoders {given.encoders}"
    named = versions(("numpy", "torch", "onnxruntime", "pyarrow"))
    publish(given.results, rows, versions=named, command=command)


def step(kb: Path, name: str) -> None:
    """Encode in this process; prints seconds and megabytes."""
    from kb_builder.encode.embed import embed_texts
    from kb_builder.encoders import load_encoder
    from kb_builder.settings import Encode

    load_encoder(name)  # an export is made once for a machine
    with memory_rise() as rise:
        start = time.perf_counter()
        embed_texts(kb, Encode(text=name))
        seconds = time.perf_counter() - start
    print(json.dumps([seconds, rise.peak_mb, rise.mb]))


def least_cosine(first: str, last: str) -> float:
    """The least cosine of two encoders' vectors of the same texts."""
    from kb_builder.encoders import load_encoder

    written = texts(PROBED)
    vectors = [
        np.concatenate([encoder.encode(written[at : at + 64]) for at in range(0, PROBED, 64)])
        for encoder in map(load_encoder, (first, last))
    ]
    return float(np.vecdot(*vectors).min())


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "--step":
        step(Path(sys.argv[2]), sys.argv[3])
    else:
        main()

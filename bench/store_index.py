"""Part `index` of `make bench-store`: from how many queries on would an approximate index pay?

An index (usearch, HNSW) answers a query faster than exact search, not always with the true neighbours, and
must first be built. The gallery consists of clusters, as descriptions of categories do: random directions
would be the hardest case, which no real gallery is.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from bench.rows import row
from bench.vectors import DIM, unit
from trainer.score.topk import nearest

SIZES = (100_000, 1_000_000)
QUERIES, TOP = 1_000, 10
CLUSTER = 1_000  # rows around one center
SPREAD = 0.06  # standard deviation of each coordinate around it: cosines of 0.4 within a cluster
EFFORTS = (64, 128, 256, 512)  # `expansion_search`: higher values find more, and take longer
RECALL = 0.95


def measure_index(*, rounds: int, scale: float) -> list[dict[str, Any]]:
    """The rows: for each size the seconds of both, the recall, and the number of queries where they meet."""
    return [each for size in SIZES for each in _compare(int(size * scale), rounds)]


def _compare(n: int, rounds: int) -> list[dict[str, Any]]:
    from usearch.index import Index

    gallery_ND = _clustered(n, seed=4)
    queries_ND = gallery_ND[np.random.default_rng(5).choice(n, QUERIES, replace=False)]
    queries_ND = _unit(queries_ND + SPREAD * np.random.default_rng(6).standard_normal(queries_ND.shape))
    exact, exact_s = _timed(lambda: nearest(queries_ND, gallery_ND, TOP)[0], rounds)
    index = Index(ndim=DIM, metric="ip", dtype="f16")
    start = time.perf_counter()
    index.add(np.arange(n), gallery_ND)
    build_s = time.perf_counter() - start
    title = f"{TOP} nearest of {n:,}"
    rows = [
        row(f"{title}: exact, {QUERIES:,} queries", exact_s, "s"),
        row(f"{title}: usearch, building the index", build_s, "s"),
    ]
    for effort in EFFORTS:
        index.expansion_search = effort
        found, seconds = _timed(lambda: index.search(queries_ND, TOP).keys, rounds)
        recall = float(np.mean([len(np.intersect1d(a, b)) / TOP for a, b in zip(found, exact, strict=True)]))
        rows.append(
            row(
                f"{title}: usearch, {QUERIES:,} queries, effort {effort}",
                seconds,
                "s",
                against="exact",
                ratio=exact_s / seconds,
                note=f"recall {recall:.3f}",
            )
        )
        if recall >= RECALL or effort == EFFORTS[-1]:
            saved = (exact_s - seconds) / QUERIES
            rows.append(
                row(
                    f"{title}: queries from which on the index pays, at recall {recall:.3f}",
                    build_s / saved if saved > 0 else None,
                    "queries",
                    note=None if saved > 0 else "exact search is faster",
                )
            )
            break
    return rows


def _clustered(n: int, *, seed: int) -> Any:
    centers_CD = unit(max(1, n // CLUSTER), seed=seed)
    draw = np.random.default_rng(seed + 1)
    x_ND = np.empty((n, DIM), np.float32)
    for start in range(0, n, CLUSTER):
        block_ND = x_ND[start : start + CLUSTER]
        draw.standard_normal(out=block_ND, dtype=np.float32)
        block_ND *= SPREAD
        block_ND += centers_CD[min(start // CLUSTER, len(centers_CD) - 1)]
        block_ND[:] = _unit(block_ND)
    return x_ND


def _unit(x_ND: Any) -> Any:
    return (x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)).astype(np.float32)


def _timed(work: Any, rounds: int) -> tuple[Any, float]:
    result, seconds = work(), []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return result, float(np.median(seconds))

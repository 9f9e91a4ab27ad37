"""Parts `localize` and `score` of `make bench-store`: choose descriptions, and find the nearest centers.

Shapes: N descriptions or queries, M centers, C categories, D dimensions, K centers per category.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from bench.child import run
from bench.contest import Contest
from bench.memory import memory_rise
from bench.rows import at_least, at_most, row
from bench.vectors import DIM, unit
from data.environment import cores
from trainer.localize.rules import rank_by_mean
from trainer.records import Centers
from trainer.score.blas import numpy_product, parallel_map, torch_product
from trainer.score.scoring import score

CATEGORIES, TEXTS, K = 1_000, 1_000, 50
QUERIES, FEW_QUERIES = 50_000, 5_000
FLOOR = "floor (one read, one product)"
TILES = ((512, 500), (512, 1_000), (512, 2_500), (1_024, 1_000))  # queries × centers


def measure_localize(*, rounds: int, scale: float) -> list[dict[str, Any]]:
    """The 50 best of a thousand descriptions in each of a thousand categories, by the samples' mean."""
    import faiss
    from usearch.index import MetricKind, search

    n = int(CATEGORIES * scale)
    vectors_ND, guides_CD = unit(n * TEXTS), unit(n, seed=1)
    starts_C1 = np.arange(0, n * TEXTS + 1, TEXTS)
    owner_N = np.repeat(np.arange(n), TEXTS)
    out_N = np.empty(n * TEXTS, np.float32)

    def blocks() -> Iterator[tuple[int, Any]]:
        return ((c, vectors_ND[c * TEXTS : (c + 1) * TEXTS]) for c in range(n))

    def loop() -> Any:
        """The straightforward implementation: each category's rows by a mask, cosine with the mean, topk."""
        x_ND, owners_N, found = torch.from_numpy(vectors_ND), torch.from_numpy(owner_N), []
        for category in range(n):
            rows = torch.nonzero(owners_N == category)[:, 0]
            own = torch.nn.functional.normalize(x_ND[rows], dim=-1)
            mean = torch.nn.functional.normalize(torch.from_numpy(guides_CD[category]), dim=0)
            found.append(rows[torch.topk(own @ mean, K).indices].numpy())
        return np.stack(found)

    def by_faiss() -> Any:
        return np.stack(
            [
                faiss.knn(guides_CD[c : c + 1], own, K, metric=faiss.METRIC_INNER_PRODUCT)[1][0] + c * TEXTS
                for c, own in blocks()
            ]
        )

    def by_usearch() -> Any:
        return np.stack(
            [
                search(own, guides_CD[c], K, MetricKind.IP, exact=True).keys.astype(np.int64) + c * TEXTS
                for c, own in blocks()
            ]
        )

    def floor() -> None:
        """Read all vectors once and multiply each once, without choosing any."""

        def multiply(category: int) -> None:
            rows = slice(category * TEXTS, (category + 1) * TEXTS)
            np.dot(vectors_ND[rows], guides_CD[category], out=out_N[rows])

        with threadpool_limits(1, user_api="blas"):
            parallel_map(multiply, range(n))

    contenders: dict[str, Callable[[], Any]] = {
        "ours": lambda: rank_by_mean(vectors_ND, starts_C1, guides_CD, K)[0],
        "Python loop, topk": loop,
        "faiss.knn per category": by_faiss,
        "usearch exact per category": by_usearch,
    }
    chosen = {name: np.sort(choose(), axis=1) for name, choose in contenders.items()}
    for name, rows_CK in chosen.items():
        same = (rows_CK == chosen["ours"]).mean()
        if same < 0.9999:  # float32 reverses a few near-ties
            raise AssertionError(f"{name} chooses other descriptions: {same:.2%} agree")
    contest = Contest({**contenders, FLOOR: floor}, rounds=rounds)
    title = f"localize {n:,} × {TEXTS:,} × {DIM}, K = {K}"
    rows = _times(title, contest, [*contenders, FLOOR])
    goals = (("Python loop, topk", 8.0), ("usearch exact per category", 1.5), ("faiss.knn per category", 0.9))
    return [*rows, *(_against(title, contest, other, goal) for other, goal in goals)]


def _times(title: str, contest: Contest, names: Iterable[str]) -> list[dict[str, Any]]:
    return [row(f"{title}: {name}", contest.median(name), "s", runs=contest.seconds[name]) for name in names]


def _against(title: str, contest: Contest, other: str, goal: float) -> dict[str, Any]:
    ratio = contest.ratio("ours", other)
    return row(
        f"{title}: ours against {other}",
        ratio,
        "times as fast",
        against=other,
        ratio=ratio,
        **at_least(ratio, goal),
    )


def measure_score(*, rounds: int, scale: float) -> list[dict[str, Any]]:
    """The nearest of 50,000 centers for 50,000 queries; for 5,000, compared with the official code."""
    import faiss

    n, few = int(QUERIES * scale), int(FEW_QUERIES * scale)
    queries_ND, centers = unit(n, seed=2), _centers(int(CATEGORIES * scale))
    centers_MD = centers.vectors_ND
    index = faiss.IndexFlatIP(DIM)
    index.add(centers_MD)
    ways = {
        f"bare tiles {q} × {m}, {name}": (q, m, product)
        for q, m in TILES
        for name, product in (("numpy", numpy_product), ("torch", torch_product))
    }

    def by_faiss() -> Any:
        with threadpool_limits(cores()):  # none of the others may leave it with one thread
            return index.search(queries_ND, 1)[1][:, 0]

    # The best tiling is found on a part, so that the long turns are spent on one.
    some_ND = queries_ND[: n // 10]
    trials = Contest(
        {name: (lambda way=way: tiled_nearest(some_ND, centers_MD, *way)) for name, way in ways.items()},
        rounds=3,
    )
    best = min(ways, key=trials.median)
    contenders: dict[str, Callable[[], Any]] = {
        "ours": lambda: score(queries_ND, centers, top=1).why_NT[:, 0],
        "faiss IndexFlatIP": by_faiss,
        best: lambda: tiled_nearest(queries_ND, centers_MD, *ways[best]),
    }
    found = {name: nearest() for name, nearest in contenders.items()}
    for name, row_N in found.items():
        if (same := (row_N == found["ours"]).mean()) < 0.9999:
            raise AssertionError(f"{name} finds other centers: {same:.2%} agree")
    contest = Contest(contenders, rounds=rounds)
    title = f"nearest of {len(centers_MD):,} centers, {n:,} queries"
    rows = _times(title, contest, contenders)
    rows += [
        _against(title, contest, "faiss IndexFlatIP", 1.1),
        _against(title, contest, best, round(1 / 1.1, 3)),
    ]
    return [*rows, *_official(few, int(CATEGORIES * scale), rounds)]


def tiled_nearest(queries_ND: Any, centers_MD: Any, q: int, m: int, product: Any) -> Any:
    """The bare product in tiles with a running maximum: a bound of what the machine can do."""
    best_N = np.empty(len(queries_ND), np.int64)

    def work(start: int) -> None:
        torch.set_num_threads(1)
        x_DQ = np.ascontiguousarray(queries_ND[start : start + q].T)
        width = x_DQ.shape[1]
        buffer = np.empty((m, width), np.float32)
        top_Q, where_Q = np.full(width, -np.inf, np.float32), np.zeros(width, np.int64)
        for first in range(0, len(centers_MD), m):
            block = centers_MD[first : first + m]
            out = buffer[: len(block)]
            product(block, x_DQ, out)
            highest = out.max(axis=0)
            for at in np.flatnonzero(highest > top_Q):
                top_Q[at], where_Q[at] = highest[at], first + int(out[:, at].argmax())
        best_N[start : start + q] = where_Q

    before = torch.get_num_threads()
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(cores()) as pool:
        list(pool.map(work, range(0, len(queries_ND), q)))
    torch.set_num_threads(before)
    return best_N


def _centers(categories: int) -> Centers:
    names = tuple(f"category-{number:04d}" for number in range(categories))
    rows = tuple(f"{number:016x}" for number in range(categories * K))
    return Centers(names, rows, np.repeat(np.arange(categories), K), unit(categories * K, seed=3))


def _official(n: int, categories: int, rounds: int) -> list[dict[str, Any]]:
    """Both ways in separate processes, so that their peaks of memory are independent."""
    seconds: dict[str, list[float]] = {"ours": [], "official": []}
    peaks: dict[str, list[float]] = {"ours": [], "official": []}
    for _ in range(rounds):
        for way in seconds:
            ended = run([sys.executable, "-m", "bench.store_search", way, str(n), str(categories)])
            if ended.code:
                return [row(f"{way}, {n:,} queries", None, "s", note=ended.failure)]
            wall, megabytes = json.loads(ended.last_line)
            seconds[way].append(wall)
            peaks[way].append(megabytes)
    ratio = float(np.median(np.divide(seconds["official"], seconds["ours"])))
    memory = float(np.median(np.divide(peaks["ours"], peaks["official"])))
    title = f"nearest of {categories * K:,} centers, {n:,} queries"
    return [
        *(row(f"{title}: {way}", float(np.median(seconds[way])), "s", runs=seconds[way]) for way in seconds),
        *(
            row(
                f"{title}: {way}, memory beside the data", float(np.median(peaks[way])), "MB", runs=peaks[way]
            )
            for way in peaks
        ),
        row(
            f"{title}: ours against the official way",
            ratio,
            "times as fast",
            against="official",
            ratio=ratio,
            **at_least(ratio, 2.0),
        ),
        row(
            f"{title}: ours, share of the official way's memory",
            memory,
            "",
            against="official",
            ratio=memory,
            **at_most(memory, 0.1, "of its memory"),
        ),
    ]


def _one_way(way: str, n: int, categories: int) -> None:
    """Print the seconds of the second of two runs, and the memory of both above that of the data."""
    queries_ND, centers = unit(n, seed=2), _centers(categories)

    def official() -> Any:
        """UniBind's published code: a softmax over all centers of every query, then `topk` row by row."""
        logits = torch.from_numpy(queries_ND) @ torch.from_numpy(centers.vectors_ND).T
        shares = torch.softmax(logits, dim=-1)
        return [int(torch.topk(shares[i], 1).indices[0]) // K for i in range(n)]

    def ours() -> Any:
        return score(queries_ND, centers, top=1).categories_NT[:, 0].tolist()

    choose = {"ours": ours, "official": official}[way]
    with memory_rise() as rise:
        choose()
        start = time.perf_counter()
        choose()
        wall = time.perf_counter() - start
    print(json.dumps([wall, rise.mb]))


if __name__ == "__main__":
    _one_way(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

"""`make bench-ui`: the web app over 100,000 samples; writes `bench/results/ui.json`.

    python -m bench.ui [--samples 100000 --categories 1000 --samples 1000000 --categories 100] [--queries 20]

The project is planted (bench/planted.py): one modality, a thousand categories, and the text encoder's real
identity, so that words are encoded by the real model. Measured for each number of samples: from the start of
the command to the first page; warm pages; a query of words, alone, as the server answers it, and from Enter
to the results in headless Chromium (bench/ui_browser.py); frames of the map; the server's memory.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from bench.fake import UNIBIND
from bench.machine import versions, wait_for_quiet
from bench.planted import plant
from bench.rows import at_most, median, print_rows, publish, row
from bench.ui_browser import browser_rows
from data.files import write_json
from kb_builder.store.table import read_vectors, write_vectors

RESULTS = Path(__file__).parent / "results" / "ui.json"
QUERY_MS = 300.0  # goal, of a warm query on 100,000 samples
CENTERS = 16  # of each category; as many texts, and as many of each control
PAGES = {
    "the first page": "/",
    "the gallery": "/samples",
    "the gallery, least confident first": "/samples?order=unsure",
    "the gallery, 90,000 samples on": "/samples?page=1876",
    "a sample": "/sample?id=sample-000100",
    "the categories": "/categories",
    "a category": "/category?id=category-0007",
    "results with the confusion matrix": "/results",
    "the run": "/run",
    "SQL": "/sql?q=FROM+v_samples+LIMIT+100",
}
_WAITS = "Recognising every sample"  # what a page says until the answers for all samples are there
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, action="append")
    parser.add_argument("--categories", type=int, action="append")
    parser.add_argument("--queries", type=int, default=30)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    samples = given.samples or [100_000]
    categories = given.categories or [1000] * len(samples)
    if len(categories) != len(samples):
        parser.error("give --categories for each --samples")
    rows: list[dict[str, Any]] = []
    command = "python -m bench.ui"
    for size in zip(samples, categories, strict=True):
        command += f" --samples {size[0]} --categories {size[1]}"
        found = measure(*size, given.queries)
        rows += [{**each, "name": f"{size[0]:,} samples: {each['name']}"} for each in found]
        print_rows(rows[-len(found) :])
        publish(
            given.results,
            rows,
            versions=versions(("nicegui", "duckdb", "numpy", "torch", "playwright")),
            command=f"{command} --queries {given.queries}",
        )


def measure(samples: int, categories: int, queries: int) -> list[dict[str, Any]]:
    """The rows for a planted project with that many samples."""
    with tempfile.TemporaryDirectory(prefix="bench-ui-") as place:
        project = _make(Path(place), samples, categories)
        others = wait_for_quiet(0.10, at_most_s=20)
        words = [f"a small red thing, number {number}" for number in range(queries)]
        rows = [row("cores that other programs used when it began", 100 * others, "%")]
        rows += _searched(project, words)
        with _server(project) as (base, pid, first_s):
            rows.append(row("from the command to the first page", first_s, "s"))
            rows.append(row("until every page is warm", _warmed(base), "s"))
            for name, path in PAGES.items():
                times = [1e3 * _get(base + path)[0] for _ in range(8)][1:]
                rows.append(row(f"{name}, as the server answers", median(times), "ms", runs=times))
            rows.append(_search_page(base, words))
            rows += browser_rows(base, QUERY_MS)
            rows.append(row("memory of the server, at most", _peak_mib(pid), "MiB"))
    return rows


def _make(folder: Path, samples: int, categories: int) -> Path:
    """A planted project that words can be searched in, localized."""
    from kb_builder.encoders import load_encoder
    from trainer.localize.choose import localize
    from trainer.settings import Localize

    path = folder / "planted.toml"
    path.write_text('name = "planted"\n[data]\nmanifest = "m.csv"\n', encoding="utf-8")
    (folder / "m.csv").write_text("sample_id,uri\n", encoding="utf-8")
    kb = folder / "runs" / "planted" / "kb"
    encoder = load_encoder("minilm")
    val = samples // 10
    plant(
        kb,
        categories=categories,
        k=CENTERS,
        test=samples - val - categories,
        val=val,
        dim=encoder.dim,
    )
    texts = kb / "embeddings" / "texts"
    for table in ("category_texts", "controls"):
        found = read_vectors(texts / table)
        shutil.rmtree(texts / table)
        write_vectors(
            texts / table,
            ids=found.ids,
            groups=found.groups,
            vectors_ND=found.vectors_ND,
            encoder=encoder.identity,
        )
    common = {"dim": encoder.dim, "dtype": "float32"}
    card = {"name": "minilm", "identity": encoder.identity, "modalities": ["text"], **common}
    write_json(texts / "encoder.json", card)
    shared = kb / "embeddings" / "shared"
    write_json(shared / "encoder.json", {"name": "shared", "identity": "", "modalities": ["image"], **common})
    write_json(kb.parent / "metrics.json", {"recognition": []})  # evaluated, so that the matrix is shown
    localize(kb, Localize(k=CENTERS, rule="text"))
    return path


def _searched(project: Path, words: Sequence[str]) -> list[dict[str, Any]]:
    """What the app itself does, without server and browser: its loading, its queries, the map."""
    from pipeline.predict.search import Query
    from pipeline.project import load_project
    from pipeline.ui.maps import point_cloud
    from pipeline.ui.state import open_desk

    desk = open_desk([load_project(project)])
    opened = desk.project(None)
    load_s = _timed(opened.searcher)
    first_s = _timed(lambda: opened.search([Query("text", "a first query")], top=8))
    answers_s = _timed(opened.answers)
    whole, encode, search = [], [], []
    for each in words:
        started = time.perf_counter()
        timed = opened.search([Query("text", each)], top=8)
        whole.append(1e3 * (time.perf_counter() - started))
        encode.append(timed.encode_ms)
        search.append(timed.search_ms)
    map_s = _timed(lambda: point_cloud(opened, "zero_shot"))
    size = len(point_cloud(opened, "zero_shot").body) / 2**20
    desk.close()
    ms = median(whole)
    return [
        row("loading the project to search", load_s, "s"),
        row("the first query, which loads the text encoder", first_s, "s"),
        row("the answers for all samples", answers_s, "s"),
        row("a query of words", ms, "ms", runs=whole, **at_most(ms, QUERY_MS, "ms")),
        row("of it, encoding the words", median(encode), "ms"),
        row("of it, samples and categories", median(search), "ms"),
        row("making the map", map_s, "s"),
        row("the map as it is sent", size, "MiB"),
    ]


@contextmanager
def _server(project: Path) -> Iterator[tuple[str, int, float]]:
    """`unibind ui` on a free port: its address, its process, the seconds until its first page was there."""
    started = time.perf_counter()
    command = [str(UNIBIND), "ui", str(project), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=project.parent) as server:
        try:
            assert server.stdout is not None
            found = re.match(r"http://127\.0\.0\.1:\d+", server.stdout.readline())
            if found is None:
                sys.exit("the server ended before it gave its address")
            _get(f"{found[0]}/")
            yield found[0], server.pid, time.perf_counter() - started
        finally:
            server.terminate()


def _warmed(base: str) -> float:
    """Seconds until every page has what it needs; the map is not made yet."""
    started = time.perf_counter()
    for path in (*PAGES.values(), "/?q=warm"):
        while _WAITS in _get(base + path)[1]:
            time.sleep(0.5)
    return time.perf_counter() - started


def _search_page(base: str, words: Sequence[str]) -> dict[str, Any]:
    """A search as a page that the server sends; the results are in it where they are found soon enough."""
    times, at_once = [], 0
    for each in words:
        seconds, body = _get(f"{base}/?q={quote_plus(each)}")
        times.append(1e3 * seconds)
        at_once += "Nearest samples" in body
    note = f"{at_once} of {len(words)} pages came with their results"
    ms = median(times)
    return row(
        "a query of words, as the server answers",
        ms,
        "ms",
        runs=times,
        note=note,
        **at_most(ms, QUERY_MS, "ms"),
    )


def _get(address: str) -> tuple[float, str]:
    """The seconds that a request takes, and the answer."""
    started = time.perf_counter()
    with _NO_PROXY.open(address, timeout=600) as answer:
        body = answer.read().decode()
    return time.perf_counter() - started, body


def _peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    (line,) = [each for each in status.splitlines() if each.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()

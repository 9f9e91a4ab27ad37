"""`make bench-ui`: the web app over 100,000 samples; writes `bench/results/ui.json`.

    python -m bench.ui [--samples 100000] [--categories 1000] [--queries 30]

The project is planted (bench/planted.py): one modality, a thousand categories, and the text encoder's real
identity, so that words are encoded by the real model. Measured: from the start of the command to the first
page; a page once it is warm; a query of words, alone and within the page; a page deep in the gallery; the
map, from its making to a frame in headless Chromium (where one is installed); and the server's memory.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.fake import UNIBIND
from bench.machine import versions, wait_for_quiet
from bench.planted import plant
from bench.rows import at_most, median, print_rows, publish, row
from data.files import write_json
from kb_builder.store.table import read_vectors, write_vectors

RESULTS = Path(__file__).parent / "results" / "ui.json"
QUERY_MS = 300.0  # goal, of a warm query on 100,000 samples
PORT = 8649
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_PAN = """\
async () => {
  const canvas = document.querySelector(".map canvas"), times = [];
  canvas.focus();
  for (let i = 0; i < 60; i++) {
    const key = i % 2 ? "ArrowLeft" : "ArrowRight";
    canvas.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    times.push(Number(canvas.dataset.ms));
  }
  return times.sort((a, b) => a - b)[30];
}"""


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--categories", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=30)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-ui-") as place:
        project = _make(Path(place), given.samples, given.categories)
        wait_for_quiet(0.10, at_most_s=60)
        rows = _in_process(project, given.queries) + _served(project, given.samples)
    print_rows(rows)
    command = f"python -m bench.ui --samples {given.samples} --categories {given.categories}"
    packages = ("nicegui", "duckdb", "numpy", "torch")
    publish(given.results, rows, versions=versions(packages), command=command)


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
    plant(kb, categories=categories, k=16, test=samples - val - categories, val=val, dim=encoder.dim)
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
    localize(kb, Localize(k=16, rule="text"))
    return path


def _in_process(project: Path, queries: int) -> list[dict[str, Any]]:
    """Queries, the gallery and the making of the map, without a browser."""
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
    for number in range(queries):
        started = time.perf_counter()
        timed = opened.search([Query("text", f"a small red thing, number {number}")], top=8)
        whole.append(1e3 * (time.perf_counter() - started))
        encode.append(timed.encode_ms)
        search.append(timed.search_ms)
    deep = [
        1e3
        * _timed(
            lambda: opened.rows(
                "SELECT s.sample_id, a.named FROM v_samples AS s LEFT JOIN answers AS a USING (sample_id)"
                " ORDER BY s.sample_id LIMIT 48 OFFSET 90000",
                answers=True,
            )
        )
        for _ in range(6)
    ][1:]
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
        row("a page of the gallery, 90,000 samples on", median(deep), "ms", runs=deep),
        row("making the map", map_s, "s"),
        row("the map as it is sent", size, "MiB"),
    ]


def _served(project: Path, samples: int) -> list[dict[str, Any]]:
    """The server: its first page, pages once warm, the map in a browser, its memory."""
    base = f"http://127.0.0.1:{PORT}"
    started = time.perf_counter()
    command = [str(UNIBIND), "ui", str(project), "--port", str(PORT)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=project.parent) as server:
        try:
            while _get(f"{base}/") is None:
                if server.poll() is not None:
                    sys.exit("the server ended")
                time.sleep(0.02)
            first = time.perf_counter() - started
            while (_get(f"{base}/samples") or 9.0) > 2.0:  # until the answers for all samples are there
                time.sleep(0.5)
            rows = [row("from the command to the first page", first, "s")]
            for name, path in (("the first page", "/"), ("the gallery", "/samples"), ("SQL", "/sql")):
                times = [1e3 * (_get(f"{base}{path}") or 0.0) for _ in range(10)]
                rows.append(row(f"{name}, warm", median(times), "ms", runs=times))
            rows += _in_browser(base, samples)
            rows.append(row("memory of the server, at most", _peak_mib(server.pid), "MiB"))
        finally:
            server.terminate()
    return rows


def _in_browser(base: str, samples: int) -> list[dict[str, Any]]:
    """What a person waits for, in headless Chromium: a search to its results, and a frame of the map."""
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        return [row("a search in the browser", None, "ms", note="no Chromium is on PATH")]
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        searches = []
        for words in ("warm", "a", "b", "c", "d"):
            started = time.perf_counter()
            page.goto(f"{base}/?q={words}")
            page.get_by_text("Nearest samples").wait_for(timeout=120_000)
            searches.append(1e3 * (time.perf_counter() - started))
        started = time.perf_counter()
        page.goto(f"{base}/space")
        page.wait_for_selector(".map canvas[data-ms]", timeout=300_000)
        map_s = time.perf_counter() - started
        frame_ms = float(page.evaluate(_PAN))
        browser.close()
    return [
        row("a search in the browser, address to results", median(searches[1:]), "ms", runs=searches[1:]),
        row("the map in the browser, made and drawn", map_s, "s"),
        row(
            "a frame of the map, drawn by the processor",
            frame_ms,
            "ms",
            note=f"{1000 / max(frame_ms, 1e-3):.0f} frames a second would fit; {samples:,} samples",
        ),
    ]


def _get(address: str) -> float | None:
    """The seconds that a request takes; None while the server does not answer yet."""
    started = time.perf_counter()
    try:
        with urllib.request.urlopen(address, timeout=600) as answer:
            answer.read()
    except OSError:
        return None
    return time.perf_counter() - started


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

"""What a person waits for in the web app, in headless Chromium: a search, frames of the map."""

from __future__ import annotations

import re
import shutil
import time
from typing import Any

from bench.rows import at_most, median, row

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLUID = 30.0  # goal: frames a second while the map is moved
SECONDS = 4.0  # of moving
_WAIT_MS = 300_000
_MOVES = {
    "while it is moved": ["ArrowRight"] * 10 + ["ArrowLeft"] * 20 + ["ArrowRight"] * 10,
    "while it is zoomed": ["+"] * 12 + ["-"] * 12,
}
# A key in every frame that the browser gives, for some seconds; every drawing of the map is counted.
_MOVE = """\
async ([keys, seconds]) => {
  const canvas = document.querySelector(".map canvas"), gaps = [], draws = [];
  const watch = new MutationObserver(() => draws.push(Number(canvas.dataset.ms)));
  watch.observe(canvas, { attributes: true, attributeFilter: ["data-ms"] });
  const started = performance.now();
  let last = await new Promise(requestAnimationFrame);
  for (let i = 0; performance.now() - started < 1000 * seconds; i++) {
    canvas.dispatchEvent(new KeyboardEvent("keydown", { key: keys[i % keys.length], bubbles: true }));
    const now = await new Promise(requestAnimationFrame);
    gaps.push(now - last);
    last = now;
  }
  watch.disconnect();
  const sorted = (list) => [...list].sort((a, b) => a - b);
  const at = (list, share) => sorted(list)[Math.min(list.length - 1, Math.floor(share * list.length))];
  const frames = draws.length / ((performance.now() - started) / 1000);
  return { frames, gap: at(gaps, 0.5), slow: at(gaps, 0.95), draw: at(draws, 0.5) };
}"""


def browser_rows(base: str, query_ms: float) -> list[dict[str, Any]]:
    """The rows of a warm server at `base`; one that says so where no browser is installed.

    `query_ms` is the goal for a search.
    """
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        return [row("a search in the browser", None, "ms", note="no Chromium is on PATH")]
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        rows = [*_searches(page, base, query_ms), *_map(page, base)]
        browser.close()
    return rows


def _searches(page: Any, base: str, query_ms: float) -> list[dict[str, Any]]:
    """Words are typed and Enter is pressed, ten times; the first is not counted."""
    waited, counted = [], []
    page.goto(f"{base}/?q=warm")
    for number in range(10):
        page.get_by_text("Nearest samples").wait_for(timeout=_WAIT_MS)
        page.wait_for_function("window.did_handshake", timeout=_WAIT_MS)
        page.wait_for_load_state("networkidle")
        page.get_by_label("Words").fill(f"a thing of wood, number {number}")
        started = time.perf_counter()
        page.keyboard.press("Enter")
        page.wait_for_url(f"**number+{number}", timeout=_WAIT_MS, wait_until="commit")
        page.get_by_text("Nearest samples").wait_for(timeout=_WAIT_MS)
        waited.append(1e3 * (time.perf_counter() - started))
        said = page.get_by_text(re.compile(r"samples in \d+ ms")).inner_text()
        counted.append(float(sum(map(int, re.findall(r"(\d+) ms", said)))))
    ms, own = median(waited[1:]), median(counted[1:])
    return [
        row(
            "a query of words, as the page counts it",
            own,
            "ms",
            runs=counted[1:],
            **at_most(own, query_ms, "ms"),
        ),
        row("a search, from Enter to the results", ms, "ms", runs=waited[1:], **at_most(ms, query_ms, "ms")),
    ]


def _map(page: Any, base: str) -> list[dict[str, Any]]:
    started = time.perf_counter()
    page.goto(f"{base}/space")
    page.wait_for_selector(".map canvas[data-ms]", timeout=_WAIT_MS)
    rows = [row("the map in the browser, made and drawn", time.perf_counter() - started, "s")]
    started = time.perf_counter()
    page.goto(f"{base}/space?by=category")
    page.wait_for_selector(".map canvas[data-ms]", timeout=_WAIT_MS)
    rows.append(row("the map in the browser, once it is made", time.perf_counter() - started, "s"))
    for name, keys in _MOVES.items():
        found = page.evaluate(_MOVE, [keys, SECONDS])
        frames = float(found["frames"])
        rows.append(
            row(
                f"frames of the map {name}",
                frames,
                "frames/s",
                goal=f">= {FLUID:g} frames/s",
                met=frames >= FLUID,
                note=f"counted with requestAnimationFrame; half of the frames within {found['gap']:.0f} ms,"
                f" 95% within {found['slow']:.0f} ms; {found['draw']:.0f} ms of it drawing, by the processor",
            )
        )
    return rows

"""The pages in a real browser: Debian's Chromium, driven by Playwright; skipped where none is installed.

One server, started by the command line as a user starts it, serves a finished run. Every page that is opened
must load nothing from elsewhere, write no error to the console, break no policy and fit the window.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile as sf
from PIL import Image

from tests.planted import EXAMPLES

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_WAIT_MS = 120_000
# The command line, with the encoder of tests/planted.py.
_START = """\
import sys
from kb_builder.encoders import FACTORIES
sys.path.insert(0, sys.argv.pop(1))
FACTORIES["words"] = "own_encoder:load_words"
from pipeline.cli.main import main
main()
"""
# The place of some dot on the map's canvas, in the window.
_FIRST_DOT = """() => {
  const canvas = document.querySelector(".map canvas"), box = canvas.getBoundingClientRect();
  const dots = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const at = Math.floor(dots.findIndex((value, place) => place % 4 == 3 && value) / 4);
  const x = at % canvas.width, y = Math.floor(at / canvas.width);
  return [box.x + (x * box.width) / canvas.width, box.y + (y * box.height) / canvas.height + 1];
}"""
PAGES = {
    "/": "Or one of its own samples",
    "/?q=red+ball": "Nearest samples",
    "/samples": "1 to 48 of 60",
    "/sample?id=red-cup-0": "Nearest samples",
    "/categories": "blue ball",
    "/category?id=red-cup": "Embedding centers",
    "/space": "Whole map",
    "/results": "Confusions",
    "/run": "ingest",
    "/sql?q=FROM+v_categories": "6 rows",
}


@pytest.fixture(scope="module")
def program() -> str:
    """The browser's program."""
    found = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"none of {', '.join(_BROWSERS)} is on PATH: the pages cannot be opened in a browser")
    return found


@pytest.fixture(scope="module")
def project(finished_cups: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run."""
    folder = tmp_path_factory.mktemp("browser") / "cups"
    return Path(shutil.copytree(finished_cups.parent, folder)) / finished_cups.name


@pytest.fixture(scope="module")
def server(program: str, project: Path) -> Iterator[str]:
    """The address of `unibind ui`, which may start runs."""
    command = [sys.executable, "-c", _START, str(EXAMPLES), "ui", str(project), "--port", "0", "--allow-run"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=project.parent, env=environment
    ) as run:
        try:
            assert run.stdout is not None
            found = re.match(r"http://127\.0\.0\.1:\d+", run.stdout.readline())
            assert found is not None
            yield found[0]
        finally:
            run.send_signal(signal.SIGINT)
            assert run.wait(120) in {0, 130}


@pytest.fixture(scope="module")
def browser(program: str) -> Iterator[Any]:
    """A headless Chromium."""
    with playwright.sync_playwright() as play:
        started = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, server: str) -> Iterator[Any]:
    """A tab whose console and requests are watched."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, reduced_motion="reduce")
    tab = context.new_page()
    wrong: list[str] = []
    tab.on("console", lambda said: wrong.append(said.text) if said.type in {"error", "warning"} else None)
    tab.on("pageerror", lambda error: wrong.append(str(error)))

    def watched(request: Any) -> None:
        own = (server, server.replace("http", "ws"), "data:", "blob:")
        if not request.url.startswith(own):
            wrong.append(f"request: {request.url}")

    tab.on("request", watched)
    yield tab
    context.close()
    assert wrong == []


def _see(page: Any, words: str) -> None:
    page.get_by_text(words).first.wait_for(timeout=_WAIT_MS)


@pytest.mark.parametrize("look", [(1400, "light"), (420, "dark")])
def test_every_page_opens_and_fits(page: Any, server: str, look: tuple[int, str]) -> None:
    """On a desk in light, on a phone in dark: nothing is wider than the window, all pictures have words."""
    width, scheme = look
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    for path, words in PAGES.items():
        page.goto(server + path)
        _see(page, words)
        wide, room = page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= room, path
        ink = page.evaluate("getComputedStyle(document.body).color")
        assert (ink == "rgb(28, 27, 25)") == (scheme == "light"), path
        bare = "[...document.images].filter(each => !each.alt).length"
        unnamed = (
            "[...document.querySelectorAll('main button, main a, header button, header a')].filter("
            "e => !(e.textContent.trim() || e.getAttribute('aria-label') || e.querySelector('img'))).length"
        )
        assert page.evaluate(bare) == 0 and page.evaluate(unnamed) == 0, path
        assert page.evaluate("document.documentElement.lang") == "en-US"


def test_words_a_dropped_picture_and_both(page: Any, server: str, tmp_path: Path) -> None:
    """Words, then a picture that is dropped, then both together; the address can be opened again."""
    page.goto(server)
    page.get_by_label("Words").fill("red cup")
    page.keyboard.press("Enter")
    _see(page, "Nearest categories")
    assert page.url.endswith("/?q=red+cup")
    Image.new("RGB", (48, 48), (200, 40, 40)).save(tmp_path / "dropped.png")
    page.get_by_text("add to the query below").click()
    page.locator("input[type=file]").set_input_files(tmp_path / "dropped.png")
    page.wait_for_url("**/?q=red+cup&file=*", timeout=_WAIT_MS)
    _see(page, "Nearest samples")
    assert page.locator(".part").count() == 2 and page.locator(".part img").count() == 1
    page.reload()
    _see(page, "aligned heads")
    page.locator(".part a.remove").first.click()
    _see(page, "Nearest samples")
    assert "/?file=" in page.url


def test_words_typed_before_the_page_is_connected_are_not_lost(page: Any, server: str) -> None:
    """What the server says is held back until words are typed and Enter is pressed."""
    held: list[tuple[Any, Any]] = []
    is_open = False

    def route(socket: Any) -> None:
        def said(message: Any) -> None:
            socket.send(message) if is_open else held.append((socket, message))

        socket.connect_to_server().on_message(said)

    page.route_web_socket(re.compile("socket.io"), route)
    for words in ("red cup", "blue ball", "green ball"):
        page.goto(server)
        page.get_by_label("Words").fill(words)
        page.keyboard.press("Enter")
        for _ in range(_WAIT_MS // 50):
            if held:
                break
            page.wait_for_timeout(50)
        assert held and "?q" not in page.url
        is_open = True
        for socket, message in held:
            socket.send(message)
        _see(page, "Nearest categories")
        assert page.url.endswith("/?q=" + words.replace(" ", "+"))
        is_open = False
        held.clear()


def test_a_dropped_sound_that_nothing_can_place_says_so(page: Any, server: str, tmp_path: Path) -> None:
    """This project has no head for sounds; the page says what it would need."""
    sf.write(tmp_path / "knock.wav", [0.0, 0.5, -0.5] * 1000, 16_000)
    page.goto(server)
    page.locator("input[type=file]").set_input_files(tmp_path / "knock.wav")
    _see(page, "nothing maps audio into this project's text space")


def test_the_map_is_zoomed_lassoed_and_clicked(page: Any, server: str) -> None:
    """The view is kept in the address; a lasso lists what it holds; a dot opens its sample."""
    page.goto(f"{server}/space?by=category")
    canvas = page.locator(".map canvas")
    page.wait_for_selector(".map canvas[data-ms]", timeout=_WAIT_MS)
    canvas.hover()
    page.mouse.wheel(0, -500)
    page.wait_for_function("location.search.includes('z=')", timeout=_WAIT_MS)
    page.get_by_role("button", name="Whole map").click()
    page.wait_for_function("!location.search.includes('z=')", timeout=_WAIT_MS)
    page.get_by_role("button", name="Lasso").click()
    box = canvas.bounding_box()
    corners = [(0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98)]
    points = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in corners]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=5)
    page.mouse.up()
    _see(page, "Within the lasso")
    _see(page, "image 48")
    found = page.evaluate(_FIRST_DOT)
    page.mouse.click(*found)
    page.wait_for_url(re.compile(r"/(sample|text)\?id="), timeout=_WAIT_MS)


def test_a_filter_a_text_and_a_preview(page: Any, server: str) -> None:
    """A filter changes the address; a struck text is previewed, and nothing is saved by that."""
    page.goto(f"{server}/samples")
    page.get_by_label("Modality").click()
    page.get_by_role("option", name="text").click()
    page.wait_for_url("**/samples?modality=text", timeout=_WAIT_MS)
    _see(page, "1 to 12 of 12")
    page.goto(f"{server}/category?id=red-cup")
    page.get_by_role("checkbox").first.click()
    page.get_by_role("button", name="Preview the localization").click()
    _see(page, "What localization would choose")


def test_keys(page: Any, server: str) -> None:
    """`]` and `[` turn the pages of a list, `/` goes to the search."""
    page.goto(f"{server}/samples")
    _see(page, "1 to 48 of 60")
    page.keyboard.press("]")
    _see(page, "49 to 60 of 60")
    page.keyboard.press("[")
    _see(page, "1 to 48 of 60")
    page.keyboard.press("/")
    page.wait_for_url(re.compile(r"/$"), timeout=_WAIT_MS)


def test_the_theme_is_kept(page: Any, server: str) -> None:
    """The button leads from the system's theme to dark, and the next page is dark too."""
    page.goto(f"{server}/sql")
    page.get_by_role("button", name="Light, dark or as the system is").click()
    page.wait_for_selector("body.body--dark", timeout=_WAIT_MS)
    page.goto(f"{server}/run")
    page.wait_for_selector("body.body--dark", timeout=_WAIT_MS)


def test_a_run_is_started_and_watched_to_its_end(page: Any, server: str, project: Path) -> None:
    """The last stage is missing; from the click to the finished run, live."""
    (project.parent / "runs" / "cups" / "stages" / "report.json").unlink()
    page.goto(f"{server}/run")
    _see(page, "Nothing is at work")
    page.get_by_role("button", name="Start or resume").click()
    _see(page, "What the run says")
    _see(page, "The run is finished.")

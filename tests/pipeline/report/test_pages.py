"""Whole pages: well-formed, and without an error, a violation or a request in a real browser."""

from __future__ import annotations

import asyncio
import copy
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pipeline.html.elements import Html, document, el
from pipeline.study.page import write_study_page

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}


def _everything(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics of a run with every part that a page can show."""
    metrics = copy.deepcopy(metrics)
    lead = {"lead": 0.05, "lead_low": -0.01, "lead_high": 0.1, "p": 0.2}
    for row in metrics["recognition"]:
        row |= {"mean_recall": row["top1"], "map": None}
        if row["anchors"] != "llm_centers":
            row |= lead
    for row in metrics["retrieval"]:
        row["median_rank"] = 3.5
    centers = [row for row in metrics["recognition"] if row["anchors"] == "llm_centers"]
    seen = [row for row in centers if row["split"] == "seen"]
    metrics["probe"] = [{**row, "anchors": "linear_probe", "model": "probe"} for row in seen]
    metrics["few_shot"] = [
        {**row, "shots": shots, "method": method, "n_train": shots}
        for row in seen
        for shots in (1, 2, 4)
        for method in ("probe", "heads")
    ]
    metrics["sweeps"] = [
        {**row, "k": k, "scorer": s} for row in centers for k in (1, 4) for s in ("mean", "x")
    ]
    metrics["balance"] += [{**row, "anchors": "zero_shot"} for row in metrics["balance"]]
    return metrics


@pytest.fixture
def pages(run: Any, study: dict[str, Any], tmp_path: Path) -> list[Path]:
    """A report with every section, one with none of the optional ones, and the page of a study."""
    whole = run.write(tmp_path / "report.html", _everything(run.metrics))
    bare = run.write(tmp_path / "bare.html", {}, run=tmp_path)
    return [whole, bare, write_study_page(study, tmp_path / "study.html")]


class _Strict(HTMLParser):
    """Fails where a tag is not closed in its turn or an attribute stands twice; keeps ids and links."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open_tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"<{tag}> has an attribute twice"
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name == "href"]
        if tag not in {"meta", "img", "br", "col"}:
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags, f"</{tag}> closes nothing"
        assert self.open_tags.pop() == tag, f"</{tag}> is out of turn"


def _well_formed(markup: str) -> None:
    page = _Strict()
    page.feed(markup)
    page.close()
    assert page.open_tags == []
    assert len(set(page.ids)) == len(page.ids), "an id stands twice"
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids), "a link leads nowhere"


def test_pages_are_well_formed(pages: list[Path]) -> None:
    """Every tag is closed in its turn, no attribute or id stands twice, every link leads to an id."""
    for page in pages:
        _well_formed(page.read_text(encoding="utf-8"))
    whole = pages[0].read_text(encoding="utf-8")
    for anchor in ("recognition", "probe", "few-shot", "sweeps", "balance", "training", "mistakes"):
        assert f'id="{anchor}"' in whole


@pytest.mark.parametrize(
    "broken",
    ["<p><b></p></b>", "<p>", "</p>", '<p id="a"></p><b id="a"></b>', '<a href="#b"></a>', "<p a=1 a=2></p>"],
)
def test_what_is_not_well_formed_is_found(broken: str) -> None:
    """The check above can fail: on crossed, open and stray tags, repeated ids and attributes, dead links."""
    with pytest.raises(AssertionError):
        _well_formed(broken)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The DevTools address of a headless Chromium."""
    program = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"none of {', '.join(_BROWSERS)} is on PATH: the pages cannot be opened in a browser")
    profile = tmp_path_factory.mktemp("chromium")
    quiet = ("background-networking", "component-update", "sync", "default-apps", "gpu", "quic")
    command = [program, "--headless", "--no-sandbox", "--no-first-run", "--disable-dev-shm-usage"]
    command += [f"--disable-{name}" for name in quiet]
    command += ["--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
    with (profile / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            address = profile / "DevToolsActivePort"
            deadline = time.monotonic() + 120
            while not (address.exists() and len(address.read_text().split()) == 2):
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"Chromium did not start: {(profile / 'log').read_text()[-2000:]}")
                time.sleep(0.05)
            port, path = address.read_text().split()
            yield f"ws://127.0.0.1:{port}{path}"
        finally:
            process.terminate()


async def _open(address: str, page: Path) -> list[str]:
    """Open a page and return whatever was wrong with it: console, violations, exceptions, requests, width."""
    wrong: list[str] = []
    loaded = False
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(address, max_msg_size=0, timeout=aiohttp.ClientWSTimeout(ws_close=60)) as socket,
    ):
        asked = 0
        attached: str | None = None

        async def ask(method: str, **params: Any) -> dict[str, Any]:
            nonlocal asked
            asked += 1
            number = asked
            to = {"sessionId": attached} if attached else {}
            await socket.send_json({"id": number, "method": method, "params": params, **to})
            while True:
                message = await socket.receive_json(timeout=120)
                if message.get("id") == number:
                    assert "error" not in message, message
                    return dict(message["result"])
                hear(message)

        def hear(message: dict[str, Any]) -> None:
            nonlocal loaded
            method, params = message.get("method"), message.get("params", {})
            loaded = loaded or method == "Page.loadEventFired"
            if method == "Runtime.exceptionThrown":
                wrong.append(f"exception: {params['exceptionDetails']}")
            elif method == "Runtime.consoleAPICalled":
                wrong.append(f"console: {params['args']}")
            elif method == "Log.entryAdded":
                wrong.append(f"{params['entry']['source']}: {params['entry']['text']}")
            elif method == "Audits.issueAdded" and "Policy" in params["issue"]["code"]:
                wrong.append(f"issue: {params['issue']['code']}")
            elif method == "Network.loadingFailed":
                wrong.append(f"failed: {params['errorText']} {params.get('blockedReason', '')}")
            elif method == "Network.requestWillBeSent":
                url = params["request"]["url"]
                if url != page.as_uri() and not url.startswith("data:"):
                    wrong.append(f"request: {url}")

        target = (await ask("Target.createTarget", url="about:blank"))["targetId"]
        attached = (await ask("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            await ask(f"{domain}.enable")
        await ask("Emulation.setDeviceMetricsOverride", **_PHONE)
        await ask("Page.navigate", url=page.as_uri())
        while not loaded:
            hear(await socket.receive_json(timeout=120))
        two_frames = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))"
        await ask("Runtime.evaluate", expression=two_frames, awaitPromise=True)
        widths = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        answer = await ask("Runtime.evaluate", expression=widths, returnByValue=True)
        wide, room = answer["result"]["value"]
        if wide > room:
            wrong.append(f"width: {wide} px on a phone of {room} px")
        attached = None
        await ask("Target.closeTarget", targetId=target)
    return wrong


@pytest.fixture
def opened(browser: str) -> Callable[[Path], list[str]]:
    """Opens a page at phone width and says what was wrong with it."""
    return lambda page: asyncio.run(_open(browser, page))


def test_nothing_is_wrong_with_a_page_in_a_browser(
    pages: list[Path], opened: Callable[[Path], list[str]]
) -> None:
    """No console message, exception, violation or request, and no sideways scroll on a phone."""
    for page in pages:
        assert opened(page) == [], page.name


@pytest.mark.parametrize(
    ("body", "policed", "said"),
    [
        ("<script>1</script>", True, "security: "),
        ("<script>1</script>", True, "issue: ContentSecurityPolicyIssue"),
        ('<p onclick="1">x</p><img src="x.png" onerror="1">', True, "security: "),
        ('<img src="http://127.0.0.1:9/x.png">', True, "security: "),
        ("<script>throw new Error('x')</script>", False, "exception: "),
        ("<script>console.error('x')</script>", False, "console: "),
        ('<img src="missing.png">', False, "request: "),
        ('<img src="missing.png">', False, "failed: net::ERR_FILE_NOT_FOUND"),
        ('<div style="width:5000px">x</div>', True, "width: "),
    ],
)
def test_what_is_wrong_with_a_page_is_heard(
    body: str, policed: bool, said: str, tmp_path: Path, opened: Callable[[Path], list[str]]
) -> None:
    """The check above can fail: each kind of fault, planted in a page, is told."""
    markup = document("planted", el("body", Html(body)), style="")
    if not policed:
        markup = markup.replace("Content-Security-Policy", "nothing")
    page = tmp_path / "planted.html"
    page.write_text(markup, encoding="utf-8")
    assert any(one.startswith(said) for one in opened(page))

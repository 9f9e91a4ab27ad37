"""What changes on an open page: slow work that is shown when it is done, and a run that is watched."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from nicegui.testing import User

from pipeline.predict.search import Query, Searcher
from pipeline.ui.state import Desk, Opened, Timed
from tests.planted import register_encoder


@pytest.fixture(autouse=True)
def _encoder() -> None:
    register_encoder()


async def _until(is_so: Callable[[], bool]) -> None:
    """Wait for a condition, for three minutes at most."""
    for _ in range(3600):
        if is_so():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not become so")


def test_slow_work_comes_later_and_quick_work_with_the_page(
    desk: Desk, visit: Any, served: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that takes long has a spinner until it is done; one that does not is in the page's source."""
    go_on, search = threading.Event(), Opened.search

    def slow(opened: Opened, queries: Sequence[Query], *, top: int) -> Timed:
        assert go_on.wait(60)
        return search(opened, queries, top=top)

    async def steps(user: User) -> None:
        await user.open("/?q=red+ball")
        await user.should_see("Searching …")
        await user.should_not_see("Nearest categories")
        go_on.set()
        await user.should_see("Nearest categories")
        await user.should_not_see("Searching …")

    monkeypatch.setattr(Opened, "search", slow)
    visit(desk, steps)

    async def page(client: httpx.AsyncClient) -> None:
        text = (await client.get("/?q=red+ball")).text
        assert "Nearest categories" in text and "Searching" not in text
        wrong = (await client.get("/?sample=nobody")).text
        assert "no sample" in wrong and "Searching" not in wrong

    monkeypatch.setattr("pipeline.ui.frame.AT_ONCE_S", 60.0)
    served(desk, page)


def test_what_needs_no_answers_waits_for_none(
    desk: Desk, visit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While every sample is recognised, the first page and a search are there; the gallery says it waits."""
    go_on, recognised = threading.Event(), Searcher.recognised

    def slow(searcher: Searcher) -> pa.Table:
        assert go_on.wait(60)
        return recognised(searcher)

    async def steps(user: User) -> None:
        desk.warm_up()
        await user.open("/")
        await user.should_see("Or one of its own samples")
        await user.open("/?q=red+ball")
        await user.should_see("Nearest categories")
        await user.open("/samples")
        await user.should_see("Recognising every sample")
        await user.should_not_see("1 to 48 of 60")
        go_on.set()
        await user.should_see("1 to 48 of 60")
        await user.should_not_see("Recognising every sample")

    monkeypatch.setattr(Searcher, "recognised", slow)
    visit(desk, steps)


def test_a_run_is_watched_started_and_seen_to_its_end(
    cups: Path, opening: Callable[..., Desk], visit: Any
) -> None:
    """Finished stages, why one is stale, a run started from the page, its words, and its end."""
    path = cups
    path.write_text(path.read_text(encoding="utf-8").replace("k = 3", "k = 2"), encoding="utf-8")
    own_desk = opening(path, allow_run=True)
    runner = own_desk.runner(own_desk.project(None))

    async def steps(user: User) -> None:
        await user.open("/run")
        await user.should_see("✓ ingest")
        await user.should_see("its settings changed")
        user.find("Pause").click()
        await _until(lambda: any("no run is at work" in each for each in user.notify.messages))
        user.find("Start or resume").click()
        await user.should_see("What the run says")
        await _until(lambda: not runner.at_work)
        assert any("▸ report" in line for line in runner.lines()), runner.lines()
        await user.should_see("The run is finished.")

    visit(own_desk, steps)


def test_runs_are_only_watched_without_leave(desk: Desk, visit: Any) -> None:
    """Without --allow-run there is no button."""

    async def steps(user: User) -> None:
        await user.open("/run")
        await user.should_see("start it with --allow-run")
        await user.should_not_see("Start or resume")

    visit(desk, steps)

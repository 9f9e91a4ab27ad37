"""What the tests of the pages share: opened projects, a simulated user, and the application as it is served.

The user is NiceGUI's own, which sees elements and no browser; test_browser.py has a browser.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of NiceGUI's own libraries, on import
    from nicegui import Client, core, ui
    from nicegui.functions.download import download
    from nicegui.functions.navigate import Navigate
    from nicegui.functions.notify import notify
    from nicegui.testing import User
    from nicegui.testing.general import nicegui_reset_globals, prepare_simulation

from pipeline.project import load_project
from pipeline.run.runner import run_stages
from pipeline.ui.serve import add_pages, application
from pipeline.ui.state import Desk, open_desk
from tests.elsewhere import all_files

HOSTILE = '<script>alert("x")</script>'
Visit = Callable[[Desk, Callable[[User], Coroutine[Any, Any, None]]], None]
WORLD = """\
name = "world"
[data]
manifest = "tabletop"
[tabletop]
objects_per_category = 3
image_px = 32
video_px = 32
video_frames = 4
points = 128
"""


@pytest.fixture(scope="session")
def small_world(sample_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project file of a sample world that was ingested and no more: every modality, no model.

    All of its objects but one are there already.
    """
    path = tmp_path_factory.mktemp("world") / "world.toml"
    path.write_text(WORLD, encoding="utf-8")
    world = Path(shutil.copytree(sample_world, path.parent / "runs" / "world" / "world"))
    shutil.rmtree(world / "media" / "cork-torus-000")
    run_stages(load_project(path), ["world", "ingest"])
    assert all_files(world) == all_files(sample_world)
    return path


@pytest.fixture
def opening() -> Iterator[Callable[..., Desk]]:
    """`opening(*project files, allow_run=False)`: a desk that is closed at the end of the test."""
    desks: list[Desk] = []

    def opened(*paths: Path, allow_run: bool = False) -> Desk:
        desks.append(open_desk([load_project(path) for path in paths], allow_run=allow_run))
        return desks[-1]

    yield opened
    for desk in desks:
        desk.close()


@pytest.fixture
def world_desk(small_world: Path, opening: Callable[..., Desk]) -> Desk:
    """The sample world, opened."""
    return opening(small_world)


@pytest.fixture
def desk(finished_cups: Path, opening: Callable[..., Desk]) -> Desk:
    """The finished run of tests/planted.py, opened; not to be changed."""
    return opening(finished_cups)


@pytest.fixture
def own_desk(cups: Path, opening: Callable[..., Desk]) -> Desk:
    """A copy of it, to be changed."""
    return opening(cups, allow_run=True)


class PatientUser(User):
    """A user who waits a minute for what a slow machine has not shown yet."""

    async def should_see(self, *target: Any, retries: int = 600, **what: Any) -> None:
        """Return as soon as it is there."""
        await super().should_see(*target, retries=retries, **what)


@asynccontextmanager
async def _simulated(desk: Desk) -> AsyncIterator[User]:
    with nicegui_reset_globals():
        os.environ["NICEGUI_USER_SIMULATION"] = "true"
        try:
            prepare_simulation()
            add_pages(desk)
            for page in Client.page_routes:  # NiceGUI would forget the modules of other pages, and all above
                page.__module__ = "tests.pipeline.ui"
            async with (
                core.app.router.lifespan_context(core.app),
                httpx.AsyncClient(
                    transport=httpx.ASGITransport(core.app), base_url="http://127.0.0.1"
                ) as client,
            ):
                yield PatientUser(client)
        finally:
            os.environ.pop("NICEGUI_USER_SIMULATION", None)
            ui.navigate, ui.notify, ui.download = Navigate(), notify, download


@pytest.fixture
def visit() -> Visit:
    """`visit(desk, steps)`: run the steps of a simulated user on the pages of a desk."""

    def run(desk: Desk, steps: Callable[[User], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            async with _simulated(desk) as user:
                await steps(user)

        asyncio.run(whole())

    return run


Ask = Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]


@pytest.fixture
def served() -> Callable[..., None]:
    """`served(desk, steps, token=…)`: run steps against the whole guarded application, over ASGI."""

    def run(desk: Desk, steps: Ask, *, token: str | None = None, host: str = "127.0.0.1") -> None:
        async def whole() -> None:
            with nicegui_reset_globals():
                guarded = application(desk, host=host, token=token)
                for page in Client.page_routes:
                    page.__module__ = "tests.pipeline.ui"
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FutureWarning)  # NiceGUI looks at every object
                    async with (
                        guarded.app.router.lifespan_context(guarded.app),  # type: ignore[attr-defined]
                        httpx.AsyncClient(
                            transport=httpx.ASGITransport(guarded), base_url="http://127.0.0.1"
                        ) as client,
                    ):
                        await steps(client)

        asyncio.run(whole())

    return run

"""`unibind ui`: the web application and its server.

`application` makes an ASGI application over opened projects; `serve` runs it. NiceGUI keeps pages in one
global application, so one process serves one desk.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import warnings
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response
from nicegui import app as pages_app
from nicegui import ui

from data.errors import InputError, UniBindError
from pipeline.loopback import is_loopback
from pipeline.project import ProjectFile
from pipeline.ui.frame import STATIC, THEME_COOKIE, PageView, alert, frame, style_sheet
from pipeline.ui.media import serve_media
from pipeline.ui.pages import categories, category, results, runs, sample, samples, search, space, sql, text
from pipeline.ui.security import Guard, give_scripts_nonces
from pipeline.ui.state import Desk, open_desk

_BUILD_S = 60.0  # until a page must have begun to answer


class WebPage(NamedTuple):
    """A page: its path, its title, its name in the navigation (none: it is reached by links), its content."""

    path: str
    title: str
    name: str | None
    show: Callable[[PageView], Awaitable[None]]


PAGES = (
    WebPage(search.PATH, search.TITLE, search.TITLE, search.show),
    WebPage(samples.PATH, samples.TITLE, samples.TITLE, samples.show),
    WebPage(sample.PATH, sample.TITLE, None, sample.show),
    WebPage(categories.PATH, categories.TITLE, categories.TITLE, categories.show),
    WebPage(category.PATH, category.TITLE, None, category.show),
    WebPage(text.PATH, text.TITLE, None, text.show),
    WebPage(space.PATH, space.TITLE, space.TITLE, space.show),
    WebPage(results.PATH, results.TITLE, results.TITLE, results.show),
    WebPage(runs.PATH, runs.TITLE, runs.TITLE, runs.show),
    WebPage(sql.PATH, sql.TITLE, sql.TITLE, sql.show),
)


def add_pages(desk: Desk) -> None:
    """Register the pages, the media route and the static files with NiceGUI's application."""
    pages_app.config.quasar_config["loadingBar"]["skipHijack"] = True  # it has no name for screen readers
    named = [(page.path, page.name) for page in PAGES if page.name is not None]
    for page in PAGES:
        _add_page(desk, page, named)

    @pages_app.get("/media/{project}")
    async def media(project: str, request: Request) -> Response:
        return await serve_media(desk, project, request)

    @pages_app.get("/sql/{name}")
    async def rows(name: str, request: Request) -> Response:
        return await sql.download(desk, name, request)

    @pages_app.get("/space/{project}")
    async def points(project: str, request: Request) -> Response:
        return await space.points(desk, project, request)

    @pages_app.get("/report/{project}")
    async def report(project: str, request: Request) -> Response:
        return await results.report(desk, project, request)

    @pages_app.get("/ui.css")
    def style() -> Response:
        return Response(style_sheet(), media_type="text/css", headers={"Cache-Control": "no-cache"})

    @pages_app.get("/ui.js")
    def script() -> Response:
        return FileResponse(
            STATIC / "ui.js", media_type="text/javascript", headers={"Cache-Control": "no-cache"}
        )


def _add_page(desk: Desk, page: WebPage, named: Sequence[tuple[str, str]]) -> None:
    @ui.page(page.path, title=f"{page.title} · UniBind", language="en-US", response_timeout=_BUILD_S)
    async def shown(request: Request) -> None:
        ui.add_head_html('<link rel="stylesheet" href="/ui.css"><script src="/ui.js" defer></script>')
        wrong: UniBindError | None = None
        try:
            opened = desk.project(request.query_params.get("project"))
        except InputError as error:
            wrong, opened = error, desk.project(None)
        view = PageView(desk, opened, page.path, request.query_params)
        with frame(view, page.title, named, theme=request.cookies.get(THEME_COOKIE, "auto")):
            try:
                if wrong is not None:
                    raise wrong
                await page.show(view)
            except UniBindError as error:
                alert(error)


def application(desk: Desk, *, host: str = "127.0.0.1", token: str | None = None) -> Guard:
    """The whole application, behind its guard. `token`: what is asked for before anything is shown."""
    give_scripts_nonces()
    add_pages(desk)
    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    ui.run_with(
        outer,
        title="UniBind",
        favicon="🜛",
        dark=None,
        tailwind=False,
        show_welcome_message=False,
        reconnect_timeout=30.0,
    )
    return Guard(outer, host, token)


def serve(
    files: Sequence[ProjectFile],
    *,
    host: str,
    port: int,
    allow_run: bool,
    say: Callable[[str], None] = print,
) -> None:
    """Serve projects until Ctrl-C. Raises InputError where the address cannot be used."""
    import uvicorn

    desk = open_desk(files, allow_run=allow_run)
    token = None if is_loopback(host) else secrets.token_urlsafe(24)
    guarded = application(desk, host=host, token=token)
    try:
        with _listening(host, port) as listener:
            pages_app.on_startup(desk.warm_up)
            pages_app.on_startup(_many_threads)
            # NiceGUI looks at every object for its server; torch warns when its old names are looked at.
            warnings.filterwarnings("ignore", message=".*reduce_op", category=FutureWarning)
            shown = f"[{host}]" if ":" in host else host
            say(f"http://{shown}:{listener.getsockname()[1]}/  ({', '.join(desk.projects)}; Ctrl-C ends it)")
            if token is not None:
                say(f"token {token}")
            config = uvicorn.Config(guarded, log_level="warning", ws="wsproto", server_header=False)
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        desk.close()


def _many_threads() -> None:
    """Pages that wait for the first answers wait in threads; the others must not wait for these."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32, thread_name_prefix="page"))


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()  # the address is said before the server is up: who comes early waits
    except (OSError, UnicodeError) as error:  # a name that is no host name at all
        listener.close()
        why = getattr(error, "strerror", None) or error
        raise InputError(
            f"{host}:{port} cannot be used ({why}); give another --host, or --port, 0 for a free one"
        ) from None
    return listener

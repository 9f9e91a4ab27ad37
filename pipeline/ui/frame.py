"""The frame around every page, addresses, and the small elements that pages are made of.

Names and texts come from outside. They reach the browser only as text of an element (`Words`) or as the value
of an attribute that is not an address, never as markup; hidden characters are escaped as in the report.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlencode

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement
from starlette.datastructures import QueryParams

from data.errors import UniBindError
from data.show import visible_lines
from pipeline.html.style import properties
from pipeline.ui.state import Desk, Opened

STATIC = Path(__file__).parent / "static"
# The page of the navigation that leads to each page without an entry of its own.
_ABOVE = {"/sample": "/samples", "/category": "/categories", "/text": "/categories"}
THEME_COOKIE = "unibind_theme"
AT_ONCE_S = 0.25  # how long a page waits for slow work before it is sent without
T = TypeVar("T")
Value = str | int | float | bool | None | Sequence[str]


@dataclass(frozen=True)
class PageView:
    """One opened address: the project, the page's path, and what the address asks for."""

    desk: Desk
    opened: Opened
    path: str
    ask: QueryParams

    def get(self, name: str, default: str = "") -> str:
        """A value of the address, or the default."""
        return self.ask.get(name, default)

    def one_of(self, name: str, known: Iterable[str], default: str = "") -> str:
        """A value of the address if it is a known one, else the default."""
        given = self.ask.get(name, default)
        return given if given in set(known) else default

    def number(self, name: str, default: int, *, low: int = 1, high: int = 10**9) -> int:
        """A whole number of the address within its bounds, or the default."""
        given = self.ask.get(name, "")
        return min(max(int(given), low), high) if given.isdecimal() and len(given) < 12 else default

    def share(self, name: str) -> float | None:
        """A number from 0 to 1 of the address; None where there is none."""
        try:
            value = float(self.ask.get(name, ""))
        except ValueError:
            return None
        return value if 0 <= value <= 1 else None

    def to(self, path: str, **values: Value) -> str:
        """The address of a page of this project."""
        first = next(iter(self.desk.projects))
        key = None if self.opened.key == first else self.opened.key
        return address(path, project=key, **values)

    def here(self, **changes: Value) -> str:
        """This address with some values changed; None or "" removes one."""
        kept: dict[str, Value] = {name: self.ask.getlist(name) for name in self.ask if name != "project"}
        return self.to(self.path, **{**kept, **changes})

    def media(self, kind: str, **values: Value) -> str:
        """The address of a view of a sample or of a dropped file (pipeline/ui/media.py)."""
        return address(f"/media/{self.opened.key}", **values, **{"as": kind})

    async def rows(
        self, query: str, values: Sequence[Any] = (), *, answers: bool = False
    ) -> list[dict[str, Any]]:
        """The rows of a query over the views (`Opened.rows`), asked in a thread."""
        return await asyncio.to_thread(self.opened.rows, query, values, answers=answers)


def address(path: str, **values: Value) -> str:
    """A path with a query; empty values are left out, several values repeat their name."""
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        pairs += [(name, _plain(each)) for each in several if each is not None and each != ""]
    return f"{path}?{urlencode(pairs)}" if pairs else path


def _plain(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


class Words(TextElement):
    """An element that holds a text, and nothing but text."""

    def __init__(self, text: object, tag: str = "span", classes: str = "") -> None:
        super().__init__(tag=tag, text=visible_lines(text))
        self.classes(classes)


def box(tag: str = "div", classes: str = "", **attributes: str | int | None) -> ui.element:
    """An element for others. `aria_label` is the attribute `aria-label`; None is omitted."""
    made = ui.element(tag).classes(classes)
    for name, value in attributes.items():
        if value is not None:
            plain = name.rstrip("_").replace("_", "-")
            made.props[plain] = value if plain in {"src", "href"} else visible_lines(value)
    return made


def link(text: object, target: str, classes: str = "", **attributes: str | None) -> ui.element:
    """A link to an address of ours (made by `PageView.to`) with a text."""
    with box("a", classes, href=target, **attributes) as made:
        Words(text)
    return made


def button(text: str, act: Callable[[], Any], *, main: bool = False) -> Words:
    """A button with a text; `main` for the one that most people want."""
    made = Words(text, "button", "button main-action" if main else "button")
    made.props["type"] = "button"
    made.on("click", act)
    return made


def picture(source: str, alt: str, classes: str = "", *, lazy: bool = True) -> ui.element:
    """A picture with its alternative text."""
    return box("img", classes, src=source, alt=alt, loading="lazy" if lazy else None, decoding="async")


def alert(text: object, *, kind: Literal["wrong", "note"] = "wrong") -> None:
    """A message within the page."""
    Words(text, "p", f"alert {kind}").props["role"] = "alert" if kind == "wrong" else "status"


Cell = str | Callable[[], object]


def table(
    columns: str, head: Sequence[str], rows: Iterable[Sequence[Cell]], *, label: str, classes: str = ""
) -> ui.element:
    """A table that scrolls sideways where the page is narrow.

    `columns` has a letter for each column: `l` for words, `w` for texts, `r` for numbers. A cell is a text,
    or a function that makes what stands in it. The first cell of a row is its heading.
    """
    kinds = [{"r": "num", "w": "wide"}.get(each, "") for each in columns]
    whole = box("div", f"scroll {classes}", tabindex=0, role="region", aria_label=label)
    with whole, box("table"):
        with box("thead"), box("tr"):
            for name, kind in zip(head, kinds, strict=True):
                Words(name, "th", kind).props["scope"] = "col"
        with box("tbody"):
            for row in rows:
                with box("tr"):
                    for place, (cell, kind) in enumerate(zip(row, kinds, strict=True)):
                        _cell(cell, kind, heading=place == 0)
    return whole


def _cell(cell: Cell, kind: str, *, heading: bool) -> None:
    tag = "th" if heading else "td"
    if callable(cell):
        with box(tag, kind) as made:
            cell()
    else:
        made = Words(cell, tag, kind)
    if heading:
        made.props["scope"] = "row"


def bar(share: float, label: str = "") -> ui.element:
    """A horizontal bar that fills a share, from 0 to 1, of its place."""
    made = box("span", "bar", title=label or None, aria_hidden="true")
    with made:
        ui.element("span").style(f"width: {100 * min(max(share, 0.0), 1.0):.1f}%")
    return made


def interval_bar(value: float, low: float, high: float) -> ui.element:
    """A dot on a line from 0 to 1 with its interval."""
    made = box("span", "interval", aria_hidden="true")
    with made:
        ui.element("span").classes("range").style(f"left: {100 * low:.1f}%; width: {100 * (high - low):.1f}%")
        ui.element("span").classes("dot").style(f"left: {100 * value:.1f}%")
    return made


def chip(modality: str) -> ui.element:
    """The name of a modality with its colour."""
    with box("span", f"chip m-{modality}") as made:
        Words(modality)
    return made


def filters(view: PageView, choices: Mapping[str, tuple[str, Mapping[str, str]]]) -> None:
    """A row of choices that lead to other addresses: name in it -> (label, {value: what is shown}).

    The value "" removes the name; it is shown as "any" where the choices do not name it.
    """
    with box("div", "filters"):
        for name, (label, options) in choices.items():
            current = view.get(name)
            shown = {
                "": options.get("", "any"),
                **{value: visible_lines(words) for value, words in options.items() if value},
            }

            def go(event: Any, name: str = name) -> None:
                ui.navigate.to(view.here(**{name: event.value, "page": None}))

            made = ui.select(shown, value=current if current in shown else "", label=label, on_change=go)
            made.props("dense outlined options-dense").classes("filter")
            if len(shown) > 12:
                made.props("use-input input-debounce=0 fill-input hide-selected")


def pager(view: PageView, page: int, more: bool, words: str, *, label: str = "Pages of the list") -> None:
    """Links to the page before and after; `[` and `]` follow them."""
    with box("nav", "pager", aria_label=label):
        if page > 1:
            link("← previous", view.here(page=page - 1 if page > 2 else None), rel="prev")
        Words(words)
        if more:
            link("next →", view.here(page=page + 1), rel="next")


async def later(
    view: PageView, work: Callable[[], T], show: Callable[[T], Awaitable[None] | None], what: str
) -> None:
    """Do work in a thread and show what it gave: within the page where it is done soon, else afterwards.

    An error of ours is shown in its place.
    """
    with box("div", "later", aria_live="polite"):
        try:
            shown = show(await _worked(work, what))
        except UniBindError as error:
            alert(error)
            return
        if shown is not None:
            await shown


async def answers_ready(view: PageView) -> None:
    """Wait, with the page open, until the answers for all samples are there. Raises what they raise."""
    await _worked(view.opened.answers, "Recognising every sample; this takes long only once …")
    if why := view.opened.not_evaluated:
        said = why.replace("`", "")
        alert(
            f"Answers without probabilities, and nothing taken off trained categories: {said}.", kind="note"
        )


async def _worked(work: Callable[[], T], what: str) -> T:
    """The result of work in a thread; where it takes long, the page is sent with a spinner in its place."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    await asyncio.wait({working}, timeout=AT_ONCE_S)
    if not working.done():
        working.add_done_callback(_looked_at)  # the page may be closed before
        with box("div", "", aria_busy="true") as spot:
            ui.spinner(size="1.4rem").props["aria-hidden"] = "true"
            Words(what, "span", "quiet")
        await ui.context.client.connected(timeout=60)
        await asyncio.wait({working})
        if spot.is_deleted:
            raise asyncio.CancelledError
        spot.delete()
    return await working


def _looked_at(working: asyncio.Future[Any]) -> None:
    if not working.cancelled():
        working.exception()


@contextmanager
def frame(view: PageView, title: str, pages: Sequence[tuple[str, str]], *, theme: str) -> Iterator[None]:
    """The page around its content: a header with the other pages, the project and the theme."""
    dark = ui.dark_mode({"dark": True, "light": False}.get(theme))
    with box("header", "top"):
        link("Skip to the content", "#main", "skip")
        link("UniBind", view.to("/"), "brand")
        with box("nav", "pages", aria_label="Pages"):
            for path, name in pages:
                here = path == _ABOVE.get(view.path, view.path)
                link(name, view.to(path), "here" if here else "", aria_current="page" if here else None)
        if len(view.desk.projects) > 1:
            keys = {key: visible_lines(key) for key in view.desk.projects}
            ui.select(
                keys,
                value=view.opened.key,
                label="Project",
                on_change=lambda event: ui.navigate.to(address(view.path, project=event.value)),
            ).props("dense outlined options-dense").classes("filter")
        theme_button = button("◐", lambda: _next_theme(dark)).classes(replace="theme")
        theme_button.props["aria-label"] = "Light, dark or as the system is"
    with box("div", "main", id="main"):  # NiceGUI's page around it is the <main>
        Words(title, "h1")
        yield


def _next_theme(dark: ui.dark_mode) -> None:
    after: dict[bool | None, tuple[bool | None, str]] = {
        None: (True, "dark"),
        True: (False, "light"),
        False: (None, "auto"),
    }
    dark.value, name = after[dark.value]
    ui.run_javascript(f"document.cookie = '{THEME_COOKIE}={name}; path=/; max-age=31536000; samesite=strict'")
    ui.notify(f"Theme: {name}", position="top-right", timeout=900)


def style_sheet() -> str:
    """The style sheet of all pages: the colours of the report, in light and dark mode."""
    colours = f":root {{ {properties(dark=False)} }}\nbody.body--dark {{ {properties(dark=True)} }}\n"
    return colours + (STATIC / "ui.css").read_text(encoding="utf-8")

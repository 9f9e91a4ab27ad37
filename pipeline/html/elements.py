"""Build HTML that is escaped by construction: every string is text; only `el` makes markup.

Names and texts in a report come from manifests, folders and language models, so they are untrusted; their
control characters and marks of text direction are escaped too (`data.show`). Only this module makes an
`Html`; a plain `str` given as a child or as an attribute is always escaped. Markup built with an f-string is
a plain `str` and appears escaped on the page: such a mistake is visible and harmless.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from data.show import visible_lines

_VOID = {"meta", "img", "br", "col"}
_KINDS = {"l": None, "r": "num"}


class Html(str):
    """Markup that needs no escaping."""

    __slots__ = ()


Child = str | Html
Attribute = str | float | None


def el(tag: str, /, *children: Child, **attributes: Attribute) -> Html:
    """One element. `class_` is the attribute `class`, `stroke_width` is `stroke-width`; None is omitted.

    >>> el("p", "a < b", class_="note")
    '<p class="note">a &lt; b</p>'
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_shown(name, _plain(value)))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Html(f"<{tag}{given}>")
    return Html(f"<{tag}{given}>{join(children)}</{tag}>")


def join(children: Iterable[Child], separator: Child = "") -> Html:
    """Several children one after the other; plain strings are escaped."""
    return Html(_safe(separator).join(_safe(child) for child in children))


def table(
    columns: str, head: Sequence[Child], rows: Iterable[Sequence[Child] | Html], *, caption: Child = ""
) -> Html:
    """A table that scrolls sideways where the page is narrow.

    `columns` has a letter per column: `l` for text, `r` for numbers. The first cell of a row is its heading.
    A row may also be made by `line`.
    """
    header = el(
        "tr",
        *(el("th", cell, class_=_KINDS[at], scope="col") for at, cell in zip(columns, head, strict=True)),
    )
    body = [row if isinstance(row, Html) else line(columns, row) for row in rows]
    whole = el("div", el("table", el("thead", header), el("tbody", *body)), class_="scroll", tabindex="0")
    # Not a <caption>: that would be as wide as the table and scroll out of sight with it.
    return join([el("p", caption, class_="caption"), whole]) if caption else whole


def line(columns: str, cells: Sequence[Child], *, class_: str | None = None) -> Html:
    """One row of a table."""
    kinds = [_KINDS[at] for at in columns]
    heading = el("th", cells[0], class_=kinds[0], scope="row")
    rest = [el("td", cell, class_=kind) for cell, kind in zip(cells[1:], kinds[1:], strict=True)]
    return el("tr", heading, *rest, class_=class_)


def document(title: str, body: Html, *, style: str) -> str:
    """A whole page with its style sheet inside.

    The content security policy forbids scripts and external resources, so that even after a mistake of ours
    no text of a sample or a language model could run.
    """
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", title),
        Html(f"<style>{style}</style>"),
    )
    return f"<!doctype html>\n{el('html', head, body, lang='en')}\n"


def section(anchor: str, title: str, *children: Child) -> Html:
    """A titled section of the page, with an id to link to."""
    return el("section", el("h2", title), *children, id=anchor)


def figure(content: Child, caption: Child) -> Html:
    """A figure with its caption."""
    return el("figure", content, el("figcaption", caption))


def data_uri(content: bytes, media_type: str) -> str:
    """Bytes as a `data:` address, so that the page needs no other file."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun: "1 sample", "1,200 samples"; `many` where the plural is not `one` + s."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def _safe(child: Child) -> str:
    return str(child) if isinstance(child, Html) else escape(visible_lines(child))


def _shown(attribute: str, value: str) -> str:
    """An attribute's value with hidden characters escaped; an address stays unchanged."""
    return value if attribute in {"src", "href"} else visible_lines(value)


def _plain(value: str | float) -> str:
    """A number of a drawing with at most two decimals: 12.0 -> "12", 3.14159 -> "3.14"."""
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)

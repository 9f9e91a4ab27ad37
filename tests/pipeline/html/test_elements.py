"""Markup that escapes by construction, and texts cut visibly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.html.elements import el, join


def _markup() -> Iterator[tuple[str, str]]:
    yield str(el("p", "a < b & c")), "<p>a &lt; b &amp; c</p>"
    yield str(el("p", el("b", "x"), "<i>")), "<p><b>x</b>&lt;i&gt;</p>"
    yield str(el("a", "x", href='"><script>')), '<a href="&quot;&gt;&lt;script&gt;">x</a>'
    yield (
        str(el("line", x1=1.0, y1=2.345, stroke_width=2, class_=None)),
        '<line x1="1" y1="2.35" stroke-width="2"></line>',
    )
    yield str(el("p", f"{el('b', 'x')}")), "<p>&lt;b&gt;x&lt;/b&gt;</p>"
    yield str(join(["<", el("b")], "&")), "&lt;&amp;<b></b>"


@pytest.mark.parametrize(("made", "wanted"), list(_markup()))
def test_markup_escapes_by_construction(made: str, wanted: str) -> None:
    """Strings are text wherever they stand; only elements are markup; an f-string of one is text again."""
    assert made == wanted

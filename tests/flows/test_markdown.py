"""Hostile names as Markdown: they are read as they are, by a parser of Markdown."""

from __future__ import annotations

from html import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from data.show import visible
from flows.markdown import code, plain, slug, table

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![](http://evil.example/pixel.png)",
    "http://evil.example",
    "www.evil.example",
    "me@evil.example",
    "# heading",
    "- item",
    "+ item",
    "1. item",
    "12) item",
    "> quote",
    "    code",
    "`code` ``more``",
    "**bold** _it_ ~~struck~~",
    "a | b | c",
    "&lt;b&gt; &amp; &#60;",
    "ends with a backslash \\",
    "two\nlines\r\n\r\nand a paragraph",
    "```\nfence",
    "===",
    "---",
    "[^1]: note",
    "$x$",
    "a\u202eb\x00",
]
PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
ACTIVE = st.text(st.sampled_from("ab1 \\`*_{}[]<>#|!~&$^@()-+=.:/;\"'\n\t\u202e"), max_size=30)


def _shown(text: str) -> str:
    return escape(visible(text).strip()).replace("&#x27;", "'")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_shown_as_they_are(text: str) -> None:
    """Alone, and in a cell of a table."""
    assert PARSER.render(plain(text)) == f"<p>{_shown(text)}</p>\n"
    cells = PARSER.render(table("ll", ("name", "n"), [(plain(text), "1")]))
    assert f"<td>{_shown(text)}</td>" in cells
    assert cells.count("<td>") == 2


@given(ACTIVE.filter(lambda text: visible(text).strip()))
def test_so_is_any_text(text: str) -> None:
    """Whatever stands together: nothing of it becomes markup, and nothing is lost."""
    assert PARSER.render(plain(text)) == f"<p>{_shown(text)}</p>\n"


@pytest.mark.parametrize("text", ["http://evil.example", "see HTTPS://evil.example", "www.evil.example"])
def test_no_address_becomes_a_link_by_itself(text: str) -> None:
    """Prefect's pages make links of addresses; a backslash inside stops that."""
    assert "://" not in plain(text)
    assert "www." not in plain(text)


def test_usual_names_stay_as_they_are() -> None:
    """Prefect's newer pages show the cells of its tables without reading Markdown."""
    assert plain("train-station (old), no. 5: 3.5 m") == "train-station (old), no. 5: 3.5 m"


@pytest.mark.parametrize("text", ["/home/me/demo.toml", "a`b", "``", "<b>"])
def test_code_is_code(text: str) -> None:
    """Also with backticks inside."""
    assert PARSER.render(code(text)) == f"<p><code>{escape(text)}</code></p>\n"


def test_a_key_has_small_letters_digits_and_dashes() -> None:
    """As Prefect demands it."""
    assert slug("Part_Numbers.v2") == "part-numbers-v2"

"""Build the documentation as static HTML: `make docs`, or `python docs/build.py [FOLDER]` (build/docs).

The pages are README.md, ARCHITECTURE.md, CONTRIBUTING.md, CHANGELOG.md and docs/*.md; docs/index.md is the
menu. The site has no script and loads nothing from outside. A link to a file or heading that does not exist
stops the build.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

ROOT = Path(__file__).resolve().parents[1]
TOP = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
INDEX = "docs/index.md"
REPOSITORY_FILE = "files"  # the folder of the site with everything that pages link to and that is no page


class Heading(NamedTuple):
    """A heading of a page."""

    level: int
    text: str
    anchor: str


class Link(NamedTuple):
    """A link or an image of a page, as it is written."""

    line: int
    target: str


def page_names() -> list[str]:
    """The pages, relative to the repository's root: those of docs/index.md in its order, then the others."""
    existing = [*TOP, *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
    listed = [_target(INDEX, link.target)[0] for link in links(INDEX)]
    order = list(dict.fromkeys([INDEX, *(name for name in listed if name in existing)]))
    return order + [name for name in existing if name not in order]


def links(page: str) -> Iterator[Link]:
    """Every link and image of a page."""
    for block in _tokens(page):
        line = block.map[0] + 1 if block.map else 0
        for token in block.children or ():
            target = token.attrGet("href" if token.type == "link_open" else "src")
            if token.type in ("link_open", "image") and target:
                yield Link(line, str(target))


@cache
def headings(page: str) -> list[Heading]:
    """The headings of a page; anchors are GitHub's."""
    found: list[Heading] = []
    seen: dict[str, int] = {}
    tokens = _tokens(page)
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            text = "".join(each.content for each in tokens[at + 1].children or ())
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            number = seen.get(slug, 0)
            seen[slug] = number + 1
            found.append(Heading(int(token.tag[1]), text, f"{slug}-{number}" if number else slug))
    return found


def broken_links() -> list[str]:
    """One line for each relative link or anchor of a page that leads nowhere."""
    wrong: list[str] = []
    for page in page_names():
        for line, target in links(page):
            if _is_outside(target):
                continue
            path, anchor = _target(page, target)
            if not (ROOT / path).exists():
                wrong.append(f"{page}:{line}: {target}: there is no file {path}")
            elif anchor and path.endswith(".md") and anchor not in {each.anchor for each in headings(path)}:
                wrong.append(f"{page}:{line}: {target}: {path} has no heading with the anchor {anchor}")
    return wrong


def build(out: Path) -> int:
    """Write the site into the folder `out`, which is replaced; return the number of pages.

    Raises ValueError with every broken link.
    """
    if wrong := broken_links():
        raise ValueError("\n".join(wrong))
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "style.css").write_text(_style(), encoding="utf-8")
    names = page_names()
    for page in names:
        (out / _file_name(page)).write_text(_render(page, out), encoding="utf-8")
    return len(names)


def _render(page: str, out: Path) -> str:
    tokens = [token.copy() for token in _tokens(page)]
    anchors = iter(headings(page))
    for token in tokens:
        if token.type == "heading_open":
            token.attrSet("id", next(anchors).anchor)
        if token.type in ("th_open", "td_open") and token.attrs.pop("style", None) == "text-align:right":
            token.attrSet("class", "number")  # the content-security policy allows no inline style
        for child in token.children or ():
            attribute = "href" if child.type == "link_open" else "src"
            if child.type in ("link_open", "image"):
                child.attrSet(attribute, _site_address(page, str(child.attrGet(attribute)), out))
    body = _PARSER.renderer.render(tokens, _PARSER.options, {})
    body = body.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    sections = [each for each in headings(page) if each.level == 2]
    contents = "".join(f'<li><a href="#{each.anchor}">{html.escape(each.text)}</a></li>' for each in sections)
    return _PAGE.format(
        title=html.escape(headings(page)[0].text),
        pages="".join(_menu(page)),
        contents=f"<nav class=contents><ul>{contents}</ul></nav>" if len(sections) > 3 else "",
        body=body,
    )


def _menu(page: str) -> Iterator[str]:
    """The menu beside a page: the second-level headings and the links of docs/index.md, in order."""
    tokens = _tokens(INDEX)
    for token, after in pairwise(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            yield f"<li class=section>{html.escape(after.content)}</li>"
        children = token.children or []
        for link, text in pairwise(children):
            if link.type == "link_open":
                name, _ = _target(INDEX, str(link.attrGet("href")))
                here = ' aria-current="page"' if name == page else ""
                yield f'<li><a href="{_file_name(name)}"{here}>{html.escape(text.content)}</a></li>'


def _site_address(page: str, target: str, out: Path) -> str:
    """Where a link of a page leads in the site; a file that is no page is copied there."""
    if _is_outside(target):
        return target
    path, anchor = _target(page, target)
    if path.endswith(".md"):
        return _file_name(path) + (f"#{anchor}" if anchor else "")
    copy = out / REPOSITORY_FILE / path
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / path, copy)
    return f"{REPOSITORY_FILE}/{path}"


def _file_name(page: str) -> str:
    return f"{Path(page).stem.lower()}.html"


def _target(page: str, target: str) -> tuple[str, str]:
    """The file that a relative link means, relative to the root, and the anchor in it."""
    path, _, anchor = target.partition("#")
    return os.path.normpath(Path(page).parent / path) if path else page, anchor


def _is_outside(target: str) -> bool:
    return bool(re.match(r"[a-z]+:", target))


@cache
def _tokens(page: str) -> list[Token]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return _PARSER.parse(re.sub(r"<!--.*?-->", "", text))


def _coloured(code: str, language: str, _: str) -> str:
    try:
        lexer = get_lexer_by_name(language or "text")
    except ClassNotFound:
        return ""
    return str(highlight(code, lexer, HtmlFormatter(nowrap=True)))


def _style() -> str:
    light, dark = (HtmlFormatter(style=name).get_style_defs("pre") for name in ("default", "github-dark"))
    rules = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n{rules}"


_PARSER = MarkdownIt("commonmark", {"html": False, "highlight": _coloured}).enable(["table", "strikethrough"])

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'self'; img-src 'self'">
<title>{title}</title>
<link rel="stylesheet" href="style.css">
</head>
<body>
<nav class=pages><a href="index.html">UniBind pipeline</a><ul>{pages}</ul></nav>
<main>{contents}
{body}</main>
</body>
</html>
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "build" / "docs")
    folder = parser.parse_args().folder
    try:
        print(f"{build(folder)} pages in {folder}/index.html")
    except ValueError as error:
        sys.exit(f"error: broken links in the documentation:\n{error}")

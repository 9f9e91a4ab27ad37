"""Text from outside as Markdown that shows it as it is, for Prefect's pages.

Names and messages come from manifests, folders, models and servers. Prefect's pages render Markdown with HTML
in it; its older ones do so in the cells of tables too, its newer ones show those as they are. So only what
means something in Markdown is escaped: most names stay readable in both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from data.show import visible

# Code, emphasis, HTML and entities, links, images, tables, strikethrough, footnotes, formulas, mail.
_ACTIVE = re.compile(r"[\\`*_{}\[\]<>#|!~&$^@]")
_ADDRESS = re.compile(r"(?i)(?<=:)(?=//)|(?<=\bwww)(?=\.)")  # becomes a link by itself
_BLOCK = re.compile(r"^\s*(?=[-+=])|^(\s*\d+)(?=[.)])")  # begins a list or underlines a heading


def plain(text: object) -> str:
    """A text as one line of Markdown that shows it and nothing else."""
    line = _ACTIVE.sub(r"\\\g<0>", visible(text).strip())
    line = _ADDRESS.sub(r"\\", line)
    return _BLOCK.sub(r"\g<0>\\", line)


def code(text: object) -> str:
    """A text as one line of code; not for cells of tables, which end at a bar even in code."""
    line = visible(text)
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"


def table(columns: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table. `columns` has a letter per column: `l` for text, `r` for numbers. Cells are Markdown."""
    rules = ["---:" if each == "r" else "---" for each in columns]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rules, *rows))


def slug(text: str) -> str:
    """A text as a key of Prefect's: small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")

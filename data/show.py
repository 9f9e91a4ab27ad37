"""How names, texts and numbers are printed: no invisible characters, no terminal control sequences.

File names, categories, manifests, models and servers may contain any character: colours and cursor movements
(ESC), line breaks, characters that reverse the writing direction (so that `exe.jpg` reads as `gpj.exe`),
zero-width characters. `visible` writes each as its escape (`\\x1b`, `\\u202e`), as Python and JSON do;
letters of every script, accents, symbols and emoji stay as they are.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Sequence
from typing import Any

# C0, DEL, C1, soft hyphen, marks and overrides of direction, characters of no width, line and paragraph
# separators, interlinear marks, lone surrogates (bytes of a file name that are no UTF-8), language tags.
_HIDDEN = (
    "\\x00-\\x1f\\x7f-\\x9f\\xad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180e\\u200b\\u200e\\u200f"
    "\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufeff\\uffa0\\ufff9-\\ufffb\\ud800-\\udfff"
    "\\U0001bca0-\\U0001bca3\\U0001d173-\\U0001d17a\\U000e0000-\\U000e0fff"
)
# Joiners belong to Persian and Indic words and to composed emoji: there, between two letters or signs beyond
# Latin, they stay.
_FAR = "[\\u0300-\\u1fff\\u2190-\\ufdff\\ufe00-\\ufe0f\\ufe70-\\ufefc\\U00010000-\\U0003ffff]"
_JOINER = f"(?<!{_FAR})[\\u200c\\u200d]|[\\u200c\\u200d](?!{_FAR})"
_ONE_LINE = re.compile(f"[{_HIDDEN}]|{_JOINER}")
_LINES = re.compile(f"(?!\n)[{_HIDDEN}]|{_JOINER}")


def visible(text: object) -> str:
    """A name or text from outside as one line that is safe to print on a terminal."""
    return _ONE_LINE.sub(_escaped, str(text))


def visible_lines(text: object) -> str:
    """The same for our own output, which may contain such names: line breaks stay."""
    return _LINES.sub(_escaped, str(text))


def json_text(value: Any, *, indent: int | None = 1) -> str:
    """A value as JSON that is safe to print on a terminal. Characters that `visible` escapes get JSON's own
    escapes, so that parsing the text gives the value back. NaN and infinity become null."""
    return _LINES.sub(
        lambda found: json.dumps(found[0])[1:-1],
        json.dumps(_finite(value), ensure_ascii=False, indent=indent, allow_nan=False),
    )


def _finite(value: Any) -> Any:
    """The value with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def number(value: object) -> str:
    """A number for people: thousands separated, rounded to the digits that matter.

    1234567 -> 1,234,567; 0.30000000000000004 -> 0.3; 1234.567 -> 1,234.6; 0.000123456 -> 0.000123. Whole
    numbers keep every digit, fractions three (above 1,000 one decimal). True is yes. Anything else goes
    through `visible`.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return visible(value)
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 100:
        text = f"{value:,.1f}"
    elif abs(value) >= 1:
        text = f"{value:.2f}"
    elif abs(value) >= 1e-6 or value == 0:
        text = f"{float(f'{value:.3g}'):.10f}"
    else:
        return f"{value:.3g}"
    text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def duration(value: float) -> str:
    """A time for people: 0.4 s, 12.3 s, 4 min 5 s, 2 h 7 min."""
    if value < 99.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def shorten(text: str, limit: int = 300) -> str:
    """A text on one line of at most `limit` characters, cut with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def aligned(lines: Sequence[Sequence[str]], *, left: Collection[int] = (0,), indent: str = "") -> list[str]:
    """Lines of cells as a table for the terminal: padded columns, two spaces between them, none at the end.

    The columns whose numbers are in `left` are aligned to the left, the others to the right. Cells are made
    `visible` first. A lone cell in a table of several columns is a heading and sets no column's width.
    """
    lines = [[visible(cell) for cell in line] for line in lines]
    columns = max(map(len, lines))
    rows = [line for line in lines if len(line) == columns]
    widths = [max(len(row[at]) for row in rows) for at in range(columns)]
    texts = []
    for line in lines:
        cells = zip(line, widths, strict=False)  # a heading has one cell
        padded = [
            cell.ljust(width) if at in left else cell.rjust(width) for at, (cell, width) in enumerate(cells)
        ]
        texts.append(f"{indent}{'  '.join(padded)}".rstrip())
    return texts


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    named = {9: "\\t", 10: "\\n", 13: "\\r"}.get(code)
    if named:
        return named
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

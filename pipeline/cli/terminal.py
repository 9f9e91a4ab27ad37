"""Escape control characters in everything that a command prints.

Names from outside are escaped where they are put into a line (`data.show.visible`). This module is the safety
net: in all that we, a library or a warning write to stdout and stderr, every control character, mark of text
direction and lone surrogate is replaced by its escape; line breaks are kept. On a terminal, the cursor
movements of a progress bar are kept too: a carriage return at the beginning or the end of a write, and tqdm's
line-up.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

import typer

from data.show import visible, visible_lines

# Typer exports only classes derived from it.
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]

# What tqdm writes to move between the lines of several bars.
_MOVES = re.compile(r"(?:\n|\r|\x1b\[A)+\Z")


class VisibleStream:
    """A text stream that escapes control characters and passes the text on to another stream.

    All attributes except `write` and `writelines` are the other stream's. Rich finds the other stream as
    `rich_proxied_file` and writes to it directly; its help text contains nothing from outside.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream
        self._moves = stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)

    def write(self, text: str) -> int:
        """Write a text with its hidden characters escaped; returns the length of `text`, as streams do.

        Raises TypeError for bytes, by which Typer finds out that this is a text stream.
        """
        if not isinstance(text, str):
            raise TypeError(f"a text stream takes str, not {type(text).__name__}")
        self.rich_proxied_file.write(self._shown(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def _shown(self, text: str) -> str:
        if not self._moves:
            return visible_lines(text)
        if _MOVES.match(text):
            return text
        inner = text.strip("\r")
        start = text[: len(text) - len(text.lstrip("\r"))]
        return f"{start}{visible_lines(inner)}{text[len(start) + len(inner) :]}"


class _OneLine(logging.Formatter):
    """Format a log record on one line, with names from outside escaped."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (name given by logging)
        """The message with its hidden characters and line breaks escaped."""
        return visible(super().formatMessage(record))


@contextlib.contextmanager
def safe_output() -> Iterator[None]:
    """Replace stdout and stderr by `VisibleStream`s until the block ends.

    Characters that the encoding of the terminal lacks are escaped too, instead of raising.
    """
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = (VisibleStream(stream) for stream in before)
    if logging.lastResort is not None:  # prints warnings where logging is not configured
        logging.lastResort.setFormatter(_OneLine())
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def own_lines(message: object) -> str:
    """An error's message with its hidden characters escaped.

    The lines of a list of mistakes are indented by two spaces; any other line break is part of a name.
    """
    return "\n  ".join(visible(line) for line in str(message).split("\n  "))


def print_usage_error(error: Any) -> None:
    """Print a usage error as Typer does, with the given arguments escaped."""
    from typer.rich_utils import rich_format_error

    if message := getattr(error, "message", None):
        error.message = visible_lines(message)
    rich_format_error(error)

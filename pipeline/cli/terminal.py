"""The one door to the terminal: what the commands print passes through it, and steers nothing.

Names from outside are made visible where they are put into a line (`data.show.visible`). This is the net
below: of all that is written to stdout and stderr, by us, by a library or by a warning, every control
character, turn of direction and lone surrogate becomes its escape, line breaks apart. On a terminal the
movements of a progress bar pass: a carriage return at the end or the beginning of what is written, and tqdm's
step upwards.
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

# Typer exports what is derived from it alone.
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]

# What tqdm writes to move between the lines of several bars.
_MOVES = re.compile(r"(?:\n|\r|\x1b\[A)+\Z")


class VisibleStream:
    """A text stream in front of another that makes visible what no terminal should be sent.

    All but `write` and `writelines` is the other stream's. `rich_proxied_file` is how Rich finds the stream
    behind a proxy: the help that it draws holds nothing from outside.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream
        self._moves = stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)

    def write(self, text: str) -> int:
        """Write a text with its hidden characters escaped; returns its own length, as streams do."""
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
    """A warning of the log on one line, whatever names are in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (the library's name)
        """The message with its hidden characters and line breaks escaped."""
        return visible(super().formatMessage(record))


@contextlib.contextmanager
def safe_output() -> Iterator[None]:
    """While a command runs, stdout and stderr are such streams.

    What their encoding cannot say (a terminal that is not UTF-8) is escaped, too, instead of failing.
    """
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = (VisibleStream(stream) for stream in before)
    if logging.lastResort is not None:  # what prints the warnings of a program that configures no logging
        logging.lastResort.setFormatter(_OneLine())
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def own_lines(message: object) -> str:
    """An error's message with its hidden characters escaped. Its own further lines are indented (mistakes of
    a file, one by one); any other line break came with a name."""
    return "\n  ".join(visible(line) for line in str(message).split("\n  "))


def print_usage_error(error: Any) -> None:
    """What is wrong with the command line, as Typer prints it, with the given words made visible."""
    from typer.rich_utils import rich_format_error

    if message := getattr(error, "message", None):
        error.message = visible_lines(message)
    rich_format_error(error)

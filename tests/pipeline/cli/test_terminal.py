"""The net below all output: hidden characters are escaped, bars may move, errors are lines of their own."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from tqdm import tqdm

from pipeline.cli.terminal import VisibleStream, own_lines, safe_output


class _Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "pipe", "screen"),
    [
        ("plain\n", "plain\n", "plain\n"),
        ("\x1b[31m\x9b\u202e\udcff\n", "\\x1b[31m\\x9b\\u202e\\udcff\n", "\\x1b[31m\\x9b\\u202e\\udcff\n"),
        ("\r 50%|##  |", "\\r 50%|##  |", "\r 50%|##  |"),
        ("\rname\rover\x1b[A", "\\rname\\rover\\x1b[A", "\rname\\rover\\x1b[A"),
        ("\r", "\\r", "\r"),
        ("\n\x1b[A\r", "\n\\x1b[A\\r", "\n\x1b[A\r"),
        ("\x1b[A!", "\\x1b[A!", "\\x1b[A!"),
    ],
)
def test_what_passes_a_pipe_and_a_terminal(text: str, pipe: str, screen: str) -> None:
    """Line breaks pass both; the moves of a bar a terminal alone, and only around a text."""
    for stream, expected in ((io.StringIO(), pipe), (_Screen(), screen)):
        assert VisibleStream(stream).write(text) == len(text)
        assert stream.getvalue() == expected


def test_bars_are_drawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """tqdm moves its lines, and the title that it was given moves nothing."""
    screen = _Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with (
        safe_output(),
        tqdm(total=2, desc="a\x1b[31m", disable=None, ncols=60) as outer,
        tqdm(total=2, desc="b", disable=None, ncols=60, leave=False),
    ):
        outer.update()
    assert "\ra\\x1b[31m:" in screen.getvalue()
    assert "\x1b[A" in screen.getvalue()
    assert "\x1b[31m" not in screen.getvalue()


def test_output_is_given_back_and_takes_any_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that is not UTF-8 gets escapes, not an error; afterwards the streams are the old ones."""
    raw = io.BytesIO()
    latin = io.TextIOWrapper(raw, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", latin)
    with safe_output():
        print("▸ Größe \udcff")
        print("\x9b", file=sys.stdout)
    assert sys.stdout is latin
    latin.flush()
    assert raw.getvalue() == b"\\u25b8 Gr\\xf6\\xdfe \\udcff\n\\x9b\n"


def test_warnings_of_the_log_are_one_line_each() -> None:
    """Of the log, whatever names it quotes; warnings of Python's pass the same stream."""
    code = (
        "import logging, warnings\nfrom pipeline.cli.terminal import safe_output\n"
        "with safe_output():\n"
        "    logging.getLogger('x').warning('file %s', 'a\\n\\x1b[31m\\u202e')\n"
        "    warnings.warn('odd \\x1b[31m')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=300)
    lines = done.stderr.decode("utf-8").splitlines()
    assert lines[0] == "file a\\n\\x1b[31m\\u202e"
    assert lines[1].endswith("UserWarning: odd \\x1b[31m")


def test_only_own_lines_of_an_error_are_lines() -> None:
    """Mistakes are told one a line, indented; a name's line break makes no line that looks like ours."""
    mistakes = "m.csv: 2 mistakes\n  line 1: x\n  line 2: y"
    assert own_lines(mistakes) == mistakes
    assert own_lines("a\nerror: b\r\x1b[2J.csv: no such file") == "a\\nerror: b\\r\\x1b[2J.csv: no such file"


def test_bytes_are_refused() -> None:
    """Typer writes bytes to find out what kind of stream it has; they must not be printed as text."""
    stream = VisibleStream(io.StringIO())
    with pytest.raises(TypeError, match="takes str, not bytes"):
        stream.write(b"")  # type: ignore[arg-type]
    assert stream.getvalue() == ""

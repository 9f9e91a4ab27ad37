"""kb_builder.browse.shell: SQL from a terminal and from a pipe."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from data.errors import InputError
from kb_builder.browse.shell import run_script


def test_statements_of_a_script_are_answered_one_by_one(
    browsed_kb: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Semicolons in texts, names and comments end nothing; the last statement needs none."""
    lines = "SELECT 'a;\nb' AS x; -- a; b\n;;SELECT 1 AS \"y;\";\n\n/* ; */ SELECT\n2 AS z\n"
    run_script(browsed_kb, io.StringIO(lines))
    assert capsys.readouterr().out == "x\n-----\na;\\nb\n\ny;\n--\n 1\n\nz\n-\n2\n"


def test_a_script_may_use_the_commands(browsed_kb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`.tables` and `.views` print, `.quit` ends it, another is refused."""
    run_script(browsed_kb, io.StringIO(".tables\n.views\n.quit\nSELECT 'unseen';\n"))
    output = capsys.readouterr().out
    assert "v_descriptions " in output
    assert "CREATE OR REPLACE VIEW v_cost AS" in output
    assert "unseen" not in output
    with pytest.raises(InputError, match=r"unknown command '\.schema'; the commands are"):
        run_script(browsed_kb, io.StringIO(".schema\n"))


def test_the_first_error_ends_a_script(browsed_kb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What came before it is printed; what comes after it is not run."""
    with pytest.raises(InputError, match="nope"):
        run_script(browsed_kb, io.StringIO("SELECT 1;\nFROM nope;\nSELECT 'unseen';\n"))
    assert capsys.readouterr().out == "1\n-\n1\n"


@pytest.mark.parametrize("script", ["", "\n", "-- nothing\n", ";\n", "/* nothing"])
def test_nothing_to_run(browsed_kb: Path, capsys: pytest.CaptureFixture[str], script: str) -> None:
    """An empty script, or one of comments, prints nothing."""
    run_script(browsed_kb, io.StringIO(script))
    assert capsys.readouterr().out == ""


def test_a_pipe_of_other_bytes(browsed_kb: Path) -> None:
    """What is no UTF-8 is an error of one line."""
    lines = io.TextIOWrapper(io.BytesIO(b"SELECT '\xff';\n"), encoding="utf-8")
    with pytest.raises(InputError, match="not UTF-8"):
        run_script(browsed_kb, lines)


class Terminal:
    """A program at a terminal: type to it, and wait for what it prints."""

    def __init__(self, end: int) -> None:
        self.end = end
        self.output = ""

    def type(self, text: str) -> None:
        os.write(self.end, text.encode())

    def wait_for(self, text: str) -> str:
        """What it printed up to this text."""
        assert self.has(text, seconds=300), self.output
        before, _, self.output = self.output.partition(text)
        return before

    def interrupt(self, text: str) -> str:
        """Ctrl-C, once more after a while: readline does not see one that comes just before it waits."""
        for _ in range(20):
            self.type("\x03")
            if self.has(text, seconds=3):
                break
        return self.wait_for(text)

    def has(self, text: str, *, seconds: float) -> bool:
        """Does it print this text before so many seconds are over?"""
        deadline = time.monotonic() + seconds
        while text not in self.output and time.monotonic() < deadline:
            if select.select([self.end], [], [], 0.1)[0]:
                self.output += self.read()
        return text in self.output

    def read(self) -> str:
        try:
            return os.read(self.end, 65536).decode()
        except OSError as error:
            if error.errno == errno.EIO:  # the program has ended
                return ""
            raise


@contextmanager
def shell(kb: Path, home: Path) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    end, other = pty.openpty()
    code = "import pathlib, sys, kb_builder.browse.shell as s; s.interact(pathlib.Path(sys.argv[1]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(kb)],
        stdin=other,
        stdout=other,
        stderr=other,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # Ctrl-C reaches whose terminal it is
        env={**os.environ, "XDG_STATE_HOME": str(home), "TERM": "dumb"},
    )
    os.close(other)
    try:
        yield Terminal(end), process
    finally:
        process.kill()
        process.wait()
        os.close(end)


def test_a_prompt_shows_the_sql_and_answers(browsed_kb: Path, tmp_path: Path) -> None:
    """The views' SQL comes first; errors and Ctrl-C are forgiven; lines are remembered for the next time."""
    with shell(browsed_kb, tmp_path / "state") as (terminal, process):
        assert "CREATE OR REPLACE VIEW v_cost AS" in terminal.wait_for("kb > ")
        terminal.type("SELECT category_id, count(*) AS n\n")
        terminal.wait_for("   > ")
        terminal.type("FROM v_descriptions GROUP BY 1 ORDER BY 1;\n")
        assert "cat          2\r\ndog          6" in terminal.wait_for("kb > ")
        terminal.type("FROM nope;\n")
        assert "error: Catalog Error" in terminal.wait_for("kb > ")
        terminal.type("SELECT 'forgotten'\n")
        terminal.wait_for("   > ")
        terminal.interrupt("kb > ")
        terminal.type("SELECT sum(hash(a.range)) FROM range(1_000_000_000_000) AS a, range(1_000) AS b;\n")
        terminal.wait_for("AS b;\r\n")
        terminal.interrupt("interrupted")
        terminal.type("SELECT 'still ' || 'here' AS it;\n")
        assert "forgotten" not in terminal.wait_for("still here")
        terminal.wait_for("kb > ")
        terminal.type(".quit\n")
        assert process.wait(timeout=300) == 0
    assert "SELECT 'still '" in (tmp_path / "state" / "unibind" / "kb_history").read_text(encoding="utf-8")

"""The command line, run as `unibind ARGUMENTS` is, without the seconds that its imports take.

In this process, which has them behind it (`in_process`), or in one of its own, forked from one that has
(`forked`; bench/torture/ground.py). What the start of a process itself does is tested in
tests/pipeline/cli/test_entry.py and test_light.py, with real ones.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.torture.ground import start
from pipeline.cli.main import main


class Told(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


class _Terminal(io.TextIOWrapper):
    """What was written, as a pipe or, with `tty`, as a terminal gets it."""

    def __init__(self, *, tty: bool) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty

    @property
    def text(self) -> str:
        return self.buffer.getvalue().decode("utf-8")  # type: ignore[attr-defined,no-any-return]


def in_process(*arguments: str, folder: Path, piped: str | bytes = "", tty: bool = False) -> Told:
    """A command in this process: `in_process("kb", "stats", folder=…)`."""
    out, err = _Terminal(tty=tty), _Terminal(tty=tty)
    raw = piped.encode("utf-8") if isinstance(piped, str) else piped
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["unibind", *arguments])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as end:
            main()
    return Told(int(end.value.code or 0), out.text, err.text)


def forked(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, with this one's environment; killed if it takes ten minutes."""
    with tempfile.TemporaryDirectory() as place:
        streams = Path(place) / "streams"
        done = start(folder, *arguments, streams=streams, environment=os.environ).wait(600)
    assert done.status is not None, f"{arguments} hangs: {done.err[-2000:]}"
    return subprocess.CompletedProcess(arguments, done.status, done.out, done.err)

"""Variables of the environment are changed within a block and as before after it; cores are counted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.environment import CORES, cores, environment
from data.errors import InputError


def test_children_see_the_changes_and_nobody_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is started within has the new values; what was set is back, what was not is gone."""
    monkeypatch.setenv("UNIBIND_A", "before")
    monkeypatch.delenv("UNIBIND_B", raising=False)
    with environment({"UNIBIND_A": "1", "UNIBIND_B": "2"}):
        code = "import os; print(os.environ['UNIBIND_A'], os.environ['UNIBIND_B'])"
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["1", "2"]
    assert os.environ["UNIBIND_A"] == "before"
    assert "UNIBIND_B" not in os.environ


def test_an_error_within_changes_nothing_of_that() -> None:
    """The values are put back where the block raises, and where it took one away itself."""
    with pytest.raises(ZeroDivisionError), environment({"UNIBIND_B": "2"}):
        del os.environ["UNIBIND_B"]
        raise ZeroDivisionError
    assert "UNIBIND_B" not in os.environ


def test_a_worker_uses_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of an engine counts, but no more than the cores that the process is bound to."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5, 7}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.delenv(CORES, raising=False)
    assert cores() == 4
    for share, count in (("1", 1), ("3", 3), ("64", 4)):
        monkeypatch.setenv(CORES, share)
        assert cores() == count
    for share in ("0", "-1", "many", ""):
        monkeypatch.setenv(CORES, share)
        with pytest.raises(InputError, match="not a number of cores"):
            cores()


def test_no_module_counts_the_cores_of_the_whole_machine() -> None:
    """`os.cpu_count()` ignores the cores that a process is bound to, and a worker's share."""
    root = Path(__file__).parents[2]
    folders = ("data", "kb_builder", "trainer", "pipeline", "flows")
    files = [path for folder in folders for path in (root / folder).rglob("*.py")]
    users = [path for path in files if "cpu_count" in path.read_text(encoding="utf-8")]
    assert users == [root / "data/environment.py"]

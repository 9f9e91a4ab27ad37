"""Variables of the environment are changed within a block and as before after it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from data.environment import environment


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

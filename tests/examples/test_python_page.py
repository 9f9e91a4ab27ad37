"""docs/python.md is true: its session runs in order and prints what stands there."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from types import ModuleType

import pytest

import pipeline.api
from pipeline.api import KbReader, NamedVectors, Project, ResultTable

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
_OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def test_the_session_prints_what_the_page_says(
    finished_cups: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Read in the folder of a small finished project, from top to bottom."""
    text = PAGE.read_text(encoding="utf-8")
    session = "\n".join(re.findall(r"```pycon\n(.*?)```", text, re.DOTALL))
    assert session.count(">>> ") == text.count(">>> ") > 20
    monkeypatch.chdir(finished_cups.parent)
    test = doctest.DocTestParser().get_doctest(session, {}, PAGE.name, str(PAGE), 0)
    result = doctest.DocTestRunner(optionflags=_OPTIONS).run(test)
    assert result.failed == 0, capsys.readouterr().out


def test_the_page_names_every_public_part() -> None:
    """Methods and properties of the API's classes, all of them."""
    assert isinstance(pipeline.api, ModuleType)
    text = PAGE.read_text(encoding="utf-8")
    for kind in (Project, KbReader, ResultTable, NamedVectors):
        for name in vars(kind):
            if not name.startswith("_") and name not in {"data", "folder", "file", "groups", "table"}:
                assert re.search(rf"\b{name}\b", text), f"{kind.__name__}.{name}"

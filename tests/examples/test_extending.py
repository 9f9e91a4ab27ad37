"""Every example of docs/extending.md runs and prints what the page says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data.benchmarks import BENCHMARKS
from data.render import RENDERERS
from kb_builder.encoders import FACTORIES, release_encoders

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = dict(part.split("\n", 1) for part in PAGE.split("\n## ")[1:])
_BLOCK = re.compile(r"```(python|text)\n(.*?)```", re.DOTALL)


@pytest.fixture
def tables() -> Iterator[None]:
    """What an example puts into a table is taken out again."""
    before: list[tuple[dict[Any, Any], dict[Any, Any]]] = [
        (table, dict(table)) for table in (FACTORIES, RENDERERS, BENCHMARKS)
    ]
    yield
    for table, entries in before:
        table.clear()
        table.update(entries)
    release_encoders()


@pytest.mark.parametrize("title", SECTIONS)
def test_an_example_prints_what_the_page_says(
    title: str, cups: Path, tables: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the folder of a small finished project; no example is longer than 40 lines."""
    (_, code), (_, printed) = _BLOCK.findall(SECTIONS[title])
    monkeypatch.chdir(cups.parent)
    exec(compile(code, f"docs/extending.md, {title}", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out == printed
    assert code.count("\n") <= 40


def test_the_files_that_the_page_names_are_there() -> None:
    """Every path in backticks is a file or folder, from the root or in the package named before it."""
    for row in re.findall(r"^\| \[.*", PAGE, re.MULTILINE):
        files = re.findall(r"`([\w/]+(?:\.py|/))`", row)
        assert files, row
        folder = next(ROOT / name for name in files if (ROOT / name).exists())
        package = folder.relative_to(ROOT).parts[0]
        for name in files:
            assert (ROOT / name).exists() or (ROOT / package / name).exists(), name
    titles = re.findall(r"^\| \[(.*?)\]\(#(.*?)\)", PAGE, re.MULTILINE)
    assert [link.replace("-", " ") for _, link in titles] == [title.lower() for title in SECTIONS]

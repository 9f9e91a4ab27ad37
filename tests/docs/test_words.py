"""The words that docs/glossary.md asks to avoid, held against what the packages say to their readers."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
PACKAGES = ("data", "kb_builder", "trainer", "pipeline", "flows")
PRINTING = {"print", "echo", "secho", "say", "write"}
TITLE = "## Words to avoid"


def _avoided() -> list[str]:
    """The first column of the glossary's table of words to avoid."""
    section = GLOSSARY.read_text(encoding="utf-8").partition(TITLE)[2].partition("\n## ")[0]
    rows = [line.strip("| ").split("|")[0].strip() for line in section.splitlines() if line.startswith("| ")]
    return [words for row in rows[1:] for words in row.split(", ")]


@cache
def _sentences() -> list[tuple[str, str]]:
    """Module docstrings and messages of the five packages, each with its file and line."""
    return [
        found
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for found in _said(path)
    ]


def _said(path: Path) -> Iterator[tuple[str, str]]:
    name = str(path.relative_to(ROOT))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield f"{name}:1", ast.get_docstring(tree) or ""
    for node in ast.walk(tree):
        for part in _messages(node):
            for each in ast.walk(part):
                if isinstance(each, ast.Constant) and isinstance(each.value, str):
                    yield f"{name}:{each.lineno}", each.value


def _messages(node: ast.AST) -> Iterator[ast.AST]:
    """What a node says to the user: arguments of a raised error or a printing call, help of an option."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        yield from node.exc.args
    elif isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in PRINTING:
            yield from node.args
        yield from (keyword.value for keyword in node.keywords if keyword.arg in {"help", "epilog"})


@cache
def _lines() -> list[tuple[str, str]]:
    """Lines of the pages, without the glossary (it has the list), quoted terms and code."""
    pages = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]
    return [
        (f"{page.name}:{number}", re.sub(r"`[^`]*`", "", line))
        for page in (*pages, *(path for path in (ROOT / "docs").glob("*.md") if path != GLOSSARY))
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
    ]


def test_the_list_and_the_sentences_are_found() -> None:
    """Both sides of the comparison are there, and a word in a sentence would be seen."""
    assert len(_avoided()) > 10
    assert len(_sentences()) > 1000
    assert any("ledger" in sentence for _, sentence in _sentences())


@pytest.mark.parametrize("words", _avoided())
def test_no_page_has_a_word_to_avoid(words: str) -> None:
    """README, ARCHITECTURE, CONTRIBUTING and docs/*.md are free of it."""
    pattern = re.compile(rf"\b{re.escape(words)}\b", re.IGNORECASE)
    assert [f"{where}: {line}" for where, line in _lines() if pattern.search(line)] == []


@pytest.mark.parametrize("words", _avoided())
def test_no_sentence_has_a_word_to_avoid(words: str) -> None:
    """Module docstrings and user-facing messages are free of it."""
    pattern = re.compile(rf"\b{re.escape(words)}\b", re.IGNORECASE)
    found = [
        f"{where}: {' '.join(sentence.split())}"
        for where, sentence in _sentences()
        if pattern.search(sentence)
    ]
    assert found == []

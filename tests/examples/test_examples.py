"""Every file of examples/ runs, on a small project, and prints what it says."""

from __future__ import annotations

import io
import runpy
import socket
import sys
from pathlib import Path

import pytest

from kb_builder.browse.shell import run_script
from pipeline.project import load_project
from tests.planted import EXAMPLES


def _run(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """As `python examples/NAME ARGUMENTS` would."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    monkeypatch.syspath_prepend(EXAMPLES)
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_the_list_is_whole() -> None:
    """A new example needs a test here."""
    assert {path.name for path in EXAMPLES.glob("*.*")} == {
        "from_python.py",
        "look_inside.sql",
        "own_describer.py",
        "own_encoder.py",
        "part-numbers.toml",
    }


def test_the_world_under_part_numbers_is_a_project() -> None:
    """Its codes and notes are tested with the sample world, its texts with the writer."""
    project = load_project(EXAMPLES / "part-numbers.toml")
    assert (project.tabletop.names, project.describe.categories.describer) == ("codes", "local")
    assert project.localize.k == project.describe.categories.n


def test_from_python(
    finished_cups: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It runs a project, asks its knowledge base, recognises and finds."""
    _run("from_python.py", monkeypatch, finished_cups, finished_cups.parent / "media" / "green-cup-7.png")
    printed = capsys.readouterr().out
    assert "category  ok         24" in printed
    assert "green cup: " in printed
    assert "photos (48, 96), texts (24, 96)" in printed
    assert "seen categories" in printed


def test_own_encoder(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It registers an encoder and encodes two texts; two of three words are the same."""
    _run("own_encoder.py", monkeypatch)
    assert capsys.readouterr().out == "words: float32[2, 96], cosine 0.67\n"


def test_own_describer(
    cups: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its texts are in the knowledge base, accepted; and it is not asked again for what it has answered."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    _run("own_describer.py", monkeypatch, cups, port)
    printed = capsys.readouterr().out
    assert printed.count("  ok      The blue ball ") == 4
    ledger = load_project(cups).kb / "ledger.sqlite"
    before = ledger.stat().st_size
    _run("own_describer.py", monkeypatch, cups, port)
    assert capsys.readouterr().out == printed
    assert ledger.stat().st_size == before


def test_look_inside(finished_cups: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every statement is answered, and none of the answers is empty."""
    statements = (EXAMPLES / "look_inside.sql").read_text(encoding="utf-8")
    run_script(load_project(finished_cups).kb, io.StringIO(statements))
    answers = capsys.readouterr().out.split("\n\n")
    assert len(answers) == statements.count(";\n") == 6
    assert not any("(no rows)" in answer for answer in answers)
    assert "current" in answers[-1]

"""Pipes, devices, links and folders where the project keeps its files: one line, and nothing is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.torture.ground import RUN, Ground, make_project
from bench.torture.places import COMMANDS, KINDS, PLACES, strike
from data.errors import KnowledgeBaseError
from pipeline.project import load_project


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_an_odd_thing_is_found_before_anything_is_opened(tmp_path: Path, place: str, kind: str) -> None:
    """Every kind in every place of a run's folder is one line with its name."""
    folder = make_project(tmp_path / "p")
    path = Path(os.path.normpath(folder / RUN / place))
    path.parent.mkdir(parents=True, exist_ok=True)
    KINDS[kind](path)
    with pytest.raises(KnowledgeBaseError, match=f"{path.name} is .* belongs; move it away") as error:
        load_project(folder / "unibind.toml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("place", "kind", "command"),
    [
        ("kb/ledger.sqlite", "a pipe", COMMANDS[0]),
        ("stages/encode.json", "a link to a pipe", COMMANDS[1]),
        ("run.lock", "a link to /dev/full", COMMANDS[3]),
        ("kb", "a link to itself", COMMANDS[2]),
    ],
)
def test_commands_say_it_in_one_line_and_go_on_afterwards(
    ground: Ground, place: str, kind: str, command: tuple[str, ...]
) -> None:
    """No command hangs or raises; with the file back in its place, the run ends as an undisturbed one."""
    assert strike(ground, place, kind, command) is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_every_odd_thing_in_every_place(ground: Ground, place: str, kind: str) -> None:
    """The same for every kind in every place."""
    assert strike(ground, place, kind, COMMANDS[len(place) % len(COMMANDS)]) is None


def test_a_project_file_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    """Opening it would wait for a writer that never comes."""
    os.mkfifo(tmp_path / "unibind.toml")
    with pytest.raises(Exception, match=r"unibind\.toml: cannot be read: not a regular file"):
        load_project(tmp_path / "unibind.toml")

"""Find the project of a command: --project, unibind.toml in this folder, or the last project run from here.

Commands that make or run a project note its file in `.unibind/last.json` of the current folder, unless that
folder has a unibind.toml. Commands that only read (kb, predict, retrieve, doctor) fall back to it, and say so
in one line; commands that change a run never do.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data.errors import ProjectError
from data.show import visible

if TYPE_CHECKING:
    from pipeline.project import ProjectFile

DEFAULT_PROJECT = Path("unibind.toml")
LAST = Path(".unibind") / "last.json"  # {"project": its path, relative where it is below this folder}

ProjectOption = Annotated[
    Path | None,
    typer.Option("--project", "-p", help="The project file.", show_default="unibind.toml"),
]
ReadProject = Annotated[
    Path | None,
    typer.Option(
        "--project", "-p", help="The project file.", show_default="unibind.toml, else the last one run here"
    ),
]


def load(given: Path | None) -> ProjectFile:
    """The checked project of a command that changes a run; from now on files are decoded within its budget.

    Raises ProjectError where `given` is None and no unibind.toml is here, naming the last project as a hint.
    """
    if given is None and (last := _fallback()) is not None:
        raise ProjectError(
            f"{DEFAULT_PROJECT}: no such file in this folder; this command changes a run, so name its"
            f" project: --project {last} is the last one run from here"
        )
    return _loaded(given or DEFAULT_PROJECT)


def load_to_read(given: Path | None) -> ProjectFile:
    """The checked project of a command that only reads: `given`, unibind.toml, or the last one run here."""
    if given is None and (last := _fallback()) is not None:
        print(f"project {visible(last)}, the last one run from this folder", file=sys.stderr, flush=True)
        return _loaded(last)
    return _loaded(given or DEFAULT_PROJECT)


def load_if_any(given: Path | None) -> ProjectFile | None:
    """As `load_to_read`; None where no project is given and there is none to fall back to."""
    if given is None and not _is_here() and last_project() is None:
        return None
    return load_to_read(given)


def remember(path: Path) -> None:
    """Note a project file as the last one run from this folder, unless the folder has a unibind.toml."""
    if _is_here():
        return
    here, path = Path.cwd(), path.resolve()
    place = path.relative_to(here) if path.is_relative_to(here) else path
    if last_project() == place:
        return
    from data.files import write_text

    try:
        write_text(LAST, json.dumps({"project": str(place)}) + "\n")
    except OSError as error:
        print(
            f"note: {LAST} cannot be written ({error.strerror}); later commands need --project",
            file=sys.stderr,
            flush=True,
        )


def last_project() -> Path | None:
    """The last project file noted in this folder; None where there is none, or the note is damaged."""
    try:
        return Path(json.loads(LAST.read_text(encoding="utf-8"))["project"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        print(f"note: {LAST} is damaged and ignored", file=sys.stderr, flush=True)
        return None


def _fallback() -> Path | None:
    """The project for a command that names none: the last one noted, where no unibind.toml is here."""
    return None if _is_here() else last_project()


def _is_here() -> bool:
    """Whether this folder has a unibind.toml, readable or not."""
    return DEFAULT_PROJECT.exists() or DEFAULT_PROJECT.is_symlink()


def _loaded(path: Path) -> ProjectFile:
    from data.readers import use_budget
    from pipeline.project import load_project

    project = load_project(path)
    use_budget(project.data.budget)
    return project

"""One whole run: project file, stages in order, command line, Python API, predictions, report.

    from pipeline import Project

Importing this package loads nothing else: the command line's `--help` depends on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import Project

__all__ = ["Project"]


def __getattr__(name: str) -> Any:
    """`Project`, imported when it is first asked for. Raises AttributeError for every other name."""
    if name != "Project":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.api import Project

    return Project

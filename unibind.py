"""Entry point of `unibind` and `python -m unibind`: check which packages Python finds, then run pipeline.cli.

Our packages have common names (data, trainer, pipeline). A user's own package of such a name is found first
if it lies in a folder of PYTHONPATH or, with `python -m`, in the current folder. This module imports none of
the packages before it has checked that they are ours.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("data", "kb_builder", "trainer", "pipeline", "flows")
ROOT = Path(__file__).resolve().parent  # the repository, or site-packages
_NEW_OBJECTS = 20_000  # between two searches for unreachable cycles; Python's 700 cost 0.15 s of imports


def main() -> None:
    """Run the command line; one line on stderr and status 1 if another package shadows one of ours."""
    if problem := foreign_package():
        sys.exit(f"error: {problem}")
    gc.set_threshold(_NEW_OBJECTS)
    from pipeline.cli.main import main as run

    try:
        run()
    except SystemExit as ended:
        end(ended.code)


def end(status: str | int | None) -> None:
    """End the process as Python does, but do not take every object apart first: with torch that is 0.4 s.

    What was registered for the end is run. Where a thread is still at work, Python's own way waits for it.
    """
    at_work = [each for each in threading.enumerate() if not each.daemon]
    if not isinstance(status, int) or at_work != [threading.main_thread()]:
        sys.exit(status)
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # a reader that has gone, or a closed stream: Python's way says so
        sys.exit(status)
    os._exit(status)


def foreign_package() -> str | None:
    """Which of our packages another one shadows, where that lies, and how to fix it; None if all are ours.

    Imports no package: foreign code does not run.
    """
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is None:
            return (
                f"the package `{name}` is not installed; run `make setup`, or install unibind-pipeline again"
            )
        places = list(spec.submodule_search_locations or ()) or [spec.origin or "?"]
        found = Path(places[0]).resolve()
        if found != (ROOT / name).resolve():
            return (
                f"Python finds another package `{name}` before unibind's own: {ascii(str(found))[1:-1]};"
                f" {_remedy(found.parent)}"
            )
    return None


def _remedy(folder: Path) -> str:
    """How to have our package found instead of one in `folder`, which is on Python's path."""
    named = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if any(Path(each).resolve() == folder for each in named):
        return "take its folder off PYTHONPATH, such as with `env -u PYTHONPATH unibind ...`"
    if folder == Path.cwd():
        return "run `unibind` or `python -P -m unibind` instead, which do not search this folder"
    return "uninstall or rename it, or install unibind in a separate virtual environment"


if __name__ == "__main__":
    main()

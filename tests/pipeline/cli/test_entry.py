"""unibind.py: another package of one of our names is one line, not an ImportError from inside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = "import sys\nfrom unibind import main\nsys.exit(main())\n"  # as pip writes it


def _run(
    *command: str, cwd: Path, path: tuple[Path, ...] = (), flags: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, with `path` and the repository on PYTHONPATH."""
    return subprocess.run(
        [sys.executable, *flags, *command],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT))), "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The console script, in a folder of its own."""
    path = tmp_path / "bin" / "unibind"
    path.parent.mkdir()
    path.write_text(SCRIPT, encoding="utf-8")
    return path


def _package(folder: Path, name: str) -> Path:
    """A package that must not be run."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text("raise RuntimeError('foreign code has run')", encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", ["data", "kb_builder", "trainer", "pipeline", "flows"])
def test_a_package_on_pythonpath_is_named_with_its_place(tmp_path: Path, script: Path, name: str) -> None:
    """Which, where and what to do, in one line; its code does not run."""
    foreign = _package(tmp_path / "mine", name)
    done = _run(str(script), "--help", cwd=tmp_path, path=(foreign,))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: Python finds another package `{name}` before unibind's own: {foreign / name};"
        " take its folder off PYTHONPATH, such as with `env -u PYTHONPATH unibind ...`\n"
    )


def test_a_package_in_the_current_folder(tmp_path: Path, script: Path) -> None:
    """It shadows ours with `python -m unibind` only, which names the commands that work there."""
    folder = _package(tmp_path / "work", "data")
    done = _run("-m", "unibind", "--help", cwd=folder)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: Python finds another package `data` before unibind's own: {folder / 'data'};"
        " run `unibind` or `python -P -m unibind` instead, which do not search this folder\n"
    )
    assert _run("-m", "unibind", "--help", cwd=folder, flags=("-P",)).returncode == 0
    assert _run(str(script), "--help", cwd=folder).returncode == 0


def test_a_folder_of_data_is_no_package(tmp_path: Path, script: Path) -> None:
    """A folder `data` without an __init__.py, as most users have, stops nothing."""
    (tmp_path / "data").mkdir()
    for command in ((str(script),), ("-m", "unibind")):
        done = _run(*command, "--help", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert "Usage: unibind [OPTIONS]" in done.stdout


def test_a_missing_package_is_one_line(tmp_path: Path) -> None:
    """A copy of unibind.py alone says what is not installed."""
    (tmp_path / "unibind.py").write_bytes((ROOT / "unibind.py").read_bytes())
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            "import sys; sys.path.append('.'); import unibind; unibind.main()",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: the package `data` is not installed; run `make setup`")


_ENDED = """
import atexit, sys, threading, time
import pipeline.cli.main as command
import unibind

def work():
    time.sleep(0.2)
    print("the thread is done")

def run():
    if "thread" in sys.argv:
        threading.Thread(target=work).start()
    print("x" * 200_000)
    sys.exit(int(sys.argv[1]))

atexit.register(print, "registered")
command.main = run
unibind.main()
"""


@pytest.mark.parametrize("more", [(), ("thread",)])
def test_the_end_is_quick_and_whole(tmp_path: Path, more: tuple[str, ...]) -> None:
    """All output, what is registered for the end, the status, and threads that are still at work."""
    done = _run("-c", _ENDED, "3", *more, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (3, "")
    printed, *rest = done.stdout.splitlines()
    assert printed == "x" * 200_000
    assert rest == ["the thread is done"] * bool(more) + ["registered"]


def test_a_reader_that_has_gone_ends_a_command_quietly(tmp_path: Path) -> None:
    """`unibind … | head`: no traceback from the flush at the end."""
    done = _run("-c", "import subprocess, sys; " + _GONE, cwd=tmp_path)
    assert done.stdout.strip() == ""
    assert "Traceback" not in done.stderr


_GONE = """
command = subprocess.Popen([sys.executable, "-m", "unibind", "--help"], stdout=subprocess.PIPE)
command.stdout.close()
command.wait()
"""

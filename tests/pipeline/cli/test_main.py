"""The command line: quick help, one-line errors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from kb_builder.settings import CategoryDescriber
from pipeline.cli.main import main
from pipeline.cli.reproduce import Describer
from tests.commands import Told

Unibind = Callable[..., Told]


def test_help_lists_every_command_by_what_it_is_for(tmp_path: Path) -> None:
    """Each command in its panel, on one line of 80 columns, and nothing but text."""
    done = subprocess.run(
        [sys.executable, "-c", "from pipeline.cli.main import main; main()", "--help"],
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "b'" not in done.stdout
    panels: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        assert len(line) <= 80
        if title := re.match(r"╭─ (.+?) ─+╮", line):
            rows = panels.setdefault(title[1], [])
        elif line.startswith("│"):
            rows.append(line[2:].split(" ")[0])
    assert panels == {
        "Options": ["--help"],
        "Start here": ["demo", "init", "split", "doctor", "run"],
        "Look at a run": ["predict", "retrieve", "ui", "kb"],
        "Run one stage": ["describe", "encode", "localize", "train"],
        "Measure and compare": ["evaluate", "compare", "study", "reproduce"],
        "Operate": ["fake-openai", "models"],
    }


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    """`--help` must not wait for torch and its like."""
    heavy = {"torch", "numpy", "pyarrow", "pydantic", "prefect"}
    code = f"import sys, pipeline.cli.main; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_reproduce_offers_every_describer_of_categories() -> None:
    """The command line lists them itself, as importing the settings would slow down `--help`."""
    assert get_args(Describer) == get_args(CategoryDescriber)


@pytest.mark.parametrize("command", ["run", "describe", "encode", "localize", "train", "evaluate"])
def test_a_missing_project_is_one_line(tmp_path: Path, unibind: Unibind, command: str) -> None:
    """Without a project file every command says so in one line and exits with 1."""
    status, _, err = unibind(command, folder=tmp_path)
    assert status == 1
    assert "unibind init" in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_a_project_with_three_mistakes_lists_them_without_a_traceback(
    tmp_path: Path, unibind: Unibind
) -> None:
    """All the mistakes of the file are told in one go."""
    (tmp_path / "unibind.toml").write_text('name = ""\n[dta]\n[localize]\nk = 0\n', encoding="utf-8")
    status, _, err = unibind("run", folder=tmp_path)
    assert status == 1
    assert "4 mistakes" in err
    assert "dta: unknown key; did you mean `data`?" in err
    assert "Traceback" not in err


def test_a_manifest_that_is_not_there_is_one_line(tmp_path: Path, unibind: Unibind) -> None:
    """The manifest's path is in the message."""
    (tmp_path / "unibind.toml").write_text('name = "x"\n[data]\nmanifest = "no.csv"\n', encoding="utf-8")
    status, _, err = unibind("run", folder=tmp_path)
    assert status == 1
    assert "no.csv" in err
    assert "Traceback" not in err


def test_a_disk_that_takes_nothing_is_one_line(tmp_path: Path, unibind: Unibind) -> None:
    """What the system says, and where; never a traceback."""
    (tmp_path / "unibind.toml").write_text('name = "x"\n[data]\nmanifest = "m.csv"\n', encoding="utf-8")
    (tmp_path / "m.csv").write_text("uri,modality\na.txt,text\n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("a bell", encoding="utf-8")
    (tmp_path / "runs").write_text("a file where a folder should be", encoding="utf-8")
    status, _, err = unibind("describe", folder=tmp_path)
    assert status == 1
    assert "runs is a file, where a folder belongs" in err
    assert str(tmp_path / "runs") in err
    assert "Traceback" not in err


def _stopped(monkeypatch: pytest.MonkeyPatch, thrown: BaseException) -> None:
    """Let every command that loads a project end with an exception."""

    def stop(project: object) -> None:
        raise thrown

    monkeypatch.setattr("pipeline.cli.main.load", stop)


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, unibind: Unibind, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt ends with 130 and one line."""
    _stopped(monkeypatch, KeyboardInterrupt())
    status, _, err = unibind("describe", folder=tmp_path)
    assert status == 130
    assert "stopped; run the same command again to continue" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "thrown",
    [
        MemoryError(),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("can't start new thread"),
    ],
)
def test_too_little_memory_is_one_line(
    tmp_path: Path, unibind: Unibind, monkeypatch: pytest.MonkeyPatch, thrown: Exception
) -> None:
    """However a library says it."""
    _stopped(monkeypatch, thrown)
    status, _, err = unibind("describe", folder=tmp_path)
    assert status == 1
    assert err.startswith("error: out of memory; end other programs")
    assert err.count("\n") == 1


def test_a_bug_of_ours_keeps_its_traceback(
    tmp_path: Path, unibind: Unibind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only want of memory is told in a line of its own."""
    _stopped(monkeypatch, RuntimeError("a bug"))
    status, _, err = unibind("describe", folder=tmp_path)
    assert status == 1
    assert "Traceback" in err


def test_the_demo_ends_with_the_line_that_opens_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`unibind ui`, which finds the demo by itself."""
    monkeypatch.setattr("pipeline.cli.main._run", lambda project: [])
    monkeypatch.setattr(sys, "argv", ["unibind", "demo"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert capsys.readouterr().out.splitlines()[-1] == "look     unibind ui"

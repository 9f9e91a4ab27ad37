"""The flow train-alignment."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import train_alignment


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("true", ["train", "evaluate", "report"]), ("false", ["evaluate", "report"])],
)
def test_trains_where_the_project_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, expected: list[str]
) -> None:
    """A project with training off is evaluated zero-shot, as the command line does it."""
    path = tmp_path / "project.toml"
    path.write_text(f'name = "p"\n[data]\nmanifest = "m.csv"\n[train]\nenabled = {setting}\n')
    ran: list[str] = []
    monkeypatch.setattr(train_alignment, "run_stage", lambda project, name: ran.append(name))
    train_alignment.train_alignment.fn(str(path))
    assert ran == expected

"""The files behind a stage are found by following imports from its function."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.run import code, jobs
from pipeline.run.code import ROOT, code_hash, files


def _names(function: object) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in files(function)}  # type: ignore[arg-type]


def test_imports_inside_functions_and_named_modules_and_tables_are_followed() -> None:
    """A stage imports when it runs; readers are named in a table; prompts and gates lie in TOML files."""
    described = _names(jobs._describe_samples)
    assert {
        "kb_builder/describe/samples.py",
        "data/readers/events/event.py",
        "kb_builder/gates/gates.toml",
    } <= described
    assert {"kb_builder/describe/prompts/sample_image.toml", "kb_builder/encoders/clip.py"} <= described


def test_a_stage_counts_what_it_reaches_and_nothing_else() -> None:
    """The report computes with the trainer; training knows no describer, and ingest no encoder."""
    assert {"trainer/evaluate/maps/tsne.py", "trainer/align/heads.py", "pipeline/html/elements.py"} <= _names(
        jobs._report
    )
    assert not {name for name in _names(jobs._train) if name.startswith(("data/readers", "pipeline/"))}
    assert "kb_builder/describe/samples.py" not in _names(jobs._train)
    assert not {name for name in _names(jobs._ingest) if "encoders" in name or name.startswith("trainer/")}


def test_another_line_in_a_file_is_another_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash covers every file that is found, by its content."""
    before = code_hash.__wrapped__(jobs._localize)
    honest = code.hash_file
    changed = ROOT / "trainer" / "score" / "geometry.py"

    def other(path: Path) -> str:
        return "other" if path == changed else honest(path)

    monkeypatch.setattr(code, "hash_file", other)
    assert changed in files(jobs._localize)
    assert code_hash.__wrapped__(jobs._localize) != before
    assert code_hash.__wrapped__(jobs._world) == code_hash(jobs._world)

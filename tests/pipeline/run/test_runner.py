"""Stages are recognised by fingerprint, skipped when whole, and go on where they stopped."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.errors import InputError, KnowledgeBaseError
from data.files import write_json, write_text
from data.lock import write_lock
from data.reads import reading
from pipeline.project import ProjectFile, load_project
from pipeline.run import jobs, stale
from pipeline.run import runner as stages
from pipeline.run.jobs import write_metrics
from pipeline.run.stage import Completed, Stage
from pipeline.run.stale import is_current


@pytest.fixture
def project(tmp_path: Path) -> ProjectFile:
    path = tmp_path / "unibind.toml"
    path.write_text('name = "x"\n[data]\nmanifest = "m.csv"\n', encoding="utf-8")
    (tmp_path / "m.csv").write_text("a", encoding="utf-8")
    return load_project(path)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Two small stages in place of the real ones: `copy` reads the manifest, `parts` has three shards."""
    made: list[Any] = []

    def copy(project: ProjectFile) -> dict[str, Any]:
        made.append("copy")
        write_text(project.run / "copy.txt", reading(project.manifest).read_text(encoding="utf-8"))
        return {"files": 1}

    def part(project: ProjectFile, shards: list[int], complete: Completed) -> None:
        for shard in shards:
            made.append(shard)
            text = reading(project.run / "copy.txt").read_text() + str(shard)
            write_text(project.kb / f"part-{shard:05d}.txt", text)
            cost = None if shard == 2 else 0.5
            complete(shard, {"rows": shard, "by": {"ok": 1}, "late": [shard], "usd": cost})

    table = {
        "copy": Stage(
            name="copy",
            needs=(),
            settings=lambda project: project.seed,
            run=copy,
            outputs=lambda project: [project.run / "copy.txt"],
        ),
        "parts": Stage(
            name="parts",
            needs=("copy",),
            settings=lambda project: None,
            run=part,
            outputs=lambda project: project.kb.glob("part-*.txt"),
            shards=lambda project: 3,
        ),
    }
    monkeypatch.setattr(jobs, "_BY_NAME", table)
    return made


def test_a_summary_is_one_line_for_people(
    project: ProjectFile,
    calls: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Rounded, thousands apart, long dicts and lists by their length, and no control character of a name."""
    summary = {
        "samples": 1234567,
        "usd": 0.1 + 0.2,
        "loss": 0.123456789,
        "by": {"ok": 1000, "no\x1b[31m": 2},
        "fewer": {f"category {number}": number for number in range(2000)},
        "without": ["a", "b"],
        "none": [],
        "val_top1": None,
        "spent_usd": None,
    }

    def count(project: ProjectFile) -> dict[str, Any]:
        return summary

    stage = replace(jobs._BY_NAME["copy"], run=count, outputs=lambda project: [])
    monkeypatch.setitem(jobs._BY_NAME, "copy", stage)
    monkeypatch.setattr(stale, "STAGE_NAMES", ("copy",))
    stages.run_stages(project, ["copy"])
    told = capsys.readouterr().err.splitlines()[1]
    assert told.startswith("  copy: 0.0 s  (")
    assert told.split("  (")[1] == (
        "samples 1,234,567, usd 0.3, loss 0.123, by ok 1,000, by no\\x1b[31m 2, fewer 2,000, without 2,"
        " spent_usd unknown)"
    )


def test_a_finished_stage_is_skipped_and_says_what_it_did(project: ProjectFile, calls: list[Any]) -> None:
    """The second call does nothing and returns the first one's counts."""
    first = stages.run_stage(project, "copy")
    second = stages.run_stage(project, "copy")
    assert calls == ["copy"]
    assert (first.skipped, second.skipped) == (False, True)
    assert second.summary == {"files": 1}
    assert second.seconds == first.seconds


@pytest.mark.parametrize("harm", ["settings", "input", "deleted", "changed"])
def test_a_stage_runs_again_when_anything_it_stands_on_changed(
    project: ProjectFile, calls: list[Any], harm: str
) -> None:
    """New settings, another input, a deleted or an edited output: none of them is passed over."""
    stages.run_stage(project, "copy")
    if harm == "settings":
        project = project.model_copy(update={"seed": 1})
    elif harm == "input":
        project.manifest.write_text("b", encoding="utf-8")
    elif harm == "deleted":
        (project.run / "copy.txt").unlink()
    else:
        (project.run / "copy.txt").write_text("z", encoding="utf-8")
    assert not stages.run_stage(project, "copy").skipped
    assert calls == ["copy", "copy"]


def test_a_stage_is_current_until_what_it_stands_on_changes(project: ProjectFile, calls: list[Any]) -> None:
    """Not before it and those it needs have run; no longer when their output or its own has changed."""
    assert not is_current(project, "copy")
    assert not is_current(project, "parts")
    stages.run_stage(project, "copy")
    stages.run_stage(project, "parts")
    assert is_current(project, "copy")
    assert is_current(project, "parts")
    write_text(project.manifest, "b")
    assert not is_current(project, "copy")
    assert is_current(project, "parts")
    stages.run_stage(project, "copy")
    assert not is_current(project, "parts")
    write_text(project.run / "copy.txt", "edited")
    assert not is_current(project, "copy")
    assert calls == ["copy", 0, 1, 2, "copy"]


def test_an_output_that_was_only_touched_is_still_recognised(project: ProjectFile, calls: list[Any]) -> None:
    """A copied or touched file with the same bytes is the same file."""
    stages.run_stage(project, "copy")
    (project.run / "copy.txt").write_text("a", encoding="utf-8")
    assert stages.run_stage(project, "copy").skipped


def test_what_comes_after_runs_again_only_if_the_content_changed(
    project: ProjectFile, calls: list[Any]
) -> None:
    """A stage that ran again and put out the same bytes leaves the later ones alone."""
    stages.run_stage(project, "copy")
    stages.run_stage(project, "parts")
    (project.run / "copy.txt").unlink()
    stages.run_stage(project, "copy")
    assert stages.run_stage(project, "parts").skipped
    project.manifest.write_text("b", encoding="utf-8")
    stages.run_stage(project, "copy")
    assert not stages.run_stage(project, "parts").skipped


def test_shards_are_recognised_one_by_one_and_add_up(project: ProjectFile, calls: list[Any]) -> None:
    """What a killed run had finished is not done again; the counts of all shards are added."""
    stages.run_stage(project, "copy")
    assert jobs.shards(project, "parts") == [0, 1, 2]
    stages.run_shard(project, "parts", 1)
    result = stages.run_stage(project, "parts")
    assert calls == ["copy", 1, 0, 2]
    assert result.summary == {"rows": 3, "by": {"ok": 3}, "late": [0, 1, 2], "usd": None}


def test_a_shard_that_was_completed_counts_though_a_later_one_fails(
    project: ProjectFile, calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each shard is marked as soon as its files are written, not when all of them are."""
    stages.run_stage(project, "copy")
    working = jobs._BY_NAME["parts"]
    broken = [True]

    def fails_after_one(project: ProjectFile, shards: list[int], complete: Completed) -> None:
        working.run(project, shards[:1] if broken else shards, complete)
        if broken:
            raise KnowledgeBaseError("no more")

    monkeypatch.setitem(jobs._BY_NAME, "parts", replace(working, run=fails_after_one))
    with pytest.raises(KnowledgeBaseError, match="no more"):
        stages.run_stage(project, "parts")
    broken.clear()
    assert not stages.run_stage(project, "parts").skipped
    assert calls == ["copy", 0, 1, 2]


def test_a_stage_before_its_time_says_what_to_run_first(project: ProjectFile, calls: list[Any]) -> None:
    """A stage whose ground is missing names the stage that must come first."""
    with pytest.raises(KnowledgeBaseError, match="'copy' has not been run"):
        stages.run_stage(project, "parts")


def test_an_unknown_stage_is_named(project: ProjectFile) -> None:
    """A stage that is not there is one line with those that are."""
    with pytest.raises(InputError, match="the stages are: world, ingest"):
        stages.run_stage(project, "wrold")


def test_two_runs_of_one_project_do_not_mix(project: ProjectFile, calls: list[Any]) -> None:
    """While one process works on a project, another is told which, and a finished stage is still skipped."""
    stages.run_stage(project, "copy")
    with write_lock(project.run / "run.lock"):
        with pytest.raises(KnowledgeBaseError, match=f"process {os.getpid()}"):
            stages.run_stage(project, "parts")
        assert stages.run_stage(project, "copy").skipped
    assert not stages.run_stage(project, "parts").skipped


def test_a_full_disk_is_one_line_and_marks_nothing(
    project: ProjectFile, calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After ENOSPC the stage is not marked done and the same command goes on later."""

    def full(project: ProjectFile) -> dict[str, Any]:
        raise OSError(errno.ENOSPC, "No space left on device", "copy.txt")

    working = jobs._BY_NAME["copy"]
    monkeypatch.setitem(jobs._BY_NAME, "copy", replace(working, run=full))
    with pytest.raises(InputError, match=r"No space left on device \(copy.txt\)"):
        stages.run_stage(project, "copy")
    monkeypatch.setitem(jobs._BY_NAME, "copy", working)
    assert not stages.run_stage(project, "copy").skipped


def test_metrics_hold_every_stage_that_ran_with_its_time(project: ProjectFile, calls: list[Any]) -> None:
    """metrics.json is the evaluation beside data set, seed and the wall time of each stage."""
    write_json(project.run / "evaluation.json", {"recognition": []})
    write_json(project.run / "stages" / "world.json", {"seconds": 1.5, "summary": {}})
    metrics = write_metrics(project)
    assert metrics["dataset"] == "x"
    assert metrics["stages"] == [{"name": "world", "seconds": 1.5, "skipped": False}]
    assert (project.run / "metrics.json").exists()


def test_a_knowledge_base_that_is_removed_meanwhile_marks_nothing(
    project: ProjectFile, calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage that lists what it finds afterwards would be marked as done with half of its files."""

    def removed(project: ProjectFile) -> dict[str, Any]:
        shutil.rmtree(project.kb)
        project.kb.mkdir()
        return {}

    stages.run_stage(project, "copy")
    project.kb.mkdir(exist_ok=True)
    working = jobs._BY_NAME["copy"]
    broken = replace(working, run=removed, settings=lambda project: "others")
    monkeypatch.setitem(jobs._BY_NAME, "copy", broken)
    with pytest.raises(KnowledgeBaseError, match="was removed or replaced while it was written"):
        stages.run_stage(project, "copy")
    assert not is_current(project, "copy")

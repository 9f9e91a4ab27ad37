"""What is done again after a change, what is not, and what single commands say of a change before them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data.errors import InputError
from pipeline.project import load_project
from pipeline.run.jobs import STAGE_NAMES, plan
from pipeline.run.runner import run_stages
from pipeline.run.stale import require_current_before
from tests.commands import in_process

Done = Callable[[Path], set[str]]


@pytest.fixture
def done() -> Done:
    """Run a folder's project; the names of the stages that did anything."""

    def run(folder: Path) -> set[str]:
        project = load_project(folder / "unibind.toml")
        return {result.name for result in run_stages(project, plan(project)) if not result.skipped}

    return run


def _edit(folder: Path, file: str, old: str, new: str) -> None:
    text = (folder / file).read_text(encoding="utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")


def _set(folder: Path, section: str, line: str) -> None:
    _edit(folder, "unibind.toml", f"[{section}]\n", f"[{section}]\n{line}\n")


def test_nothing_is_done_again_where_nothing_changed(finished: Path, done: Done) -> None:
    """Neither in a copy of the folder nor after files were touched; and a second look hashes nothing."""
    assert done(finished) == set()
    for path in (finished / "media").iterdir():
        path.touch()
    (finished / "samples.csv").touch()
    assert done(finished) == set()


def test_wrong_labels_give_wrong_numbers(finished: Path, done: Done) -> None:
    """With a rule that looks at no sample the centers stay the same bytes; what is measured does not."""
    _set(finished, "localize", 'rule = "text"')
    done(finished)
    centers = (finished / "runs/p/kb/centers.parquet").read_bytes()
    before = pq.read_table(finished / "runs/p/named.parquet")
    text = (finished / "samples.csv").read_text(encoding="utf-8")
    for old, new in (("red fox", "@"), ("pond", "red fox"), ("@", "pond")):
        text = text.replace(old, new)
    (finished / "samples.csv").write_text(text, encoding="utf-8")
    assert {"ingest", "train", "evaluate", "report"} <= done(finished)
    assert (finished / "runs/p/kb/centers.parquet").read_bytes() == centers
    assert not pq.read_table(finished / "runs/p/named.parquet").equals(before)


def test_another_split_judges_no_answer_and_encodes_nothing(finished: Path, done: Done) -> None:
    """Descriptions and vectors do not know of splits."""
    _edit(finished, "samples.csv", "train", "val")
    assert done(finished) == {"ingest", "localize", "train", "evaluate", "report"}


@pytest.mark.parametrize(
    ("section", "line", "expected"),
    [
        ("localize", "seed = 7", {"localize"}),
        ("encode", "batch_size = 5", set()),
        ("describe.categories", "concurrency = 3", set()),
        ("evaluate", 'scorer = "mean"', {"evaluate", "report"}),
    ],
)
def test_a_setting_redoes_what_it_changes(
    section: str, line: str, expected: set[str], finished: Path, done: Done
) -> None:
    """A setting that a stage does not use does not run it; what comes out the same goes no further."""
    _set(finished, section, line)
    assert done(finished) == expected


def test_contrasts_do_not_ask_about_categories_again(finished: Path, done: Done) -> None:
    """What the first pass wrote stays as it is."""
    _set(finished, "describe.categories", "contrast_pairs = 2")
    again = done(finished)
    assert "describe-contrasts" in again
    assert not again & {"ingest", "describe-categories", "describe-samples"}


def test_another_k_encodes_nothing(finished: Path, done: Done) -> None:
    """The first k of the same controls are taken; there are as many as there may ever be centers."""
    _edit(finished, "unibind.toml", "k = 3", "k = 1")
    assert done(finished) == {"localize", "train", "evaluate", "report"}


def _replaced_picture(folder: Path) -> None:
    path, before = folder / "media/0-0.bmp", (folder / "media/0-0.bmp").stat()
    path.write_bytes((folder / "media/1-1.bmp").read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda folder: _edit(folder, "samples.csv", "red fox", "pond"),
            "samples.csv changed since `ingest`",
        ),
        (_replaced_picture, "media/0-0.bmp changed since `ingest`"),
        (lambda folder: (folder / "media/0-0.bmp").unlink(), "media/0-0.bmp is missing since `ingest`"),
        (
            lambda folder: _edit(folder, "categories.csv", "pond", "pool"),
            "categories.csv changed since `ingest`",
        ),
        (lambda folder: _set(folder, "localize", "seed = 3"), "its settings changed since `localize`"),
    ],
)
def test_evaluate_alone_says_what_changed_and_what_to_run(
    change: Callable[[Path], None], told: str, finished: Path
) -> None:
    """The command ends with one line; nothing is measured on what is out of date."""
    before = (finished / "runs/p/metrics.json").read_bytes()
    change(finished)
    ended = in_process("evaluate", folder=finished)
    assert ended.status == 1
    assert told in ended.err
    assert "run `unibind run`" in ended.err
    assert "Traceback" not in ended.err
    assert (finished / "runs/p/metrics.json").read_bytes() == before
    with pytest.raises(InputError, match="since"):
        require_current_before(load_project(finished / "unibind.toml"), "evaluate")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda folder: _edit(folder, "samples.csv", ",train,", ",val,"),
            "samples.csv changed since `ingest`",
        ),
        (_replaced_picture, "media/0-0.bmp changed since `ingest`"),
        (lambda folder: (folder / "runs/p/kb/samples.parquet").unlink(), "samples.parquet is missing since"),
    ],
)
def test_changed_code_hides_no_other_change(
    change: Callable[[Path], None],
    told: str,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After an upgrade a command goes on with what older code wrote, and says so, if nothing else changed."""
    monkeypatch.setattr("pipeline.run.stale.code_hash", lambda _: "another")
    project = load_project(finished / "unibind.toml")
    require_current_before(project, "evaluate")
    assert "ingest: its code changed; using what `ingest` wrote before" in capsys.readouterr().err
    change(finished)
    with pytest.raises(InputError, match=told):
        require_current_before(project, "evaluate")


def test_training_where_the_samples_are_not_says_so_and_goes_on(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A knowledge base may be copied to where a GPU is; its samples stay where they are."""
    shutil.rmtree(finished / "media")
    (finished / "samples.csv").unlink()
    project = load_project(finished / "unibind.toml")
    run_stages(project, ["localize", "train", "evaluate"])
    assert "samples.csv is missing; using what `ingest` wrote before" in capsys.readouterr().err


def test_training_that_is_switched_off_is_used_no_longer(
    finished: Path, done: Done, capsys: pytest.CaptureFixture[str]
) -> None:
    """The heads are kept aside, and the numbers are those of the zero-shot encoder, as in a fresh run."""
    _set(finished, "train", "enabled = false")
    assert done(finished) == {"evaluate", "report"}
    assert "kept in" in capsys.readouterr().err
    assert not (finished / "runs/p/heads.safetensors").exists()
    assert (finished / "runs/p/unused/heads.safetensors").exists()
    metrics: dict[str, Any] = json.loads((finished / "runs/p/metrics.json").read_text(encoding="utf-8"))
    assert {row["model"] for row in metrics["recognition"]} == {"zero_shot"}
    assert "train" not in {stage["name"] for stage in metrics["stages"]}


def test_a_stage_that_runs_again_says_why(
    finished: Path, done: Done, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason names the file, or says that settings or code changed."""
    (finished / "runs/p/heads.safetensors").unlink()
    assert done(finished) == {"train"}
    assert "train: " in (told := capsys.readouterr().err)
    assert "run again: heads.safetensors is missing" in told
    assert told.count("skipped: nothing it depends on has changed") == len(STAGE_NAMES) - 1

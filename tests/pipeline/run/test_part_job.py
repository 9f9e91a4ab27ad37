"""`unibind encode --part i/n`: shares of several processes, killed or missing, and a run that commits."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from bench.torture.ground import Running
from data.errors import InputError, KnowledgeBaseError
from data.lock import shared_lock, write_lock
from pipeline.cli.main import app
from pipeline.project import load_project
from pipeline.run.part_job import parse_share
from tests.pipeline.run.part_jobs import job
from tests.planted import copy_rates, register_encoder, time_parts, vector_files


def finished(started: Running) -> str:
    """What a job said, which must have ended well."""
    done = started.wait()
    assert done.status == 0, done.err
    return done.err


def encode(project: Path, *options: str) -> None:
    app(["encode", "--project", str(project), *options], standalone_mode=False)


@pytest.fixture
def project(described: Path, tmp_path: Path) -> Path:
    """A copy of a project whose descriptions are written, to be changed."""
    return Path(shutil.copytree(described.parent, tmp_path / "project")) / described.name


def test_three_jobs_at_once_and_a_run_give_the_bytes_of_one_process(
    project: Path, tmp_path: Path, by_one_process: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The run that commits encodes nothing, and has nothing to say about missing parts."""
    for each in [job(project, f"{number}/3", tmp_path / f"job-{number}") for number in (1, 2, 3)]:
        assert "is made" in finished(each)
    assert not list(load_project(project).kb.rglob("embeddings/**/manifest.json"))
    encode(project)
    said = capsys.readouterr().err
    assert "texts encoded 0," in said and "samples encoded 0," in said
    assert vector_files(project) == by_one_process
    assert len([name for name in by_one_process if "/part-" in name and "embeddings" in name]) > 12
    encode(project, "--part", "1/3")
    assert "finished already" in capsys.readouterr().err


def test_a_job_that_was_killed_is_run_again(
    project: Path, tmp_path: Path, by_one_process: dict[str, str]
) -> None:
    """Whatever it left, whole files and a half one, the bytes are the same."""
    killed = job(project, "1/2", tmp_path / "killed", dies_at=2)
    assert killed.wait().status == -signal.SIGKILL
    encode(project, "--part", "1/2")
    encode(project, "--part", "2/2")
    encode(project)
    assert vector_files(project) == {**by_one_process, **half_files(project)}


def half_files(project: Path) -> dict[str, str]:
    """The half files that killed jobs left; their names begin with a dot, so that nothing reads them."""
    return {name: sha for name, sha in vector_files(project).items() if name.endswith(".tmp")}


def test_a_missing_share_is_made_by_the_run_which_says_so(
    project: Path, tmp_path: Path, by_one_process: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A killed share counts as missing as far as it did not get."""
    encode(project, "--part", "2/3")
    assert job(project, "1/3", tmp_path / "killed", dies_at=3).wait().status == -signal.SIGKILL
    encode(project)
    assert "were not and were made now: " in capsys.readouterr().err
    assert vector_files(project) == {**by_one_process, **half_files(project)}


def test_jobs_that_start_at_once_agree_on_parts_by_seconds(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All measure, one is killed: the bytes of one process that has the rates that were kept."""
    timed = time_parts(project)
    one = Path(shutil.copytree(timed.parent, tmp_path / "one")) / timed.name
    jobs = [job(timed, f"{n}/3", tmp_path / f"job-{n}", dies_at=2 if n == 2 else 0) for n in (1, 2, 3)]
    done = [each.wait() for each in jobs]
    assert [each.status for each in done] == [0, -signal.SIGKILL, 0], [each.err for each in done]
    assert "parts of 0.0001 s hold" in done[0].err
    encode(timed, "--part", "2/3")
    encode(timed)
    assert "measured now" not in capsys.readouterr().err
    kept = vector_files(timed)
    assert set(copy_rates(timed, one)) >= {"rate-texts.json", "rate-image.json"}
    encode(one)
    assert {**vector_files(one), **half_files(timed)} == kept
    encode(one)
    assert "skipped" in capsys.readouterr().err


def test_no_stage_runs_beside_part_jobs(project: Path) -> None:
    """Part jobs exclude a run, and a run excludes them; each is told about the other."""
    register_encoder()
    lock = load_project(project).run / "run.lock"
    with (
        shared_lock(lock, "part jobs (`unibind encode --part`)"),
        pytest.raises(KnowledgeBaseError, match=r"by part jobs .*, such as process .* wait"),
    ):
        encode(project)
    with write_lock(lock), pytest.raises(KnowledgeBaseError, match=r"written by process .* wait"):
        encode(project, "--part", "1/2")


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "a/b", "-1/3", "1/3/5", "1/1000000"])
def test_shares_that_are_none(text: str) -> None:
    """A share is i/n with i from 1 to n."""
    with pytest.raises(InputError, match="write i/n"):
        parse_share(text)

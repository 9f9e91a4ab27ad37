"""What vouches for files: exchanged files, samples' files, `--seal`, lost lists, studies."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data import seals
from data.errors import DamagedError, UniBindError
from data.files import write_json, write_text
from kb_builder.browse import query as browse
from kb_builder.tables.parts import write_part
from kb_builder.tables.schemas import read_rows
from kb_builder.verify.explain import explain
from kb_builder.verify.findings import Verification
from pipeline.predict import recognise
from pipeline.project import ProjectFile, load_project
from pipeline.run.jobs import plan
from pipeline.run.runner import run_stages
from pipeline.run.sealing import STUDY_FILES, seal_all, seal_study
from pipeline.study.cells import CELL, read_cell, write_cell
from pipeline.verify import verify_project

PART = "descriptions/category/part-00000.parquet"


def project_of(folder: Path) -> ProjectFile:
    return load_project(folder / "unibind.toml")


def run_all(project: ProjectFile) -> None:
    with contextlib.redirect_stderr(io.StringIO()):
        run_stages(project, plan(project))


def errors(found: Verification) -> list[str]:
    return [f"{each.what}: {each.where}" for each in found.findings if each.severity == "error"]


@pytest.fixture(scope="module")
def two_runs(
    finished_once: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ProjectFile, ProjectFile]:
    """Two runs of one project that differ in their encoder's weights alone: files of equal sizes."""
    folder = tmp_path_factory.mktemp("two")
    ours, theirs = (Path(shutil.copytree(finished_once, folder / name)) for name in ("ours", "theirs"))
    file = theirs / "unibind.toml"
    file.write_text(file.read_text("utf-8").replace("/models/one", "/models/two"), encoding="utf-8")
    run_all(project_of(theirs))
    return project_of(ours), project_of(theirs)


@pytest.mark.parametrize(
    "pattern",
    [
        "heads.safetensors",
        "kb/embeddings/*/samples/part-00000-*.parquet",
        "kb/embeddings/*/category_texts/part-00000-*.parquet",
    ],
)
def test_a_valid_file_of_another_run(two_runs: tuple[ProjectFile, ProjectFile], pattern: str) -> None:
    """Heads and shards of equal size, exchanged between two runs: named in both, read in none."""
    (mine,), (other,) = (sorted(_serving(project, pattern)) for project in two_runs)
    one, two = mine.read_bytes(), other.read_bytes()
    assert len(one) == len(two) and one != two
    mine.write_bytes(two)
    other.write_bytes(one)
    try:
        for project, path in zip(two_runs, (mine, other), strict=True):
            assert errors(verify_project(project)) == [
                f"file damaged: {path.relative_to(project.run).as_posix()}"
            ]
            with pytest.raises(UniBindError, match=path.name):
                _ask(project)
    finally:
        mine.write_bytes(one)
        other.write_bytes(two)
    for project in two_runs:
        assert verify_project(project).clean
        _ask(project)


def _serving(project: ProjectFile, pattern: str) -> list[Path]:
    """Files of a run by their pattern, without those of encoders that serve no longer."""
    lines = {
        **(seals.sealed(project.run) or {}),
        **{f"kb/{n}": s for n, s in (seals.sealed(project.kb) or {}).items()},
    }
    return [path for path in project.run.glob(pattern) if path.relative_to(project.run).as_posix() in lines]


def _ask(project: ProjectFile) -> None:
    picture = project.path.parent / "media/0-3.bmp"
    recognise.predict_files(project, [(picture, None)], say=lambda note: None)
    recognise.retrieve_samples(project, "a red fox", say=lambda note: None)
    browse.sql(project.kb, "SELECT * FROM v_category_vectors")


def test_two_parts_exchanged(finished: Path) -> None:
    """A part in another's place is named, though every row of it is whole."""
    project = project_of(finished)
    one, other = project.kb / PART, project.kb / "descriptions/category/contrast-00000.parquet"
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    found = errors(verify_project(project))
    assert {f"file damaged: kb/descriptions/category/{path.name}" for path in (one, other)} <= set(found)
    with pytest.raises(DamagedError, match="run `unibind run`"):
        explain(project.kb, pq.read_table(one)["row_id"][0].as_py())
    run_all(project)
    assert verify_project(project).clean


def test_media_are_checked_when_asked(finished: Path) -> None:
    """`--media` reads every sample's file, and names one that changed and one that is gone."""
    project = project_of(finished)
    rows = read_rows(project.kb / "samples.parquet")
    found = verify_project(project, media=True)
    assert found.clean and found.counts["samples' files"] == len(rows)
    assert found.counts["bytes"] > verify_project(project).counts["bytes"]
    changed, gone = finished / "media/0-0.bmp", finished / "media/1-0.txt"
    content = bytearray(changed.read_bytes())
    content[-1] ^= 1
    changed.write_bytes(content)
    gone.unlink()
    assert verify_project(project).clean
    found = verify_project(project, media=True)
    told = {each.where.split()[0]: each.detail for each in found.findings if each.severity == "error"}
    assert set(told) == {"media/0-0.bmp", "media/1-0.txt"}
    assert told["media/0-0.bmp"].startswith("its content is not what was described and encoded; restore it")
    assert told["media/1-0.txt"].startswith("no such file; restore it")
    run_all(project)
    assert verify_project(project, media=True).clean


@pytest.mark.parametrize("lost", ["run", "kb"])
def test_a_lost_list_is_an_error_until_it_is_written_again(finished: Path, lost: str) -> None:
    """Where marks say that there was a list of checksums, its loss is named, and a run writes it."""
    project = project_of(finished)
    folder = project.run if lost == "run" else project.kb
    (folder / seals.SEAL).unlink()
    name = (folder / seals.SEAL).relative_to(project.run).as_posix()
    found = verify_project(project)
    assert errors(found) == [f"checksums missing: {name}"]
    assert "`unibind kb verify --seal`" in str(found)
    run_all(project)
    assert verify_project(project).clean
    assert seals.sealed(folder)


def test_sealing_writes_lost_lists(finished: Path) -> None:
    """`--seal` writes both lists; the files are as their stages left them, so nothing is wrong afterwards."""
    project = project_of(finished)
    before = {folder: dict(seals.sealed(folder) or {}) for folder in (project.run, project.kb)}
    for folder in before:
        seals.discard(folder)
    assert seal_all(project) == sum(map(len, before.values()))
    assert {folder: dict(seals.sealed(folder) or {}) for folder in before} == before
    assert verify_project(project).clean


def test_sealing_does_not_hide_what_marks_know(finished: Path) -> None:
    """Of a file that was changed and sealed, the mark of its stage is of another state; that is said."""
    project = project_of(finished)
    page = project.run / "report.html"
    page.write_text("mine", encoding="utf-8")
    assert errors(verify_project(project)) == ["file damaged: report.html"]
    seal_all(project)
    assert errors(verify_project(project)) == ["mark of another state: stages/report.json"]
    run_all(project)
    assert verify_project(project).clean and page.read_text("utf-8") != "mine"


def test_rows_that_were_changed_and_sealed_are_found_deep(finished: Path) -> None:
    """Whoever mends every checksum is found out by the answers: --deep derives what checksums vouch for."""
    project = project_of(finished)
    rows = read_rows(project.kb / PART)
    rows[0]["text"] = rows[0]["text"] + " And more."
    write_part(project.kb, "category", "part-00000", rows)
    seal_all(project)
    quick, deep = verify_project(project), verify_project(project, deep=True)
    assert quick.counts["rows derived again"] == 0
    assert "not derived again from the answers" in str(quick) and "--deep" in str(quick)
    assert deep.counts["rows derived again"] == deep.counts["rows"] == quick.counts["rows"]
    assert "error: text: 1" in str(deep) and "error: text: 1" not in str(quick)
    assert "--deep" not in str(deep)


def test_rows_of_a_damaged_part_are_derived_anew(finished: Path) -> None:
    """Of the parts that are as they were written, none is; of the one that is not, all rows are."""
    project = project_of(finished)
    rows = read_rows(project.kb / PART)
    rows[0]["n_chars"] += 1
    write_part(project.kb, "category", "part-00000", rows)
    found = verify_project(project)
    assert found.counts["rows derived again"] == len(rows) < found.counts["rows"]
    assert "n_chars is" in str(found)


def test_an_older_ledger_is_found_by_rows_alone(finished: Path) -> None:
    """Ledger and parts of two states, each with its checksum: the entries' own columns tell."""
    project = project_of(finished)
    rows = read_rows(project.kb / PART)
    for row in rows:
        row["run_id"] = "another"
    write_part(project.kb, "category", "part-00000", rows)
    seal_all(project)
    found = verify_project(project)
    assert found.totals["error", "column"] == len(rows)
    assert found.counts["rows derived again"] == 0
    assert "run_id is 'another', the ledger says 'p'" in str(found)


def _study(project: ProjectFile) -> Path:
    """A study of one cell, as `unibind study` leaves it."""
    folder = project.run / "studies" / "s"
    cell = folder / "cells" / "k"
    cell.mkdir(parents=True)
    for name in ("named.parquet", "ranks.parquet"):
        shutil.copy(project.run / name, cell / name)
    write_cell(cell, {"variant": {}, "balance": {}, "error": None})
    write_json(folder / STUDY_FILES[0], {"name": "s"})
    write_text(folder / STUDY_FILES[1], "<p>s</p>")
    seal_study(folder)
    return folder


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_flip, Path.unlink], ids=["flip", "gone"])
@pytest.mark.parametrize(
    "name", [*STUDY_FILES, f"cells/k/{CELL}", "cells/k/named.parquet", "cells/k/ranks.parquet"]
)
def test_every_file_of_a_study_is_vouched_for(
    finished: Path, name: str, damage: Callable[[Path], None]
) -> None:
    """Each file of a study, damaged or gone, is named with the command that makes it again."""
    project = project_of(finished)
    folder = _study(project)
    assert verify_project(project).clean
    assert read_cell(folder / "cells/k") is not None
    damage(folder / name)
    found = verify_project(project)
    assert errors(found) == [f"file damaged: studies/s/{name}"]
    assert "`unibind study`" in str(found)
    assert (read_cell(folder / "cells/k") is None) == name.startswith("cells/")


def test_the_list_of_a_study(finished: Path) -> None:
    """Damaged it is an error, gone a note; `--seal` writes it again, and makes none where nothing is."""
    project = project_of(finished)
    path = _study(project) / seals.SEAL
    _flip(path)
    found = verify_project(project)
    assert errors(found) == [f"checksums damaged: studies/s/{seals.SEAL}"]
    assert "run `unibind study`, or `unibind kb verify --seal`" in str(found)
    path.unlink()
    found = verify_project(project)
    assert found.clean and found.totals["note", "no checksums yet"] == 1
    seal_all(project)
    found = verify_project(project)
    assert found.clean and ("note", "no checksums yet") not in found.totals


def test_an_answer_of_a_damaged_ledger_is_not_shown(finished: Path) -> None:
    """`kb explain` shows raw answers: of a ledger that is not as it was written it shows none."""
    project = project_of(finished)
    row = read_rows(project.kb / PART)[0]["row_id"]
    assert "answer" in dict(explain(project.kb, row).sections)
    path = project.kb / "ledger.sqlite"
    content = path.read_bytes()
    place = content.index(b"assistant") if b"assistant" in content else len(content) // 2
    path.write_bytes(content[:place] + b"A" + content[place + 1 :])
    with pytest.raises(DamagedError, match=r"Restore it from a backup; .*`unibind kb verify --seal`"):
        explain(project.kb, row)
    path.write_bytes(content)
    assert "answer" in dict(explain(project.kb, row).sections)

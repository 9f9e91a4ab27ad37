"""`unibind kb`: the commands that look into a knowledge base, as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest

from kb_builder.tables.schemas import CATEGORIES, SAMPLES, write_table

PROJECT = 'name = "x"\n[data]\nmanifest = "m.csv"\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folder of a project whose knowledge base holds one category and no more."""
    (tmp_path / "unibind.toml").write_text(PROJECT, encoding="utf-8")
    bell = {"category_id": "bell", "name": "brass bell", "aliases": [], "parent": None, "notes": None}
    write_table(tmp_path / "runs" / "x" / "kb" / "categories.parquet", [bell], CATEGORIES)
    return tmp_path


def unibind_kb(
    *arguments: str, cwd: Path, piped: str | bytes | None = ""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", "from pipeline.cli.main import main; main()", "kb", *arguments],
        cwd=cwd,
        capture_output=True,
        input=piped.encode() if isinstance(piped, str) else piped,
        timeout=120,
    )


def test_statements_from_a_pipe(project: Path) -> None:
    """Without a command, what is piped in is answered on stdout; the first error is one line and exit 1."""
    done = unibind_kb(cwd=project, piped="SELECT name FROM v_categories;\nFROM nope;\nSELECT 1;")
    assert done.stdout.decode() == "name\n----------\nbrass bell\n"
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: Catalog Error: Table with name nope does not exist!")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("arguments", "piped"), [((), b"SELECT '\xff'"), (("sql", "SELECT '\udcff'"), b"")], ids=["pipe", "sql"]
)
def test_bytes_that_are_no_text(project: Path, arguments: tuple[str, ...], piped: bytes) -> None:
    """What is not UTF-8, in a pipe or on the command line, is one line, not a traceback."""
    done = unibind_kb(*arguments, cwd=project, piped=piped)
    assert done.returncode == 1
    assert b"not UTF-8" in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("command", [("stats",), ("show", "bell"), ("sql", "FROM v_categories")])
def test_every_answer_tells_its_sql_when_asked(project: Path, command: tuple[str, ...]) -> None:
    """`--sql` puts the query above the answer; without it there is none."""
    plain = unibind_kb(*command, cwd=project)
    told = unibind_kb(*command, "--sql", cwd=project)
    assert plain.returncode == told.returncode == 0
    assert b"FROM v_categories" not in plain.stdout
    assert b"FROM v_" in told.stdout
    for line in plain.stdout.splitlines():
        assert line in told.stdout.splitlines()


def test_views_are_a_script(project: Path) -> None:
    """What `unibind kb views` prints can be run in another DuckDB, from any folder."""
    done = unibind_kb("views", cwd=project)
    with duckdb.connect() as connection:
        connection.execute(done.stdout.decode())
        assert connection.execute("SELECT name FROM v_categories").fetchall() == [("brass bell",)]


def test_nearest_without_vectors(project: Path) -> None:
    """The command says which stage is missing."""
    done = unibind_kb("nearest", "a bell", "-k", "3", cwd=project)
    assert done.returncode == 1
    assert b"run `unibind encode`" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_where_the_project_is_said(project: Path, tmp_path: Path) -> None:
    """`-p` names the project for the prompt; before a command it is refused, with how to say it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    file = str(project / "unibind.toml")
    assert unibind_kb("-p", file, cwd=elsewhere, piped="SELECT 7").stdout == b"7\n-\n7\n"
    done = unibind_kb("-p", file, "stats", cwd=elsewhere)
    assert done.returncode == 1
    assert b"unibind kb stats -p" in done.stderr


def test_vectors_go_in_and_come_out(project: Path) -> None:
    """What `kb import` takes serves as an encoder; a table that is not encoded yet cannot be exported."""
    sample = {
        "sample_id": "a",
        "object_id": None,
        "modality": "image",
        "uri": "a.png",
        "category_id": "bell",
        "split": "train",
        "sha256": "0" * 64,
        "bytes": 1,
    }
    write_table(project / "runs" / "x" / "kb" / "samples.parquet", [sample], SAMPLES)
    np.save(project / "x.npy", np.array([[3.0, 4.0]]))
    (project / "x.txt").write_text("a.png\n")
    done = unibind_kb("import", "x.npy", "x.txt", "--name", "mine", cwd=project)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"1 vectors imported, 1 now in ")
    done = unibind_kb("import", "x.npy", "unibind.toml", "--name", "mine", cwd=project)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: unibind.toml: 3 ids, but x.npy has 1 rows")
    done = unibind_kb("export", "out", cwd=project)
    assert done.returncode == 1
    assert b"run `unibind encode`" in done.stderr


def test_texts_are_added_listed_and_removed(project: Path) -> None:
    """What `kb add-texts` reports, that it takes one thing at a time, and that a pack needs texts first."""
    (project / "cupl.json").write_text(
        '{"brass_bell": ["A brass bell rings in a tall tower."], "emu": ["An emu runs."]}'
    )
    done = unibind_kb("add-texts", "cupl.json", "--license", "mit", cwd=project)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert "1 of 2 classes are categories of this project" in lines
    assert "1 texts pass the gates, 0 do not" in lines
    assert "licence: mit" in lines
    done = unibind_kb("add-texts", "cupl.json", "--license", "cc0-1.0", cwd=project)
    assert done.returncode == 1
    assert b"were added as cupl with the licence mit" in done.stderr
    assert b"cupl: 2 texts about 2 classes" in unibind_kb("add-texts", "--list", cwd=project).stdout
    for arguments in ((), ("cupl.json", "--list")):
        done = unibind_kb("add-texts", *arguments, cwd=project)
        assert done.returncode == 1
        assert done.stderr == b"error: give one of FILE, --list or --remove NAME\n"
    assert unibind_kb("add-texts", "--remove", "cupl", cwd=project).stdout.startswith(b"removed cupl")
    assert b"no texts were added" in unibind_kb("add-texts", "--list", cwd=project).stdout
    done = unibind_kb("pack", "out", cwd=project)
    assert done.returncode == 1
    assert b"no category has a text yet" in done.stderr
    assert not (project / "out").exists()

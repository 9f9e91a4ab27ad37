"""`unibind kb`: the commands that look into a knowledge base, as a user runs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pytest

from kb_builder.tables.schemas import CATEGORIES, SAMPLES, write_table
from tests.commands import Told

PROJECT = 'name = "x"\n[data]\nmanifest = "m.csv"\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folder of a project whose knowledge base holds one category and no more."""
    (tmp_path / "unibind.toml").write_text(PROJECT, encoding="utf-8")
    bell = {"category_id": "bell", "name": "brass bell", "aliases": [], "parent": None, "notes": None}
    write_table(tmp_path / "runs" / "x" / "kb" / "categories.parquet", [bell], CATEGORIES)
    return tmp_path


Kb = Callable[..., Told]


@pytest.fixture
def kb(project: Path, unibind: Callable[..., Told]) -> Kb:
    """`kb(*arguments)`: `unibind kb ARGUMENTS`, by default in the project."""

    def run(*arguments: str, folder: Path = project, piped: str | bytes = "") -> Told:
        return unibind("kb", *arguments, folder=folder, piped=piped)

    return run


def test_statements_from_a_pipe(kb: Kb) -> None:
    """Without a command, what is piped in is answered on stdout; the first error is one line and exit 1."""
    done = kb(piped="SELECT name FROM v_categories;\nFROM nope;\nSELECT 1;")
    assert done.out == "name\n----------\nbrass bell\n"
    assert done.status == 1
    assert done.err.startswith("error: Catalog Error: Table with name nope does not exist!")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "piped"), [((), b"SELECT '\xff'"), (("sql", "SELECT '\udcff'"), b"")], ids=["pipe", "sql"]
)
def test_bytes_that_are_no_text(kb: Kb, arguments: tuple[str, ...], piped: bytes) -> None:
    """What is not UTF-8, in a pipe or on the command line, is one line, not a traceback."""
    done = kb(*arguments, piped=piped)
    assert done.status == 1
    assert "not UTF-8" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("command", [("stats",), ("show", "bell"), ("sql", "FROM v_categories")])
def test_every_answer_tells_its_sql_when_asked(kb: Kb, command: tuple[str, ...]) -> None:
    """`--sql` puts the query above the answer; without it there is none."""
    plain = kb(*command)
    told = kb(*command, "--sql")
    assert plain.status == told.status == 0
    assert "FROM v_categories" not in plain.out
    assert "FROM v_" in told.out
    for line in plain.out.splitlines():
        assert line in told.out.splitlines()


def test_views_are_a_script(kb: Kb) -> None:
    """What `unibind kb views` prints can be run in another DuckDB, from any folder."""
    done = kb("views")
    with duckdb.connect() as connection:
        connection.execute(done.out)
        assert connection.execute("SELECT name FROM v_categories").fetchall() == [("brass bell",)]


def test_nearest_without_vectors(kb: Kb) -> None:
    """The command says which stage is missing."""
    done = kb("nearest", "a bell", "-k", "3")
    assert done.status == 1
    assert "run `unibind encode`" in done.err
    assert done.err.count("\n") == 1


def test_where_the_project_is_said(project: Path, tmp_path: Path, kb: Kb) -> None:
    """`-p` names the project for the prompt; before a command it is refused, with how to say it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    file = str(project / "unibind.toml")
    assert kb("-p", file, folder=elsewhere, piped="SELECT 7").out == "7\n-\n7\n"
    done = kb("-p", file, "stats", folder=elsewhere)
    assert done.status == 1
    assert "unibind kb stats -p" in done.err


def test_vectors_go_in_and_come_out(project: Path, kb: Kb) -> None:
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
    done = kb("import", "x.npy", "x.txt", "--name", "mine")
    assert done.status == 0, done.err
    assert done.out.startswith("1 vectors imported, 1 now in ")
    done = kb("import", "x.npy", "unibind.toml", "--name", "mine")
    assert done.status == 1
    assert done.err.startswith("error: unibind.toml: 3 ids, but x.npy has 1 rows")
    done = kb("export", "out")
    assert done.status == 1
    assert "run `unibind encode`" in done.err


def test_texts_are_added_listed_and_removed(project: Path, kb: Kb) -> None:
    """What `kb add-texts` reports, that it takes one thing at a time, and that a pack needs texts first."""
    (project / "cupl.json").write_text(
        '{"brass_bell": ["A brass bell rings in a tall tower."], "emu": ["An emu runs."]}'
    )
    done = kb("add-texts", "cupl.json", "--license", "mit")
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert "1 of 2 classes are categories of this project" in lines
    assert "1 texts pass the gates, 0 do not" in lines
    assert "licence: mit" in lines
    done = kb("add-texts", "cupl.json", "--license", "cc0-1.0")
    assert done.status == 1
    assert "were added as cupl with the licence mit" in done.err
    assert "cupl: 2 texts about 2 classes" in kb("add-texts", "--list").out
    for arguments in ((), ("cupl.json", "--list")):
        done = kb("add-texts", *arguments)
        assert done.status == 1
        assert done.err == "error: give one of FILE, --list or --remove NAME\n"
    assert kb("add-texts", "--remove", "cupl").out.startswith("removed cupl")
    assert "no texts were added" in kb("add-texts", "--list").out
    done = kb("pack", "out")
    assert done.status == 1
    assert "no category has a text yet" in done.err
    assert not (project / "out").exists()


def test_a_knowledge_base_goes_to_another_machine(kb: Kb, tmp_path: Path) -> None:
    """Published, queried where it is without a project, and fetched as that of another project."""
    for expected in ("place: version 1 published (1 objects", "place: is version 1 already (1 objects"):
        done = kb("publish", "place")
        assert done.status == 0, done.err
        assert done.out.startswith(expected)
    there = tmp_path / "there"
    there.mkdir()
    (there / "unibind.toml").write_text(PROJECT, encoding="utf-8")
    done = kb("sql", "SELECT name FROM v_categories", "--at", "../place", folder=there)
    assert (done.out, done.err) == ("name\n----------\nbrass bell\n", "")
    done = kb("fetch", "../place", folder=there)
    assert done.status == 0, done.err
    assert "version 1 of ../place, 1 files" in done.out
    assert "brass bell" in kb("sql", "FROM v_categories", folder=there).out
    done = kb("fetch", "../place", folder=there)
    assert done.status == 1
    assert "already exists; name a new folder" in done.err

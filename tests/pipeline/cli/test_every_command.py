"""Every command of the command line, on a project all of whose names steer a terminal, prints none of it raw.

The commands are listed by the application itself, so that a new one without a trial here fails.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer

from data.seals import discard
from kb_builder.tables.schemas import DESCRIPTIONS, read_rows, write_table
from pipeline.cli.main import app

# C0 but the line break, DEL, C1, marks of direction, line separators, no width, lone surrogates.
RAW = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
ESC = "\x1b[31m\x07\r\x08"  # what the command line itself, and files of a damaged knowledge base, may hold


def _damage(root: Path) -> None:
    """Let the descriptions hold what no gate lets through; `unibind run` and `kb reparse` undo that."""
    kb = root / "runs" / "evil" / "kb"
    for path in sorted((kb / "descriptions").glob("*/part-*.parquet")):
        rows = pq.read_table(path).to_pylist()
        for number, row in enumerate(rows):
            row["text"] = f"{row['text']} {ESC}"
            if number % 2:
                row["status"], row["reason"] = "no_name", f"it says {ESC}"
        write_table(path, rows, DESCRIPTIONS)
    discard(kb)  # else the checksums keep the commands from printing any of it


@pytest.fixture(scope="module")
def place(hostile: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the hostile run in another hostile folder, with more files for the commands to read."""
    root = tmp_path_factory.mktemp("copy") / f"b{ESC}\n"
    shutil.copytree(hostile.root, root)
    other = root / "unibind.toml"
    words = other.read_text(encoding="utf-8")
    asked = 'describer = "openai"\nmodel = "m\\u001b[31m\\u202e"\nbase_url = "http://127.0.0.1:9/\\u009b"'
    (root / "asked.toml").write_text(words.replace('describer = "fake"', asked), encoding="utf-8")
    (root / "study.toml").write_text(
        'name = "s"\nproject = "unibind.toml"\nseeds = [0]\n'
        '[ablations."a\\u009b\\n"]\nquestion = "Q\\u202e?"\n'
        '[ablations."a\\u009b\\n".variants]\n"v\\u001b[31m" = { localize.k = 1 }\n'
        '"broken\\u0007" = { train.head = "residual" }\n',
        encoding="utf-8",
    )
    second = root / "runs" / f"second{ESC}\n"
    second.mkdir()
    for name in ("metrics.json", "named.parquet", "ranks.parquet"):
        shutil.copy(root / "runs" / "evil" / name, second)
    metrics = json.loads((second / "metrics.json").read_text(encoding="utf-8"))
    (second / "metrics.json").write_text(json.dumps({**metrics, "dataset": f"d{ESC}\n"}), encoding="utf-8")
    named = pq.read_table(second / "named.parquet")
    place = named.schema.get_field_index("category_id")
    labels = named.set_column(place, named.schema.field(place), [[f"c{ESC}"] * len(named)])
    pq.write_table(labels.cast(named.schema), second / "named.parquet")
    photos = root / f"photos{ESC}" / f"red{ESC}"
    photos.mkdir(parents=True)
    (photos / "a.txt").write_text("a", encoding="utf-8")
    (photos / f"b{ESC}.xyz9").write_text("b", encoding="utf-8")
    np.save(root / "x.npy", np.ones((2, 3)))
    (root / "ids.txt").write_text(f"nobody{ESC}\nno one\x9b\n", encoding="utf-8")
    (root / "evil.json").write_text(json.dumps({f"c{ESC}": ["x"], "d": [f"t{ESC}", 3, ["\u202e"]]}), "utf-8")
    (root / "models.toml").write_text('["m\\u001b"]\n', encoding="utf-8")
    return root


def _trials(root: Path) -> dict[str, list[tuple[str, ...]]]:
    """For each command, what it is run with: where it succeeds, and where it complains."""
    kb = root / "runs" / "evil" / "kb"
    rows = read_rows(kb / "descriptions" / "category")
    category, row = rows[0]["category_id"], rows[0]["row_id"]
    picture = next(path.name for path in root.glob("red0*.png"))
    missing = f"no{ESC}\n.png"
    project = ("-p", f"nowhere{ESC}.toml")
    return {
        "demo": [project],
        "init": [
            (f"photos{ESC}", "-p", "other.toml"),
            (f"nowhere{ESC}",),
            (f"photos{ESC}", "-p", "other.toml"),
        ],
        "run": [(), project],
        "describe": [("--dry-run",), ("--dry-run", "-p", "asked.toml"), ("--retry-failed",), project],
        "encode": [project],
        "localize": [project],
        "train": [project],
        "evaluate": [project],
        "compare": [("unibind.toml", f"runs/second{ESC}\n"), ("unibind.toml", f"x{ESC}")],
        "study": [("study.toml", "--jobs", "1"), (f"no{ESC}.toml",)],
        "predict": [
            (picture, missing, f"photos{ESC}"),
            (picture, missing, "--json"),
            (picture, missing, "--csv"),
            (picture, "--categories", f"a{ESC}\n,b,,b"),
            (picture, "--modality", ESC),
            (picture, f"--no{ESC}"),
        ],
        "retrieve": [
            ("a red\x1b[31m thing",),
            ("a red", "--json"),
            ("a red", "--csv"),
            (missing,),
            (picture,),
        ],
        "doctor": [(), ("-p", "asked.toml")],
        "fake-openai": [("--fault", f"x{ESC}"), ("--log", f"no{ESC}/where"), ("--api-key-env", ESC)],
        "reproduce": [(), (f"x{ESC}",), ("esc50", "--data", f"nowhere{ESC}")],
        "split": [(), project],
        "ui": [(f"nowhere{ESC}.toml",), ("--host", f"no{ESC}")],
        "kb": [()],
        "kb stats": [(), ("--sql",)],
        "kb show": [(category,), (f"x{ESC}",)],
        "kb nearest": [(f"a red{ESC}",)],
        "kb sql": [
            ("FROM v_samples",),
            ("SELECT text, reason FROM v_descriptions",),
            (f"SELECT '{ESC}' AS \"{ESC}\"",),
            (f"FROM {ESC}",),
            ("FROM v_samples", "--at", f"nowhere{ESC}"),
        ],
        "kb views": [()],
        "kb export": [(f"out{ESC}\n",), (f"out{ESC}\n",), ("out", "--table", ESC)],
        "kb import": [("x.npy", "ids.txt", "--name", f"n{ESC}"), ("x.npy", f"no{ESC}", "--name", "n")],
        "kb add-texts": [("--list",), (f"no{ESC}.json",), ("evil.json",), ("--remove", f"n{ESC}"), ()],
        "kb strike": [(row,), ("--list",), (row,), (row[:12], "--undo"), (f"x{ESC}",), ()],
        "kb pack": [("packed", "--samples"), (f"packed{ESC}", "--license", ESC), ("packed",)],
        "kb publish": [(f"published{ESC}",), (f"published{ESC}", "--check"), (f"s3://{ESC}",)],
        "kb fetch": [
            (f"published{ESC}", f"fetched{ESC}"),
            (f"published{ESC}", f"fetched{ESC}"),
            (f"nowhere{ESC}", "new"),
            (f"published{ESC}",),
        ],
        "kb verify": [()],
        "kb explain": [(row,), (ESC,), (f"abcdef{ESC}",)],
        "kb reparse": [(), project],
        "models": [()],
        "models get": [(f"m{ESC}",), ("m", "--list", f"no{ESC}.toml"), ("m", "--list", "models.toml")],
    }


def _commands() -> Iterator[str]:
    """Every command of the application, groups that run by themselves included."""

    def of(command: Any, path: tuple[str, ...]) -> Iterator[str]:
        for name, each in getattr(command, "commands", {}).items():
            if not hasattr(each, "commands") or each.invoke_without_command:
                yield " ".join((*path, name))
            yield from of(each, (*path, name))

    yield from of(typer.main.get_command(app), ())


def test_every_command_has_a_trial(place: Path) -> None:
    """A new command is not forgotten."""
    assert set(_commands()) == set(_trials(place))


def test_a_run_prints_nothing_raw(hostile: Any) -> None:
    """All ten stages, with their notes, warnings and the table, in a process of its own."""
    text = hostile.printed.decode("utf-8")
    assert RAW.findall(text) == []
    (line,) = [line for line in text.splitlines() if "unreadable samples. The first: " in line]
    assert "/a\\x1b[31m\\n" in line
    assert "The first: bad\\x9b31m\\u202e\\u2028\\x85x\\u200b.png: not a readable picture" in line
    assert "Glyph" not in text


@pytest.mark.parametrize("command", sorted(_commands()))
def test_a_command_prints_nothing_raw(
    place: Path, command: str, unibind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where it succeeds nor where it complains; the names are there, as their escapes."""
    monkeypatch.setenv("UNIBIND_MODELS", str(place / f"models{ESC}"))
    _damage(place)
    printed = ""
    for arguments in _trials(place)[command]:
        piped = f"SELECT '{ESC}' AS a;\n.tables\nFROM nope{ESC};" if command == "kb" else ""
        status, out, err = unibind(*command.split(), *arguments, folder=place, piped=piped)
        assert RAW.findall(out) == [], arguments
        assert RAW.findall(err) == [], arguments
        assert "Traceback" not in err, err
        assert status in {0, 1, 2}
        if "--json" in arguments:
            json.loads(out)
        printed += out + err
    assert re.search(r"\\x1b|\\x9b|\\u202e|chr\(27\)", printed), printed


def test_a_terminal_gets_nothing_raw_but_the_moves_of_a_bar(place: Path, unibind: Any) -> None:
    """On a terminal, where bars and colours of the help are drawn, names are escaped all the same."""
    picture = next(path.name for path in place.glob("red0*.png"))
    for arguments in ((picture, f"no{ESC}\n.png"), (picture, "--categories", f"a{ESC},b")):
        _, out, err = unibind("predict", *arguments, folder=place, tty=True)
        assert RAW.findall(out) == []
        assert RAW.findall(err.replace("\r", "")) == []
        assert "\x1b" not in err

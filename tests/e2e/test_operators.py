"""What docs/operators.md promises, with the commands it names, against a server that counts."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import duckdb
import pytest

Unibind = Callable[..., subprocess.CompletedProcess[str]]
Served = Callable[..., AbstractContextManager[str]]

PROJECT = """\
name = "p"
[data]
manifest = "manifest.csv"
categories = "categories.csv"
[describe.categories]
describer = "openai"
model = "fake-1"
base_url = "{url}"
price = {{ input = 1.0, output = 4.0, date = "2026-01-01" }}
n = 8
items = 2
contrast_texts = 2
[describe.samples]
describer = "none"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project without its project file: three categories and a text."""
    (tmp_path / "categories.csv").write_text("name\nbrass bell\noak barrel\nsilk tent\n", encoding="utf-8")
    (tmp_path / "words.txt").write_text("A bell on a table.", encoding="utf-8")
    (tmp_path / "manifest.csv").write_text(
        "sample_id,uri,modality,category,split\ns,words.txt,text,brass bell,test\n", encoding="utf-8"
    )
    return tmp_path


def asked(url: str) -> int:
    """How many requests the server has seen."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/_fake/stats") as answer:
        return int(json.load(answer)["requests"])


def test_the_commands_in_one_screen(folder: Path, served: Served, unibind: Unibind, planted_key: str) -> None:
    """Estimate, describe, verify, look, explain, reparse: each says what the page says; none asks twice."""

    def told(*arguments: str) -> str:
        done = unibind(folder, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        assert planted_key not in done.stdout + done.stderr
        return done.stdout + done.stderr

    parts = f"'{folder}/runs/p/kb/descriptions/category/*.parquet'"
    with served() as url:
        (folder / "unibind.toml").write_text(PROJECT.format(url=url), encoding="utf-8")
        assert "endpoint" in told("doctor")
        before = asked(url)
        estimate = told("describe", "--dry-run")
        assert "12 are left if every text is kept" in estimate
        assert "at most $" in estimate
        assert asked(url) == before
        told("describe")
        sent = asked(url) - before
        assert sent >= 12 + 3
        assert "0 are left" in told("describe", "--dry-run")
        told("describe")
        assert told("kb", "verify").endswith("clean\n")
        assert "brass-bell" in told("kb", "stats")
        row, text = duckdb.sql(f"SELECT row_id, text FROM {parts} WHERE status = 'ok' LIMIT 1").fetchall()[0]
        explained = told("kb", "explain", row[:12])
        assert text in explained
        assert "not nearly an earlier text" in explained
        assert "0 of them changed; nothing was sent" in told("kb", "reparse")
        assert asked(url) - before == sent
    [(cost, rows)] = duckdb.sql(f"SELECT sum(cost_usd), count(*) FROM {parts}").fetchall()
    assert cost > 0
    assert rows > 24


def test_the_wrong_key_stops_at_once_and_is_not_told(
    folder: Path, served: Served, unibind: Unibind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line that says what to mend, although the server quotes the key; the right key then goes on."""
    wrong = "sk-wrong-1b9d7e55c0ffee"
    with served() as url:
        (folder / "unibind.toml").write_text(PROJECT.format(url=url), encoding="utf-8")
        with monkeypatch.context() as patch:
            patch.setenv("OPENAI_API_KEY", wrong)
            done = unibind(folder, "describe")
        assert done.returncode == 1
        assert "check the API key" in done.stderr
        assert "Traceback" not in done.stderr
        assert wrong not in done.stdout + done.stderr
        assert [p for p in folder.rglob("*") if p.is_file() and wrong.encode() in p.read_bytes()] == []
        assert unibind(folder, "describe").returncode == 0

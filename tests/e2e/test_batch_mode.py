"""`submit = "batch"`: killed and resumed, it ends as an online run does, at half the price."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import soundfile
from PIL import Image

from bench.torture.ground import Running, start
from kb_builder.verify.verify import verify
from tests.e2e.pace import quick_pace

Served = Callable[..., AbstractContextManager[str]]
CATEGORIES = ("brass bell", "oak barrel", "steel anvil", "silk umbrella")
# What says by which way, when, how fast, in how many tries and at what price a text came.
OF_THE_WAY = ("source", "created_at", "latency_ms", "attempts", "cost_usd")

PROJECT = """\
name = "p"
[data]
manifest = "manifest.csv"
categories = "categories.csv"
[describe.categories]
describer = "openai"
model = "fake-1"
base_url = "{url}"
submit = "{submit}"
price = {{ input = 1.0, output = 4.0, date = "2026-01-01" }}
n = 6
items = 2
near_cosine = 1.0
contrast_pairs = 0
[describe.samples]
describer = "openai"
model = "fake-1"
base_url = "{url}"
submit = "{submit}"
price = {{ input = 1.0, output = 4.0, date = "2026-01-01", image_tokens = 1000 }}
native = ["audio"]
shard_samples = 5
"""


def stats(url: str) -> dict[str, Any]:
    """What the server counted."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/_fake/stats") as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def forget(url: str) -> None:
    """Let the server forget all that it was asked."""
    urllib.request.urlopen(url.removesuffix("/v1") + "/_fake/reset", data=b"").close()


def project(folder: Path, url: str, submit: str) -> Path:
    """Pictures, sounds, a text and a torn picture, to be described by one way or the other."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    manifest = ["sample_id,uri,modality,category,split"]

    def add(uri: str, modality: str) -> None:
        manifest.append(f"{Path(uri).stem},{uri},{modality},{CATEGORIES[0]},test")

    for number in range(10):
        colours_HW3 = draw.integers(0, 256, (2, 3, 3), np.uint8)
        Image.fromarray(colours_HW3.repeat(20, 0).repeat(20, 1)).save(folder / f"photo{number}.png")
        add(f"photo{number}.png", "image")
    for number in range(2):
        soundfile.write(folder / f"tone{number}.wav", 0.2 * np.sin(np.arange(4000) / (5 + number)), 8000)
        add(f"tone{number}.wav", "audio")
    (folder / "words.txt").write_text("A brass bell with a wooden handle.", encoding="utf-8")
    add("words.txt", "text")
    (folder / "torn.png").write_bytes((folder / "photo0.png").read_bytes()[:60])
    add("torn.png", "image")
    (folder / "manifest.csv").write_text("\n".join(manifest) + "\n", encoding="utf-8")
    (folder / "categories.csv").write_text("name\n" + "\n".join(CATEGORIES) + "\n", encoding="utf-8")
    (folder / "unibind.toml").write_text(PROJECT.format(url=url, submit=submit), encoding="utf-8")
    return folder


def started(folder: Path, *, quickly: bool) -> Running:
    """Stage 1 in a process of its own."""
    pace = quick_pace if quickly else None
    return start(folder, "describe", streams=folder / "streams", before=pace, environment=dict(os.environ))


def described(folder: Path, *, quickly: bool = False) -> None:
    """Run stage 1 to its end."""
    done = started(folder, quickly=quickly).wait(300)
    assert done.status == 0, done.err


def killed_in_a_batch_of(folder: Path, *, quickly: bool, media: bool) -> None:
    """Start stage 1, and kill it -9 while requests with media, or such without, are at the server."""
    process = started(folder, quickly=quickly)
    while media not in under_way(folder):
        assert process.process.is_alive(), f"ended before the kill: {process.wait().err}"
        time.sleep(0.02)
    process.kill()
    assert process.wait().status == -signal.SIGKILL


def in_ledger(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """What a query finds in the ledger; [] while that is being made."""
    ledger = folder / "runs/p/kb/ledger.sqlite"
    if not ledger.exists():
        return []
    with closing(sqlite3.connect(f"{ledger.as_uri()}?mode=ro", uri=True)) as connection:
        try:
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []


def under_way(folder: Path) -> set[bool]:
    """Of the batches that were submitted and have not ended: whether their requests hold media."""
    query = """
        SELECT DISTINCT instr(request, '"recipe"') > 0
        FROM batch_jobs JOIN batch_items USING (token) WHERE state = 'submitted'
    """
    return {bool(media) for (media,) in in_ledger(folder, query)}


def rows(folder: Path) -> list[tuple[Any, ...]]:
    """Every description without what tells its way, and every reject."""
    kb = folder / "runs/p/kb"
    table = duckdb.sql(f"SELECT * FROM '{kb}/descriptions/*/*.parquet'")
    columns = ", ".join(f'"{name}"' for name in table.columns if name not in OF_THE_WAY)
    rejects = duckdb.sql(f"SELECT sample_id, stage FROM '{kb}/rejects/*.parquet'").fetchall()
    return table.select(columns).order("row_id").fetchall() + sorted(rejects)


def of_asked(folder: Path, column: str) -> list[Any]:
    """One column of every row that somebody was asked for."""
    table = f"'{folder}/runs/p/kb/descriptions/*/*.parquet'"
    asked = f"SELECT {column} FROM {table} WHERE source NOT IN ('facts', 'manifest') ORDER BY row_id"
    return [value for (value,) in duckdb.sql(asked).fetchall()]


@pytest.mark.parametrize(
    ("quickly", "faults", "kills"),
    [
        pytest.param(True, ("--batch-expired=0.1", "--batch-failed=0.05"), [True], id="quick, with faults"),
        pytest.param(False, (), [False, True], id="as shipped", marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_it_ends_as_an_online_run(
    tmp_path: Path,
    quickly: bool,
    faults: tuple[str, ...],
    kills: list[bool],
    served: Served,
    planted_key: str,
) -> None:
    """kill -9 while a batch of samples (or of categories) is out: the same rows for half, nothing twice."""
    with served("--batch-seconds=0.8", "--fault=refusal=0.15", *faults) as url:
        online = project(tmp_path / "online", url, "online")
        described(online)
        asked = stats(url)["distinct"]
        assert (stats(url)["requests"], stats(url)["batches"]) == (asked, 0)
        forget(url)
        batch = project(tmp_path / "batch", url, "batch")
        for media in kills:
            killed_in_a_batch_of(batch, quickly=quickly, media=media)
        described(batch, quickly=quickly)
        counted = stats(url)
    died = sum(counted["faults"].get(name, 0) for name in ("batch_expired", "batch_failed"))
    assert bool(died) == bool(faults)
    assert (counted["requests"], counted["distinct"]) == (0, asked)
    assert counted["batch_requests"] == asked + died
    assert counted["answered_again"] == {}
    states = in_ledger(batch, "SELECT state, requests FROM batch_jobs")
    assert {state for state, _ in states} == {"done"}
    assert counted["batches"] == len(states) > 2
    assert sum(requests for _, requests in states) == counted["batch_requests"]
    assert in_ledger(batch, "SELECT count(*), count(answer) FROM entries") == [(asked, asked)]

    assert rows(batch) == rows(online)
    assert {"ok", "refusal"} <= set(of_asked(online, "status"))
    assert set(of_asked(online, "source")) == {"online"} and set(of_asked(batch, "source")) == {"batch"}
    costs = of_asked(online, "cost_usd")
    assert min(costs) > 0
    assert of_asked(batch, "cost_usd") == pytest.approx([cost / 2 for cost in costs])
    assert sum(of_asked(batch, "attempts")) >= len(costs) + bool(faults)
    for folder in (online, batch):
        assert verify(folder / "runs/p/kb").findings == ()
        assert [
            str(p) for p in folder.rglob("*") if p.is_file() and planted_key.encode() in p.read_bytes()
        ] == []
    assert not (batch / "runs/p/kb/batches").exists()

"""Under faults and SIGKILL the builder loses nothing, doubles nothing, and tells why a text is missing.

The server counts by itself, in a log of whole answers. `make storm` runs the second test with 100,000
requests.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from bench.torture.ground import Running, start
from kb_builder.ask.ledger import GROUP_ROWS

Unibind = Callable[..., subprocess.CompletedProcess[str]]
Served = Callable[..., AbstractContextManager[str]]
# No row says when, how fast or in how many tries: everything else must be equal.
VOLATILE = ("created_at", "latency_ms", "attempts")
LASTING = ("refusal", "refusal_field", "content_filter", "length", "torn_content", "policy")

PROJECT = """\
name = "storm"
[data]
manifest = "manifest.csv"
categories = "categories.csv"
[describe.categories]
describer = "openai"
model = "fake-1"
base_url = "{url}"
n = {n}
items = {items}
concurrency = {concurrency}
request_timeout_s = {timeout}
near_cosine = {cosine}
contrast_pairs = {pairs}
shard_categories = {shard}
[describe.samples]
describer = "none"
"""


@dataclass
class Server:
    """A running fake-openai: its address, and its log of whole answers."""

    url: str
    log: Path

    def whole_answers(self) -> list[str]:
        """The hash of every request that was answered whole, as often as it was."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return [line.split()[0] for line in lines if line.split()[1] == "200"]

    def stats(self) -> dict[str, Any]:
        """What the server counted."""
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/_fake/stats") as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@pytest.fixture
def port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def logged(served: Served, folder: Path, port: int, *options: str) -> Iterator[Server]:
    """A server with a log, always on one port: the endpoint is a part of every request."""
    log = folder / "answers.log"
    with served("--port", str(port), "--log", str(log), *options) as url:
        yield Server(url, log)


def project(folder: Path, url: str, *, categories: int, **settings: Any) -> Path:
    """A project with that many categories and one sample; returns its folder."""
    folder.mkdir()
    names = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS][:categories]
    assert len(names) == categories
    (folder / "categories.csv").write_text("name\n" + "\n".join(names) + "\n", encoding="utf-8")
    (folder / "sample.txt").write_text("something on a table", encoding="utf-8")
    (folder / "manifest.csv").write_text(
        f"sample_id,uri,modality,category,split\ns1,sample.txt,text,{names[0]},test\n", encoding="utf-8"
    )
    defaults = {"n": 20, "items": 4, "concurrency": 16, "timeout": 12, "cosine": 1.0, "pairs": 0, "shard": 10}
    (folder / "unibind.toml").write_text(PROJECT.format(url=url, **defaults | settings), encoding="utf-8")
    return folder


COLOURS = re.findall(
    r"\w+",
    """amber azure beige black bronze brown copper coral cream crimson emerald golden green indigo ivory jade
    khaki lilac maroon mauve ochre olive orange pearl pink plum purple ruby rusty silver teal violet white
    yellow""",
)
THINGS = re.findall(
    r"\w+",
    """anvil basket bell bottle bucket candle chair clock cup drum fork guitar hammer kettle ladder lamp
    mirror pillow plate rope saddle scissors shovel spoon stool teapot tent trumpet umbrella vase""",
)


def rows(folder: Path) -> list[tuple[Any, ...]]:
    """Every description, without what may differ between two runs."""
    table = duckdb.sql(f"SELECT * FROM '{folder}/runs/storm/kb/descriptions/*/*.parquet'")
    columns = ", ".join(f'"{name}"' for name in table.columns if name not in VOLATILE)
    return table.select(columns).order("row_id").fetchall()


def answered(folder: Path) -> int:
    """How many requests the ledger holds an answer to."""
    ledger = folder / "runs/storm/kb/ledger.sqlite"
    if not ledger.exists():
        return 0
    with closing(sqlite3.connect(f"{ledger.as_uri()}?mode=ro", uri=True)) as connection:
        try:
            return int(connection.execute("SELECT count(answer) FROM entries").fetchone()[0])
        except sqlite3.OperationalError:  # not made yet
            return 0


def started(folder: Path) -> Running:
    """Stage 1 in a process of its own."""
    return start(folder, "describe", streams=folder / "streams", environment=os.environ)


def describe(folder: Path) -> None:
    """Run stage 1 to its end."""
    done = started(folder).wait(6000)
    assert done.status == 0, done.err
    (folder / "told.log").write_text(done.out + done.err, encoding="utf-8")


def killed_at(folder: Path, count: int, extra_s: float) -> bool:
    """Start stage 1 and kill it -9 a moment after so many answers; False if it ended first."""
    running = started(folder)
    while running.process.is_alive() and answered(folder) < count:
        time.sleep(0.01)
    time.sleep(extra_s)
    running.process.kill()
    return running.wait().status == -signal.SIGKILL


def that_hold(key: str, folder: Path) -> list[str]:
    """Every file below a folder that holds the key."""
    return [str(p) for p in folder.rglob("*") if p.is_file() and key.encode() in p.read_bytes()]


@pytest.mark.parametrize("kills", [3, pytest.param(24, marks=pytest.mark.slow)])
def test_killed_again_and_again_it_ends_as_an_undisturbed_run(
    tmp_path: Path, port: int, served: Served, planted_key: str, kills: int
) -> None:
    """kill -9 at random moments, a fifth of all calls failing: the same rows, little asked twice."""
    moments = random.Random()
    seed = moments.getrandbits(32)
    moments.seed(seed)
    concurrency = 16
    faults = [f"--fault={name}=0.01" for name in LASTING]
    size = {"categories": 40 if kills > 5 else 12, "n": 60 if kills > 5 else 20, "timeout": 6}
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    options = ("--latency", "0.05", "--jitter", "0.05", *faults)
    with logged(served, tmp_path, port, *options) as server:
        describe(project(calm, server.url, **size))
    (tmp_path / "answers.log").unlink()
    total = answered(calm)
    with logged(served, tmp_path, port, *options, "--faults", "0.2") as server:
        project(wild, server.url, **size)
        kept = 0
        for moment in sorted(moments.sample(range(total), kills)):
            assert killed_at(wild, moment, moments.uniform(0, 0.3)), (
                f"ended before kill {moment} (seed {seed})"
            )
            time.sleep(0.3)  # what was in flight at the server ends
            lost = len(server.whole_answers()) - answered(wild)
            assert lost - kept <= concurrency + GROUP_ROWS, f"seed {seed}"
            kept = lost
        describe(wild)
        whole = Counter(server.whole_answers())
    assert rows(wild) == rows(calm), f"seed {seed}"
    assert len(whole) == answered(wild) == total, f"seed {seed}"
    assert whole.total() - len(whole) == kept, f"asked twice without a kill as the cause (seed {seed})"
    assert that_hold(planted_key, wild) == []


@pytest.mark.slow
def test_a_storm_loses_and_doubles_nothing(
    tmp_path: Path, port: int, served: Served, planted_key: str, unibind: Unibind
) -> None:
    """Three calls in ten fail, in all ways: every planned row is there, `ok` or with its reason, once."""
    requests = int(os.environ.get("UNIBIND_STORM", "3000"))
    size = {"categories": min(1000, requests // 100), "n": 100, "items": 1, "concurrency": 256, "shard": 50}
    faults = [f"--fault={name}=0.005" for name in LASTING]
    # One answer in twenty is a 429 with a Retry-After, and everybody waits for it: at a second each, 100,000
    # requests would take an hour and a half of waiting.
    options = ("--latency", "0.05", "--retry-after", "0.05", "--hang", "1", "--faults", "0.3")
    with logged(served, tmp_path, port, *options, *faults) as server:
        folder = project(tmp_path / "p", server.url, timeout=30, **size)
        describe(folder)
        whole = Counter(server.whole_answers())
        stats = server.stats()
    ledger = folder / "runs/storm/kb/ledger.sqlite"
    with closing(sqlite3.connect(ledger)) as connection:
        entries, answers = connection.execute("SELECT count(*), count(answer) FROM entries").fetchone()
    assert entries >= requests
    assert len(whole) == answers and whole.total() == answers, "an answer was lost or asked for twice"
    table = f"'{folder}/runs/storm/kb/descriptions/category/*.parquet'"
    counted, different, asked = duckdb.sql(
        f"SELECT count(*), count(DISTINCT row_id), count(DISTINCT request_key) FROM {table}"
    ).fetchall()[0]
    assert counted == different and asked == entries
    assert duckdb.sql(
        f"SELECT count(*) FROM {table} WHERE status = 'failed' AND reason IS NULL"
    ).fetchall() == [(0,)]
    short = duckdb.sql(
        f"SELECT count(*) FROM (SELECT category_id, count(*) FILTER (status = 'ok') AS ok FROM {table} "
        "GROUP BY ALL HAVING ok < 100)"
    ).fetchall()
    verified = unibind(folder, "kb", "verify")
    assert verified.returncode == 0, verified.stdout
    assert that_hold(planted_key, folder) == []
    print(f"{entries} requests, {stats}, categories below n: {short}", file=sys.stderr)

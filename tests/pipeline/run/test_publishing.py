"""`[run] publish`: a run whose machine vanishes is continued on another; what was sent is not asked again."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data.errors import InputError, ProjectError
from kb_builder.publish import sending, writer
from kb_builder.publish.place import Place, open_place
from kb_builder.publish.versions import read_newest, read_version, version_numbers
from pipeline.project import load_project
from tests.commands import Told, in_process
from tests.kb_builder.publish.conftest import BUCKET, Cable, s3_environment, until

ANSWERED = 7  # requests before the others wait

# A machine of its own, which sends what it has all the time.
_MACHINE = """
from kb_builder.publish import sending
sending.EVERY_S = 0.05
from pipeline.cli.main import main
main()
"""


class Gate:
    """Lets a server answer some requests, and holds back the others until it is opened."""

    def __init__(self, answers: int = ANSWERED) -> None:
        self.answered: set[int] = set()  # by seed: every request has its own
        self.open = threading.Event()
        self._answers = answers
        self._guard = threading.Lock()

    def __call__(self, body: dict[str, Any], nth: int) -> None:
        with self._guard:
            if len(self.answered) < self._answers:
                self.answered.add(body["seed"])
                return
        self.open.wait(120)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vanished machine is gone after a moment."""
    monkeypatch.setattr(sending, "EVERY_S", 0.05)
    monkeypatch.setattr(writer, "LEASE_S", 0.3)


def machine(folder: Path, url: str, place: str | None) -> Path:
    """A machine's folder with the project, its samples and its categories."""
    folder.mkdir()
    rows = ["sample_id,uri,modality,category,split"]
    for number, name in enumerate(("brass bell", "red ball", "oak chair", "tin drum")):
        (folder / f"{number}.txt").write_text(f"note {number}")
        rows.append(f"s{number},{number}.txt,text,{name},test")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    run = "" if place is None else f"[run]\npublish = {json.dumps(place)}\n"
    (folder / "unibind.toml").write_text(
        'name = "birds"\n[data]\nmanifest = "manifest.csv"\n'
        f'{run}[describe.categories]\ndescriber = "openai"\nmodel = "m"\nbase_url = "{url}"\n'
        'n = 5\nitems = 1\ncontrast_pairs = 0\nnear_cosine = "off"\nconcurrency = 4\nshard_categories = 2\n'
    )
    return folder


def described(folder: Path) -> list[dict[str, Any]]:
    """The rows about categories, but for times."""
    rows = []
    for path in sorted((folder / "runs" / "birds" / "kb" / "descriptions" / "category").glob("*.parquet")):
        rows += pq.read_table(path, partitioning=None).to_pylist()
    return [
        {key: value for key, value in row.items() if key not in {"created_at", "latency_ms"}} for row in rows
    ]


def sent(place: Place) -> int:
    """How many requests have appeared at a place."""
    try:
        newest, _ = read_newest(place)
    except InputError:
        return 0
    return sum(each.rows for each in newest.ledger.tables["entries"]) if newest.ledger else 0


def unibind(folder: Path, *arguments: str) -> Told:
    """A command that ends well."""
    done = in_process(*arguments, folder=folder)
    assert done.status == 0, done.err
    return done


def test_a_vanished_machine_costs_what_was_not_sent(
    chat_server: Callable[..., Any], place_name: str, tmp_path: Path
) -> None:
    """It is killed in the middle. Another one that fetches goes on; one that does not is refused."""
    gate = Gate()
    server = chat_server(gate)
    first = machine(tmp_path / "first", server.url, place_name)
    with subprocess.Popen([sys.executable, "-c", _MACHINE, "describe"], cwd=first) as process:
        try:
            until(lambda: sent(open_place(place_name)) == ANSWERED, f"{ANSWERED} answers at the place")
        finally:
            process.kill()
    assert version_numbers(open_place(place_name)) == []
    gate.open.set()
    seen = Counter(server.seen)

    second = machine(tmp_path / "second", server.url, place_name)
    refused = in_process("describe", folder=second)
    assert refused.status == 1
    assert f"{place_name} holds {ANSWERED} answers that " in refused.err
    assert "take them with `unibind kb fetch`" in refused.err
    assert server.seen == seen  # nothing was asked
    assert not (second / "runs" / "birds" / "kb").exists()

    done = unibind(second, "kb", "fetch")
    assert f"what a run that has not ended has sent to {place_name}, before any version" in done.out
    assert f"a ledger of {ANSWERED} requests, the newest of 20" in done.out
    assert "`unibind run` continues it" in done.out
    done = unibind(second, "describe")
    assert f"{place_name}: version 1 published" in done.err
    assert {server.seen[seed] for seed in gate.answered} == {1}
    assert version_numbers(open_place(place_name)) == [1]
    assert not read_newest(open_place(place_name))[1]

    undisturbed = machine(tmp_path / "undisturbed", server.url, None)
    unibind(undisturbed, "describe")
    assert described(second) == described(undisturbed)
    third = machine(tmp_path / "third", server.url, place_name)
    done = unibind(third, "kb", "fetch")
    assert f"version 1 of {place_name}" in done.out
    assert described(third) == described(undisturbed)


def test_a_killed_run_goes_on_where_it_was(chat_server: Callable[..., Any], tmp_path: Path) -> None:
    """On the same machine it waits for no lease; and with everything done, no version is made."""
    place = str(tmp_path / "place")
    gate = Gate()
    server = chat_server(gate)
    folder = machine(tmp_path / "first", server.url, place)
    with subprocess.Popen([sys.executable, "-c", _MACHINE, "describe"], cwd=folder) as process:
        try:
            until(lambda: sent(open_place(place)) == ANSWERED, f"{ANSWERED} answers at the place")
        finally:
            process.kill()
    gate.open.set()
    done = unibind(folder, "describe")
    assert "waiting" not in done.err
    assert {server.seen[seed] for seed in gate.answered} == {1}
    assert "version 1 published" in done.err
    assert "is version 1 already" in unibind(folder, "describe").err
    assert "is version 1 already" in unibind(folder, "kb", "publish").out
    assert len(read_version(open_place(place)).files) > 4


def test_two_machines_at_one_place(
    chat_server: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is refused before it asks anything, as is `kb publish`."""
    place = str(tmp_path / "place")
    monkeypatch.setattr(writer, "RENEW_S", 0.05)
    monkeypatch.setattr(writer, "LEASE_S", 60.0)
    server = chat_server()
    second = machine(tmp_path / "second", server.url, place)
    with writer.hold(open_place(place), tmp_path / "first"):
        done = in_process("describe", folder=second)
        assert done.status == 1
        assert f"error: {place} is being written by process " in done.err
        assert not server.seen
    unibind(second, "describe")
    with writer.hold(open_place(place), tmp_path / "first"):
        done = in_process("kb", "publish", folder=second)
        assert done.status == 1
        assert f"error: {place} is being written by process " in done.err


def test_a_network_that_fails_stops_no_run(
    chat_server: Callable[..., Any], s3_endpoint: str, tmp_path: Path
) -> None:
    """Cut in the middle: the run ends well, says what is not sent, and `kb publish` sends it."""
    gate = Gate()
    server, cable = chat_server(gate), Cable(s3_endpoint)
    place = f"s3://{BUCKET}/{tmp_path.name}"
    folder = machine(tmp_path / "first", server.url, place)

    with s3_environment(s3_endpoint):
        direct = open_place(place)

    def cut() -> None:
        until(lambda: sent(direct) == ANSWERED, f"{ANSWERED} answers at the place")
        cable.cut()
        gate.open.set()

    cutting = threading.Thread(target=cut)
    try:
        with s3_environment(cable.address):
            cutting.start()
            done = unibind(folder, "describe")
            cutting.join()
            assert f"  publish: no version: {place}: " in done.err
            warning = next(line for line in done.err.splitlines() if line.startswith("warning: "))
            assert f"warning: {place}: " in warning
            assert (
                "requests of the ledger are not sent: when it can be reached again, `unibind kb pub"
                in warning
            )
            cable.mend()
            assert f"{place}: version 1 published" in unibind(folder, "kb", "publish").out
    finally:
        cable.close()


def test_a_place_that_cannot_be_used_is_told_before_anything_is_asked(
    chat_server: Callable[..., Any], tmp_path: Path
) -> None:
    """A file where the folder belongs; and in the project file what is no place at all."""
    server = chat_server()
    folder = machine(tmp_path / "first", server.url, "place")
    (folder / "place").write_text("no folder")
    done = in_process("describe", folder=folder)
    assert done.status == 1
    assert "place" in done.err
    assert "Traceback" not in done.err
    assert not server.seen
    with pytest.raises(ProjectError, match=r"run.publish: 'gs://a/b': give s3://BUCKET/NAME, or the path"):
        load_project(folder / "unibind.toml", {"run": {"publish": "gs://a/b"}})
    assert load_project(folder / "unibind.toml").publish_to == str(folder / "place")
    done = in_process("kb", "fetch", folder=machine(tmp_path / "second", server.url, None))
    assert "error: name a place, such as s3://my-bucket/birds, or set `publish` in [run]" in done.err

"""One writer at a time: refused, taken over, and fenced."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data.errors import InputError, KnowledgeBaseError
from data.files import hash_json
from kb_builder.publish import writer
from kb_builder.publish.fetch import fetch
from kb_builder.publish.place import FolderPlace, Place, open_place
from kb_builder.publish.publish import publish, publish_version
from kb_builder.publish.versions import read_version, version_numbers
from kb_builder.publish.writer import WRITER, hold, read_state, version_files


def altered(place: Place, **fields: object) -> None:
    """Write other values into `writer.json`, as another program or an older process would have."""
    found = place.tagged(WRITER)
    assert found is not None
    value = json.loads(found[0]) | fields
    del value["sha256"]
    place.put(WRITER, [json.dumps(value | {"sha256": hash_json(value)}).encode()])


@pytest.fixture
def stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers renew nothing, and are gone after a moment."""
    monkeypatch.setattr(writer, "RENEW_S", 3600.0)
    monkeypatch.setattr(writer, "LEASE_S", 0.2)


def test_a_second_machine_is_refused(
    place_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as the first one renews its lease; it is told where that is. Then it may write."""
    monkeypatch.setattr(writer, "RENEW_S", 0.05)
    place, said = open_place(place_name), list[str]()
    with hold(place, tmp_path / "a") as first:
        with (
            pytest.raises(KnowledgeBaseError, match=r"is being written by process \d+ on .*/a\); wait until"),
            hold(place, tmp_path / "b", said.append),
        ):
            pass
        assert len(said) == 1
        assert "waiting for at most 60 s" in said[0]
        assert first.change().held
    with hold(place, tmp_path / "b", said.append) as second:
        assert second.state.fence == first.state.fence + 1
    assert len(said) == 1


@pytest.mark.usefixtures("stalled")
def test_a_stale_writer_is_fenced(browsed_kb: Path, place_name: str, tmp_path: Path) -> None:
    """One that was taken for gone wakes up: no version of it and no list appears, whatever it has written."""
    place = open_place(place_name)
    with hold(place, tmp_path / "a") as first, hold(place, tmp_path / "b") as second:
        assert (first.lost, second.state.fence) == (None, 2)
        with pytest.raises(
            KnowledgeBaseError, match=r"/b\) has taken over; what it has published is unchang"
        ):
            publish_version(browsed_kb, first)
        assert version_files(place) == [1]  # it is written, but does not count
        assert version_numbers(place) == []
        with pytest.raises(InputError, match="no knowledge base is published here"):
            fetch(place, tmp_path / "new")
        with pytest.raises(KnowledgeBaseError, match="has taken over"):
            first.change(unfinished=())
        done = publish_version(browsed_kb, second)
        assert (done.version, done.new) == (2, True)
        assert version_numbers(place) == [2]
        with pytest.raises(InputError, match="no version 1; there are 2 to 2"):
            read_version(place, 1)
    assert fetch(place, tmp_path / "new").version == 2
    # Its release did not end the lease of the other one, nor does anything of it stand in the way.
    assert publish(browsed_kb, place).version == 2


@pytest.mark.usefixtures("stalled")
def test_a_version_of_a_stale_writer_in_between_is_passed_by(
    browsed_kb: Path, place_name: str, tmp_path: Path
) -> None:
    """It has the number that the new writer was about to take."""
    place = open_place(place_name)
    with hold(place, tmp_path / "a") as first, hold(place, tmp_path / "b") as second:

        class Late:
            def __getattr__(self, name: str) -> object:
                return getattr(place, name)

            def put_new(self, name: str, content: bytes) -> bool:
                if name == "versions/00000001.json":
                    (browsed_kb / "more.json").write_text("{}")
                    with pytest.raises(KnowledgeBaseError, match="has taken over"):
                        publish_version(browsed_kb, first)
                    (browsed_kb / "more.json").unlink()
                return place.put_new(name, content)

        second.place = Late()  # type: ignore[assignment]
        assert publish_version(browsed_kb, second).version == 2
    state = read_state(place)
    assert state is not None
    assert (state.version, state.void, version_numbers(place)) == (2, (1,), [2])


def test_the_same_folder_takes_over_at_once(place_name: str, tmp_path: Path) -> None:
    """A run that was killed, and is started again: its folder's lock tells that the first is gone."""
    place, said = open_place(place_name), list[str]()
    with hold(place, tmp_path) as first, hold(place, tmp_path, said.append) as second:
        assert second.state.fence == first.state.fence + 1
    assert said == []


def test_a_lease_of_long_ago_is_not_waited_for(tmp_path: Path) -> None:
    """By the clocks of both, which may differ by minutes."""
    place, said = FolderPlace(tmp_path / "place"), list[str]()
    with hold(place, tmp_path / "a"):
        pass
    long_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")
    altered(place, held=True, renewed_at=long_ago)
    with hold(place, tmp_path / "b", said.append):
        assert said == []


def test_an_answer_that_was_lost_is_no_other_writer(tmp_path: Path) -> None:
    """Of the change that took place, and of one that the client sent twice."""
    place = FolderPlace(tmp_path / "place")

    class Deaf:
        def __init__(self) -> None:
            self.losses = 0

        def __getattr__(self, name: str) -> object:
            return getattr(place, name)

        def replace(self, name: str, content: bytes, tag: str) -> str | None:
            tagged = place.replace(name, content, tag)
            if self.losses == 2:
                self.losses = 1
                raise InputError("no answer")
            return place.replace(name, content, tag) if self.losses == 1 else tagged

    deaf = Deaf()
    with hold(deaf, tmp_path / "a") as lease:  # type: ignore[arg-type]
        deaf.losses = 2
        with pytest.raises(InputError, match="no answer"):
            lease.change(version=7)
        lease.change(version=8)
        assert lease.lost is None
    state = read_state(place)
    assert state is not None
    assert (state.version, state.held) == (8, False)


def test_a_damaged_state_is_told(browsed_kb: Path, place_name: str, tmp_path: Path) -> None:
    """To whoever reads and whoever writes. Without it the versions that are there count."""
    place = open_place(place_name)
    publish(browsed_kb, place)
    whole = b"".join(place.pieces(WRITER))
    place.put(WRITER, [whole.replace(b'"version": 1', b'"version": 9')])
    for action in (lambda: fetch(place, tmp_path / "new"), lambda: publish(browsed_kb, place)):
        with pytest.raises(KnowledgeBaseError, match=r"writer.json: damaged .* remove this object"):
            action()


def test_a_place_of_an_earlier_program(browsed_kb: Path, tmp_path: Path) -> None:
    """It has versions and no `writer.json`: they can be read, and the next one is published beside them."""
    place = FolderPlace(tmp_path / "place")
    publish(browsed_kb, place)
    (tmp_path / "place" / WRITER).unlink()
    assert fetch(place, tmp_path / "new").version == 1
    (browsed_kb / "more.json").write_text("{}")
    assert publish(browsed_kb, place).version == 2

"""A place that cannot be used says why: wrong keys, no bucket, no server, a name that is none."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from data.environment import environment
from data.errors import InputError, KnowledgeBaseError, MissingDependencyError
from kb_builder.publish import place as places
from kb_builder.publish.fetch import fetch
from kb_builder.publish.place import FolderPlace, Place, S3Place, open_place
from kb_builder.publish.publish import publish
from tests.kb_builder.publish.conftest import BUCKET, s3_environment, s3_server


def both(kb: Path, target: Path, name: str, message: str) -> None:
    """Publishing and fetching fail with this message, and make nothing."""
    actions: list[Callable[[Place], object]] = [lambda to: publish(kb, to), lambda to: fetch(to, target)]
    for action in actions:
        with pytest.raises(InputError, match=message):
            action(open_place(name))
    assert not target.exists()


def test_a_missing_bucket_is_told(browsed_kb: Path, s3_endpoint: str, tmp_path: Path) -> None:
    """By its name."""
    with s3_environment(s3_endpoint):
        both(
            browsed_kb, tmp_path / "new", "s3://no-such-bucket/kb", "s3://no-such-bucket/kb: there is no such"
        )


def test_a_server_that_is_not_there_is_told(browsed_kb: Path, tmp_path: Path) -> None:
    """A port at which nothing listens."""
    pytest.importorskip("boto3")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        with s3_environment(f"http://127.0.0.1:{taken.getsockname()[1]}"):
            both(browsed_kb, tmp_path / "new", f"s3://{BUCKET}/kb", "the server cannot be reached")


def test_wrong_keys_are_told(browsed_kb: Path, tmp_path: Path) -> None:
    """A server that knows no user at all."""
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="0") as endpoint, s3_environment(endpoint):
        both(browsed_kb, tmp_path / "new", f"s3://{BUCKET}/kb", "the credentials are missing or wrong")


def test_names_that_are_no_place_are_refused() -> None:
    """With an example; keys are never part of a name."""
    for name in ("s3://", "s3://bucket", "s3://bucket/", "gs://bucket/kb", "http://127.0.0.1/kb"):
        with pytest.raises(InputError, match="give "):
            open_place(name)
    with (
        environment({"AWS_ENDPOINT_URL": "127.0.0.1:9000"}),
        pytest.raises(InputError, match="http://HOST:PORT"),
    ):
        open_place("s3://bucket/kb")
    assert isinstance(open_place("some/folder"), FolderPlace)


def test_publishing_without_the_extra_is_told(
    browsed_kb: Path, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    with s3_environment(s3_endpoint), pytest.raises(MissingDependencyError, match=r"\[s3\]"):
        publish(browsed_kb, open_place(f"s3://{BUCKET}/without"))


def test_an_object_is_made_of_many_pieces(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one request takes; if the last piece never comes, there is no object."""
    with s3_environment(s3_endpoint):
        place = S3Place(BUCKET, "pieces")
        data = [os.urandom(2**22) for _ in range(4)]
        place.put("objects/a", data)
        assert place.listed("objects") == {"objects/a": 2**24}
        monkeypatch.setattr(places, "PIECE", 1_000_000)
        assert b"".join(place.pieces("objects/a")) == b"".join(data)

        def broken() -> object:
            yield from data
            raise KnowledgeBaseError("changed")

        with pytest.raises(KnowledgeBaseError, match="changed"):
            place.put("objects/b", broken())  # type: ignore[arg-type]
        assert place.listed("objects") == {"objects/a": 2**24}
        assert place.put_new("objects/a", b"other") is False
        with pytest.raises(FileNotFoundError):
            place.open("objects/none")

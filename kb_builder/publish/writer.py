"""The writer of a place, and what counts there: `writer.json`, the one object that is ever replaced.

    format
    fence        the fencing number of the writer: each one has a higher one than all before it
    step, token  changes that this writer has made, and a random name of it
    host, folder, pid   where it is
    held         whether it is still writing
    renewed_at   when it last said so (UTC)
    version      the number of the latest version, or 0: later files of versions have not appeared
    void         numbers up to it whose versions never appeared: their writers had lost the right to
    unfinished   [{bytes, sha256}] of the lists of what a run has sent since (objects), or none
    sha256       of all the above

A writer changes it by a request that fails unless the object is as this writer left it (`Place.replace`). So
once another one has taken over, nothing of the first can appear any more, however late its requests arrive.

A second writer is refused while the first renews its lease, which a thread does. If it does not renew it for
LEASE_S, as watched by the second's own clock, or for GONE_S by the clocks of both, it counts as gone.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from data.errors import InputError, KnowledgeBaseError
from data.files import hash_json
from data.show import visible
from kb_builder.publish.place import Place

WRITER = "writer.json"
LEASE_S = 60.0  # a writer that is not heard of for so long is gone
RENEW_S = 15.0
GONE_S = 600.0  # as told by two clocks, which may differ
FORMAT = 1
_POLL_S = 1.0
_READS = 3
_MARK = "unibind.json"
_MARK_CONTENT = b'{"what": "knowledge bases published by unibind kb publish", "format": 1}\n'
_VERSION = re.compile(r"versions/(\d{8})\.json")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Content:
    """The content of a file: an object."""

    bytes: int
    sha256: str

    @property
    def object(self) -> str:
        """The object's name at its place."""
        return f"objects/{self.sha256[:2]}/{self.sha256}"

    @classmethod
    def parsed(cls, value: Mapping[str, Any]) -> Self:
        """From JSON. Raises ValueError for what is no SHA-256."""
        if not _HASH.fullmatch(value["sha256"]):
            raise ValueError(f"{value['sha256']!r} is no SHA-256")
        return cls(**value)


@dataclass(frozen=True)
class WriterState:
    """The content of `writer.json`; the module's docstring says what each field is."""

    fence: int
    step: int
    token: str
    host: str
    folder: str
    pid: int
    held: bool
    renewed_at: str
    version: int
    void: tuple[int, ...] = ()
    unfinished: tuple[Content, ...] = ()

    def __str__(self) -> str:
        return visible(f"process {self.pid} on {self.host} ({self.folder})")


def read_state(place: Place) -> WriterState | None:
    """The state of a place; None where nothing was published, or by an earlier program alone."""
    for attempt in range(_READS):
        try:
            return _parsed(place, b"".join(place.pieces(WRITER)))
        except FileNotFoundError:
            return None
        except KnowledgeBaseError:  # replaced between the two requests that read it?
            if attempt == _READS - 1:
                raise
    raise AssertionError("not reached")


def version_files(place: Place) -> list[int]:
    """The numbers of all files of versions at a place, ascending."""
    found = (_VERSION.fullmatch(name) for name in place.listed("versions"))
    return sorted(int(each[1]) for each in found if each)


class Lease:
    """The right to write to a place: changes of its state, until another writer has taken over."""

    def __init__(self, place: Place, state: WriterState, tag: str) -> None:
        self.place = place
        self.state = state
        self.lost: str | None = None  # who has taken over
        self._tag = tag
        self._lock = threading.RLock()

    def change(self, **changes: Any) -> WriterState:
        """Renew the lease, and change the state with it.

        Raises KnowledgeBaseError if another writer has taken over; then nothing is changed.
        """
        with self._lock:
            while True:
                self.require()
                wanted = replace(self.state, step=self.state.step + 1, renewed_at=_now(), **changes)
                data = _encoded(wanted)
                tag = self.place.replace(WRITER, data, self._tag)
                if tag is None:
                    found = self.place.tagged(WRITER)
                    now = None if found is None else _parsed(self.place, found[0])
                    if found is None or now is None or now.token != wanted.token:
                        self.lost = f"a process that removed {WRITER}" if now is None else str(now)
                        continue
                    self._tag = found[1]  # of a request whose answer was lost
                    if found[0] != data:
                        continue
                    tag = found[1]
                self.state, self._tag = wanted, tag
                return wanted

    def require(self) -> None:
        """Raise KnowledgeBaseError if another writer is known to have taken over."""
        if self.lost is not None:
            raise KnowledgeBaseError(
                f"{self.place.name}: {self.lost} has taken over; what it has published is unchanged, and"
                " nothing of this process appears there any more"
            )

    def keep(self, stop: threading.Event) -> None:
        """Renew the lease until `stop`. A network that fails is no reason to give it up."""
        while not stop.wait(RENEW_S) and self.lost is None:
            with suppress(Exception):
                self.change()


@contextmanager
def hold(place: Place, folder: Path, say: Callable[[str], None] = lambda line: None) -> Iterator[Lease]:
    """Hold the right to write to a place until the block ends.

    `folder` is that of the knowledge base, on which the caller has a lock: what an earlier process of the
    same folder held is taken over at once. `say` is told why it takes long. Raises KnowledgeBaseError where
    another writer is at work, InputError for a place that cannot be used.
    """
    _require_conditions(place)
    lease = _acquired(place, folder, say)
    stop = threading.Event()
    try:
        if place.replace(WRITER, _encoded(lease.state), "0" * 64) is not None:
            raise InputError(
                f"{place.name}: this server ignores conditional requests (If-Match), so it cannot tell two"
                " writers apart; publish to another"
            )
        threading.Thread(target=lease.keep, args=(stop,), name="unibind-lease", daemon=True).start()
        yield lease
    finally:
        stop.set()
        with suppress(Exception):  # else the lease ends by itself
            lease.change(held=False)


def _require_conditions(place: Place) -> None:
    """Raise InputError for a place without conditional requests, and whatever tells that none can be made."""
    if place.put_new(_MARK, _MARK_CONTENT) and place.put_new(_MARK, _MARK_CONTENT):
        raise InputError(
            f"{place.name}: this server ignores conditional requests (If-None-Match), so it cannot tell two"
            " writers apart; publish to another"
        )


def _acquired(place: Place, folder: Path, say: Callable[[str], None]) -> Lease:
    own = WriterState(
        fence=1,
        step=0,
        token=secrets.token_hex(8),
        host=socket.gethostname(),
        folder=str(folder.resolve()),
        pid=os.getpid(),
        held=True,
        renewed_at=_now(),
        version=0,
    )
    watched: tuple[str, float] | None = None  # another writer's state, and until when it may last
    while True:
        found = place.tagged(WRITER)
        if found is None:
            own = replace(own, renewed_at=_now(), version=max(version_files(place), default=0))
            place.put_new(WRITER, _encoded(own))
        else:
            before = _parsed(place, found[0])
            same_folder = (before.host, before.folder) == (own.host, own.folder)
            if before.held and not same_folder and not _is_gone(before):
                if watched is None:
                    watched = found[1], time.monotonic() + LEASE_S
                    say(
                        f"{place.name}: {before} was writing here at {before.renewed_at}; waiting for at most"
                        f" {LEASE_S:.0f} s to see whether it still does"
                    )
                if watched[0] != found[1]:
                    raise KnowledgeBaseError(
                        f"{place.name} is being written by {before}; wait until it ends or stop it, then run"
                        " again, or publish to another place"
                    )
                if time.monotonic() < watched[1]:
                    time.sleep(min(_POLL_S, LEASE_S / 10))
                    continue
            own = replace(
                own,
                fence=before.fence + 1,
                renewed_at=_now(),
                version=before.version,
                void=before.void,
                unfinished=before.unfinished,
            )
            place.replace(WRITER, _encoded(own), found[1])
        # Read back: an answer may have been lost, and another writer may have been faster.
        found = place.tagged(WRITER)
        if found is not None and found[0] == _encoded(own):
            return Lease(place, own, found[1])


def _is_gone(state: WriterState) -> bool:
    return datetime.now(UTC) - datetime.fromisoformat(state.renewed_at) > timedelta(seconds=GONE_S)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _encoded(state: WriterState) -> bytes:
    value = json.loads(json.dumps({"format": FORMAT, **asdict(state)}))
    whole = value | {"sha256": hash_json(value)}
    return json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _parsed(place: Place, data: bytes) -> WriterState:
    try:
        value = json.loads(data)
        claimed = value.pop("sha256")
        if hash_json(value) != claimed:
            raise ValueError("its checksum does not match its content")
        if value.pop("format") != FORMAT:
            raise ValueError("it has a format that this program does not read")
        unfinished = tuple(map(Content.parsed, value.pop("unfinished")))
        return WriterState(**value | {"void": tuple(value["void"])}, unfinished=unfinished)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise KnowledgeBaseError(
            f"{place.name}/{WRITER}: damaged ({error}); remove this object: then the versions count that are"
            " there"
        ) from error

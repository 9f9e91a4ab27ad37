"""Publishes as a run goes: a thread that sends new answers, and what each stage has written.

Every `EVERY_S` seconds and after each stage, the thread sends the segments of the ledger and the files of the
last finished stage that are not there yet, then lists of both, which appear by one conditional request
(`read_newest` reads them). It reads the ledger beside its writer, a segment at a time, so memory is bounded
and the asking never waits for the network. A failure is reported once and retried: no error of the network,
the server or the credentials stops or slows a run.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from data.errors import KnowledgeBaseError, first_line
from data.seals import SEAL, sealed, sum_of
from kb_builder.publish.publish import Published, publish_version, published_files
from kb_builder.publish.segments import ENTRIES, Growth, LedgerSnapshot, beside_the_writer, cuts
from kb_builder.publish.uploads import StoppedError, Uploads
from kb_builder.publish.versions import PublishedLedger, Segment, Version, encoded
from kb_builder.publish.writer import Content, Lease

EVERY_S = 20.0


class Sending:
    """Sends a knowledge base while it is made, until the block ends; then what is left, but for Ctrl-C.

    `say` is given each line to tell, also from the thread.
    """

    def __init__(self, kb: Path, lease: Lease, say: Callable[[str], None]) -> None:
        self.failing: str | None = None  # why the last attempt failed
        self._kb = kb
        self._lease = lease
        self._say = say
        self._uploads: Uploads | None = None
        self._written: dict[str, Content] | None = None  # the files of the last stage, if not yet sent
        self._files: dict[str, Content] = {}  # sent
        self._known: dict[tuple[int, int], Segment | None] = {}  # of the answers, by row ids
        self._growth: Growth | None = None
        self._sent: tuple[Content, ...] = ()  # the lists
        self._sent_rows = 0
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._published = False
        self._thread = threading.Thread(target=self._run, name="unibind-publish", daemon=True)

    def __enter__(self) -> Self:
        self._written = self._files_now()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt)
        self._end(at_once=stopped)
        if not self._published and not stopped:
            self._try()

    def publish(self) -> Published:
        """Publish all of it as a version, once the run has ended well. Raises as `publish_version` does."""
        self._end(at_once=True)  # it goes on here, with a progress bar
        done = publish_version(self._kb, self._lease)
        self._published = True
        self.failing = None
        return done

    def stage_done(self) -> None:
        """Send what a stage has written. Called between two stages, while no file changes."""
        self._written = self._files_now()
        self._wake.set()

    def left(self) -> str | None:
        """At the end: what is not sent, why, and how to send it; None if all is."""
        if self.failing is None:
            return None
        how = "when it can be reached again, `unibind kb publish` sends it"
        if self._lease.lost is not None:
            how = "`unibind kb publish` can send it to another place"
        return f"{self.failing}; {self._unsent()} not sent: {how}"

    def _unsent(self) -> str:
        with suppress(Exception), beside_the_writer(self._kb) as snapshot:
            rows = 0 if snapshot is None else max(0, snapshot.growth().rows - self._sent_rows)
            return f"{rows:,} requests of the ledger are"
        return "the newest requests of the ledger are"

    def _files_now(self) -> dict[str, Content] | None:
        written = {}
        try:
            known = sealed(self._kb) or {}
            for path in published_files(self._kb):
                name = path.relative_to(self._kb).as_posix()
                if name != SEAL:  # it changes as soon as the next stage begins
                    found = known.get(name) or sum_of(path)
                    written[name] = Content(found.bytes, found.sha256)
        except (
            KnowledgeBaseError,
            OSError,
        ):  # whoever reads the file, or the end of the run, tells of damage
            return None
        return written

    def _end(self, *, at_once: bool) -> None:
        """Stop the thread, at once or when it has sent what it is at."""
        self._ended.set()
        self._wake.set()
        if at_once and self._uploads is not None:
            self._uploads.stop()
        self._thread.join()
        if at_once:
            self._uploads = None

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wake.wait(EVERY_S)
            self._wake.clear()
            if not self._ended.is_set():
                self._try()

    def _try(self) -> None:
        """Send what is new. An error is reported, unless it was already."""
        if self._lease.lost is not None and self.failing is not None:
            return
        try:
            self._send()
        except StoppedError:
            return
        except Exception as error:  # also a bug: it may not stop a run
            why, name = first_line(error), self._lease.place.name
            why = why if why.startswith(name) else f"{name}: {why}"
            told, self.failing = self.failing is not None, why
            if not told or self._lease.lost is not None:
                self._say(self._failed(why))
        else:
            if self.failing is not None:
                self._say(f"{self._lease.place.name}: all answers are sent again")
            self.failing = None

    def _failed(self, why: str) -> str:
        if self._lease.lost is not None:
            return f"{why}; this run continues and asks what the other one may ask too: stop one of them"
        return f"{why}; {self._unsent()} not sent yet: the run continues and retries every {EVERY_S:.0f} s"

    def _send(self) -> None:
        self._lease.require()
        if self._uploads is None:
            self._uploads = Uploads(self._lease.place, quiet=True)
        self._send_files(self._uploads)
        ledger = self._send_ledger(self._uploads)
        # Two lists: that of the files may be long, and stays the same while a stage works.
        lists = (self._listed(self._files, None), self._listed({}, ledger))
        if lists != self._sent:
            self._lease.change(unfinished=lists)
            self._sent = lists
            self._sent_rows = sum(each.rows for each in ledger.tables.get(ENTRIES, ())) if ledger else 0

    def _listed(self, files: dict[str, Content], ledger: PublishedLedger | None) -> Content:
        """Send a list."""
        assert self._uploads is not None
        data = encoded(Version(self._lease.state.version, "", files, ledger))
        content = Content(len(data), hashlib.sha256(data).hexdigest())
        self._uploads.add(content, data)
        return content

    def _send_files(self, uploads: Uploads) -> None:
        """Send the files of the last stage, unless the next one has replaced some of them meanwhile."""
        written = self._written
        if written is None:
            return
        try:
            uploads.add_files((content, self._kb / name) for name, content in written.items())
        except (KnowledgeBaseError, FileNotFoundError):
            if self._written is written:
                self._written = None
            return
        self._files = written
        if self._written is written:
            self._written = None

    def _send_ledger(self, uploads: Uploads) -> PublishedLedger | None:
        """Send the ledger as it is now."""
        with beside_the_writer(self._kb) as snapshot:
            if snapshot is None:
                return None
            version, schema = snapshot.user_version, snapshot.schema
            others = {table: [*snapshot.segments(table)] for table in snapshot.tables if table != ENTRIES}
            if self._growth is not None and not snapshot.has_only_grown(self._growth):
                self._known.clear()
            self._growth = snapshot.growth()
            last = self._growth.last
        tables = {table: tuple(_sent(uploads, each) for each in found) for table, found in others.items()}
        # Rows up to `last` stay as they are, so each segment may be read by itself.
        ranges = cuts(last)
        self._known = {each: self._known[each] for each in ranges if each in self._known}
        for each in ranges:
            if each not in self._known:
                with beside_the_writer(self._kb) as snapshot:
                    found = _read(snapshot, each)
                self._known[each] = None if found is None else _sent(uploads, found)
        tables[ENTRIES] = tuple(segment for segment in map(self._known.get, ranges) if segment is not None)
        return PublishedLedger(version, schema, tables)


def _read(snapshot: LedgerSnapshot | None, rows: tuple[int, int]) -> tuple[Segment, bytes] | None:
    if snapshot is None:
        raise KnowledgeBaseError("the ledger was removed while it was sent")
    return snapshot.segment(ENTRIES, *rows)


def _sent(uploads: Uploads, found: tuple[Segment, bytes]) -> Segment:
    segment, data = found
    uploads.add(segment, data)
    return segment

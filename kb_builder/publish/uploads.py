"""Uploads of objects: what a place does not hold yet, each content once, several at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from data.errors import KnowledgeBaseError
from kb_builder.publish.place import PIECE, Place
from kb_builder.publish.writer import Content

_AT_ONCE = 8


class StoppedError(Exception):
    """Uploads were stopped (`Uploads.stop`); what had arrived as a whole stays."""


class Uploads:
    """What is at a place, and what has been sent there.

    `check`: what is there already is read back, and replaced if it is damaged. `quiet`: without a progress
    bar.
    """

    def __init__(self, place: Place, *, check: bool = False, quiet: bool = False) -> None:
        self._place = place
        self._check = check
        self._quiet = quiet
        self._there = place.listed("objects")
        self._done: set[str] = set()
        self._stopped = False
        self.count = self.bytes = 0

    def stop(self) -> None:
        """End what is being uploaded, and each later upload, by StoppedError; for another thread."""
        self._stopped = True

    def add_files(self, given: Iterable[tuple[Content, Path]]) -> None:
        """Upload contents from the files that hold them.

        Raises KnowledgeBaseError for a file that holds another by now, FileNotFoundError for a missing one.
        """
        wanted = {content.sha256: (content, path) for content, path in given}
        missing = [each for each in wanted.values() if each[0].sha256 not in self._done]
        total = sum(content.bytes for content, _ in missing)
        with (
            tqdm(
                total=total,
                desc="publish",
                unit="B",
                unit_scale=True,
                disable=True if self._quiet or not missing else None,
            ) as bar,
            ThreadPoolExecutor(_AT_ONCE) as pool,
        ):
            try:
                for content, sent in pool.map(self._upload_file, missing):
                    self._count(content, sent)
                    bar.update(content.bytes)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        self._done |= wanted.keys()

    def add(self, content: Content, data: bytes) -> None:
        """Upload a content that is in memory."""
        if content.sha256 not in self._done:
            self._count(content, self._upload(content, [data]))
            self._done.add(content.sha256)

    def _upload_file(self, given: tuple[Content, Path]) -> tuple[Content, bool]:
        content, path = given
        return content, self._upload(content, _checked(path, content))

    def _upload(self, content: Content, pieces: Iterable[bytes]) -> bool:
        """Upload a content unless it is there; whether it was not."""
        there = self._there.get(content.object) == content.bytes
        if there and not (self._check and self._differs(content)):
            return False
        self._place.put(content.object, self._while_wanted(pieces))
        self._there[content.object] = content.bytes
        return True

    def _while_wanted(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            if self._stopped:
                raise StoppedError
            yield piece

    def _count(self, content: Content, sent: bool) -> None:
        self.count += sent
        self.bytes += sent * content.bytes

    def _differs(self, content: Content) -> bool:
        found = hashlib.sha256()
        for piece in self._place.pieces(content.object):
            found.update(piece)
        return found.hexdigest() != content.sha256


def _checked(path: Path, content: Content) -> Iterator[bytes]:
    """The pieces of a file; the last one only if all are the content."""
    found, last = hashlib.sha256(), b""
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            if last:
                yield last
            found.update(piece)
            last = piece
    if found.hexdigest() != content.sha256:
        raise KnowledgeBaseError(f"{path}: changed while it was published; publish again")
    yield last

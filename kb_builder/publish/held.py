"""The guard against asking again, or hiding, what another machine has sent: its answers must be here."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.errors import KnowledgeBaseError
from kb_builder.ask.ledger import lacking
from kb_builder.publish.place import Place
from kb_builder.publish.segments import ENTRIES
from kb_builder.publish.versions import Segment, read_newest, version_numbers
from kb_builder.publish.writer import read_state

_AT_ONCE = 8


def require_answers(kb: Path, place: Place) -> None:
    """Raise KnowledgeBaseError where a place holds answers that the ledger of a knowledge base lacks.

    Those of the latest version, or of a run that has not ended. Of each request its key is read, 64 bytes.
    What is damaged there does not count: it cannot be fetched.
    """
    state = read_state(place)
    if (state is None or not state.unfinished) and not version_numbers(place):
        return
    try:
        version, _ = read_newest(place)
    except KnowledgeBaseError:
        return
    segments = version.ledger.tables.get(ENTRIES, ()) if version.ledger else ()
    lost = 0
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for keys in pool.map(lambda segment: _answered(place, segment), segments):
            lost += len(lacking(kb, keys))
    if lost:
        there = f"move {kb} away and " if kb.exists() else ""
        raise KnowledgeBaseError(
            f"{place.name} holds {lost:,} answers that {kb} lacks; they would be asked and paid for again:"
            f" {there}take them with `unibind kb fetch`; or, to start from scratch, publish to another place"
        )


def _answered(place: Place, segment: Segment) -> list[str]:
    """The keys of a segment's requests that have an answer."""
    try:
        with place.open(segment.object) as file:
            rows = pq.read_table(file, columns=["key", "error"])
    except (FileNotFoundError, pa.ArrowException):
        return []
    keys: list[str] = rows["key"].filter(pc.is_null(rows["error"])).to_pylist()
    return keys

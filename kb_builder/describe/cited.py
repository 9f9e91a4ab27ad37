"""Cited answers: the ledger entries that descriptions were made from, and the guard against their loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.errors import KnowledgeBaseError
from data.files import settled, signature
from kb_builder.ask.ledger import digest_of, lacking
from kb_builder.settings import SOURCES_WITHOUT_REQUEST

ANSWERS = "the ledger's answers"  # the name of this input, where a stage says why it runs again
_UNASKED = pa.array(sorted(SOURCES_WITHOUT_REQUEST))


def require_cited_answers(kb: Path, kind: str, prefix: str) -> None:
    """Raise KnowledgeBaseError where parts `descriptions/<kind>/<prefix>-*` cite answers the ledger lacks.

    The ledger was lost or replaced then: writing the parts again would drop texts that were paid for, and
    asking would pay for them again. Rows of failed requests need no entry, as these may be asked again; parts
    that cannot be read are skipped, as they are replaced anyway.
    """
    cited: set[str] = set()
    for path in sorted((kb / "descriptions" / kind).glob(f"{prefix}-*.parquet")):
        try:
            table = pq.read_table(path, columns=["request_key", "source", "status"], partitioning=None)
        except (pa.ArrowException, OSError, ValueError):
            continue
        asked = pc.and_(
            pc.invert(pc.is_in(table["source"], _UNASKED)), pc.not_equal(table["status"], "failed")
        )
        cited.update(table["request_key"].filter(asked).unique().to_pylist())
    lost = lacking(kb, sorted(cited))
    if lost:
        raise KnowledgeBaseError(
            f"{kb / 'ledger.sqlite'} lacks {len(lost):,} of the {len(cited):,} answers that the descriptions "
            f"are made from: it was lost or replaced. Restore it from a backup; or, to ask and pay for "
            f"everything again, move {kb / 'descriptions'} away"
        )


def cited_answers(kb: Path, parts: Iterable[Path], before: Mapping[str, Any]) -> dict[str, Any]:
    """The hash of the answers that parts cite, to be compared with the one from when the parts were written.

    Without a ledger, or with an untouched one, the hash is the one in `before`. The parts hold every text
    that was made from the answers, so a lost ledger must not cause everything to be asked, and paid for,
    again.
    """
    ledger = kb / "ledger.sqlite"
    now = settled(ledger, signature(ledger))
    seen = None if now is None or ledger.with_name("ledger.sqlite-wal").exists() else list(now)
    unchanged = seen is not None and before.get("_ledger") == seen
    if ANSWERS in before and (unchanged or not ledger.is_file()):
        return {ANSWERS: before[ANSWERS], "_ledger": seen}
    if not ledger.is_file():
        return {ANSWERS: None, "_ledger": None}
    keys: set[str] = set()
    try:
        for path in parts:
            keys.update(
                pq.read_table(path, columns=["request_key"], partitioning=None)[0].unique().to_pylist()
            )
        return {ANSWERS: digest_of(kb, sorted(keys)), "_ledger": seen}
    except (pa.ArrowException, OSError, ValueError, KnowledgeBaseError):
        # The stage that writes the parts again reports the cause.
        return {ANSWERS: "damaged", "_ledger": None}

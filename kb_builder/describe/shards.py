"""The guard against a lost ledger: parts are not written anew from less than they were made from."""

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

ANSWERS = "the ledger's answers"  # as a reason to write parts anew
_UNASKED = pa.array(sorted(SOURCES_WITHOUT_REQUEST))


def require_cited_answers(kb: Path, kind: str, prefix: str) -> None:
    """Raise KnowledgeBaseError where parts `descriptions/<kind>/<prefix>-*` cite answers that are not there.

    The ledger was lost then, or replaced: written anew, the parts would lose texts that were paid for, and
    asking would pay for them again. Rows of failed requests may be asked again, so they need no entry; parts
    that cannot be read are to be replaced anyway.
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
            f"everything anew, move {kb / 'descriptions'} away"
        )


def cited_answers(kb: Path, parts: Iterable[Path], before: Mapping[str, Any]) -> dict[str, Any]:
    """The hash of the answers that parts cite, to be compared with what it was when they were written.

    Without a ledger it is what it was `before`: the tables hold all that was made of the answers, and a
    ledger that is lost must not lead to everything being asked, and paid for, again. `before` is also what is
    returned while the ledger's file is untouched.
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
        return {ANSWERS: "damaged", "_ledger": None}  # whoever writes the parts anew says what is wrong

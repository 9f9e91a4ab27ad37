"""The guard against a lost ledger: parts are not written anew from less than they were made from."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.errors import KnowledgeBaseError
from kb_builder.ledger import lacking

_UNASKED = pa.array(["facts", "manifest"])


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

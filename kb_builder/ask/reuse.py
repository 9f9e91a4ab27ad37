"""Reuse of answers: of the same request with fewer max_tokens, or at another endpoint of a pool."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from data.files import canonical_json, hash_text
from kb_builder.ask.ledger import Entry, StoredEntries, base_key_of, microseconds_now


def reused(ledger: StoredEntries, request: str, *, run_id: str) -> Entry | None:
    """An entry for a request (canonical JSON) with the answer to the same request with fewer max_tokens.

    None where there is no such answer, or it was cut off. The entry has the key of the new request, so that
    rows can cite it. It cost nothing and took no call (`attempts` 0); provider and source are the answer's.
    """
    shorter = ledger.shorter(base_key_of(request), json.loads(request)["max_tokens"])
    if shorter is None or shorter.answer is None or _cut_off(shorter.answer):
        return None
    return _under(shorter, request, run_id)


def answered_elsewhere(
    ledger: StoredEntries, request: str, aliases: Sequence[str], *, run_id: str
) -> Entry | None:
    """`reused`, for an answer to the same request at another endpoint of the pool (`Pool.aliases`)."""
    if not aliases:
        return None
    value = json.loads(request)
    keys = [hash_text(canonical_json(value | {"endpoint": alias})) for alias in aliases]
    found = ledger.get_many(keys)
    known = next((found[key] for key in keys if key in found and found[key].answer is not None), None)
    return None if known is None else _under(known, request, run_id)


def _under(known: Entry, request: str, run_id: str) -> Entry:
    return replace(
        known,
        key=hash_text(request),
        request=request,
        attempts=0,
        latency_ms=0.0,
        created_at=microseconds_now(),
        run_id=run_id,
        cost_usd=0.0,
    )


def _cut_off(answer: str) -> bool:
    return any(choice.get("finish_reason") == "length" for choice in json.loads(answer)["choices"])

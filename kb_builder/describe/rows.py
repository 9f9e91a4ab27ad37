"""One row of the `descriptions` table, and the derived columns that every writer must fill alike."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from data.files import hash_json, hash_text
from kb_builder.ask.ledger import Entry
from kb_builder.ask.request import Request
from kb_builder.encoders.tokens import count_tokens
from kb_builder.gates.names import normalise
from kb_builder.gates.verdict import STATUSES
from kb_builder.parse.answers import PARSER_VERSION, ParsedAnswer


def row_id(request_key: str, *, choice: int, item: int, parser_version: str) -> str:
    """The row's identity: the same answer, parsed by the same rules, is the same row in every run."""
    return hash_json([request_key, choice, item, parser_version])


def columns_of(request: Request, entry: Entry, answer: ParsedAnswer | None) -> dict[str, Any]:
    """The columns of a row that follow from its request and its entry; `answer` None: the request failed.

    `kb verify` derives them by itself, from the ledger's JSON.
    """
    return {
        "provider": entry.provider,
        "model_requested": request.model,
        "model_resolved": (answer.model if answer else None) or request.model,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": request.max_tokens,
        "seed": request.seed,
        "finish_reason": answer.finish_reason if answer else "error",
        "prompt_tokens": answer.prompt_tokens if answer else None,
        "completion_tokens": answer.completion_tokens if answer else None,
        "attempts": entry.attempts,
        "latency_ms": entry.latency_ms,
        "created_at": entry.time,
        "source": entry.source,
        "run_id": entry.run_id,
    }


def description_row(
    *,
    kind: str,
    text: str,
    status: str,
    template_id: str,
    template_version: str,
    prompt_hash: str,
    request_key: str,
    provider: str,
    model_requested: str,
    model_resolved: str,
    finish_reason: str,
    attempts: int,
    latency_ms: float,
    created_at: datetime,
    source: str,
    run_id: str,
    modality: str | None = None,
    category_id: str | None = None,
    sample_id: str | None = None,
    dup_of: str | None = None,
    reason: str | None = None,
    aspect: str | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    max_tokens: int | None = None,
    seed: int | None = None,
    prompt_tokens: int | None = None,
    completion_tokens: int | None = None,
    cost_usd: float | None = None,
    choice: int = 0,
    item: int = 0,
    n_tokens: int | None = None,
    parser_version: str = PARSER_VERSION,
) -> dict[str, Any]:
    """A row of schema `DESCRIPTIONS`: the given fields, and those that follow from them.

    `choice` and `item` tell several texts of one answer apart. `created_at` must carry its time zone. Pass
    `n_tokens` (see `tokens.count_tokens`) where many texts were counted together, which is faster.
    """
    if kind not in {"category", "sample"}:
        raise ValueError(f"kind {kind!r} is neither category nor sample")
    if status not in STATUSES:
        raise ValueError(f"status {status!r} is none of {', '.join(STATUSES)}")
    if created_at.tzinfo is None:
        raise ValueError("created_at has no time zone")
    return {
        "row_id": row_id(request_key, choice=choice, item=item, parser_version=parser_version),
        "kind": kind,
        "modality": modality,
        "category_id": category_id,
        "sample_id": sample_id,
        "text": text,
        "text_norm_hash": hash_text(normalise(text)),
        "n_chars": len(text),
        "n_tokens": count_tokens([text])[0] if n_tokens is None else n_tokens,
        "status": status,
        "dup_of": dup_of,
        "reason": reason,
        "template_id": template_id,
        "template_version": template_version,
        "aspect": aspect,
        "prompt_hash": prompt_hash,
        "request_key": request_key,
        "provider": provider,
        "model_requested": model_requested,
        "model_resolved": model_resolved,
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
        "seed": seed,
        "finish_reason": finish_reason,
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "cost_usd": cost_usd,
        "attempts": attempts,
        "latency_ms": latency_ms,
        "created_at": created_at,
        "source": source,
        "run_id": run_id,
        "parser_version": parser_version,
    }

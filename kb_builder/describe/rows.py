"""Rows of the `descriptions` table, built from a question, the call that answered it, and the judged text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal

from data.files import hash_json, hash_text
from kb_builder.ask.ledger import Entry
from kb_builder.ask.request import Request
from kb_builder.gates.names import normalise
from kb_builder.gates.verdict import STATUSES, Verdict
from kb_builder.parse.answers import PARSER_VERSION, ParsedAnswer


@dataclass(frozen=True, slots=True)
class RowQuestion:
    """What was asked, and about which category or sample (`subject_id`)."""

    kind: Literal["category", "sample"]
    subject_id: str
    modality: str | None
    template_id: str
    template_version: str
    prompt_hash: str
    request_key: str
    aspect: str | None = None


@dataclass(frozen=True, slots=True)
class RowOrigin:
    """Where a text comes from: the columns of that name, which are the same for all texts of one answer."""

    provider: str
    model_requested: str
    model_resolved: str
    finish_reason: str
    attempts: int
    latency_ms: float
    created_at: datetime  # with a time zone
    source: str
    run_id: str
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class JudgedText:
    """One text of an answer, with its verdict. `item` is its number in the answer, from 0."""

    text: str
    n_tokens: int  # by the tokenizer of the text encoder that will read it
    verdict: Verdict
    item: int = 0
    cost_usd: float | None = None  # its share of the request's cost; None where that is unknown


_ORIGIN_COLUMNS = tuple(field.name for field in fields(RowOrigin))


def row_id(request_key: str, *, choice: int, item: int, parser_version: str) -> str:
    """The row's identity: the same answer, parsed by the same rules, is the same row in every run."""
    return hash_json([request_key, choice, item, parser_version])


def origin_of(request: Request, entry: Entry, answer: ParsedAnswer | None) -> RowOrigin:
    """The columns that follow from a request and its ledger entry; `answer` None: the request failed.

    `kb verify` derives the same columns independently, from the ledger's JSON.
    """
    return RowOrigin(
        provider=entry.provider,
        model_requested=request.model,
        model_resolved=(answer.model if answer else None) or request.model,
        temperature=request.temperature,
        top_p=request.top_p,
        max_tokens=request.max_tokens,
        seed=request.seed,
        finish_reason=answer.finish_reason if answer else "error",
        prompt_tokens=answer.prompt_tokens if answer else None,
        completion_tokens=answer.completion_tokens if answer else None,
        attempts=entry.attempts,
        latency_ms=entry.latency_ms,
        created_at=entry.time,
        source=entry.source,
        run_id=entry.run_id,
    )


def description_row(
    question: RowQuestion, origin: RowOrigin, judged: JudgedText, *, parser_version: str = PARSER_VERSION
) -> dict[str, Any]:
    """A row of schema `DESCRIPTIONS`; ValueError as in `answer_columns` and `text_row`."""
    columns = answer_columns(question, origin, parser_version=parser_version)
    own = row_id(question.request_key, choice=0, item=judged.item, parser_version=parser_version)
    return text_row(columns, judged, own)


def answer_columns(
    question: RowQuestion, origin: RowOrigin, *, parser_version: str = PARSER_VERSION
) -> dict[str, Any]:
    """The columns that all rows of one answer share.

    Raises ValueError where the kind is unknown, or `created_at` has no time zone.
    """
    if question.kind not in {"category", "sample"}:
        raise ValueError(f"kind {question.kind!r} is neither category nor sample")
    if origin.created_at.tzinfo is None:
        raise ValueError("created_at has no time zone")
    return {
        "kind": question.kind,
        "modality": question.modality,
        "category_id": question.subject_id if question.kind == "category" else None,
        "sample_id": question.subject_id if question.kind == "sample" else None,
        "template_id": question.template_id,
        "template_version": question.template_version,
        "aspect": question.aspect,
        "prompt_hash": question.prompt_hash,
        "request_key": question.request_key,
        **{name: getattr(origin, name) for name in _ORIGIN_COLUMNS},
        "parser_version": parser_version,
    }


def text_row(columns: Mapping[str, Any], judged: JudgedText, own: str) -> dict[str, Any]:
    """The row of one text of an answer with these `answer_columns`; `own` is its `row_id`.

    Raises ValueError where the status is unknown.
    """
    verdict, text = judged.verdict, judged.text
    if verdict.status not in STATUSES:
        raise ValueError(f"status {verdict.status!r} is unknown; known are {', '.join(STATUSES)}")
    return {
        **columns,
        "row_id": own,
        "text": text,
        "text_norm_hash": hash_text(normalise(text)),
        "n_chars": len(text),
        "n_tokens": judged.n_tokens,
        "status": verdict.status,
        "dup_of": verdict.dup_of,
        "reason": verdict.reason,
        "cost_usd": judged.cost_usd,
    }

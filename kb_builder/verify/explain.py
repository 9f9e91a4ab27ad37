"""`kb explain ROW`: where a description comes from, from the prompt to the last verdict."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.errors import InputError, KnowledgeBaseError, first_line
from data.reads import reading
from data.seals import check
from kb_builder.added.sources import SOURCE as ADDED
from kb_builder.added.sources import read_sources
from kb_builder.added.struck import read_struck
from kb_builder.ask.ledger import Entry, read_ledger, require_unchanged
from kb_builder.browse.query import Page, QueryResult
from kb_builder.describe.rows import row_id as id_of
from kb_builder.tables.parts import KINDS
from kb_builder.verify.rows import derive, jaccard

SHORTEST = 6  # characters of a row_id
_SUGGESTIONS = 5
_LONG = 4000  # characters of a raw answer that are shown

# Status of the row that a gate turns away, and what passing it means; in the order in which they judge.
_GATES = (
    ("failed", "answered"),
    ("refusal", "no refusal"),
    ("unparsed", "holds a text"),
    ("wrong_language", "in the wanted language"),
    ("no_name", "names its subject"),
    ("other_name", "names no other subject"),
    ("too_long", "short enough for the encoder"),
    ("boilerplate", "says something"),
    ("dup_exact", "not the words of an earlier text"),
    ("dup_near", "not nearly an earlier text"),
)
_BODY = re.compile(r"[0-9a-f]*\Z")

_Row = dict[str, Any]


def explain(kb: Path, row_id: str) -> Page:
    """Everything that is known of one row, found by its id or the id's first characters.

    Raises InputError, in one line with suggestions, where no row or more than one fits, and DamagedError
    where the ledger is not as it was written.
    """
    path, row = _find(kb, row_id.strip().lower())
    if (kb / "ledger.sqlite").exists():  # without one, that is said below
        require_unchanged(kb)
    with read_ledger(kb) as ledger:
        entry = None if ledger is None else ledger.get(row["request_key"])
    sections = [("row", _pairs(_about(row))), ("subject", _pairs(_subject(kb, row)))]
    if entry is None:
        stated = {
            "facts": "measured from the file; no model was asked",
            "manifest": "given in the manifest; no model was asked",
            "added": "taken from a file by `unibind kb add-texts`; no model was asked",
        }
        what = stated.get(row["source"], "its request is not in the ledger: see `unibind kb verify`")
        sections.append(("origin", _pairs({"source": row["source"], "how": what} | _added(kb, row))))
    else:
        request = json.loads(entry.request)
        sections += [
            ("prompt", QueryResult(("role", "content"), tuple(_messages(request)))),
            ("request", _pairs(_parameters(entry, request))),
            ("answer", _pairs(_answer_columns(entry))),
            ("parsed", QueryResult(("item", "row_id", "text or reason"), tuple(_items(entry, row)))),
        ]
    sections.append(("gates", QueryResult(("gate", "verdict", "why"), tuple(_verdicts(kb, path, row)))))
    return Page(tuple(sections))


def _added(kb: Path, row: _Row) -> dict[str, Any]:
    """Where an added text comes from: its source's file, and what that says of the text."""
    for source in read_sources(kb) if row["source"] == ADDED else ():
        for text in source.content.texts if source.name == row["provider"] else ():
            if source.key(text) == row["request_key"]:
                own = {"class": text.class_name, "model": text.model, "origin": text.origin}
                return {"name": source.name} | source.describe() | own
    return {}


def _find(kb: Path, prefix: str) -> tuple[Path, _Row]:
    if len(prefix) < SHORTEST or not _BODY.match(prefix):
        raise InputError(f"give at least {SHORTEST} characters (0-9, a-f) of a row_id, not {prefix!r}")
    found: dict[str, tuple[Path, int]] = {}
    near: list[str] = []
    for path in _parts(kb):
        ids = _column(path)
        for number in pc.indices_nonzero(pc.starts_with(ids, prefix)).to_pylist():
            found[ids[number].as_py()] = (path, number)
        if not found and len(near) < _SUGGESTIONS:
            close = pc.indices_nonzero(pc.starts_with(ids, prefix[:3]))
            near += [ids[number].as_py() for number in close.to_pylist()[:_SUGGESTIONS]]
    if len(found) > 1:
        some = ", ".join(each[: len(prefix) + 4] for each in sorted(found)[:_SUGGESTIONS])
        raise InputError(f"{len(found):,} rows begin with {prefix!r}, such as {some}; give more characters")
    if not found:
        some = ", ".join(each[:12] for each in near[:_SUGGESTIONS])
        other = f"; there are {some}" if some else "; `unibind kb sql` lists them (v_descriptions, row_id)"
        raise InputError(f"no row begins with {prefix!r}{other}")
    ((path, number),) = found.values()
    return path, _read_row(path, number)


def _parts(kb: Path) -> list[Path]:
    check(kb / "categories.parquet")  # there once, it is not "no knowledge base yet"
    if not (kb / "categories.parquet").is_file():
        raise KnowledgeBaseError(f"{kb} holds no knowledge base yet; `unibind run` makes one")
    return [path for kind in KINDS for path in sorted((kb / "descriptions" / kind).glob("*.parquet"))]


def _column(path: Path) -> Any:
    try:
        return pq.read_table(reading(path), columns=["row_id"], partitioning=None).column(0).combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise KnowledgeBaseError(f"{path} is damaged: {first_line(error)}") from None


def _read_row(path: Path, number: int) -> _Row:
    with pq.ParquetFile(path) as opened:
        for batch in opened.iter_batches():
            if number < len(batch):
                row: _Row = batch.slice(number, 1).to_pylist()[0]
                return row
            number -= len(batch)
    raise KnowledgeBaseError(f"{path} changed while it was read; try again")


def _about(row: _Row) -> Mapping[str, Any]:
    names = ("row_id", "kind", "text", "status", "reason", "dup_of", "n_chars", "n_tokens", "template_id",
             "template_version", "aspect", "source", "run_id", "created_at", "parser_version")  # fmt: skip
    return {name: row[name] for name in names}


def _subject(kb: Path, row: _Row) -> Mapping[str, Any]:
    kind = row["kind"]
    table, name = (
        ("categories.parquet", "category_id") if kind == "category" else ("samples.parquet", "sample_id")
    )
    subject = row[name]
    rows = pq.read_table(reading(kb / table), filters=[(name, "=", subject)], partitioning=None).to_pylist()
    return rows[0] if rows else {name: f"{subject} (no longer in {table})"}


def _messages(request: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for role, content in request["messages"]:
        parts = [content] if isinstance(content, str) else content
        for part in parts:
            named = (
                part
                if isinstance(part, str)
                else f"[{part['kind']} {part['sha256'][:12]}…, {part['recipe']}]"
            )
            yield role, named


def _parameters(entry: Entry, request: Mapping[str, Any]) -> Mapping[str, Any]:
    extra = request["extra"]
    plain = {name: value for name, value in request.items() if name not in {"messages", "extra", "names"}}
    sent = {
        f"{name} is sent as": "nothing" if other is None else other
        for name, other in sorted(request.get("names", {}).items())
    }
    return (
        {"key": entry.key} | plain | sent | {name: json.dumps(value) for name, value in sorted(extra.items())}
    )


def _answer_columns(entry: Entry) -> Mapping[str, Any]:
    said = entry.answer if entry.error is None else entry.error
    raw = (said or "")[:_LONG]
    if len(said or "") > _LONG:
        raw += f" ... {len(said or ''):,} characters in all"
    return {
        "raw" if entry.error is None else "error": raw,
        "attempts": entry.attempts,
        "latency_ms": entry.latency_ms,
        "cost_usd": "unknown" if entry.cost_usd is None else entry.cost_usd,
        "provider": entry.provider,
        "source": entry.source,
        "when": entry.time.isoformat(timespec="seconds"),
        "run": entry.run_id,
    }


def _items(entry: Entry, row: _Row) -> Iterator[tuple[str, str, str]]:
    try:
        items = derive(entry).items
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        yield "-", "-", f"cannot be read: {error}"
        return
    for number, item in enumerate(items):
        identity = id_of(entry.key, choice=0, item=number, parser_version=row["parser_version"])
        mine = " (this row)" if identity == row["row_id"] else ""
        yield f"{number}{mine}", identity[:12], item.text if item.text is not None else f"({item.reason})"


def _verdicts(kb: Path, path: Path, row: _Row) -> Iterator[tuple[str, str, str]]:
    """What every gate said, according to the row's status and reason."""
    reached = True
    for status, passing in _GATES:
        if not reached:
            yield passing, "not asked", ""
        elif row["status"] == status:
            reached = False
            yield passing, f"NO: {status}", _why(kb, row)
        else:
            yield passing, "yes", f"{row['n_tokens']} tokens" if status == "too_long" else ""
    if row["status"] == "ok":
        yield "kept", "ok", _nearest(path, row)
        if (struck := read_struck(kb).get(row["row_id"])) is not None:
            why = struck.reason or "no reason given"
            yield "struck out by a person", "never a center", f"{struck.struck_at}: {why}"


def _nearest(path: Path, row: _Row) -> str:
    """The most alike of the other `ok` texts about the same category in the same part."""
    if row["kind"] != "category":
        return ""
    filters = [
        ("category_id", "=", row["category_id"]),
        ("status", "=", "ok"),
        ("row_id", "!=", row["row_id"]),
    ]
    others = pq.read_table(path, columns=["row_id", "text"], filters=filters, partitioning=None).to_pylist()
    if not others:
        return "the only one of its category"
    alike, nearest = max(
        ((jaccard(row["text"], each["text"]), each) for each in others), key=lambda one: one[0]
    )
    return f"of {len(others):,} others, most like row {nearest['row_id'][:12]} (3-gram Jaccard {alike:.2f})"


def _why(kb: Path, row: _Row) -> str:
    if row["dup_of"] is None:
        return row["reason"] or ""
    for path in _parts(kb):
        place = pc.index(_column(path), row["dup_of"]).as_py()
        if place >= 0:
            other = _read_row(path, place)["text"]
            alike = f"3-gram Jaccard {jaccard(row['text'], other):.2f}"
            return f"{row['reason'] or ''}; row {row['dup_of'][:12]} ({alike}): {other}"
    return f"{row['reason'] or ''}; row {row['dup_of'][:12]} is gone"


def _pairs(values: Mapping[str, Any]) -> QueryResult:
    return QueryResult(
        ("name", "value"), tuple((name, value) for name, value in values.items() if value is not None)
    )

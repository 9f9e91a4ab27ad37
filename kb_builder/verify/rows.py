"""Derive every row of the descriptions again from the stored answers, and compare; see verify/verify.py."""

from __future__ import annotations

import json
import math
import multiprocessing
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.environment import cores
from data.errors import first_line
from data.files import hash_json, hash_text
from kb_builder.added.sources import SOURCE as ADDED
from kb_builder.ask.ledger import Entry, StoredEntries, read_ledger
from kb_builder.ask.request import asked, asks_for_list, request_from_json, words
from kb_builder.describe.rows import row_id
from kb_builder.encoders.tokens import count_tokens
from kb_builder.gates.names import normalise
from kb_builder.parse.answers import PARSER_VERSION, Item, parse_answer, read_answer
from kb_builder.settings import SOURCES_WITHOUT_REQUEST
from kb_builder.verify.findings import Findings
from kb_builder.verify.relations import DUPLICATES, PartFile, Subjects

_BATCH = 10_000  # rows in memory at once
_SMALL = 8 * 2**20  # bytes of parts that are read by this process alone
_READ = frozenset({"finish_reason", "model_resolved"})  # columns that the parser reads from the answer
_SUBJECT = {"category": "category_id", "sample": "sample_id"}
_JACCARD = re.compile(r"Jaccard (\d\.\d+)")

_Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Repeat:
    """A row that repeats one which the same part does not hold, or not before it."""

    place: str
    subject: str
    status: str
    reason: str | None
    dup_of: str
    text: str


@dataclass
class Checked:
    """What became of a part's rows, beside findings."""

    rows: int = 0
    miscounted: list[tuple[str, int, int]] = field(
        default_factory=list
    )  # not as the default tokenizer counts
    far: list[_Repeat] = field(default_factory=list)

    def add(self, other: Checked) -> None:
        """Take over what became of another part's rows."""
        self.rows += other.rows
        self.miscounted += other.miscounted
        self.far += other.far


@dataclass(frozen=True)
class Derived:
    """What the rows of one ledger entry must be."""

    items: Sequence[Item]
    columns: Mapping[str, Any]  # the same for all of its rows

    def text(self, item: int) -> str:
        """The text of a row: the parsed one, else what the model said."""
        found = self.items[item]
        return found.said if found.text is None else found.text


def derive(entry: Entry) -> Derived:
    """Parse an entry again. Raises ValueError, KeyError or TypeError where it holds no answer."""
    request = json.loads(entry.request)
    messages = request_from_json(entry.request).messages
    question = asked(messages)
    answer = None if entry.answer is None else read_answer(entry.answer, asked=question)
    if answer is None:
        items: tuple[Item, ...] = (Item(None, "", entry.error),)
    else:
        role, content = messages[-1]
        items = parse_answer(
            answer,
            opening=words(content) if role == "assistant" else "",
            several=asks_for_list(request),
            asked=question,
        )
    return Derived(
        items,
        {
            "prompt_hash": hash_json(request["messages"]),
            "model_requested": request["model"],
            "model_resolved": (answer.model if answer else None) or request["model"],
            "temperature": request["temperature"],
            "top_p": request["top_p"],
            "max_tokens": request["max_tokens"],
            "seed": request["seed"],
            "finish_reason": answer.finish_reason if answer else "error",
            "prompt_tokens": answer.prompt_tokens if answer else None,
            "completion_tokens": answer.completion_tokens if answer else None,
        },
    )


def derive_parts(
    kb: Path, parts: Sequence[PartFile], subjects: Subjects, found: Findings, *, every: Sequence[PartFile]
) -> int:
    """Derive every row of these parts again, and say where they differ; returns how many rows that were.

    `every` part is looked at for rows that others repeat. Many rows are divided among processes, one per
    core.
    """
    checked = Checked()
    workers = min(cores(), len(parts))
    if workers < 2 or sum(part.path.stat().st_size for part in parts) < _SMALL:
        with read_ledger(kb) as ledger:
            for part in parts:
                with found.guard(part.name):
                    checked.add(_Rows(ledger, found, subjects).check(part))
    else:
        context = multiprocessing.get_context("spawn")  # threads of pyarrow run here
        with ProcessPoolExecutor(workers, context, _start, (kb, subjects)) as pool:
            for findings, mine in pool.map(_derive_part, parts):
                found.merge(findings)
                checked.add(mine)
    _report_miscounted(checked, found)
    with found.guard("descriptions"):
        _compare_far(checked.far, every, found)
    return checked.rows


_shared: tuple[Path, Subjects] | None = None  # of a worker process


def _start(kb: Path, subjects: Subjects) -> None:
    global _shared
    _shared = kb, subjects


def _derive_part(part: PartFile) -> tuple[Findings, Checked]:
    assert _shared is not None
    kb, subjects = _shared
    found, checked = Findings(), Checked()
    with found.guard(part.name), read_ledger(kb) as ledger:
        checked = _Rows(ledger, found, subjects).check(part)
    return found, checked


def _report_miscounted(checked: Checked, found: Findings) -> None:
    if len(checked.miscounted) > checked.rows / 2:
        found.note("tokens of another encoder", "n_tokens", "not counted by the default encoder's tokenizer")
        return
    for place, stated, counted in checked.miscounted:
        found.error("column", place, f"n_tokens is {stated}, follows from its text {counted}")


def _compare_far(far: Sequence[_Repeat], every: Sequence[PartFile], found: Findings) -> None:
    """Compare duplicates with rows of another part: those are looked up by reading the parts once more."""
    waiting: dict[str, list[_Repeat]] = defaultdict(list)
    for repeat in far:
        waiting[repeat.dup_of].append(repeat)
    for file in every if waiting else ():
        with pq.ParquetFile(file.path) as opened:
            for batch in opened.iter_batches(
                _BATCH, columns=["row_id", "status", _SUBJECT[file.kind], "text"]
            ):
                wanted = pc.is_in(batch["row_id"], pa.array(list(waiting), pa.string()))
                for row in batch.filter(wanted).to_pylist():
                    for repeat in waiting[row["row_id"]]:
                        # That the row it names is another subject's, or not ok, is said by verify_relations.
                        if row["status"] == "ok" and row[_SUBJECT[file.kind]] == repeat.subject:
                            _compare_texts(repeat, row["text"], found)


def _compare_texts(repeat: _Repeat, other: str, found: Findings) -> None:
    if repeat.status == "dup_exact":
        if normalise(repeat.text) != normalise(other):
            about = f"its text is not that of row {repeat.dup_of[:12]}"
            found.error("no exact duplicate", repeat.place, about)
        return
    stated = _JACCARD.search(repeat.reason or "")
    if stated is not None and abs(jaccard(repeat.text, other) - float(stated[1])) > 0.006:  # two decimals
        alike = f"{jaccard(repeat.text, other):.2f}, not {stated[1]}"
        about = f"3-gram Jaccard with row {repeat.dup_of[:12]} is {alike}"
        found.error("no near duplicate", repeat.place, about)


class _Rows:
    """Checks the rows of one part. `ledger` is None where no model was ever asked."""

    def __init__(self, ledger: StoredEntries | None, found: Findings, subjects: Subjects) -> None:
        self._ledger = ledger
        self._found = found
        self._subjects = subjects
        self._checked = Checked()
        self._missing: Counter[str] = Counter()  # key -> rows that are missing so far, where any are
        self._subject: str | None = None
        self._earlier: dict[str, str] = {}  # ok rows of the subject that is being read: row_id -> text

    def check(self, file: PartFile) -> Checked:
        """Check every row of the part."""
        try:
            with pq.ParquetFile(file.path) as opened:
                for batch in opened.iter_batches(_BATCH):
                    self._check_rows(file, batch.to_pylist())
        except (pa.ArrowException, OSError) as error:
            self._found.error("part unreadable", file.name, first_line(error))
        for key, rows in self._missing.items():
            if rows > 0:
                self._found.error("rows missing", f"answer {key[:12]}", f"{rows} of its texts have no row")
        return self._checked

    def _check_rows(self, file: PartFile, rows: Sequence[_Row]) -> None:
        lengths = count_tokens([row["text"] for row in rows])
        places = [
            f"{file.name} row {number} ({row['row_id'][:12]})"
            for number, row in enumerate(rows, self._checked.rows)
        ]
        for place, row, n_tokens in zip(places, rows, lengths, strict=True):
            self._check_alone(file, place, row, n_tokens)
        self._check_answers(places, rows)
        self._checked.rows += len(rows)

    # --- one row by itself -----------------------------------------------------------------------------

    def _check_alone(self, file: PartFile, place: str, row: _Row, n_tokens: int) -> None:
        expected = {
            "kind": file.kind,
            "text_norm_hash": hash_text(normalise(row["text"])),
            "n_chars": len(row["text"]),
        } | {column: None for kind, column in _SUBJECT.items() if kind != file.kind}
        self._compare(place, row, expected, "follows from its text")
        if row["n_tokens"] != n_tokens:
            self._checked.miscounted.append((place, row["n_tokens"], n_tokens))
        subject = row[_SUBJECT[file.kind]]
        if subject != self._subject:
            self._subject, self._earlier = subject, {}
        if row["status"] == "ok":
            self._earlier[row["row_id"]] = row["text"]
        elif row["status"] in DUPLICATES and row["dup_of"] is not None:
            repeat = _Repeat(place, subject, row["status"], row["reason"], row["dup_of"], row["text"])
            if row["dup_of"] in self._earlier:
                _compare_texts(repeat, self._earlier[row["dup_of"]], self._found)
            else:
                self._checked.far.append(repeat)

    # --- against the ledger ----------------------------------------------------------------------------

    def _check_answers(self, places: Sequence[str], rows: Sequence[_Row]) -> None:
        keys = list(dict.fromkeys(row["request_key"] for row in rows))
        entries = {} if self._ledger is None else self._ledger.get_many(keys)
        for key, group in groupby(zip(places, rows, strict=True), key=lambda pair: pair[1]["request_key"]):
            mine = list(group)
            entry = entries.get(key)
            if entry is not None:
                self._check_entry(entry, mine)
                continue
            for place, row in mine:
                if row["source"] == ADDED and row["kind"] == "category":
                    self._check_added(place, row)
                elif row["source"] in SOURCES_WITHOUT_REQUEST and row["kind"] == "sample":
                    self._check_unasked(place, row)

    def _check_entry(self, entry: Entry, rows: Sequence[tuple[str, _Row]]) -> None:
        if hash_text(entry.request) != entry.key:
            self._found.error(
                "request changed", f"answer {entry.key[:12]}", "its key is not its request's hash"
            )
        try:
            derived = derive(entry)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            self._found.error(
                "answer unreadable", f"answer {entry.key[:12]}", f"{type(error).__name__}: {error}"
            )
            return
        earlier = any(row["parser_version"] != PARSER_VERSION for _, row in rows)
        count = len(rows) if earlier else len(derived.items)  # another parser may have found more or fewer
        self._missing[entry.key] += (0 if entry.key in self._missing else count) - len(rows)
        if not self._missing[entry.key]:
            del self._missing[entry.key]
        cost = None if entry.cost_usd is None else entry.cost_usd / count
        for place, row in rows:
            columns = {
                name: derived.columns[name] for name in derived.columns if not (earlier and name in _READ)
            }
            self._compare(place, row, columns, "the ledger says")
            if not earlier and not _same_cost(row["cost_usd"], cost):
                self._found.error("column", place, f"cost_usd is {row['cost_usd']}, its share is {cost}")
            if row["parser_version"] != PARSER_VERSION:
                continue
            item = _item(row, count)
            if item is None:
                self._found.error("row id", place, f"answer {entry.key[:12]} gives no row of this id")
            elif row["text"] != derived.text(item):
                said = derived.text(item)
                self._found.error("text", place, f"{row['text'][:80]!r}, the answer says {said[:80]!r}")

    def _check_added(self, place: str, row: _Row) -> None:
        """Rows of added texts: everything but the verdict follows from their source."""
        if _item(row, 1) is None:
            self._found.error("row id", place, "does not follow from its key")
        columns = (self._subjects.added or {}).get(row["request_key"])
        if columns is not None:  # else already reported
            self._compare(place, row, columns, "its source says")

    def _check_unasked(self, place: str, row: _Row) -> None:
        """Rows of facts and manifests: their key follows from the sample and the text."""
        if _item(row, 1) is None:
            self._found.error("row id", place, "does not follow from its key")
        sample = self._subjects.samples.get(row["sample_id"])
        if sample is None:
            return  # already reported
        what = [row["provider"], row["model_requested"], row["sample_id"], sample[1], row["text"]]
        if row["request_key"] != hash_json(what):
            self._found.error("text", place, "its key does not follow from its sample and its text")
        if row["source"] == "manifest" and self._subjects.given.get(row["sample_id"]) != row["text"]:
            self._found.error("text", place, "the manifest gave another text")

    def _compare(self, place: str, row: _Row, expected: Mapping[str, Any], why: str) -> None:
        for name, value in expected.items():
            if row[name] != value:
                self._found.error("column", place, f"{name} is {row[name]!r}, {why} {value!r}")


def jaccard(one: str, other: str) -> float:
    """How alike two texts are: |A ∩ B| / |A ∪ B| of the character 3-grams of their normalised forms."""
    a, b = _trigrams(normalise(one)), _trigrams(normalise(other))
    return len(a & b) / len(a | b)


def _trigrams(text: str) -> set[str]:
    return {text[start : start + 3] for start in range(max(1, len(text) - 2))}


def _item(row: _Row, count: int) -> int | None:
    """Which of an answer's texts a row is, by its id."""
    key, version = row["request_key"], row["parser_version"]
    ids = (row_id(key, choice=0, item=item, parser_version=version) for item in range(count))
    return next((item for item, each in enumerate(ids) if each == row["row_id"]), None)


def _same_cost(one: float | None, other: float | None) -> bool:
    return one == other if one is None or other is None else math.isclose(one, other, rel_tol=1e-9)

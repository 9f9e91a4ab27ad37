"""Check rows of the descriptions against the ledger, the samples, and each other; see verify/verify.py."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import first_line
from data.files import hash_json, hash_text
from kb_builder.ask.ledger import Entry, StoredEntries
from kb_builder.ask.request import asked, asks_for_list, request_from_json, words
from kb_builder.describe.rows import row_id
from kb_builder.encoders.tokens import count_tokens
from kb_builder.gates.names import normalise
from kb_builder.gates.verdict import STATUSES
from kb_builder.parse.answers import PARSER_VERSION, Item, parse_answer, read_answer
from kb_builder.settings import SOURCES_WITHOUT_REQUEST
from kb_builder.tables.parts import KINDS, DescriptionPart
from kb_builder.verify.findings import Findings

_BATCH = 10_000  # rows in memory at once
_READ = frozenset({"finish_reason", "model_resolved"})  # columns that the parser reads from the answer
_DUPLICATES = frozenset({"dup_exact", "dup_near"})
_JACCARD = re.compile(r"Jaccard (\d\.\d+)")

_Hashes = npt.NDArray[np.uint64]
_Numbers = npt.NDArray[np.int64]
_Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PartFile:
    """A part that can be read."""

    name: str  # <kind>/<part>.parquet
    kind: str
    path: Path
    told: DescriptionPart | None  # what the manifest says of it, if anything


@dataclass(frozen=True)
class Subjects:
    """Whom rows may be about, and of samples what they must agree with."""

    categories: frozenset[str]
    samples: Mapping[str, tuple[str, str]]  # sample_id -> (modality, sha256)
    given: Mapping[str, str]  # sample_id -> text
    rejected: frozenset[str]  # sample_ids


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
            "provider": entry.provider,
            "model_requested": request["model"],
            "model_resolved": (answer.model if answer else None) or request["model"],
            "temperature": request["temperature"],
            "top_p": request["top_p"],
            "max_tokens": request["max_tokens"],
            "seed": request["seed"],
            "finish_reason": answer.finish_reason if answer else "error",
            "prompt_tokens": answer.prompt_tokens if answer else None,
            "completion_tokens": answer.completion_tokens if answer else None,
            "attempts": entry.attempts,
            "latency_ms": entry.latency_ms,
            "created_at": entry.time,
            "source": entry.source,
            "run_id": entry.run_id,
        },
    )


class RowCheck:
    """Checks part after part; what must hold over all of them is kept as hashes of 64 bits.

    Among a million rows two different ones share such a hash with a probability of 1 : 40,000,000. `ledger`
    is None where nobody was ever asked.
    """

    def __init__(self, ledger: StoredEntries | None, found: Findings, subjects: Subjects) -> None:
        self.count = 0
        self.cited: list[_Hashes] = []  # entries that rows cite, as `key_hash`
        self._ledger = ledger
        self._found = found
        self._subjects = subjects
        self._files: list[tuple[int, PartFile]] = []  # with the number of the first row
        self._row_ids: list[_Hashes] = []
        self._ok_texts: list[_Hashes] = []
        self._ok_rows: list[_Numbers] = []
        self._rows_of: Counter[str] = Counter()  # key -> rows that are missing so far, where any are
        self._seen: dict[str, set[str]] = {kind: set() for kind in KINDS}
        self._with_ok: set[str] = set()  # categories
        self._asked = False  # somebody was asked, or something measured, about samples
        self._miscounted: list[
            tuple[str, int, int]
        ] = []  # rows whose n_tokens the default tokenizer does not give
        self._subject: str | None = None
        self._earlier: dict[str, str] = {}  # ok rows of the subject that is being read: row_id -> text
        self._far: dict[str, list[tuple[str, _Row]]] = defaultdict(list)  # dup_of -> rows that repeat it

    def check_file(self, file: PartFile) -> None:
        """Check every row of a part."""
        self._files.append((self.count, file))
        self._subject = None
        statuses: Counter[str] = Counter()
        try:
            with pq.ParquetFile(file.path) as opened:
                for batch in opened.iter_batches(_BATCH):
                    rows = batch.to_pylist()
                    statuses.update(row["status"] for row in rows)
                    self._check_rows(file, rows)
        except (pa.ArrowException, OSError) as error:
            self._found.error("part unreadable", file.name, first_line(error))
            return
        if file.told is None:
            return
        if file.told.rows != statuses.total():
            told = f"it has {statuses.total()} rows, the manifest says {file.told.rows}"
            self._found.error("part changed", file.name, told)
        if statuses != Counter(file.told.statuses):
            told = ", ".join(f"{count} {status}" for status, count in sorted(file.told.statuses.items()))
            self._found.error("part changed", file.name, f"the manifest says: {told or 'no rows'}")

    def finish(self) -> None:
        """What can be said once all parts were read."""
        for key, rows in self._rows_of.items():
            if rows > 0:
                self._found.error("rows missing", f"answer {key[:12]}", f"{rows} of its texts have no row")
        self._tell_miscounted()
        self._find_far()
        self._find_repeated()
        self._find_gaps()

    def _where(self, number: int) -> str:
        """A row by its part and its number there, from its number over all parts."""
        first, file = next((first, file) for first, file in reversed(self._files) if first <= number)
        return f"{file.name} row {number - first}"

    def _check_rows(self, file: PartFile, rows: Sequence[_Row]) -> None:
        lengths = count_tokens([row["text"] for row in rows])
        places = [
            f"{self._where(self.count + number)} ({row['row_id'][:12]})" for number, row in enumerate(rows)
        ]
        for place, row, n_tokens in zip(places, rows, lengths, strict=True):
            self._check_alone(file, place, row, n_tokens)
        self._check_entries(places, rows)
        self._row_ids.append(_hashes(row["row_id"] for row in rows))
        ok = [number for number, row in enumerate(rows) if row["status"] == "ok"]
        self._ok_rows.append(np.array(ok, dtype=np.int64) + self.count)
        self._ok_texts.append(_hashes(hash_json([_subject(rows[n]), rows[n]["text_norm_hash"]]) for n in ok))
        self.count += len(rows)

    # --- one row by itself -----------------------------------------------------------------------------

    def _check_alone(self, file: PartFile, place: str, row: _Row, n_tokens: int) -> None:
        expected = {
            "kind": file.kind,
            "text_norm_hash": hash_text(normalise(row["text"])),
            "n_chars": len(row["text"]),
        }
        self._compare(place, row, expected, "follows from its text")
        if row["n_tokens"] != n_tokens:
            self._miscounted.append((place, row["n_tokens"], n_tokens))
        if row["status"] not in STATUSES:
            self._found.error("unknown status", place, repr(row["status"]))
        if row["parser_version"] != PARSER_VERSION:
            self._found.note(
                "row of another parser",
                place,
                f"version {row['parser_version']}; `unibind kb reparse` renews it",
            )
        self._check_subject(file, place, row)
        self._check_duplicate(place, row)

    def _tell_miscounted(self) -> None:
        if len(self._miscounted) > self.count / 2:
            self._found.note(
                "tokens of another encoder", "n_tokens", "not counted by the default encoder's tokenizer"
            )
            return
        for place, told, counted in self._miscounted:
            self._found.error("column", place, f"n_tokens is {told}, follows from its text {counted}")

    def _check_subject(self, file: PartFile, place: str, row: _Row) -> None:
        subject = _subject(row)
        self._seen[file.kind].add(subject)
        if file.kind == "category":
            if subject not in self._subjects.categories:
                self._found.error("row of an unknown category", place, repr(subject))
            if row["status"] == "ok":
                self._with_ok.add(subject)
            return
        self._asked = self._asked or row["source"] != "manifest"
        sample = self._subjects.samples.get(subject)
        if sample is None:
            self._found.error("row of an unknown sample", place, repr(subject))
        elif row["modality"] != sample[0]:
            self._found.error(
                "column", place, f"modality is {row['modality']!r}, its sample's is {sample[0]!r}"
            )

    def _check_duplicate(self, place: str, row: _Row) -> None:
        subject = _subject(row)
        if subject != self._subject:
            self._subject = subject
            self._earlier = {}
        if row["status"] == "ok":
            self._earlier[row["row_id"]] = row["text"]
        if row["status"] not in _DUPLICATES:
            if row["dup_of"] is not None:
                self._found.error("dup_of", place, f"status {row['status']} repeats no row")
        elif row["dup_of"] is None:
            self._found.error("dup_of", place, f"status {row['status']} without the row that it repeats")
        elif row["dup_of"] in self._earlier:
            self._compare_texts(place, row, self._earlier[row["dup_of"]])
        else:
            self._far[row["dup_of"]].append((place, row))

    def _compare_texts(self, place: str, row: _Row, other: str) -> None:
        if row["status"] == "dup_exact":
            if normalise(row["text"]) != normalise(other):
                self._found.error(
                    "no exact duplicate", place, f"its text is not that of row {row['dup_of'][:12]}"
                )
            return
        told = _JACCARD.search(row["reason"] or "")
        if told is not None and abs(jaccard(row["text"], other) - float(told[1])) > 0.006:  # two decimals
            alike = f"{jaccard(row['text'], other):.2f}, not {told[1]}"
            self._found.error(
                "no near duplicate", place, f"3-gram Jaccard with row {row['dup_of'][:12]} is {alike}"
            )

    def _find_far(self) -> None:
        """Duplicates of rows in another part: look those up by reading the parts once more."""
        for _, file in self._files if self._far else ():
            with pq.ParquetFile(file.path) as opened:
                columns = ["row_id", "status", "category_id", "sample_id", "text"]
                for batch in opened.iter_batches(_BATCH, columns=columns):
                    for other in batch.to_pylist():
                        for place, row in self._far.pop(other["row_id"], ()):
                            if other["status"] != "ok" or _subject(other) != _subject(row):
                                about = (
                                    f"row {other['row_id'][:12]} is {other['status']}, of {_subject(other)!r}"
                                )
                                self._found.error("dup_of", place, about)
                            else:
                                self._compare_texts(place, row, other["text"])
        for target, rows in self._far.items():
            for place, _ in rows:
                self._found.error("dup_of", place, f"there is no row {target[:12]}")

    # --- against the ledger ----------------------------------------------------------------------------

    def _check_entries(self, places: Sequence[str], rows: Sequence[_Row]) -> None:
        keys = list(dict.fromkeys(row["request_key"] for row in rows))
        entries = {} if self._ledger is None else self._ledger.get_many(keys)
        self.cited.append(_hashes(entries))
        for key, group in groupby(zip(places, rows, strict=True), key=lambda pair: pair[1]["request_key"]):
            mine = list(group)
            entry = entries.get(key)
            if entry is not None:
                self._check_entry(entry, mine)
                continue
            for place, row in mine:
                if row["source"] in SOURCES_WITHOUT_REQUEST and row["kind"] == "sample":
                    self._check_unasked(place, row)
                else:
                    self._found.error("no ledger entry", place, f"of request {key[:12]}")

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
        self._rows_of[entry.key] += (0 if entry.key in self._rows_of else count) - len(rows)
        if not self._rows_of[entry.key]:
            del self._rows_of[entry.key]
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

    def _check_unasked(self, place: str, row: _Row) -> None:
        """Rows of facts and manifests: their key follows from the sample and the text."""
        if _item(row, 1) is None:
            self._found.error("row id", place, "does not follow from its key")
        sample = self._subjects.samples.get(row["sample_id"])
        if sample is None:
            return  # already told
        what = [row["provider"], row["model_requested"], row["sample_id"], sample[1], row["text"]]
        if row["request_key"] != hash_json(what):
            self._found.error("text", place, "its key does not follow from its sample and its text")
        if row["source"] == "manifest" and self._subjects.given.get(row["sample_id"]) != row["text"]:
            self._found.error("text", place, "the manifest gave another text")

    def _compare(self, place: str, row: _Row, expected: Mapping[str, Any], why: str) -> None:
        for name, value in expected.items():
            if row[name] != value:
                self._found.error("column", place, f"{name} is {row[name]!r}, {why} {value!r}")

    # --- over all rows ---------------------------------------------------------------------------------

    def _find_repeated(self) -> None:
        for one, other, value in _repeated(self._row_ids, None):
            self._found.error("row twice", self._where(other), f"{value:016x}… is {self._where(one)} as well")
        for one, other, _ in _repeated(self._ok_texts, self._ok_rows):
            self._found.error(
                "text twice", self._where(other), f"{self._where(one)} is `ok` with the same text"
            )

    def _find_gaps(self) -> None:
        seen, known = self._seen["category"], self._subjects.categories
        if not seen and known:
            self._found.note("not described yet", "categories", "`unibind describe` does")
        for category in sorted(known - seen) if seen else ():
            self._found.error(
                "category without rows", repr(category), "`unibind describe` asks for its texts"
            )
        for category in sorted((known & seen) - self._with_ok):
            self._found.note("category without a valid text", repr(category), "its rows say why")
        missing = sorted(self._subjects.samples.keys() - self._seen["sample"] - self._subjects.rejected)
        for sample in missing if self._asked else ():
            self._found.error("sample without rows", repr(sample), "and without a reason in rejects/")
        if missing and not self._asked:
            self._found.note("not described yet", "samples", f"{len(missing)} have no description")


def jaccard(one: str, other: str) -> float:
    """How alike two texts are: |A ∩ B| / |A ∪ B| of the character 3-grams of their normalised forms."""
    a, b = _trigrams(normalise(one)), _trigrams(normalise(other))
    return len(a & b) / len(a | b)


def _trigrams(text: str) -> set[str]:
    return {text[start : start + 3] for start in range(max(1, len(text) - 2))}


def _subject(row: _Row) -> str:
    return str(row["category_id"] if row["category_id"] is not None else row["sample_id"])


def _item(row: _Row, count: int) -> int | None:
    """Which of an answer's texts a row is, by its id."""
    key, version = row["request_key"], row["parser_version"]
    ids = (row_id(key, choice=0, item=item, parser_version=version) for item in range(count))
    return next((item for item, each in enumerate(ids) if each == row["row_id"]), None)


def _same_cost(one: float | None, other: float | None) -> bool:
    return one == other if one is None or other is None else math.isclose(one, other, rel_tol=1e-9)


def key_hash(hexadecimal: str) -> int:
    """The first 64 bits of a hash in hex; of what is none, those of its own hash."""
    try:
        return int(hexadecimal[:16], 16)
    except ValueError:
        return int(hash_text(hexadecimal)[:16], 16)


def _hashes(values: Iterable[str]) -> _Hashes:
    return np.array([key_hash(value) for value in values], dtype=np.uint64)


def _repeated(hashes: list[_Hashes], numbers: list[_Numbers] | None) -> Iterator[tuple[int, int, int]]:
    """Pairs of rows (by number over all parts) whose hashes are equal, and the hash."""
    if not hashes:
        return
    every = np.concatenate(hashes)
    rows = np.arange(len(every)) if numbers is None else np.concatenate(numbers)
    order = np.argsort(every, kind="stable")
    (places,) = np.nonzero(every[order[1:]] == every[order[:-1]])
    for place in places:
        one, other = order[place], order[place + 1]
        yield int(rows[one]), int(rows[other]), int(every[one])

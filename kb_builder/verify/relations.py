"""What must hold between files, over all rows of the descriptions; see kb_builder/verify/verify.py.

No file's checksum shows it: that parts, ledger, categories and samples are of one state. Whole columns are
compared at once: a hash is kept as its first 64 bits, another string as a number. Among a million rows two
different ones share such a hash with a probability of 1 : 40,000,000. A million rows need some hundred
megabytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import first_line
from data.files import hash_text
from kb_builder.added.sources import SOURCE as ADDED
from kb_builder.ask.ledger import StoredEntries
from kb_builder.gates.verdict import STATUSES
from kb_builder.parse.answers import PARSER_VERSION
from kb_builder.settings import SOURCES_WITHOUT_REQUEST
from kb_builder.tables.parts import KINDS, DescriptionPart
from kb_builder.verify.findings import Findings

DUPLICATES = frozenset({"dup_exact", "dup_near"})

_BATCH = 100_000  # rows in memory at once
_HEX = 64  # digits of a SHA-256
_DIGITS = 16  # of them are kept
_DIGIT_OF = np.full(256, 255, dtype=np.uint8)
_DIGIT_OF[np.frombuffer(b"0123456789abcdef", dtype=np.uint8)] = np.arange(16)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # spreads small numbers over all 64 bits
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_HASHED = ("row_id", "text_norm_hash", "request_key")
_SUBJECT = {"category": "category_id", "sample": "sample_id"}
_OF_ENTRY = ("provider", "source", "run_id")  # with the measured ones: what the ledger says of an entry
_MEASURED = {"attempts": np.int64, "latency_ms": np.float64, "created_at": np.int64}
_NUMBERED = ("status", "modality", "parser_version", *_OF_ENTRY)

_Hashes = npt.NDArray[np.uint64]
_Numbers = npt.NDArray[np.int64]
_Batch = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class PartFile:
    """A part that can be read."""

    name: str  # <kind>/<part>.parquet
    kind: str
    path: Path
    stated: DescriptionPart | None  # what the manifest says of it, if anything


@dataclass(frozen=True)
class Subjects:
    """Whom rows may be about, and of samples what they must agree with."""

    categories: frozenset[str]
    samples: Mapping[str, tuple[str, str]]  # sample_id -> (modality, sha256)
    given: Mapping[str, str]  # sample_id -> text
    rejected: frozenset[str]  # sample_ids
    # Of texts added to the categories: request_key -> columns of its row; None: a source cannot be read.
    added: Mapping[str, Mapping[str, Any]] | None


class _Numbering:
    """Strings as numbers, in the order in which they were first seen; null is -1."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self.values = list(known)
        self._numbers = {value: number for number, value in enumerate(self.values)}

    def number(self, value: str | None) -> int:
        if value is None:
            return -1
        found = self._numbers.setdefault(value, len(self.values))
        if found == len(self.values):
            self.values.append(value)
        return found

    def numbers(self, values: pa.DictionaryArray) -> _Numbers:
        of_place = [self.number(value) for value in values.dictionary.to_pylist()]
        places = values.indices.fill_null(len(of_place)).to_numpy(zero_copy_only=False)
        found: _Numbers = np.array([*of_place, -1], dtype=np.int64)[places]
        return found


@dataclass
class _Entries:
    """What the ledger says of every entry, in the order of the keys' hashes."""

    hashes: _Hashes
    columns: _Batch
    cited: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.cited = np.zeros(len(self.hashes), dtype=np.bool_)

    def find(self, keys: _Hashes) -> _Numbers:
        """The place of each key's entry, -1 where it is missing; those found count as cited."""
        if not len(keys) or not len(self.hashes):
            return np.full(len(keys), -1, dtype=np.int64)
        starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))  # an answer's rows stand together
        places = np.minimum(np.searchsorted(self.hashes, keys[starts]), len(self.hashes) - 1)
        hit = self.hashes[places] == keys[starts]
        self.cited[places[hit]] = True
        return np.repeat(np.where(hit, places, -1), np.diff(np.append(starts, len(keys))))


class Relations:
    """Takes part after part, then says what does not fit. `ledger` is None where no model was ever asked."""

    def __init__(self, ledger: StoredEntries | None, found: Findings, subjects: Subjects) -> None:
        self.count = 0
        self._found = found
        self._subjects = subjects
        self._files: list[PartFile] = []
        self._starts: list[int] = []  # the number of each file's first row
        self._numbering = {name: _Numbering() for name in _NUMBERED}
        self._known = {"category": len(subjects.categories), "sample": len(subjects.samples)}
        self._of_kind = {
            "category": _Numbering(sorted(subjects.categories)),
            "sample": _Numbering(subjects.samples),
        }
        modalities = (modality for modality, _ in subjects.samples.values())
        number = self._numbering["modality"].number
        self._modality = np.array([number(modality) for modality in modalities], dtype=np.int64)
        self._entries = self._read_entries(ledger)
        self._added = hashes(pa.array(subjects.added or (), pa.string()))
        self._added_seen: set[int] = set()
        self._kept: dict[str, list[npt.NDArray[Any]]] = defaultdict(list)
        self._seen: dict[str, set[int]] = {kind: set() for kind in KINDS}
        self._with_ok: set[int] = set()  # categories
        self._asked = False  # whether any sample was described by more than the manifest's words

    @property
    def entries(self) -> int:
        """How many entries the ledger has."""
        return len(self._entries.hashes)

    def add(self, file: PartFile) -> bool:
        """Take every row of a part; returns whether all could be read."""
        self._files.append(file)
        self._starts.append(self.count)
        statuses: Counter[str] = Counter()
        try:
            with pq.ParquetFile(file.path, read_dictionary=[*_SUBJECT.values(), *_NUMBERED]) as opened:
                columns = [*_HASHED, "dup_of", _SUBJECT[file.kind], *_NUMBERED, *_MEASURED]
                for batch in opened.iter_batches(_BATCH, columns=columns):
                    statuses.update(self._add_batch(file, batch))
        except (pa.ArrowException, OSError) as error:
            self._found.error("part unreadable", file.name, first_line(error))
            return False
        if file.stated is None:
            return True
        if file.stated.rows != statuses.total():
            stated = f"it has {statuses.total()} rows, the manifest says {file.stated.rows}"
            self._found.error("part changed", file.name, stated)
        if statuses != Counter(file.stated.statuses):
            stated = ", ".join(f"{count} {status}" for status, count in sorted(file.stated.statuses.items()))
            self._found.error("part changed", file.name, f"the manifest says: {stated or 'no rows'}")
        return True

    def finish(self) -> None:
        """Say what can be said once all parts were taken."""
        rows = {name: np.concatenate(pieces) for name, pieces in self._kept.items()}
        if self.count:
            self._find_repeated(rows)
            self._find_duplicates(rows)
        self._find_gaps()
        self._found.notes(
            "answer that no row cites",
            np.flatnonzero(~self._entries.cited),
            lambda place: (_short(self._entries.hashes[place]), "earlier settings leave such"),
        )

    # --- part after part ---------------------------------------------------------------------------------

    def _read_entries(self, ledger: StoredEntries | None) -> _Entries:
        query = f"SELECT {', '.join(['key', *_OF_ENTRY, *_MEASURED])} FROM entries"
        rows = [] if ledger is None else ledger.read(lambda entries: entries.execute(query).fetchall())
        stated = dict(zip(("key", *_OF_ENTRY, *_MEASURED), zip(*rows, strict=True), strict=bool(rows)))
        keys = hashes(pa.array(stated.get("key", ()), pa.string()))
        order = np.argsort(keys)
        columns: dict[str, npt.NDArray[Any]] = {}
        for name in _OF_ENTRY:
            values = pa.array(stated.get(name, ()), pa.string()).dictionary_encode()
            columns[name] = self._numbering[name].numbers(values)[order]
        for name, kind in _MEASURED.items():
            columns[name] = np.array(stated.get(name, ()), dtype=kind)[order]
        return _Entries(keys[order], columns)

    def _add_batch(self, file: PartFile, batch: pa.RecordBatch) -> Counter[str]:
        """Take some rows of a part; returns how many there are of each status."""
        start = self.count
        self.count += batch.num_rows
        read: dict[str, npt.NDArray[Any]] = {name: hashes(batch[name]) for name in _HASHED}
        read |= {name: self._numbering[name].numbers(batch[name]) for name in _NUMBERED}
        for name, kind in _MEASURED.items():
            column = batch[name].cast(pa.int64()) if name == "created_at" else batch[name]
            read[name] = column.to_numpy(zero_copy_only=False).astype(kind)
        read["subject"] = self._of_kind[file.kind].numbers(batch[_SUBJECT[file.kind]])
        self._keep(start, file, read, batch["dup_of"])
        self._check_statuses(start, read, batch["dup_of"])
        self._check_subjects(start, file, read)
        self._check_entries(start, file, read)
        counts = np.bincount(read["status"], minlength=1)
        names = self._numbering["status"].values
        return Counter({names[number]: int(counts[number]) for number in np.flatnonzero(counts)})

    def _keep(self, start: int, file: PartFile, read: _Batch, dup_of: pa.Array) -> None:
        """Keep what is compared over all parts."""
        ok = read["status"] == self._numbering["status"].number("ok")
        subject = 2 * read["subject"] + (file.kind == "sample")  # the numbers of both kinds in one
        for name, values in (("row_id", read["row_id"]), ("subject", subject), ("ok", ok)):
            self._kept[name].append(values)
        self._kept["status"].append(read["status"].astype(np.int32))
        self._kept["ok_row"].append(start + np.flatnonzero(ok))
        with np.errstate(over="ignore"):
            mixed = read["text_norm_hash"] ^ (subject.astype(np.uint64) * _GOLDEN)
        self._kept["ok_text"].append(mixed[ok])
        repeats = self._repeat_statuses(read) & dup_of.is_valid().to_numpy(zero_copy_only=False)
        self._kept["repeat"].append(start + np.flatnonzero(repeats))
        self._kept["repeated"].append(hashes(dup_of.filter(pa.array(repeats))))
        self._seen[file.kind].update(np.unique(read["subject"]).tolist())
        if file.kind == "category":
            self._with_ok.update(np.unique(read["subject"][ok]).tolist())
        else:
            given = self._numbering["source"].number("manifest")
            self._asked = self._asked or bool((read["source"] != given).any())

    def _repeat_statuses(self, read: _Batch) -> npt.NDArray[np.bool_]:
        return np.isin(read["status"], [self._numbering["status"].number(each) for each in DUPLICATES])

    def _check_statuses(self, start: int, read: _Batch, dup_of: pa.Array) -> None:
        statuses, versions = self._numbering["status"].values, self._numbering["parser_version"].values
        self._errors(
            "unknown status",
            start,
            read,
            ~np.isin(read["status"], [self._numbering["status"].number(each) for each in STATUSES]),
            lambda n: repr(statuses[read["status"][n]]),
        )
        repeats, named = self._repeat_statuses(read), dup_of.is_valid().to_numpy(zero_copy_only=False)
        self._errors(
            "dup_of",
            start,
            read,
            repeats != named,
            lambda n: (
                f"status {statuses[read['status'][n]]} "
                + ("without the row that it repeats" if repeats[n] else "repeats no row")
            ),
        )
        other = read["parser_version"] != self._numbering["parser_version"].number(PARSER_VERSION)
        self._found.notes(
            "row of another parser",
            np.flatnonzero(other),
            lambda n: (
                self._where(start + n, read["row_id"][n]),
                f"version {versions[read['parser_version'][n]]}; `unibind kb reparse` renews it",
            ),
        )

    def _check_subjects(self, start: int, file: PartFile, read: _Batch) -> None:
        subject, names = read["subject"], self._of_kind[file.kind].values
        known = (subject >= 0) & (subject < self._known[file.kind])
        self._errors(
            f"row of an unknown {file.kind}",
            start,
            read,
            ~known,
            lambda n: repr(names[subject[n]] if subject[n] >= 0 else None),
        )
        if file.kind != "sample" or not len(self._modality):
            return
        wanted, values = (
            self._modality[np.where(known, subject, 0)],
            [*self._numbering["modality"].values, None],
        )
        self._errors(
            "column",
            start,
            read,
            known & (read["modality"] != wanted),
            lambda n: f"modality is {values[read['modality'][n]]!r}, its sample's is {values[wanted[n]]!r}",
        )

    def _check_entries(self, start: int, file: PartFile, read: _Batch) -> None:
        """Rows have an entry, and what that says of itself; facts, given and added texts need none."""
        places = self._entries.find(read["request_key"])
        added = read["source"] == self._numbering["source"].number(ADDED)
        if file.kind == "category":
            unasked = added
            self._check_added(start, read, added)
        else:
            sources = [self._numbering["source"].number(each) for each in SOURCES_WITHOUT_REQUEST]
            unasked = np.isin(read["source"], sources) & ~added
        self._errors(
            "no ledger entry",
            start,
            read,
            (places < 0) & ~unasked,
            lambda n: f"of request {_short(read['request_key'][n])}",
        )
        for name in (*_OF_ENTRY, *_MEASURED) if self.entries else ():
            mine, said = read[name], self._entries.columns[name][places]

            def describe(n: int, name: str = name, mine: Any = mine, said: Any = said) -> str:
                own, other = self._value(name, mine[n]), self._value(name, said[n])
                return f"{name} is {own!r}, the ledger says {other!r}"

            self._errors("column", start, read, (places >= 0) & (mine != said), describe)

    def _check_added(self, start: int, read: _Batch, added: npt.NDArray[np.bool_]) -> None:
        """Rows of added texts cite one that a source holds."""
        self._added_seen.update(read["request_key"][added].tolist())
        if self._subjects.added is None:
            return
        self._errors(
            "added text unknown",
            start,
            read,
            added & ~np.isin(read["request_key"], self._added),
            lambda n: "no source in added/ holds it; `unibind run` writes the rows of added texts again",
        )

    def _value(self, name: str, stored: Any) -> object:
        if name in _OF_ENTRY:
            return self._numbering[name].values[stored]
        return str(_EPOCH + timedelta(microseconds=int(stored))) if name == "created_at" else stored.item()

    # --- over all rows -----------------------------------------------------------------------------------

    def _find_repeated(self, rows: _Batch) -> None:
        for what, values, numbers in (
            ("row twice", rows["row_id"], np.arange(self.count)),
            ("text twice", rows["ok_text"], rows["ok_row"]),
        ):
            ones, others = _repeated(values)
            first, again = numbers[ones], numbers[others]
            same = "the same row" if what == "row twice" else "`ok` with the same text"

            def describe(n: int, first: Any = first, again: Any = again, same: str = same) -> tuple[str, str]:
                return self._place(again[n], rows), f"{self._place(first[n], rows)} is {same}"

            self._found.errors(what, range(len(first)), describe)

    def _find_duplicates(self, rows: _Batch) -> None:
        """A row that repeats another names an `ok` row of its own subject."""
        if not len(rows["repeat"]):
            return
        order = np.argsort(rows["row_id"], kind="stable")
        ids, wanted = rows["row_id"][order], rows["repeated"]
        places = np.minimum(np.searchsorted(ids, wanted), self.count - 1)
        there, target = ids[places] == wanted, order[places]
        apart = ~rows["ok"][target] | (rows["subject"][target] != rows["subject"][rows["repeat"]])
        statuses = self._numbering["status"].values

        def describe(n: int) -> tuple[str, str]:
            where = self._place(rows["repeat"][n], rows)
            if not there[n]:
                return where, f"there is no row {_short(wanted[n])}"
            number, even = divmod(int(rows["subject"][target[n]]), 2)
            names = self._of_kind["sample" if even else "category"].values
            about = repr(names[number]) if number >= 0 else "an unknown subject"
            return where, f"row {_short(wanted[n])} is {statuses[rows['status'][target[n]]]}, of {about}"

        self._found.errors("dup_of", np.flatnonzero(~there | apart), describe)

    def _find_gaps(self) -> None:
        seen = {
            kind: {numbers.values[n] for n in self._seen[kind] if n >= 0}
            for kind, numbers in self._of_kind.items()
        }
        known, with_ok = (
            self._subjects.categories,
            {self._of_kind["category"].values[n] for n in self._with_ok},
        )
        if not seen["category"] and known:
            self._found.note("not described yet", "categories", "`unibind describe` does")
        for category in sorted(known - seen["category"]) if seen["category"] else ():
            self._found.error(
                "category without rows", repr(category), "`unibind describe` asks for its texts"
            )
        for category in sorted((known & seen["category"]) - with_ok):
            self._found.note("category without a valid text", repr(category), "its rows say why")
        if left := len(set(self._added.tolist()) - self._added_seen):
            about = f'{left:,} have no row; `unibind run` takes them in, unless texts = "written"'
            self._found.note("not described yet", "added texts", about)
        missing = sorted(self._subjects.samples.keys() - seen["sample"] - self._subjects.rejected)
        for sample in missing if self._asked else ():
            self._found.error("sample without rows", repr(sample), "and without a reason in rejects/")
        if missing and not self._asked:
            self._found.note("not described yet", "samples", f"{len(missing)} have no description")

    # --- how rows are named ------------------------------------------------------------------------------

    def _errors(
        self,
        what: str,
        start: int,
        read: _Batch,
        wrong: npt.NDArray[np.bool_],
        describe: Callable[[int], str],
    ) -> None:
        """An error for each row of a batch that is wrong."""
        self._found.errors(
            what, np.flatnonzero(wrong), lambda n: (self._where(start + n, read["row_id"][n]), describe(n))
        )

    def _place(self, number: int, rows: _Batch) -> str:
        return self._where(number, rows["row_id"][number])

    def _where(self, number: int, row_id: int) -> str:
        """A row by its part, its number there, and the beginning of its id."""
        place = bisect_right(self._starts, number) - 1
        return f"{self._files[place].name} row {number - self._starts[place]} ({_short(row_id)})"


def key_hash(hexadecimal: str) -> int:
    """The first 64 bits of a hash in hex; of what is none, those of its own hash."""
    try:
        return int(hexadecimal[:_DIGITS], 16)
    except ValueError:
        return int(hash_text(hexadecimal)[:_DIGITS], 16)


def hashes(column: pa.Array) -> _Hashes:
    """`key_hash` of every string of a column without nulls."""
    _, ends, data = column.buffers()
    count = len(column)
    if not count:
        return np.zeros(0, dtype=np.uint64)
    bounds = np.frombuffer(ends, dtype=np.int32)[column.offset : column.offset + count + 1]
    if (np.diff(bounds) == _HEX).all():
        letters = np.frombuffer(data, dtype=np.uint8)[bounds[0] : bounds[-1]].reshape(count, _HEX)
        digits = _DIGIT_OF[letters[:, :_DIGITS]]
        if (digits < 16).all():
            pairs = (digits[:, ::2] << 4) | digits[:, 1::2]
            return np.ascontiguousarray(pairs).view(">u8").reshape(count).astype(np.uint64)
    return np.array([key_hash(value) for value in column.to_pylist()], dtype=np.uint64)


def _short(stored: int) -> str:
    return f"{int(stored):016x}"[:12]


def _repeated(values: _Hashes) -> tuple[_Numbers, _Numbers]:
    """Pairs of places with equal values: the earlier, and the one after it."""
    ordered = np.sort(values)
    if not (ordered[1:] == ordered[:-1]).any():  # as a rule; sorting the places as well takes far longer
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    order = np.argsort(values, kind="stable")
    (places,) = np.nonzero(values[order[1:]] == values[order[:-1]])
    return order[places], order[places + 1]

"""The rows of a plan in DuckDB, which moves to disk what exceeds its memory.

    planned   row, tbl, grp, id, …   all rows, numbered in the order of (table, group, id)
    repeats   row, first             rows whose content an earlier row has, and the first such row
    carried   row, file              rows whose content has a vector in a file of an earlier plan

So a table of any size can be planned. Each question is asked bucket by bucket: rows with equal hashes are in
one bucket. Rows are read by number; the tables are in this order, so DuckDB looks only at the blocks that
hold them.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from data.environment import cores
from data.errors import KnowledgeBaseError, first_line
from kb_builder.encode.rows import HASH, TEXT, Digests, Ints, StoredTexts, WantedVectors

SCRATCH = ".plan."  # begins the names of folders with what did not fit into memory
_COLUMNS = pa.schema(
    [
        ("tbl", pa.int32()),
        ("grp", TEXT),
        ("id", TEXT),
        *((f"k{number}", pa.uint64()) for number in range(4)),  # `WantedVectors.digests`
        ("content", TEXT),  # of a file
        ("file", pa.int32()),  # of a stored text: the number of its file, and its row there
        ("place", pa.int64()),
        ("source", TEXT),
        ("label", TEXT),
        ("up", TEXT),
    ]
)
_BLOCK, _BLOCKS = 16_384, 6  # rows that are read at once, and how many such blocks are kept
_READ = "id, grp, k0, k1, k2, k3, content, file, place, source, label, up"


@dataclass(frozen=True)
class PlanLimits:
    """What planning may take. No byte of a file depends on it."""

    memory_mb: int = 600  # of DuckDB; more for a table that needs more to be sorted
    sortable: int = 25  # rows that one megabyte can sort
    threads: int = 4  # at most; each needs memory
    rows_per_bucket: int = 4_000_000

    def memory_for(self, rows: int) -> int:
        """The memory, in megabytes, for sorting this many rows.

        A sort merges runs as large as its memory, so the rows that it can sort grow with the square of it. It
        was seen to fail with a fourth to a half of this memory, for rows of texts and of samples.
        """
        return max(self.memory_mb, int((rows / self.sortable) ** 0.5))


@dataclass(frozen=True)
class PartRows:
    """Some consecutive rows of a plan, as columns of equal length."""

    ids: list[str]
    groups: list[str]
    contents: list[str]  # SHA-256 (hex)
    sources: StoredTexts | list[str]
    labels: list[str]
    ups: list[Any]


class PlannedRows:
    """All rows of a plan. Made by `planned_rows`; rows are added first, then `sort` is called once."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, where: Path, limits: PlanLimits) -> None:
        self._connection = connection
        self._where = where
        self._limits = limits
        self._lock = threading.RLock()  # parts are read from any thread
        self._blocks: dict[tuple[str, int], pa.Table] = {}
        self._files: dict[Path, int] = {}
        self._buckets = 1
        self.count = 0
        self.repeats = 0
        self.carried = 0
        self._do(f"CREATE TABLE wanted (h UBIGINT, {_sql_columns()})")

    def add(self, table: int, rows: WantedVectors) -> None:
        """Add rows of the table with this number."""
        digests_N4 = rows.digests()
        nothing = pa.nulls(len(rows), TEXT)
        columns: dict[str, Any] = dict.fromkeys(("content", "source", "label", "up"), nothing)
        columns |= {"tbl": np.full(len(rows), table, np.int32), "grp": rows.groups, "id": rows.ids}
        columns |= {f"k{number}": digests_N4[:, number] for number in range(4)}
        columns |= {"file": pa.nulls(len(rows), pa.int32()), "place": pa.nulls(len(rows), pa.int64())}
        if rows.files:
            columns["content"] = rows.contents
        if isinstance(rows.sources, StoredTexts):
            numbers = [self._files.setdefault(path, len(self._files)) for path in rows.sources.files]
            columns["file"] = np.array(numbers, np.int32)[rows.sources.files_N]
            columns["place"] = rows.sources.rows_N
        else:
            columns["source"] = rows.sources
            columns["label"] = rows.sources if rows.labels is None else rows.labels
        if rows.ups is not None:
            columns["up"] = rows.ups
        arrays = [
            pa.array(columns[each.name], each.type)
            if isinstance(columns[each.name], np.ndarray)
            else columns[each.name].cast(each.type)
            for each in _COLUMNS
        ]
        self._insert("wanted", "hash(id), *", pa.Table.from_arrays(arrays, schema=_COLUMNS))
        self.count += len(rows)

    def sort(self) -> tuple[int, str] | None:
        """Number the rows, and find repeated contents; a table and an id in it that two rows have, if any."""
        buckets = self._buckets = max(1, -(-self.count // self._limits.rows_per_bucket))
        self._do(f"SET memory_limit = '{self._limits.memory_for(self.count)}MB'")
        # The number of a row is its place in the result, and that is sorted: `Plan` checks both.
        self._do(
            "CREATE TABLE planned AS SELECT row_number() OVER () - 1 AS row, *"
            " FROM (SELECT * FROM wanted ORDER BY tbl, grp, id);"
            "DROP TABLE wanted"
        )
        suspects: list[int] = []
        for bucket in range(buckets):
            suspects += self._ask(
                f"SELECT h FROM planned WHERE h % {buckets} = {bucket} GROUP BY tbl, h HAVING count(*) > 1"
                " LIMIT 1000"
            )["h"].to_pylist()
        if suspects:  # two ids with one hash, which may be two ids
            some = ", ".join(map(str, suspects))
            twice = self._ask(
                f"SELECT tbl, min(id) AS id FROM (SELECT tbl, id FROM planned WHERE h IN ({some})"
                " GROUP BY tbl, id HAVING count(*) > 1) GROUP BY tbl ORDER BY tbl LIMIT 1"
            ).to_pylist()
            if twice:
                return int(twice[0]["tbl"]), str(twice[0]["id"])
        self.repeats = self._gather(
            "repeats",
            "WITH own AS MATERIALIZED (SELECT row, k0, k1, k2, k3 FROM planned WHERE {ours}),"
            " shared AS (SELECT k0, k1, k2, k3, min(row) AS first FROM own GROUP BY ALL HAVING count(*) > 1)"
            " SELECT row, first FROM own JOIN shared USING (k0, k1, k2, k3) WHERE row <> first",
        )
        return None

    def _gather(self, table: str, query: str) -> int:
        """Make a table, sorted by row, of what a query gives for each bucket; the number of its rows."""
        ours = [f"k0 % {self._buckets} = {bucket}" for bucket in range(self._buckets)]
        if len(ours) == 1:
            return self._do(f"CREATE TABLE {table} AS FROM ({query.format(ours='true')}) ORDER BY row")
        self._do(f"CREATE TABLE found AS FROM ({query.format(ours='false')})")
        for each in ours:
            self._do(f"INSERT INTO found {query.format(ours=each)}")
        count = self._do(f"CREATE TABLE {table} AS FROM found ORDER BY row")
        self._do("DROP TABLE found")
        return count

    def group_sizes(self) -> dict[int, list[tuple[str, int]]]:
        """Each group of each table that has rows, with the number of its rows, in the order of the groups."""
        sizes = self._ask("SELECT tbl, grp, count(*) AS n FROM planned GROUP BY tbl, grp ORDER BY tbl, grp")
        columns = (sizes[name].to_pylist() for name in ("tbl", "grp", "n"))
        found: dict[int, list[tuple[str, int]]] = {}
        for table, group, size in zip(*columns, strict=True):
            found.setdefault(table, []).append((group, size))
        return found

    def table(self, start: int, stop: int) -> tuple[pa.Table, list[Path]]:
        """Rows `start` … `stop` - 1, and the files that the column `file` numbers.

        The columns are id, group, content (a text's hash in 32 bytes, a file's in hex), file and place (of
        stored texts), source, label and up.
        """
        found = self._range(_READ, "planned", start, stop)
        if len(found) != stop - start:
            raise AssertionError(f"{self._where}: {len(found)} rows for {start} … {stop}")
        content = found["content"].combine_chunks()
        # One content is either a file's or a text's: all rows of a part are of one table.
        if content.null_count:
            keys_N4 = np.stack([np.asarray(found[f"k{number}"]) for number in range(4)], axis=1)
            buffers = [None, pa.py_buffer(keys_N4.tobytes())]
            content = pa.FixedSizeBinaryArray.from_buffers(HASH, len(found), buffers)
        file, files = found["file"].combine_chunks(), []
        if not file.null_count:
            numbers, file_N = np.unique(np.asarray(file), return_inverse=True)
            every = list(self._files)
            file, files = pa.array(file_N, pa.int32()), [every[number] for number in numbers.tolist()]
        names = {"id": found["id"], "group": found["grp"], "content": content, "file": file}
        rest = {name: found[name] for name in ("place", "source", "label", "up")}
        return pa.table(names | rest), files

    def rows(self, start: int, stop: int) -> PartRows:
        """Rows `start` … `stop` - 1 as lists."""
        found, files = self.table(start, stop)
        contents = found["content"].to_pylist()
        if pa.types.is_fixed_size_binary(found["content"].type):
            contents = [each.hex() for each in contents]
        sources: StoredTexts | list[str] = found["source"].to_pylist()
        if files:
            sources = StoredTexts(files, np.asarray(found["file"]), np.asarray(found["place"]))
        labels, ups = found["label"].to_pylist(), found["up"].to_pylist()
        return PartRows(found["id"].to_pylist(), found["group"].to_pylist(), contents, sources, labels, ups)

    def firsts(self, start: int, stop: int) -> Ints:
        """Of rows `start` … `stop` - 1 each: the first row with the same content, perhaps itself."""
        firsts_N = np.arange(start, stop)
        if self.repeats:
            found = self._range("first", "repeats", start, stop)
            firsts_N[np.asarray(found["row"]) - start] = np.asarray(found["first"])
        return firsts_N

    def carry(self, files: Iterable[Digests]) -> None:
        """Note the contents of files with vectors; of several files with one content, the first counts."""
        self._do("CREATE TABLE stored (k0 UBIGINT, k1 UBIGINT, k2 UBIGINT, k3 UBIGINT, file INTEGER)")
        for number, digests_N4 in enumerate(files):
            columns: dict[str, Any] = {f"k{at}": digests_N4[:, at] for at in range(4)}
            columns["file"] = np.full(len(digests_N4), number, np.int32)
            self._insert("stored", "*", pa.table(columns))
        self.carried = self._gather(
            "carried",
            "SELECT row, held.file FROM (SELECT row, k0, k1, k2, k3 FROM planned WHERE {ours}) AS own JOIN"
            " (SELECT k0, k1, k2, k3, min(file) AS file FROM stored WHERE {ours} GROUP BY ALL) AS held"
            " USING (k0, k1, k2, k3)",
        )
        self._do("DROP TABLE stored")

    def carried_by(self, start: int, stop: int) -> Ints:
        """Of rows `start` … `stop` - 1 each: the number of the file with its vector, or -1."""
        files_N = np.full(stop - start, -1)
        if self.carried:
            found = self._range("file", "carried", start, stop)
            files_N[np.asarray(found["row"]) - start] = np.asarray(found["file"])
        return files_N

    def count_repeats(self, stops: Ints) -> Ints:
        """How many repeated rows there are in each part; part `i` ends before row `stops[i]`."""
        return self._per_part("SELECT row FROM repeats", stops)

    def count_carried(self, stops: Ints) -> Ints:
        """How many contents that first appear in each part are carried."""
        if not self.carried:
            return np.zeros(len(stops), np.int64)
        return self._per_part("SELECT row FROM carried ANTI JOIN repeats USING (row)", stops)

    def _per_part(self, query: str, stops: Ints) -> Ints:
        counts = np.zeros(len(stops), np.int64)
        with self._asking():
            for batch in self._connection.sql(query).to_arrow_reader(100_000):
                parts = np.searchsorted(stops, np.asarray(batch.column(0)), side="right")
                counts += np.bincount(parts, minlength=len(stops))
        return counts

    def _range(self, columns: str, table: str, start: int, stop: int) -> pa.Table:
        """Some columns of the rows of a table that are numbered `start` … `stop` - 1."""
        pieces = []
        for number in range(start // _BLOCK, (stop - 1) // _BLOCK + 1):
            block = self._block(columns, table, number)
            first, end = np.searchsorted(np.asarray(block["row"]), [start, stop])
            pieces.append(block.slice(first, end - first))
        return pa.concat_tables(pieces).combine_chunks()

    def _block(self, columns: str, table: str, number: int) -> pa.Table:
        """A block of rows. The last ones are kept: parts are read one after the other, and may be small."""
        with self._lock:
            block = self._blocks.pop((table, number), None)
            if block is None:
                start = number * _BLOCK
                block = self._ask(
                    f"SELECT row, {columns} FROM {table} WHERE row >= {start} AND row < {start + _BLOCK}"
                ).combine_chunks()
                # They come in the table's order, which is that of the rows; to have DuckDB sort them took
                # half of the time.
                if not (np.diff(np.asarray(block["row"])) > 0).all():
                    block = block.sort_by("row")
            self._blocks[table, number] = block
            while len(self._blocks) > _BLOCKS:
                self._blocks.pop(next(iter(self._blocks)))
            return block

    def _insert(self, table: str, columns: str, rows: pa.Table) -> None:
        with self._asking():
            self._connection.register("added", rows)
            self._connection.execute(f"INSERT INTO {table} SELECT {columns} FROM added")
            self._connection.unregister("added")

    def _do(self, statements: str) -> int:
        """Run statements; the number of rows that the last one wrote, if it wrote rows."""
        with self._asking():
            found = self._connection.execute(statements).fetchone()
        return int(found[0]) if found else 0

    def _ask(self, query: str) -> pa.Table:
        with self._asking():
            return self._connection.sql(query).to_arrow_table()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
            raise KnowledgeBaseError(
                f"{self._where}: no room to plan the encoding of {self.count:,} rows ({first_line(error)});"
                " make room on this disk: until it ends, planning takes up to 500 bytes a row there, and"
                f" {self._limits.memory_for(self.count):,} MB of memory"
            ) from error


@contextmanager
def planned_rows(folder: Path, limits: PlanLimits) -> Iterator[PlannedRows]:
    """Rows of a plan for tables in `folder`; what does not fit into memory is there until the block ends."""
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=folder, ignore_cleanup_errors=True) as scratch:
            config: dict[str, Any] = {
                "memory_limit": f"{limits.memory_mb}MB",
                "threads": min(cores(), limits.threads),
                "temp_directory": scratch,
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
            }
            with closing(duckdb.connect(config=config)) as connection:
                yield PlannedRows(connection, folder, limits)
    finally:
        if new:
            with suppress(OSError):
                folder.rmdir()


def forget_plans(folder: Path) -> None:
    """Remove what killed runs left of their plans. Only for a run that is alone on the knowledge base."""
    for left in folder.glob(f"{SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)


def _sql_columns() -> str:
    kinds = {TEXT: "VARCHAR", pa.int32(): "INTEGER", pa.int64(): "BIGINT", pa.uint64(): "UBIGINT"}
    return ", ".join(f"{each.name} {kinds[each.type]}" for each in _COLUMNS)

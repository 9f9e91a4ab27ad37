"""Read-only SQL over a knowledge base: DuckDB with the views of kb_builder/browse/views.py.

DuckDB can query the files without this code too: see docs/duckdb.md.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb
import pyarrow as pa

from data.errors import InputError, KnowledgeBaseError, first_line
from data.files import Stamp, stamp
from data.seals import check
from kb_builder.browse.answer import Page, QueryResult
from kb_builder.browse.sources import ViewSource, glob_escaped, quoted, require_utf8, sources, unreadable
from kb_builder.browse.views import VIEWS, views
from kb_builder.store.cards import encoder_folders

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = [
    "Page",
    "QueryResult",
    "connect",
    "connect_elsewhere",
    "nearest",
    "run_one",
    "run_query",
    "sql",
    "sql_table",
]

T = TypeVar("T")

_OPTIONS: dict[str, str | bool | int | float | list[str]] = {
    # Nothing may be fetched from the network, not even an extension that a query would make DuckDB load.
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "temp_directory": "",  # a query that exceeds memory fails; it must not spill beside the user's files
}
_MOST_ROWS = 10_000  # of an untrusted query: the whole result must fit into memory to be printed
_VECTORS = re.compile(r"vector|nearest", re.IGNORECASE)  # in the names of all views over vectors
# DuckDB raises these for a damaged file too; its other errors are about the query alone.
_OF_FILES = (duckdb.IOException, duckdb.InvalidInputException, duckdb.InternalException)


@contextmanager
def connect(kb: Path, *, vectors: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory DuckDB with the views over `kb`, without access to other files, the network or settings.

    `vectors`: the queries may use vectors. DuckDB verifies no page checksum, so those files are checked here.
    DuckDB's `allowed_paths` permits writing as well as reading: run an untrusted query only through `sql`.
    Raises KnowledgeBaseError, naming the file, if `kb` is not a knowledge base, if a file is damaged and if a
    run replaced one during the query; and InputError, with DuckDB's reason, for any other error of DuckDB.
    """
    kb = kb.resolve()
    check(kb / "categories.parquet")  # if it is missing but has a checksum, that is damage
    if not (kb / "categories.parquet").is_file():
        raise KnowledgeBaseError(f"{kb} holds no knowledge base yet; `unibind run` makes one")
    found = sources(kb)
    files = [file for source in found for file in source.files]
    for file in (file for source in found if source.schema is None and vectors for file in source.files):
        check(file)
    stamps = {file: stamp(file) for file in files}
    # Both spellings: DuckDB checks the escaped pattern against the list, then the file that it finds.
    allowed = sorted({spelling for file in files for spelling in (str(file), glob_escaped(file))})
    with closing(duckdb.connect(config=_OPTIONS)) as connection:
        try:
            _make_views(connection, kb, found, allowed)
            yield connection
        except duckdb.Error as error:
            _require_unchanged(stamps)
            raise _explained(error, files) from None
    _require_unchanged(stamps)


@contextmanager
def connect_elsewhere(
    kb: Path, found: Sequence[ViewSource], files: AbstractFileSystem
) -> Iterator[duckdb.DuckDBPyConnection]:
    """As `connect`, of a knowledge base whose tables are not on this machine: DuckDB reads them by `files`.

    `kb` is a folder with the cards of its encoders. Raises InputError, with DuckDB's reason.
    """
    allowed = sorted({source.spelled(file) for source in found for file in source.files})
    with closing(duckdb.connect(config=_OPTIONS)) as connection:
        connection.register_filesystem(files)
        try:
            _make_views(connection, kb, found, allowed)
            yield connection
        except duckdb.Error as error:
            raise _explained(error, []) from None


def _make_views(
    connection: duckdb.DuckDBPyConnection, kb: Path, found: Sequence[ViewSource], allowed: Sequence[str]
) -> None:
    """Make the views; afterwards the connection reads nothing but the allowed files."""
    # Otherwise a query could read any Python variable of the caller.
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"SET allowed_paths = [{', '.join(map(quoted, allowed))}]")
    connection.execute("SET enable_external_access = false")
    connection.create_function("embed", _embedder(kb), ["VARCHAR"], "FLOAT[]")
    for view in views(found, encoder_folders(kb)):
        connection.execute(view.sql)
    connection.execute("SET lock_configuration = true")


def run_query(connection: duckdb.DuckDBPyConnection, query: str, *, most: int | None = None) -> QueryResult:
    """Run a query and fetch at most `most` rows. Ctrl-C interrupts it at any point."""

    def run() -> QueryResult:
        result = connection.execute(query)
        columns = tuple(str(column[0]) for column in result.description or ())
        rows = result.fetchall() if most is None else result.fetchmany(most + 1)
        more = most is not None and len(rows) > most
        return QueryResult(columns, tuple(map(tuple, rows[:most])), query, more)

    return _interruptible(connection, run)


def _interruptible(connection: duckdb.DuckDBPyConnection, run: Callable[[], T]) -> T:
    """The return value of a function that queries; Ctrl-C interrupts its query."""
    # DuckDB checks for Ctrl-C itself, but not while the main thread executes a part of the query.
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(run)
        try:
            return answer.result()
        except KeyboardInterrupt:
            connection.interrupt()
            raise


def sql(kb: Path, query: str) -> QueryResult:
    """Run one read-only SQL statement over the views; at most 10,000 rows are fetched.

    Raises InputError for anything but one SELECT (or EXPLAIN of one, DESCRIBE, SHOW, SUMMARIZE), and, with
    DuckDB's reason, for SQL that DuckDB rejects; and KnowledgeBaseError as `connect` does.
    """
    require_utf8(query)
    with connect(kb, vectors=_VECTORS.search(query) is not None) as connection:
        return run_one(connection, query)


def run_one(connection: duckdb.DuckDBPyConnection, query: str) -> QueryResult:
    """`sql` over the views of a connection."""
    _require_reading(connection, query)
    return run_query(connection, query, most=_MOST_ROWS)


def sql_table(kb: Path, query: str, *, most: int | None = None, seconds: float | None = None) -> pa.Table:
    """All rows of one read-only SQL statement over the views, or the first `most`, as an Arrow table.

    Raises what `sql` raises, and InputError for a query that takes longer than `seconds`.
    """
    require_utf8(query)
    with connect(kb, vectors=_VECTORS.search(query) is not None) as connection:
        _require_reading(connection, query)

        def run() -> pa.Table:
            relation = connection.sql(query)
            return (relation if most is None else relation.limit(most)).to_arrow_table()

        with _at_most(connection, seconds):
            return _interruptible(connection, run)


@contextmanager
def _at_most(connection: duckdb.DuckDBPyConnection, seconds: float | None) -> Iterator[None]:
    """Interrupt what the connection does after some seconds, and say so by an InputError."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, connection.interrupt)
    timer.start()
    try:
        yield
    except duckdb.InterruptException:
        raise InputError(f"the query took longer than {seconds:g} seconds; ask for less") from None
    finally:
        timer.cancel()


def nearest(kb: Path, text: str, *, k: int) -> QueryResult:
    """The `k` category descriptions nearest to a text, with their cosine.

    Raises InputError if no texts are encoded yet, or if their encoder is not installed.
    """
    return sql(
        kb, f"SELECT category_id, round(cosine, 4) AS cosine, text FROM v_nearest({quoted(text)}, k := {k})"
    )


def _require_reading(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Raise InputError for anything but one statement that only reads.

    The type of a statement is not enough: `EXPLAIN ANALYZE COPY ...` runs what it explains, and
    `WITH x AS (COPY ...) SELECT ...` is a SELECT. So DuckDB's query plan is searched for writes.
    """
    statements = connection.extract_statements(query)
    if len(statements) == 1 and statements[0].type == duckdb.StatementType.EXPLAIN:
        explained = re.sub(r"^\s*EXPLAIN\b(\s+ANALYZE\b)?", "", statements[0].query, flags=re.IGNORECASE)
        statements = connection.extract_statements(explained)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise InputError("give one statement that only reads: SELECT, EXPLAIN, DESCRIBE, SHOW or SUMMARIZE")
    plan = run_query(connection, f"EXPLAIN (FORMAT json) {statements[0].query}").rows[-1][1]
    if any("COPY" in name for name in _operators(json.loads(plan))):
        raise InputError(
            "statements that write a file are not allowed here; use DuckDB itself (`unibind kb views`)"
        )


def _operators(plan: Any) -> Iterator[str]:
    """The names of all operators of a query plan in JSON form."""
    for node in plan if isinstance(plan, list) else [plan]:
        yield str(node["name"])
        yield from _operators(node["children"])


def _require_unchanged(stamps: Mapping[Path, Stamp | None]) -> None:
    for file, before in stamps.items():
        if before is None or stamp(file) != before:
            raise KnowledgeBaseError(f"{file} was replaced by a run during the query; run the query again")


def _embedder(kb: Path) -> Callable[[str], list[float]]:
    """The SQL function `embed(text)`: the text encoder's vector. The first call loads the model."""

    @cache  # DuckDB may call it again for the same constant
    def embed(text: str) -> list[float]:
        serving = {encoder.role: encoder for encoder in encoder_folders(kb)}
        if "text" not in serving:
            raise KnowledgeBaseError(f"{kb}: no texts are encoded yet; run `unibind encode`")
        from kb_builder.encoders import load_encoder  # heavy, and no other query needs it
        from kb_builder.encoders.workers import encode_one

        folder, card = serving["text"].folder, serving["text"].card
        encoder = load_encoder(str(card.get("name")))
        if encoder.identity != card.get("identity"):
            raise KnowledgeBaseError(
                f"{folder}: its vectors were made by another version of {encoder.name!r} than the installed"
                f" one (identity {encoder.identity[:12]}); run `unibind encode` again"
            )
        vector: list[float] = encode_one(encoder, "text", text)[0].tolist()
        return vector

    return lambda text: embed(text)  # DuckDB needs a plain function to count its parameters


def _explained(error: duckdb.Error, files: Iterable[Path]) -> InputError | KnowledgeBaseError:
    """DuckDB's error as ours: a damaged file of the knowledge base, or an error in the query."""
    if ours := re.search(r"while executing the UDF: \w+: (.*)", str(error)):
        return InputError(ours[1])
    if isinstance(error, _OF_FILES) or type(error) is duckdb.Error:
        for file in files:
            if (reason := unreadable(file)) is not None:
                return reason
    known = f"; the views are {', '.join(VIEWS)}" if isinstance(error, duckdb.CatalogException) else ""
    return InputError(first_line(error) + known)

"""Query a knowledge base: DuckDB over its Parquet files, read-only. kb_builder/browse/views.py has the views.

The same questions can be asked of the files without this code: see docs/duckdb.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from data.errors import InputError, KnowledgeBaseError, first_line
from data.files import Stamp, stamp
from data.seals import check
from kb_builder.browse.answer import Page, QueryResult
from kb_builder.browse.sources import glob_escaped, quoted, require_text, sources, unreadable
from kb_builder.browse.views import VIEWS, views
from kb_builder.store.cards import encoder_folders

__all__ = ["Page", "QueryResult", "ask", "connect", "nearest", "sql"]

_OPTIONS: dict[str, str | bool | int | float | list[str]] = {
    # Nothing may be fetched from the network, not even an extension that a query makes DuckDB wish for.
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "temp_directory": "",  # what does not fit into memory is refused, not written beside the user's files
}
_MOST_ROWS = 10_000  # of an answer to a stranger's query: all of it has to be in memory to be printed
_VECTORS = re.compile(r"vector|nearest", re.IGNORECASE)  # in the names of all views over vectors
# What DuckDB raises for a damaged file too. Its other errors are about the query alone.
_OF_FILES = (duckdb.IOException, duckdb.InvalidInputException, duckdb.InternalException)


@contextmanager
def connect(kb: Path, *, vectors: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory DuckDB with the views over `kb`, shut off from every other file, network and setting.

    `vectors`: they will be asked about. DuckDB checks no page of theirs, so they are checked here.
    DuckDB's `allowed_paths` does not tell reading from writing: only `sql` may run what a stranger wrote.
    Raises KnowledgeBaseError, naming the file, where `kb` is no knowledge base, where a file is damaged, and
    where one was replaced by a run meanwhile; and InputError for what else DuckDB refuses, with its reason.
    """
    kb = kb.resolve()
    check(kb / "categories.parquet")  # there once, it is not "no knowledge base yet"
    if not (kb / "categories.parquet").is_file():
        raise KnowledgeBaseError(f"{kb} holds no knowledge base yet; `unibind run` makes one")
    found = sources(kb)
    files = [file for source in found for file in source.files]
    for file in (file for source in found if source.schema is None and vectors for file in source.files):
        check(file)
    stamps = {file: stamp(file) for file in files}
    # Both spellings: DuckDB holds the pattern against the list, and then the file that it finds.
    allowed = sorted({spelling for file in files for spelling in (str(file), glob_escaped(file))})
    with closing(duckdb.connect(config=_OPTIONS)) as connection:
        # Otherwise a query could name any Python variable of the caller's.
        connection.execute("SET python_enable_replacements = false")
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"SET allowed_paths = [{', '.join(map(quoted, allowed))}]")
        connection.execute("SET enable_external_access = false")
        connection.create_function("embed", _embedder(kb), ["VARCHAR"], "FLOAT[]")
        try:
            for view in views(found, encoder_folders(kb)):
                connection.execute(view.sql)
            connection.execute("SET lock_configuration = true")
            yield connection
        except duckdb.Error as error:
            _require_unchanged(stamps)
            raise _explained(error, files) from None
    _require_unchanged(stamps)


def ask(connection: duckdb.DuckDBPyConnection, query: str, *, most: int | None = None) -> QueryResult:
    """The answer to a query, of `most` rows at most. Ctrl-C ends the query, whatever it is at."""

    def run() -> QueryResult:
        result = connection.execute(query)
        columns = tuple(str(column[0]) for column in result.description or ())
        rows = result.fetchall() if most is None else result.fetchmany(most + 1)
        more = most is not None and len(rows) > most
        return QueryResult(columns, tuple(map(tuple, rows[:most])), query, more)

    # DuckDB looks for Ctrl-C by itself, but not while the main thread is busy with a piece of the work.
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(run)
        try:
            return answer.result()
        except KeyboardInterrupt:
            connection.interrupt()
            raise


def sql(kb: Path, query: str) -> QueryResult:
    """Run one read-only SQL statement over the views; at most 10,000 rows are fetched.

    Raises InputError for what is not one SELECT (or EXPLAIN of one, DESCRIBE, SHOW, SUMMARIZE), and for SQL
    that DuckDB refuses, with its reason; and KnowledgeBaseError as `connect` does.
    """
    require_text(query)
    with connect(kb, vectors=_VECTORS.search(query) is not None) as connection:
        _require_reading(connection, query)
        return ask(connection, query, most=_MOST_ROWS)


def nearest(kb: Path, text: str, *, k: int) -> QueryResult:
    """The `k` category descriptions nearest to a text, with their cosine.

    Raises InputError where there are no vectors of texts yet, or their encoder is not there.
    """
    return sql(
        kb, f"SELECT category_id, round(cosine, 4) AS cosine, text FROM v_nearest({quoted(text)}, k := {k})"
    )


def _require_reading(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Raise InputError for what is not one statement that reads.

    The kind of the statement does not tell: `EXPLAIN ANALYZE COPY ...` runs what it explains, and
    `WITH x AS (COPY ...) SELECT ...` is a SELECT. So DuckDB's own plan is asked whether a file is written.
    """
    statements = connection.extract_statements(query)
    if len(statements) == 1 and statements[0].type == duckdb.StatementType.EXPLAIN:
        explained = re.sub(r"^\s*EXPLAIN\b(\s+ANALYZE\b)?", "", statements[0].query, flags=re.IGNORECASE)
        statements = connection.extract_statements(explained)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise InputError("give one statement that reads: SELECT, EXPLAIN, DESCRIBE, SHOW or SUMMARIZE")
    plan = ask(connection, f"EXPLAIN (FORMAT json) {statements[0].query}").rows[-1][1]
    if any("COPY" in name for name in _operators(json.loads(plan))):
        raise InputError(
            "a statement that writes a file is not run here; use DuckDB itself (`unibind kb views`)"
        )


def _operators(plan: Any) -> Iterator[str]:
    """The names of all operators of a plan as JSON."""
    for node in plan if isinstance(plan, list) else [plan]:
        yield str(node["name"])
        yield from _operators(node["children"])


def _require_unchanged(stamps: Mapping[Path, Stamp | None]) -> None:
    for file, before in stamps.items():
        if before is None or stamp(file) != before:
            raise KnowledgeBaseError(f"{file} was replaced by a run while it was read; ask again")


def _embedder(kb: Path) -> Callable[[str], list[float]]:
    """SQL's `embed(text)`: the text encoder's vector. The model is loaded when it is first called."""

    @cache  # DuckDB may ask again for a constant's vector
    def embed(text: str) -> list[float]:
        serving = {encoder.role: encoder for encoder in encoder_folders(kb)}
        if "text" not in serving:
            raise KnowledgeBaseError(f"{kb} has no vectors of texts yet; run `unibind encode`")
        from kb_builder.encoders import load_encoder  # heavy, and no other query needs it

        folder, card = serving["text"].folder, serving["text"].card
        encoder = load_encoder(str(card.get("name")))
        if encoder.identity != card.get("identity"):
            raise KnowledgeBaseError(
                f"{folder}: its vectors were made by another version of {encoder.name!r} than is installed"
                f" (identity {encoder.identity[:12]}); run `unibind encode` again"
            )
        vector: list[float] = encoder.encode([encoder.prepare("text", text)])[0].tolist()
        return vector

    return lambda text: embed(text)  # DuckDB counts the parameters of a plain function


def _explained(error: duckdb.Error, files: Iterable[Path]) -> InputError | KnowledgeBaseError:
    """What an error of DuckDB's means: a file of the knowledge base, or the query."""
    if ours := re.search(r"while executing the UDF: \w+: (.*)", str(error)):
        return InputError(ours[1])
    if isinstance(error, _OF_FILES) or type(error) is duckdb.Error:
        for file in files:
            if (reason := unreadable(file)) is not None:
                return reason
    known = f"; the views are {', '.join(VIEWS)}" if isinstance(error, duckdb.CatalogException) else ""
    return InputError(first_line(error) + known)

"""Schemas of the knowledge base's tables (explicit, versioned, never inferred), and reading and writing them.

<kb>/
  categories.parquet                    the classes to recognise
  samples.parquet                       the samples that were accepted, with their hashes
  modalities.parquet                    their modalities, which descriptions are asked to be about
  rejects/<stage>.parquet               samples that were rejected, at which stage and why
  given_descriptions.parquet            descriptions of samples from the manifest
  descriptions/category/part-NNNNN.parquet   texts about categories, one row per text, rejected ones too
  descriptions/category/contrast-NNNNN.parquet   texts that distinguish a category from a similar one
  descriptions/category/added-NNNNN.parquet  texts of `unibind kb add-texts`, judged like the others
  descriptions/sample/part-NNNNN.parquet     texts about samples
  added/NAME.parquet                    texts that were added (kb_builder/added/sources.py)
  struck.json                           texts that a person has struck out (kb_builder/added/struck.py)
  descriptions/manifest.json            every part with its rows and its hash (kb_builder/tables/parts.py)
  controls.parquet                      the control texts, at most as many per category as centers
  embeddings/<encoder>/...              the embedding store (kb_builder/store/table.py)
  centers.parquet                       the embedding centers that localization chose
  ledger.sqlite                         every request and its raw answer
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import KnowledgeBaseError, first_line
from data.files import atomic_path
from data.reads import columns, names, reading

SCHEMA_VERSION = "2"
_ROWS_IN_MEMORY = 2**20  # of a file that is read whole, as small ones are
_ROWS_AT_A_TIME = 65_536

# Columns that came later, all nullable: files without them are read, and rows without them get null.
LATER_COLUMNS = frozenset({"more_category_ids", "up", "stands_for"})


def _schema(fields: list[tuple[str, pa.DataType, bool]], *, version: str = SCHEMA_VERSION) -> pa.Schema:
    return pa.schema(
        [pa.field(name, kind, nullable=nullable) for name, kind, nullable in fields],
        metadata={"unibind_schema_version": version},
    )


CATEGORIES = _schema(
    [
        ("category_id", pa.string(), False),
        ("name", pa.string(), False),
        ("aliases", pa.list_(pa.string()), False),
        ("parent", pa.string(), True),
        ("notes", pa.string(), True),
    ]
)

SAMPLES = _schema(
    [
        ("sample_id", pa.string(), False),
        ("object_id", pa.string(), True),
        ("modality", pa.string(), False),
        ("uri", pa.string(), False),
        ("category_id", pa.string(), True),
        ("split", pa.string(), False),
        ("sha256", pa.string(), False),
        ("bytes", pa.int64(), False),
        ("more_category_ids", pa.list_(pa.string()), True),  # null: it has one category at most
        ("up", pa.string(), True),  # of a cloud or mesh, where the project says another axis than its format
    ],
    version="4",  # 3 had no up, 2 no more_category_ids
)

MODALITIES = _schema([("modality", pa.string(), False)])

REJECTS = _schema(
    [
        ("sample_id", pa.string(), False),
        ("stage", pa.string(), False),
        ("reason", pa.string(), False),
    ]
)

GIVEN_DESCRIPTIONS = _schema(
    [
        ("sample_id", pa.string(), False),
        ("text", pa.string(), False),
    ]
)

DESCRIPTIONS = _schema(
    [
        ("row_id", pa.string(), False),
        ("kind", pa.string(), False),  # category | sample
        ("modality", pa.string(), True),
        ("category_id", pa.string(), True),
        ("sample_id", pa.string(), True),
        ("text", pa.string(), False),
        ("text_norm_hash", pa.string(), False),
        ("n_chars", pa.int32(), False),
        ("n_tokens", pa.int32(), False),
        ("status", pa.string(), False),  # one of gates.verdict.STATUSES
        ("dup_of", pa.string(), True),
        # Details of the status: how similar, what the server said; null if `ok`.
        ("reason", pa.string(), True),
        ("template_id", pa.string(), False),
        ("template_version", pa.string(), False),
        ("aspect", pa.string(), True),
        ("prompt_hash", pa.string(), False),
        ("request_key", pa.string(), False),
        ("provider", pa.string(), False),
        ("model_requested", pa.string(), False),
        ("model_resolved", pa.string(), False),
        ("temperature", pa.float64(), True),
        ("top_p", pa.float64(), True),
        ("max_tokens", pa.int32(), True),
        ("seed", pa.int64(), True),
        ("finish_reason", pa.string(), False),
        ("prompt_tokens", pa.int32(), True),  # of the whole request
        ("completion_tokens", pa.int32(), True),  # of the whole request
        ("cost_usd", pa.float64(), True),  # the request's cost divided by its rows: sums are true
        ("attempts", pa.int32(), False),
        ("latency_ms", pa.float64(), False),
        ("created_at", pa.timestamp("us", tz="UTC"), False),
        ("source", pa.string(), False),  # online | batch | local | facts | fake | manifest | added
        ("run_id", pa.string(), False),
        ("parser_version", pa.string(), False),
    ]
)

CONTROLS = _schema(
    [
        ("row_id", pa.string(), False),
        ("control", pa.string(), False),  # class_name | name_free | notes | random_words | templates
        ("category_id", pa.string(), False),
        ("rank", pa.int32(), False),
        ("text", pa.string(), False),
        ("stands_for", pa.string(), True),  # `name_free`: the description whose text it is, without the name
    ],
    version="3",  # 2 had no stands_for
)

CENTERS = _schema(
    [
        ("category_id", pa.string(), False),
        ("rank", pa.int32(), False),
        ("row_id", pa.string(), False),
        ("score", pa.float64(), False),
        ("rule", pa.string(), False),
        ("guided_by", pa.string(), True),  # the split whose samples guided the choice; null: none
        ("encoder", pa.string(), False),
    ]
)


def write_table(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    """Write rows under an explicit schema, whole or not at all. A missing or unknown column is an error."""
    known = set(schema.names)
    for row in rows:
        if row.keys() == known:
            continue
        wrong = sorted((row.keys() ^ known) - (LATER_COLUMNS - row.keys()))
        if wrong:
            raise ValueError(f"{path.name}: columns {wrong} do not fit the schema")
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows of a Parquet file, or of every `*.parquet` file of a folder in name order, as dicts."""
    files = names(path, "*.parquet") if path.is_dir() else [path]
    return [row for file in files for row in pq.ParquetFile(reading(file)).read().to_pylist()]


def read_columns(
    file: Path, wanted: Sequence[str], *, hint: str, optional: Sequence[pa.Field] = ()
) -> pa.Table:
    """Some columns of a Parquet file; those of `optional`, which an older file may lack, are null there.

    Raises KnowledgeBaseError if it is missing, damaged or lacks one; `hint` is the command that repairs it.
    """
    with _explained(file, hint):
        table = columns(file, [*wanted, *(field.name for field in optional)])
    return _with_columns(file, table, wanted, hint, optional)


@contextmanager
def _explained(file: Path, hint: str) -> Iterator[None]:
    """Errors of pyarrow as KnowledgeBaseError."""
    try:
        yield
    except FileNotFoundError as error:
        raise KnowledgeBaseError(f"{file}: missing; run `{hint}`") from error
    except (pa.ArrowException, OSError) as error:
        raise KnowledgeBaseError(
            f"{file}: damaged ({first_line(error)}); delete it and run `{hint}`"
        ) from error


def _with_columns(
    file: Path, table: pa.Table, wanted: Sequence[str], hint: str, optional: Sequence[pa.Field]
) -> pa.Table:
    for name in wanted:
        if name not in table.column_names:
            raise KnowledgeBaseError(f"{file}: no column {name!r}; delete it and run `{hint}`")
    for field in optional:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select([*wanted, *(field.name for field in optional)]).replace_schema_metadata(None)


def column_batches(
    file: Path, wanted: Sequence[str], *, hint: str, optional: Sequence[pa.Field] = ()
) -> Iterator[pa.Table]:
    """`read_columns` some rows at a time; a file of more than a million rows is never in memory as a whole.

    What a stage reads of such a file is noted as the whole file, not as columns. Raises as `read_columns`.
    """
    if _rows_in(file) <= _ROWS_IN_MEMORY:
        whole = read_columns(file, wanted, hint=hint, optional=optional)
        for start in range(0, len(whole), _ROWS_AT_A_TIME):
            yield whole.slice(start, _ROWS_AT_A_TIME)
        return
    names = [*wanted, *(field.name for field in optional)]
    with _explained(file, hint), pq.ParquetFile(reading(file)) as opened:
        for batch in opened.iter_batches(_ROWS_AT_A_TIME, columns=names):
            yield _with_columns(file, pa.Table.from_batches([batch]), wanted, hint, optional)


def _rows_in(file: Path) -> int:
    """The number of rows by the footer; 0 for a file that cannot be read, whose reader will say so."""
    with suppress(pa.ArrowException, OSError):
        rows: int = pq.read_metadata(file).num_rows
        return rows
    return 0


def remove_parts_beyond(parts: Iterable[Path], count: int) -> None:
    """Remove files `…-NNNNN.parquet` from number `count` on.

    Parts of an older, finer division would give their rows a second time.
    """
    for part in sorted(parts):
        if int(part.stem.rsplit("-", 1)[1]) >= count:
            part.unlink()

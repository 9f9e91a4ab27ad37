"""Which Parquet files a knowledge base consists of right now, and which encoder made its vectors; for DuckDB.

Of the tables of rows that is every `*.parquet` file in its place, for parts are replaced whole. Of a folder
of vectors it is what its manifest names: other parts there are unfinished, or are being replaced.
"""

from __future__ import annotations

import os
import re
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import DamagedError, InputError, KnowledgeBaseError, first_line
from data.reads import names, reading
from data.seals import FORBIDDEN
from kb_builder.store.cards import encoder_folders
from kb_builder.store.shards import COLUMNS
from kb_builder.store.table import part_paths
from kb_builder.tables.parts import KINDS
from kb_builder.tables.schemas import (
    CATEGORIES,
    CENTERS,
    CONTROLS,
    DESCRIPTIONS,
    GIVEN_DESCRIPTIONS,
    LATER_COLUMNS,
    REJECTS,
    SAMPLES,
)

# View: where its files lie, and their schema.
_TABLES: dict[str, tuple[str, pa.Schema]] = {
    "v_categories": ("categories.parquet", CATEGORIES),
    "v_samples": ("samples.parquet", SAMPLES),
    "v_rejects": ("rejects/*.parquet", REJECTS),
    "v_given_descriptions": ("given_descriptions.parquet", GIVEN_DESCRIPTIONS),
    "v_descriptions": ("descriptions/*/*.parquet", DESCRIPTIONS),
    "v_controls": ("controls.parquet", CONTROLS),
    "v_centers": ("centers.parquet", CENTERS),
}
# View: which role of embeddings/encoders.json, and which of that encoder's folders.
_VECTORS: dict[str, tuple[str, str]] = {
    "v_category_vectors": ("text", "category_texts"),
    "v_sample_text_vectors": ("text", "sample_texts"),
    "v_control_vectors": ("text", "controls"),
    "v_text_sample_vectors": ("text", "samples"),
    "v_sample_vectors": ("samples", "samples"),
    "v_zero_shot_vectors": ("zero_shot", "samples"),
}


@dataclass(frozen=True)
class ViewSource:
    """The files of one view; `pattern`, a glob below `base`, finds them and perhaps others beside them.

    `schema` is that of a table of rows, None for vectors; `dim` is the vectors' length, of an empty view that
    of the encoder that is to write them (1: none is). `lacking` names columns that came after the files.
    """

    view: str
    base: Path
    pattern: str
    files: tuple[Path, ...]
    schema: pa.Schema | None = None
    dim: int = 1
    lacking: tuple[str, ...] = ()


def sources(kb: Path) -> tuple[ViewSource, ...]:
    """What every view over files reads, each file's columns checked by its footer.

    Raises KnowledgeBaseError, naming the file, for a damaged file and for one with other columns.
    """
    found = []
    for view, (pattern, schema) in _TABLES.items():
        above, _, name = pattern.rpartition("/")
        folders = [kb / "descriptions" / kind for kind in KINDS] if "*" in above else [kb / above]
        files = tuple(path for folder in folders for path in names(folder, name))
        lacking: set[str] = set()
        for file in files:
            there = _footer(reading(file)).names
            lacking |= LATER_COLUMNS & (set(schema.names) - set(there))
            if there != [name for name in schema.names if name not in lacking]:
                raise KnowledgeBaseError(f"{file} has other columns than this version writes; build it again")
        found.append(ViewSource(view, kb, pattern, files, schema, lacking=tuple(sorted(lacking))))
    serving = {encoder.role: encoder for encoder in encoder_folders(kb) if encoder.role}
    for view, (role, table) in _VECTORS.items():
        encoder = serving.get(role)
        folder = kb / "embeddings" / (encoder.folder if encoder else "-") / table
        files = tuple(part_paths(folder)) if encoder else ()
        dim = int(encoder.card["dim"]) if encoder else 1
        for file in files:
            _require_vectors(file, dim)
        found.append(ViewSource(view, folder, "*.parquet", files, dim=dim))
    return tuple(found)


def serving_folders(kb: Path) -> list[Path]:
    """The folders of the encoders that serve in any role; none where nothing is encoded, or it is damaged."""
    try:
        return sorted({kb / "embeddings" / each.folder for each in encoder_folders(kb) if each.role})
    except KnowledgeBaseError:
        return []


def quoted(text: str) -> str:
    """A text as an SQL literal that any terminal can be shown: control characters by their number."""
    plain = text.replace("'", "''")
    if plain.isprintable():
        return f"'{plain}'"
    pieces = re.findall(r"[ -~]+|.", plain, re.DOTALL)
    told = (f"'{piece}'" if piece.isprintable() else f"chr({ord(piece)})" for piece in pieces)
    return f"concat({', '.join(told)})"


def glob_escaped(path: Path) -> str:
    """A path as DuckDB must be told it, which takes `[`, `*` and `?` in paths as a pattern.

    Raises InputError for a path that DuckDB has no way to say: one with a backslash beside one of those, and
    one that is not UTF-8.
    """
    plain = str(path)
    escaped = re.sub(r"[\[*?]", r"[\g<0>]", plain)
    if escaped != plain and "\\" in plain:
        raise InputError(f"{plain}: DuckDB cannot read a path with both a backslash and [, * or ?; rename it")
    require_text(plain)
    return escaped


def require_text(given: str) -> None:
    """Raise InputError for what DuckDB cannot be told: what the system gave as bytes that are no UTF-8."""
    try:
        given.encode()
    except UnicodeEncodeError:
        raise InputError(f"{given!a} is not UTF-8; DuckDB takes nothing else") from None


def _require_vectors(file: Path, dim: int) -> None:
    schema = _footer(file)
    kind = schema.field("vector").type if tuple(schema.names) == COLUMNS else pa.null()
    if not pa.types.is_fixed_size_list(kind) or kind.list_size != dim:
        raise KnowledgeBaseError(
            f"{file} has other columns than this version writes, or vectors of another length than the {dim}"
            " of its encoder; delete its folder and run `unibind encode`"
        )


def unreadable(file: Path) -> KnowledgeBaseError | None:
    """Why DuckDB cannot read all of a file, if so."""
    path = quoted(glob_escaped(file))
    query = f"SELECT max(hash(COLUMNS(*))) FROM read_parquet({path}, hive_partitioning = false)"
    try:
        with closing(duckdb.connect()) as connection:
            connection.execute(query).fetchall()
    except duckdb.Error as error:
        return _damaged(file, error)
    return None


def _footer(file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file, error) from None


def _damaged(file: Path, error: Exception) -> KnowledgeBaseError:
    if not file.exists():
        return KnowledgeBaseError(f"{file} is gone: its table is being replaced by a run; ask again")
    if not os.access(file, os.R_OK):
        return DamagedError(file, FORBIDDEN)
    return KnowledgeBaseError(
        f"{file} is damaged ({first_line(error)}); delete it and run the stage that writes it again"
    )

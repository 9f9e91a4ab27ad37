"""The Parquet files that each view reads, as they are now; and paths and texts quoted for DuckDB.

A table of rows is every `*.parquet` file in its place, since parts are replaced as whole files. A table of
vectors is the shards that its manifest lists; others are unfinished, or about to be deleted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
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

# View -> the glob of its files, and their schema.
TABLES: dict[str, tuple[str, pa.Schema]] = {
    "v_categories": ("categories.parquet", CATEGORIES),
    "v_samples": ("samples.parquet", SAMPLES),
    "v_rejects": ("rejects/*.parquet", REJECTS),
    "v_given_descriptions": ("given_descriptions.parquet", GIVEN_DESCRIPTIONS),
    "v_descriptions": ("descriptions/*/*.parquet", DESCRIPTIONS),
    "v_controls": ("controls.parquet", CONTROLS),
    "v_centers": ("centers.parquet", CENTERS),
}
# View -> the role of an encoder, and the table in that encoder's folder.
VECTORS: dict[str, tuple[str, str]] = {
    "v_category_vectors": ("text", "category_texts"),
    "v_sample_text_vectors": ("text", "sample_texts"),
    "v_control_vectors": ("text", "controls"),
    "v_text_sample_vectors": ("text", "samples"),
    "v_sample_vectors": ("samples", "samples"),
    "v_zero_shot_vectors": ("zero_shot", "samples"),
}


@dataclass(frozen=True)
class ViewSource:
    """The files of one view; `pattern`, a glob below `base`, matches them and perhaps others.

    `schema` is that of a table of rows, None for vectors. `dim` is the dimension of the vectors; of an empty
    view, that of the encoder with its role, or 1 without one. `lacking`: columns of the schema that are
    newer than the files. `protocol` stands before the paths of files that are not on this machine.
    """

    view: str
    base: Path
    pattern: str
    files: tuple[Path, ...]
    schema: pa.Schema | None = None
    dim: int = 1
    lacking: tuple[str, ...] = ()
    protocol: str = ""

    def spelled(self, file: Path) -> str:
        """A file as DuckDB is given it."""
        return f"{self.protocol}{glob_escaped(file)}"


def sources(kb: Path) -> tuple[ViewSource, ...]:
    """The sources of every view over files; the columns of each file are checked by its footer.

    Raises KnowledgeBaseError, naming the file, if one is damaged or has other columns.
    """
    found = []
    for view, (pattern, schema) in TABLES.items():
        above, _, name = pattern.rpartition("/")
        folders = [kb / "descriptions" / kind for kind in KINDS] if "*" in above else [kb / above]
        files = tuple(path for folder in folders for path in names(folder, name))
        lacking = lacking_columns({file: _footer(reading(file)) for file in files}, schema)
        found.append(ViewSource(view, kb, pattern, files, schema, lacking=lacking))
    serving = {encoder.role: encoder for encoder in encoder_folders(kb) if encoder.role}
    for view, (role, table) in VECTORS.items():
        encoder = serving.get(role)
        folder = kb / "embeddings" / (encoder.folder if encoder else "-") / table
        files = tuple(part_paths(folder)) if encoder else ()
        dim = int(encoder.card["dim"]) if encoder else 1
        for file in files:
            require_vectors(file, _footer(file), dim)
        found.append(ViewSource(view, folder, "*.parquet", files, dim=dim))
    return tuple(found)


def quoted(text: str) -> str:
    """A text as an SQL literal that is safe to print: control characters are written as chr(NUMBER)."""
    plain = text.replace("'", "''")
    if plain.isprintable():
        return f"'{plain}'"
    pieces = re.findall(r"[ -~]+|.", plain, re.DOTALL)
    literals = (f"'{piece}'" if piece.isprintable() else f"chr({ord(piece)})" for piece in pieces)
    return f"concat({', '.join(literals)})"


def glob_escaped(path: Path) -> str:
    """A path for DuckDB, which reads `[`, `*` and `?` in paths as a pattern, with those escaped.

    Raises InputError for a path that DuckDB cannot express: one with a backslash and one of those characters,
    and one that is not UTF-8.
    """
    plain = str(path)
    escaped = re.sub(r"[\[*?]", r"[\g<0>]", plain)
    if escaped != plain and "\\" in plain:
        raise InputError(f"{plain}: DuckDB cannot read a path with both a backslash and [, * or ?; rename it")
    require_utf8(plain)
    return escaped


def require_utf8(given: str) -> None:
    """Raise InputError for a text that is not UTF-8, for example a file name: DuckDB rejects it."""
    try:
        given.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{given!a} is not UTF-8, the only encoding that DuckDB reads; write it in UTF-8"
        ) from None


def lacking_columns(footers: Mapping[Path, pa.Schema], schema: pa.Schema) -> tuple[str, ...]:
    """The columns that are newer than some of these files.

    Raises KnowledgeBaseError for a file with other columns than the schema's.
    """
    lacking: set[str] = set()
    for file, footer in footers.items():
        lacking |= LATER_COLUMNS & (set(schema.names) - set(footer.names))
        if footer.names != [name for name in schema.names if name not in lacking]:
            raise KnowledgeBaseError(f"{file} has other columns than this version writes; build it again")
    return tuple(sorted(lacking))


def require_vectors(file: Path, schema: pa.Schema, dim: int) -> None:
    """Raise KnowledgeBaseError for a file that is no shard with vectors of this dimension."""
    kind = schema.field("vector").type if tuple(schema.names) == COLUMNS else pa.null()
    if not pa.types.is_fixed_size_list(kind) or kind.list_size != dim:
        raise KnowledgeBaseError(
            f"{file} has other columns than this version writes, or vectors of another dimension than the"
            f" {dim} of its encoder; delete its folder and run `unibind encode`"
        )


def unreadable(file: Path) -> KnowledgeBaseError | None:
    """The error if DuckDB cannot read all of a file, else None."""
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
        return KnowledgeBaseError(f"{file} is gone: a run is replacing its table; run the query again")
    if not os.access(file, os.R_OK):
        return DamagedError(file, FORBIDDEN)
    return KnowledgeBaseError(
        f"{file} is damaged ({first_line(error)}); delete it and run the stage that writes it again"
    )

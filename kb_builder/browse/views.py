"""Views over a knowledge base, as plain SQL for any DuckDB (1.3 or newer).

Over files: `v_categories`, `v_samples`, `v_rejects` (rejected samples), `v_given_descriptions`,
`v_descriptions` (of categories and samples), `v_controls`, `v_centers`, and, with the columns id, group,
content and vector, `v_category_vectors`, `v_sample_text_vectors`, `v_control_vectors`,
`v_text_sample_vectors`, `v_sample_vectors` and `v_zero_shot_vectors`. The view of a table that no stage has
written yet is empty.

Over those: `v_cost`, `v_encoders`, `v_vector_state`, and the table macros `v_nearest_to(row_id, k := 10)` and
`v_nearest(text, k := 10)`. The last calls `embed(text) -> FLOAT[]`, a function that
kb_builder/browse/query.py registers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from kb_builder.browse.sources import ViewSource, glob_escaped, quoted, sources
from kb_builder.store.cards import EncoderFolder, encoder_folders

# Each view or macro and its content, in the order in which they are created.
VIEWS: dict[str, str] = {
    "v_categories": "the classes to recognise",
    "v_samples": "the samples that were accepted",
    "v_rejects": "rejected samples, with the stage and the reason",
    "v_given_descriptions": "descriptions of samples that came with the manifest",
    "v_descriptions": "texts about categories and samples; rejected ones too, with their reason",
    "v_controls": "the control texts",
    "v_centers": "the embedding centers",
    "v_category_vectors": "vectors of the categories' descriptions; id = row_id, group = category_id",
    "v_sample_text_vectors": "vectors of the samples' descriptions; id = row_id, group = modality",
    "v_control_vectors": "vectors of the control texts; id = row_id, group = category_id",
    "v_text_sample_vectors": "the text encoder's vectors of samples that are texts; id = sample_id",
    "v_sample_vectors": "vectors of samples; id = sample_id, group = modality",
    "v_zero_shot_vectors": "vectors of samples in the texts' space, without training; id = sample_id",
    "v_cost": "texts, requests and dollars per provider, model, kind and source",
    "v_encoders": "the folders of encoders, each with its role",
    "v_vector_state": "every stored or expected vector: current, stale or missing",
    "v_nearest_to(row_id, k := 10)": "the category descriptions nearest to a description",
    "v_nearest(text, k := 10)": "the category descriptions nearest to any text",
}
_TYPES: dict[pa.DataType, str] = {
    pa.string(): "VARCHAR",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.timestamp("us", tz="UTC"): "TIMESTAMP WITH TIME ZONE",
    pa.list_(pa.string()): "VARCHAR[]",
}
_COST = """\
SELECT provider, model_resolved, kind, source, count(*) AS texts, count(*) FILTER (status = 'ok') AS ok,
       count(DISTINCT request_key) AS requests, sum(cost_usd) AS known_cost_usd,
       count(*) FILTER (cost_usd IS NULL) AS texts_of_unknown_cost,
       sum(cost_usd) / nullif(count(*) FILTER (status = 'ok'), 0) AS known_cost_usd_per_ok
FROM v_descriptions GROUP BY ALL"""
# Joined by content too: a vector of an earlier text of the row would give another text's cosine.
_NEAREST_TO = """\
WITH given AS MATERIALIZED (
    SELECT vector FROM (FROM v_category_vectors UNION ALL FROM v_sample_text_vectors) AS v WHERE v.id = row_id
)
SELECT d.category_id, d.row_id, d.text, array_inner_product(v.vector, given.vector) AS cosine
FROM v_category_vectors AS v CROSS JOIN given
JOIN v_descriptions AS d ON d.row_id = v.id AND d.status = 'ok' AND sha256(d.text) = v.content
WHERE v.id <> row_id
ORDER BY cosine DESC, d.row_id LIMIT k"""
# MATERIALIZED, so that the text is embedded once and not once per row.
_NEAREST = """\
WITH given AS MATERIALIZED (SELECT embed(text)::FLOAT[{dim}] AS vector)
SELECT d.category_id, d.row_id, d.text, array_inner_product(v.vector, given.vector) AS cosine
FROM v_category_vectors AS v CROSS JOIN given
JOIN v_descriptions AS d ON d.row_id = v.id AND d.status = 'ok' AND sha256(d.text) = v.content
ORDER BY cosine DESC, d.row_id LIMIT k"""
_STATE = """\
SELECT {role} AS role, {folder} AS folder, '{table}' AS "table", coalesce(w.id, v.id) AS id,
       CASE WHEN v.id IS NULL THEN 'missing'
            WHEN v.content = w.content THEN 'current' ELSE 'stale' END AS state
FROM ({wanted}) AS w
FULL JOIN ({vectors}) AS v ON v.id = w.id"""
_WANTED_TEXTS = """\
SELECT row_id AS id, sha256(text) AS content FROM v_descriptions WHERE kind = '{kind}' AND status = 'ok'"""
_WANTED_CONTROLS = "SELECT row_id AS id, sha256(text) AS content FROM v_controls"
_TEXT_VECTORS = "SELECT id, content FROM {view}"
# A sample's vector depends on its modality too: one picture may be read as a photo or as a thermal picture.
_WANTED_SAMPLES = """\
SELECT sample_id AS id, concat(modality, ' ', sha256) AS content FROM v_samples
      WHERE {which} AND sample_id NOT IN (SELECT sample_id FROM v_rejects WHERE stage = 'encode')"""
_SAMPLE_VECTORS = """\
SELECT id, concat("group", ' ', content) AS content FROM {view} WHERE {which}"""


@dataclass(frozen=True)
class View:
    """A view or a macro, and the statement that creates it, without its semicolon."""

    name: str
    sql: str


def views(
    found: Sequence[ViewSource], encoders: Sequence[EncoderFolder], *, globs: bool = False
) -> tuple[View, ...]:
    """Every view and macro over these files, each after those that it reads.

    With `globs`, a list of files is written as its pattern if that matches exactly these files. Raises
    InputError for a path that DuckDB cannot express.
    """
    dim = next(source.dim for source in found if source.view == "v_category_vectors")
    bodies = {
        **{source.view: _over_files(source, globs=globs) for source in found},
        "v_cost": _COST,
        "v_encoders": _over_encoders(encoders),
        "v_vector_state": _states(encoders),
        "v_nearest_to(row_id, k := 10)": _NEAREST_TO,
        "v_nearest(text, k := 10)": _NEAREST.format(dim=dim),
    }
    return tuple(View(name, _statement(name, body)) for name, body in bodies.items())


def script(kb: Path) -> str:
    """The views as a script for any DuckDB; `v_nearest`, which needs our encoder, is commented out.

    Raises KnowledgeBaseError for damaged files and InputError for a path that DuckDB cannot express.
    """
    kb = kb.resolve()
    blocks = [f"-- The knowledge base {_one_line(kb)}"]
    for view in views(sources(kb), encoder_folders(kb), globs=True):
        block = f"-- {VIEWS[view.name]}\n{view.sql};"
        if "embed(" in view.sql:
            block = (
                "-- needs a function embed(VARCHAR) -> FLOAT[], which only `unibind kb` provides:\n" + block
            )
            block = "\n".join(f"-- {line.removeprefix('-- ')}" for line in block.splitlines())
        blocks.append(block)
    return "\n\n".join(blocks)


def _statement(name: str, body: str) -> str:
    kind, table = ("MACRO", " TABLE") if "(" in name else ("VIEW", "")
    return f"CREATE OR REPLACE {kind} {name} AS{table}\n{body}"


def _one_line(path: Path) -> str:
    return str(path).encode("unicode_escape").decode()


def _over_files(source: ViewSource, *, globs: bool) -> str:
    if not source.files:
        return _empty(source)
    paths = [quoted(source.spelled(file)) for file in source.files]
    if len(paths) > 1 and globs and sorted(source.base.glob(source.pattern)) == sorted(source.files):
        paths = [quoted(f"{glob_escaped(source.base)}/{source.pattern}")]
    files = paths[0] if len(paths) == 1 else f"[{', '.join(paths)}]"
    # Otherwise a folder named `a=1` in the path would become a column.
    options = ", hive_partitioning = false" if "=" in str(source.files[0]) else ""
    columns = "*" if source.schema else f'id, "group", content, vector::FLOAT[{source.dim}] AS vector'
    if source.schema:
        columns += "".join(
            f", NULL::{_TYPES[source.schema.field(name).type]} AS {name}" for name in source.lacking
        )
    return f"SELECT {columns} FROM read_parquet({files}{options})"


def _empty(source: ViewSource) -> str:
    if source.schema:
        columns = {field.name: _TYPES[field.type] for field in source.schema}
    else:
        columns = {
            "id": "VARCHAR",
            "group": "VARCHAR",
            "content": "VARCHAR",
            "vector": f"FLOAT[{source.dim}]",
        }
    return _no_rows(columns)


def _no_rows(columns: Mapping[str, str]) -> str:
    nulls = [f'NULL::{kind} AS "{name}"' for name, kind in columns.items()]
    return f"SELECT {', '.join(nulls)} WHERE false"


def _over_encoders(encoders: Sequence[EncoderFolder]) -> str:
    kinds = {
        "role": "VARCHAR",
        "folder": "VARCHAR",
        "name": "VARCHAR",
        "identity": "VARCHAR",
        "dim": "BIGINT",
        "dtype": "VARCHAR",
        "modalities": "VARCHAR[]",
    }
    if not encoders:
        return _no_rows(kinds)
    rows = [{**encoder.card, "role": encoder.role, "folder": encoder.folder} for encoder in encoders]
    values = ",\n       ".join(f"({', '.join(_literal(row.get(name)) for name in kinds)})" for row in rows)
    columns = ", ".join(f"{name}::{kind} AS {name}" for name, kind in kinds.items())
    return f"SELECT {columns}\nFROM (VALUES {values}) AS encoders({', '.join(kinds)})"


def _states(encoders: Sequence[EncoderFolder]) -> str:
    """For every table of every encoder with a role: the state of each stored or expected vector."""
    pieces = []
    for encoder in encoders:
        for table, wanted, vectors in _wanted(encoder):
            pieces.append(
                _STATE.format(
                    role=_literal(encoder.role),
                    folder=_literal(encoder.folder),
                    table=table,
                    wanted=wanted,
                    vectors=vectors,
                )
            )
    names = ("role", "folder", "table", "id", "state")
    return "\nUNION ALL\n".join(pieces) or _no_rows(dict.fromkeys(names, "VARCHAR"))


def _wanted(encoder: EncoderFolder) -> list[tuple[str, str, str]]:
    """For each table: its name, and the SQL of the ids and contents that it should hold and that it holds."""

    def samples(view: str, which: str) -> tuple[str, str, str]:
        vectors = _SAMPLE_VECTORS.format(view=view, which=which.format('"group"'))
        return "samples", _WANTED_SAMPLES.format(which=which.format("modality")), vectors

    if encoder.role == "text":
        texts = {
            "category_texts": (_WANTED_TEXTS.format(kind="category"), "v_category_vectors"),
            "sample_texts": (_WANTED_TEXTS.format(kind="sample"), "v_sample_text_vectors"),
            "controls": (_WANTED_CONTROLS, "v_control_vectors"),
        }
        return [
            *((table, wanted, _TEXT_VECTORS.format(view=view)) for table, (wanted, view) in texts.items()),
            samples("v_text_sample_vectors", "{} = 'text'"),
        ]
    if encoder.role == "samples":
        return [samples("v_sample_vectors", "{} <> 'text'")]
    if encoder.role == "zero_shot":
        taken = [modality for modality in encoder.card.get("modalities", []) if modality != "text"]
        return [samples("v_zero_shot_vectors", f"list_contains({_literal(taken)}, {{}})")]
    return []


def _literal(value: Any) -> str:
    """A value of a card as an SQL literal."""
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return f"[{', '.join(_literal(item) for item in value)}]"
    return str(value) if isinstance(value, int) else quoted(str(value))

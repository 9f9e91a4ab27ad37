"""Tables of the outcome of every sample, which paired comparisons and studies read.

named.parquet: the category predicted for each sample, by task and anchor set. ranks.parquet: the rank of the
first relevant item of each query. docs/metrics.md describes every column.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.files import atomic_path
from trainer.inputs import KnowledgeBase
from trainer.records import Bools, Ints, SampleSet

NAMED_FILE, RANKS_FILE = "named.parquet", "ranks.parquet"


def _schema(fields: list[tuple[str, pa.DataType, bool]]) -> pa.Schema:
    return pa.schema(
        [pa.field(name, kind, nullable=nullable) for name, kind, nullable in fields],
        metadata={"unibind_schema_version": "1"},
    )


NAMED = _schema(
    [
        ("model", pa.string(), False),  # aligned | zero_shot
        ("split", pa.string(), False),  # the task: seen | unseen | unseen_among_all
        ("anchors", pa.string(), False),
        ("modality", pa.string(), False),
        ("sample_id", pa.string(), False),
        ("object_id", pa.string(), True),
        ("category_id", pa.string(), False),  # its label, the first where it has several
        ("named", pa.string(), True),  # the predicted category
        ("hit", pa.bool_(), False),  # the predicted category is one of the sample's
        ("hit5", pa.bool_(), False),  # one of the sample's is among the first five predictions
    ]
)

RANKS = _schema(
    [
        ("model", pa.string(), False),
        ("query", pa.string(), False),  # modality of the query
        ("gallery", pa.string(), False),  # modality of the gallery
        ("level", pa.string(), False),  # category | object
        ("sample_id", pa.string(), False),  # the query
        ("object_id", pa.string(), True),
        ("rank", pa.int32(), False),  # of the first relevant item, from 1 on
    ]
)


@dataclass(frozen=True)
class RecognitionOutcomes:
    """The predictions for the samples of one task by one anchor set, and which are right."""

    split: str
    anchors: str
    shown: SampleSet
    predicted_N: Ints  # category; -1: none
    hit_N: Bools
    hit5_N: Bools


@dataclass(frozen=True)
class RetrievalOutcomes:
    """The rank of the first relevant item for the answerable queries of one pair of modalities."""

    query: str
    gallery: str
    level: str
    asked: SampleSet
    rank_N: Ints


def named_table(base: KnowledgeBase, outcomes: Iterable[RecognitionOutcomes], *, model: str) -> pa.Table:
    """Rows of `NAMED`, in the order of the outcomes and of their samples."""
    categories = pa.array(base.categories, pa.string())
    objects = _objects(base)
    tables = [NAMED.empty_table()]
    for each in outcomes:
        shown = each.shown
        tables.append(
            _table(
                NAMED,
                len(shown),
                model=model,
                split=each.split,
                anchors=each.anchors,
                modality=shown.modality,
                sample_id=pa.array(shown.sample_ids, pa.string()),
                object_id=_object_ids(shown, objects),
                category_id=categories.take(pa.array(shown.category_N)),
                named=categories.take(pa.array(each.predicted_N, mask=each.predicted_N < 0)),
                hit=pa.array(each.hit_N),
                hit5=pa.array(each.hit5_N),
            )
        )
    return pa.concat_tables(tables)


def ranks_table(base: KnowledgeBase, outcomes: Iterable[RetrievalOutcomes], *, model: str) -> pa.Table:
    """Rows of `RANKS`, in the order of the outcomes and of their queries."""
    objects = _objects(base)
    tables = [RANKS.empty_table()]
    for each in outcomes:
        tables.append(
            _table(
                RANKS,
                len(each.asked),
                model=model,
                query=each.query,
                gallery=each.gallery,
                level=each.level,
                sample_id=pa.array(each.asked.sample_ids, pa.string()),
                object_id=_object_ids(each.asked, objects),
                rank=pa.array(each.rank_N.astype(np.int32)),
            )
        )
    return pa.concat_tables(tables)


def write_outcomes(run: Path, named: pa.Table, ranks: pa.Table) -> None:
    """Write `<run>/named.parquet` and `<run>/ranks.parquet`, each whole or not at all."""
    for name, table in ((NAMED_FILE, named), (RANKS_FILE, ranks)):
        with atomic_path(run / name) as temporary:
            pq.write_table(table, temporary)


def _table(schema: pa.Schema, rows: int, **columns: str | pa.Array) -> pa.Table:
    whole = {
        name: pa.repeat(pa.scalar(value, pa.string()), rows) if isinstance(value, str) else value
        for name, value in columns.items()
    }
    return pa.Table.from_arrays([whole[name] for name in schema.names], schema=schema)


def _objects(base: KnowledgeBase) -> pa.Array:
    """The object ids, indexed by `SampleSet.object_N`."""
    return pa.array(base.objects, pa.string())


def _object_ids(samples: SampleSet, objects: pa.Array) -> pa.Array:
    return objects.take(pa.array(samples.object_N, mask=samples.object_N < 0))

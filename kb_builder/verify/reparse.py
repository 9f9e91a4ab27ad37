"""`kb reparse`: derive the descriptions again from the stored answers, with today's parser and gates.

No request is sent.

Every part is written again as `describe` would write it, were each request that lacks an answer left out. So
a category whose texts no longer pass ends with fewer than it wants, and the next `describe` asks for what is
missing. This also restores parts that are missing or damaged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from data.seals import seal, unseal
from data.show import visible
from kb_builder.browse.query import QueryResult
from kb_builder.describe.added import describe_added
from kb_builder.describe.categories import category_shard_count, describe_category_shards
from kb_builder.describe.contrasts import describe_contrasts
from kb_builder.describe.samples import describe_sample_shards, sample_shard_count
from kb_builder.settings import DescribeCategories, DescribeSamples
from kb_builder.tables.parts import KINDS, MANIFEST
from kb_builder.tables.schemas import DESCRIPTIONS

# What a row is known by from one parser to the next: its row_id changes with the parser's version.
_COLUMNS = ("kind", "status", "request_key", "text")

# By the stage that writes them, as in the list of checksums.
_WRITTEN = {
    "describe-categories": ("descriptions/category/part-*.parquet",),
    "describe-contrasts": (
        "descriptions/category/contrast-*.parquet",
        "descriptions/category/added-*.parquet",
    ),
    "describe-samples": ("descriptions/sample/*.parquet", "rejects/describe-*.parquet"),
}

_Move = tuple[str, str | None, str | None]


@dataclass(frozen=True)
class Reparsed:
    """How the rows stand now. `moves`: (kind, status before, status now) -> rows; None: it was not there.

    `rewritten`: of these, the rows whose answer gives another text than before. `short`: categories with
    fewer texts than wanted, and how many they have.
    """

    moves: Mapping[_Move, int]
    rewritten: Mapping[_Move, int]
    short: Mapping[str, int]
    unreadable: tuple[str, ...]  # parts that could not be read before, and were written again

    @property
    def changed(self) -> int:
        """Rows that are new, gone, judged otherwise, or have another text."""
        return sum(count for _, _, _, count in self._changes())

    def _changes(self) -> list[tuple[str, str, str, int]]:
        rows = []
        for move, count in self.moves.items():
            kind, before, now = move
            if before == now and before is not None:
                rows.append((kind, before, f"{now}, another text", self.rewritten.get(move, 0)))
            else:
                rows.append((kind, before or "(no row)", now or "(gone)", count))
        return [row for row in rows if row[-1]]

    def __str__(self) -> str:
        rows = self._changes()
        total = sum(self.moves.values())
        lines = [f"{total:,} rows, {self.changed:,} of them changed; nothing was sent"]
        if rows:
            lines.append(str(QueryResult(("kind", "before", "now", "rows"), tuple(rows), counts=True)))
            lines.append("`unibind run` takes this into the embeddings, the centers and the results")
        lines += [f"written again, could not be read before: {name}" for name in self.unreadable]
        if self.short:
            few = ", ".join(f"{visible(name)} ({count:,})" for name, count in list(self.short.items())[:10])
            more = f" and {len(self.short) - 10:,} more" if len(self.short) > 10 else ""
            lines.append(
                f"{len(self.short):,} categories have fewer texts than wanted: {few}{more}; "
                "`unibind describe` asks for what is missing, unless they are saturated"
            )
        return "\n".join(lines)


def reparse(
    kb: Path,
    data_root: Path,
    categories: DescribeCategories,
    samples: DescribeSamples,
    *,
    run_id: str,
    encoder: str,
) -> Reparsed:
    """Write every part of the descriptions again from the ledger, and report what has changed.

    `encoder` names the text encoder that will read the texts, `run_id` is written into rows for which no
    model was asked. The caller holds the project's lock. Raises KnowledgeBaseError where there is no
    knowledge base or its ledger cannot be read.
    """
    category_shards = range(category_shard_count(kb, categories))
    sample_shards = range(sample_shard_count(kb, samples))
    before, unreadable = _read(kb)
    for maker in (*_WRITTEN, MANIFEST):
        unseal(kb, maker)
    summaries = describe_category_shards(
        kb, category_shards, categories, run_id=run_id, encoder=encoder, replay=True
    )
    short = {name: n for summary in summaries.values() for name, n in summary["saturated"].items()}
    describe_contrasts(kb, categories, run_id=run_id, encoder=encoder, replay=True)
    describe_added(kb, categories, run_id=run_id, encoder=encoder)
    describe_sample_shards(kb, data_root, sample_shards, samples, run_id=run_id, encoder=encoder, replay=True)
    for maker, patterns in _WRITTEN.items():
        seal(kb, [path for pattern in patterns for path in sorted(kb.glob(pattern))], maker)
    seal(kb, [kb / "descriptions" / MANIFEST], MANIFEST)
    after, _ = _read(kb)
    return Reparsed(*_moves(before, after), dict(sorted(short.items())), unreadable)


def _read(kb: Path) -> tuple[pa.Table, tuple[str, ...]]:
    """What is compared of all rows, and the parts that cannot be read."""
    schema = pa.schema([DESCRIPTIONS.field(name) for name in _COLUMNS])
    tables = [schema.empty_table()]
    unreadable = []
    for kind in KINDS:
        for path in sorted((kb / "descriptions" / kind).glob("*.parquet")):
            try:
                tables.append(pq.read_table(path, columns=list(_COLUMNS), partitioning=None).cast(schema))
            except (pa.ArrowException, OSError, ValueError):
                unreadable.append(f"{kind}/{path.name}")
    return pa.concat_tables(tables), tuple(unreadable)


def _moves(before: pa.Table, after: pa.Table) -> tuple[dict[_Move, int], dict[_Move, int]]:
    """Rows by kind and by their status before and now, and how many of them have another text.

    Rows of one answer with the same text are the same row; what is left of an answer is paired in its order.
    """
    key = "kind, request_key, text"
    numbered = f"""
        SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY status, place) AS copy
        FROM (SELECT *, row_number() OVER () AS place FROM %s)"""
    with closing(duckdb.connect()) as connection:
        connection.register("before", before)
        connection.register("after", after)
        rows = connection.execute(
            f"""
            WITH same AS (
                SELECT kind, request_key, b.status AS old, a.status AS new, b.place AS old_place,
                    a.place AS new_place
                FROM ({numbered % "before"}) AS b FULL JOIN ({numbered % "after"}) AS a USING ({key}, copy)
            ),
            gone AS (
                SELECT *, row_number() OVER (PARTITION BY kind, request_key ORDER BY old_place) AS turn
                FROM same WHERE new IS NULL
            ),
            made AS (
                SELECT *, row_number() OVER (PARTITION BY kind, request_key ORDER BY new_place) AS turn
                FROM same WHERE old IS NULL
            )
            SELECT kind, old, new, count(*), 0 FROM same
            WHERE old IS NOT NULL AND new IS NOT NULL GROUP BY ALL
            UNION ALL
            SELECT kind, gone.old, made.new, count(*),
                count(*) FILTER (gone.old IS NOT NULL AND made.new IS NOT NULL)
            FROM gone FULL JOIN made USING (kind, request_key, turn) GROUP BY ALL
            ORDER BY 1, 2 NULLS LAST, 3 NULLS LAST
            """
        ).fetchall()
    moves: Counter[_Move] = Counter()
    rewritten: Counter[_Move] = Counter()
    for kind, old, new, count, other in rows:
        moves[kind, old, new] += count
        rewritten[kind, old, new] += other
    return dict(moves), dict(+rewritten)

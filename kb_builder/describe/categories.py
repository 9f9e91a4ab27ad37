"""Category descriptions: each category is asked about until it has its texts, is saturated, or at its limit.

The plan depends only on the settings, the categories and earlier answers, never on time or order. So a run
that was killed and is started again plans the same requests, finds those that were answered in the ledger,
asks the rest, and ends with the same tables.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from data.errors import KnowledgeBaseError
from data.sample import Category
from kb_builder.added.cited import Cited, by_category
from kb_builder.added.sources import read_sources
from kb_builder.ask.asker import Asker
from kb_builder.ask.ledger import microseconds_now
from kb_builder.ask.session import AskingBar
from kb_builder.describe.category import UNKNOWN_TEXTS, CategoryJob, CategorySubject, make_category_job
from kb_builder.describe.cited import require_cited_answers
from kb_builder.describe.grounded import Ground
from kb_builder.describe.prompts import category_library, is_grounded, texts_per_request
from kb_builder.describe.shards import OnShard, ShardPlan, count_texts, describe_shards, shard_sizes
from kb_builder.describers.choose import make_describer
from kb_builder.gates.gate import Candidate, CategoryGate
from kb_builder.gates.names import category_names
from kb_builder.settings import DescribeCategories
from kb_builder.tables.parts import write_part
from kb_builder.tables.schemas import read_rows

_SHARD_REQUESTS = 1000  # a shard is a task and a file: minutes of work, not hours
_MOST_CATEGORIES = 500


def category_shard_count(kb: Path, settings: DescribeCategories) -> int:
    """How many shards the categories of a knowledge base make."""
    return math.ceil(len(read_categories(kb)) / categories_per_shard(settings))


def categories_per_shard(settings: DescribeCategories) -> int:
    """How many categories one shard holds: what the settings say, or what makes about 1,000 requests."""
    if settings.shard_categories is not None:
        return settings.shard_categories
    requests = math.ceil(settings.n / texts_per_request(settings))
    return max(1, min(_MOST_CATEGORIES, round(_SHARD_REQUESTS / requests)))


def describe_category_shards(
    kb: Path,
    shards: Sequence[int],
    settings: DescribeCategories,
    *,
    run_id: str,
    encoder: str,
    on_shard: OnShard = lambda shard, summary: None,
    asker: Asker | None = None,
    replay: bool = False,
) -> dict[int, dict[str, Any]]:
    """Describe the categories of these shards: writes `descriptions/category/part-NNNNN.parquet` of each.

    `encoder` names the text encoder that will read the texts; `on_shard`, `asker`, `replay` and RunError as
    in `describe_shards`. Returns the summary of each shard: `categories`, `saturated` ({category_id: ok
    texts} of the categories that got fewer than n), and the counts of `count_texts`.

    Raises ValueError for a shard that does not exist, and KnowledgeBaseError where there are no categories
    yet or the ledger lacks answers that the present parts cite.
    """
    require_cited_answers(kb, "category", "part")
    categories = read_categories(kb)
    size = categories_per_shard(settings)
    sizes = shard_sizes(shards, size=size, total=len(categories))
    shard_of = {category.category_id: place // size for place, category in enumerate(categories)}
    names = category_names(categories)
    describer = make_describer(settings)
    library = category_library(settings, kb)
    job = make_category_job(settings, describer, library, encoder=encoder, started=microseconds_now())

    wanted = texts_to_write(kb, categories, job)
    asked = [each for each in categories if wanted[each.category_id]]
    ground = Ground(asked, settings, describer, kb) if is_grounded(settings) else None

    def subjects(bar: AskingBar) -> Generator[CategorySubject, None, None]:
        libraries = ground.libraries() if ground is not None else {}
        for shard in sizes:
            for category in categories[shard * size : (shard + 1) * size]:
                gate = CategoryGate(names[category.category_id], job.rules)
                mine = wanted[category.category_id]
                own = libraries.get(category.category_id)
                if ground is not None and own is None:
                    mine = min(mine, UNKNOWN_TEXTS)
                yield CategorySubject(category, gate, job, wanted=mine, library=own, on_ok=bar.add)

    def write(shard: int, done: list[CategorySubject]) -> dict[str, Any]:
        done.sort(key=lambda subject: subject.category.category_id)
        write_part(kb, "category", f"part-{shard:05d}", [row for subject in done for row in subject.rows])
        saturated = {subject.category.category_id: subject.ok for subject in done if subject.short}
        return {"categories": len(done), **count_texts(done), "saturated": saturated}

    plan = ShardPlan(
        title="category descriptions",
        unit=" texts",
        total=sum(
            wanted[each.category_id]
            for shard in sizes
            for each in categories[shard * size : (shard + 1) * size]
        ),
        kind="category",
        prefix="part",
        count=math.ceil(len(categories) / size),
        sizes=sizes,
        describer=describer,
        subjects=subjects,
        shard_of=lambda subject: shard_of[subject.category.category_id],
        write=write,
        first=ground,
    )
    return describe_shards(kb, plan, settings, run_id=run_id, on_shard=on_shard, asker=asker, replay=replay)


def texts_to_write(kb: Path, categories: Sequence[Category], job: CategoryJob) -> dict[str, int]:
    """How many texts the model is to write of each category: `n`, or none where added texts take their place.

    They do with `texts = "added"`, where a category has an added text that passes the gates by itself: so no
    category is left without a text.
    """
    cited = by_category(read_sources(kb), categories) if job.settings.texts == "added" else {}
    names = category_names(categories)

    def passes(each: Cited) -> bool:
        text = each.text.text
        candidate = Candidate(row_id="", text=text, n_tokens=job.tokens.count([text])[0])
        return CategoryGate(names[each.category_id], job.rules).judge([candidate])[0].status == "ok"

    return {
        each.category_id: 0 if any(map(passes, cited.get(each.category_id, ()))) else job.settings.n
        for each in categories
    }


def read_categories(kb: Path) -> list[Category]:
    """The categories, by their ids. Raises KnowledgeBaseError where there are none yet."""
    path = kb / "categories.parquet"
    if not path.is_file():
        raise KnowledgeBaseError(f"{path} is missing: read in a manifest first (`unibind run` does)")
    rows = sorted(read_rows(path), key=lambda row: str(row["category_id"]))
    return [Category(**(row | {"aliases": tuple(row["aliases"])})) for row in rows]

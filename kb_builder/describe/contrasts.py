"""Contrast pass: texts that distinguish a category from the categories it is most easily confused with.

Each category is asked about again, once for each of its `contrast_pairs` most confusable categories
(kb_builder/describe/confusable.py): what is true of it and not of the other? Only the question names the
other category; a text that names it is rejected.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data.sample import Category
from kb_builder.ask.asker import Asker
from kb_builder.ask.ledger import Entry, microseconds_now
from kb_builder.ask.request import Request
from kb_builder.ask.session import AskingBar
from kb_builder.describe.categories import read_categories
from kb_builder.describe.category import CategoryJob, CategorySubject, Rival, make_category_job
from kb_builder.describe.cited import require_cited_answers
from kb_builder.describe.confusable import Confusable, find_confusable, ok_texts
from kb_builder.describe.prompts import contrast_items, contrast_library, spoken_name
from kb_builder.describe.shards import ShardPlan, count_texts, describe_shards
from kb_builder.describers.choose import make_describer
from kb_builder.gates.gate import CategoryGate
from kb_builder.gates.names import category_names
from kb_builder.settings import DescribeCategories
from kb_builder.tables.parts import remove_beyond, write_part

log = logging.getLogger(__name__)

_REPORTED = 10


def describe_contrasts(
    kb: Path,
    settings: DescribeCategories,
    *,
    run_id: str,
    encoder: str,
    asker: Asker | None = None,
    replay: bool = False,
) -> dict[str, Any]:
    """Write `descriptions/category/contrast-00000.parquet`, unless the pass is skipped.

    The arguments and errors are those of `describe_category_shards`. Returns the summary of one of its
    shards, with `pairs` (how many) and `closest` (the most confusable: category, rival, mixing, cosine).
    Where the pass is skipped, `skipped` says why: `contrast_pairs` is 0, the describer's model is too small,
    or fewer than two categories have texts.
    """
    require_cited_answers(kb, "category", "contrast")
    library = contrast_library(settings, kb)
    if library is None:
        return _skip(
            kb, f"describer {settings.describer!r} is too small a model to tell what sets things apart"
        )
    if settings.contrast_pairs == 0:
        return _skip(kb, "contrast_pairs = 0")
    categories = read_categories(kb)
    found = find_confusable(kb, pairs=settings.contrast_pairs)
    if not found:
        return _skip(kb, "fewer than two categories have texts")
    describer = make_describer(settings)
    job = make_category_job(
        settings,
        describer,
        library,
        encoder=encoder,
        started=microseconds_now(),
        items=contrast_items(settings),
    )

    def subjects(bar: AskingBar) -> Generator[_Contrasts, None, None]:
        for texts in contrast_texts(ok_texts(kb), categories, found, job, on_ok=bar.add):
            yield _Contrasts(texts)

    plan = ShardPlan(
        title="contrasts",
        unit=" texts",
        total=settings.contrast_texts * len(found),
        kind="category",
        prefix="contrast",
        count=1,
        sizes={0: len({pair.category_id for pair in found})},
        describer=describer,
        subjects=subjects,
        shard_of=lambda contrasts: 0,
        write=lambda shard, done: _write(kb, done),
    )
    summaries = describe_shards(kb, plan, settings, run_id=run_id, asker=asker, replay=replay)
    closest = sorted(found, key=lambda pair: (-pair.mixing, -pair.cosine, pair.category_id))[:_REPORTED]
    return summaries[0] | {
        "pairs": len(found),
        "closest": [[pair.category_id, pair.rival_id, pair.mixing, pair.cosine] for pair in closest],
    }


class _Contrasts:
    """A `fill.Subject`: the contrasts of one category with its rivals, one after the other, on one gate."""

    def __init__(self, texts: Sequence[CategorySubject]) -> None:
        self.texts = texts
        self.category_id = texts[0].category.category_id
        self._open = list(texts)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for texts in self.texts for row in texts.rows]

    def plan(self) -> list[Request]:
        while self._open:
            if requests := self._open[0].plan():
                return requests
            done = self._open.pop(0)
            if done.abandoned:  # the next rival's verdicts depend on the missing answers
                self._open = []
        return []

    def absorb(self, entries: list[Entry | None]) -> None:
        self._open[0].absorb(entries)


def _write(kb: Path, done: list[_Contrasts]) -> dict[str, Any]:
    done.sort(key=lambda contrasts: contrasts.category_id)
    write_part(kb, "category", "contrast-00000", [row for contrasts in done for row in contrasts.rows])
    saturated = {
        contrasts.category_id: sum(texts.ok for texts in contrasts.texts)
        for contrasts in done
        if any(texts.short for texts in contrasts.texts)
    }
    counts = count_texts([texts for contrasts in done for texts in contrasts.texts])
    return {"categories": len(done), **counts, "saturated": saturated}


def _skip(kb: Path, reason: str) -> dict[str, Any]:
    remove_beyond(kb, "category", "contrast", 0)
    log.info("no contrast pass: %s", reason)
    return {"pairs": 0, "skipped": reason}


def contrast_texts(
    earlier: Iterable[tuple[str, Mapping[str, str]]],
    categories: Sequence[Category],
    found: Sequence[Confusable],
    job: CategoryJob,
    *,
    on_ok: Callable[[int], None] = lambda count: None,
) -> Iterator[list[CategorySubject]]:
    """For each category, the subjects that contrast it with its rivals, to be filled one after the other.

    They share a gate, so that no text repeats another. `earlier` are the category's texts of the first pass,
    as `ok_texts` gives them.
    """
    by_id = {category.category_id: category for category in categories}
    names = category_names(categories)
    rivals: dict[str, list[str]] = defaultdict(list)
    for pair in found:
        rivals[pair.category_id].append(pair.rival_id)
    for category_id, texts in earlier:
        if category_id not in rivals:
            continue
        gate = CategoryGate(names[category_id], job.rules)
        gate.remember(list(texts), list(texts.values()))
        yield [
            CategorySubject(
                by_id[category_id],
                gate,
                job,
                wanted=job.settings.contrast_texts,
                rival=Rival(rival_id, spoken_name(by_id[rival_id]), names[rival_id].own),
                on_ok=on_ok,
            )
            for rival_id in rivals[category_id]
        ]

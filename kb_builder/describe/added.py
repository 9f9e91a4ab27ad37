"""Added texts as descriptions: the rows of the sources that `unibind kb add-texts` has stored.

They are judged by the gates of the category's other texts and after these, so they change no row that a model
has written, no question and no answer: a text that repeats one of the model's is the duplicate. Among
themselves they are judged in the order of the sources' names, and in the order of each file. The rows follow
from sources, categories, the other texts and the settings alone, and are written again by every run of the
stage describe-contrasts, which is the last one about categories.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kb_builder.added.cited import Cited, by_category
from kb_builder.added.sources import SOURCE, Source, read_sources
from kb_builder.describe.categories import read_categories
from kb_builder.describe.category import gate_rules
from kb_builder.describe.confusable import ok_texts
from kb_builder.describe.rows import JudgedText, RowOrigin, RowQuestion, description_row, row_id
from kb_builder.encoders.tokens import token_counter
from kb_builder.gates.gate import Candidate, CategoryGate
from kb_builder.gates.names import category_names
from kb_builder.parse.answers import PARSER_VERSION
from kb_builder.parse.own_names import OwnNames
from kb_builder.parse.sentences import item_mark, left_over
from kb_builder.settings import DescribeCategories
from kb_builder.tables.parts import remove_beyond, write_part

log = logging.getLogger(__name__)

PREFIX = "added"
_PART_CATEGORIES = 500


def describe_added(kb: Path, settings: DescribeCategories, *, run_id: str, encoder: str) -> dict[str, Any]:
    """Write `descriptions/category/added-NNNNN.parquet`; removes them where nothing is (to be) added.

    The arguments are those of `describe_category_shards`. Returns counts: `sources`, `categories` that
    have added texts, `ok` and `rejected` (by status); nothing where there is no source.
    """
    sources = [] if settings.texts == "written" else read_sources(kb)
    parts = 0
    statuses: Counter[str] = Counter()
    about: set[str] = set()
    for rows in _in_parts(added_rows(kb, settings, sources, run_id=run_id, encoder=encoder)):
        statuses.update(row["status"] for row in rows)
        about.update(row["category_id"] for row in rows)
        write_part(kb, "category", f"{PREFIX}-{parts:05d}", rows)
        parts += 1
    remove_beyond(kb, "category", PREFIX, parts)
    if not sources:
        return {}
    ok = statuses.pop("ok", 0)
    log.log(
        logging.INFO if ok else logging.WARNING,
        "added texts of %d sources about %d categories: %d pass the gates, %d do not",
        len(sources),
        len(about),
        ok,
        statuses.total(),
    )
    counts = {"sources": len(sources), "categories": len(about), "ok": ok}
    return {"added": {**counts, "rejected": dict(sorted(statuses.items()))}}


def added_rows(
    kb: Path, settings: DescribeCategories, sources: Sequence[Source], *, run_id: str, encoder: str
) -> Iterator[list[dict[str, Any]]]:
    """The rows of these sources, category after category, by their ids."""
    if not sources:
        return
    categories = read_categories(kb)
    cited = by_category(sources, categories)
    names = category_names(categories)
    tokens = token_counter(encoder)
    rules = gate_rules(settings, tokens)
    earlier: dict[str, dict[str, str]] = defaultdict(dict)
    for prefix in ("part", "contrast"):
        for category_id, texts in ok_texts(kb, prefix):
            if category_id in cited:
                earlier[category_id] |= texts
    for category_id, mine in sorted(cited.items()):
        gate = CategoryGate(names[category_id], rules)
        gate.remember(list(earlier[category_id]), list(earlier[category_id].values()))
        keys = [each.source.key(each.text) for each in mine]
        lengths = tokens.count([each.text.text for each in mine])
        candidates = [
            Candidate(
                row_id=row_id(key, choice=0, item=0, parser_version=PARSER_VERSION),
                text=None if (unclean := _unclean(each.text.class_name, each.text.text)) else each.text.text,
                n_tokens=length,
                reason=unclean,
            )
            for key, each, length in zip(keys, mine, lengths, strict=True)
        ]
        yield [
            _row(each, key, JudgedText(each.text.text, length, verdict, cost_usd=0.0), run_id)
            for each, key, length, verdict in zip(mine, keys, lengths, gate.judge(candidates), strict=True)
        ]


def _unclean(class_name: str, text: str) -> str | None:
    """Why a text is not the description alone, or None: a tag, an entity, the mark of a list.

    Answers of models are cleaned of these; a text from outside stays as it is, or is rejected.
    """
    names = OwnNames(f'"{class_name}"')
    hidden = names.hide(text)
    mark = item_mark(hidden)
    left = mark[0].strip() if mark else left_over(hidden)
    return f"holds {names.show(left)!r}, which is no part of a text" if left else None


def _row(cited: Cited, key: str, judged: JudgedText, run_id: str) -> dict[str, Any]:
    columns: Mapping[str, Any] = cited.columns()
    question = RowQuestion(
        kind="category",
        subject_id=cited.category_id,
        modality=None,
        template_id=columns["template_id"],
        template_version=columns["template_version"],
        prompt_hash=columns["prompt_hash"],
        request_key=key,
    )
    origin = RowOrigin(
        provider=columns["provider"],
        model_requested=columns["model_requested"],
        model_resolved=columns["model_resolved"],
        finish_reason="stop",
        attempts=columns["attempts"],
        latency_ms=0.0,
        created_at=columns["created_at"],
        source=SOURCE,
        run_id=run_id,
    )
    return description_row(question, origin, judged)


def _in_parts(categories: Iterator[list[dict[str, Any]]]) -> Iterator[list[dict[str, Any]]]:
    """The rows of 500 categories at a time."""
    rows: list[dict[str, Any]] = []
    for number, mine in enumerate(categories, start=1):
        rows += mine
        if number % _PART_CATEGORIES == 0:
            yield rows
            rows = []
    if rows:
        yield rows

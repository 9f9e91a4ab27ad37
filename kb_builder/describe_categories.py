"""Category descriptions: rounds of requests until every category has its texts or reaches its limit.

The plan depends only on the settings, the categories and earlier answers, never on time or order. So a run
that was killed and is started again plans the same requests, finds those that were answered in the ledger,
asks the rest, and ends with the same table.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.errors import KnowledgeBaseError
from data.files import hash_json
from data.sample import Category
from kb_builder.client import Describer
from kb_builder.describers import PROMPTS, make_describer, make_policy
from kb_builder.gates import CategoryGate, Names, category_names
from kb_builder.ledger import Entry, Ledger, open_ledger
from kb_builder.parse import PARSER_VERSION, parse_text, read_answer
from kb_builder.prompts import Library, Prompt, fill, load_prompts
from kb_builder.request import Request, derived_seed, request_key
from kb_builder.rows import description_row, row_id
from kb_builder.scheduler import ask_all
from kb_builder.schemas import DESCRIPTIONS, read_rows, remove_parts_beyond, write_table
from kb_builder.settings import DescribeCategories
from kb_builder.tokens import count_tokens

log = logging.getLogger(__name__)

# A round asks for what is missing divided by the share kept so far, which is taken to be at least this.
_LOWEST_YIELD = 0.25


@dataclass(frozen=True, slots=True)
class Planned:
    """One request of the plan, with what its row will say about where it came from."""

    request: Request
    key: str
    prompt: Prompt
    opening: str


@dataclass
class _Progress:
    """What is known of one category so far: rows in plan order, rejected ones too."""

    category: Category
    gate: CategoryGate
    rows: list[dict[str, Any]] = field(default_factory=list)


def category_shard_count(kb: Path, settings: DescribeCategories) -> int:
    """How many shards the categories of a knowledge base make."""
    return math.ceil(len(_read_categories(kb)) / (settings.shard_categories or 100))


def describe_category_shard(
    kb: Path, shard: int, settings: DescribeCategories, *, run_id: str
) -> dict[str, Any]:
    """Describe the categories of one shard and write `descriptions/category/part-NNNNN.parquet`.

    Returns counts: categories, requests (of the whole plan), answered_from_ledger, ok, rejected (by status),
    and `saturated`: {category_id: texts} of the categories that reached their request limit first. Raises
    `RunError` where the describer cannot go on; what was answered is kept and the next call goes on from
    there.
    """
    categories = _read_categories(kb)
    mine = categories[
        shard * (settings.shard_categories or 100) : (shard + 1) * (settings.shard_categories or 100)
    ]
    names = category_names(categories)
    states, known = asyncio.run(_describe(kb, mine, names, settings, run_id))
    folder = kb / "descriptions" / "category"
    remove_parts_beyond(
        folder.glob("part-*.parquet"), math.ceil(len(categories) / (settings.shard_categories or 100))
    )
    rows = [row for state in states for row in state.rows]
    write_table(folder / f"part-{shard:05d}.parquet", rows, DESCRIPTIONS)
    statuses = Counter(row["status"] for row in rows)
    return {
        "categories": len(mine),
        "requests": len(rows),
        "answered_from_ledger": known,
        "ok": statuses.pop("ok", 0),
        "rejected": dict(sorted(statuses.items())),
        "saturated": {
            state.category.category_id: state.gate.accepted
            for state in states
            if state.gate.accepted < settings.n
        },
    }


async def _describe(
    kb: Path, categories: list[Category], names: dict[str, Names], settings: DescribeCategories, run_id: str
) -> tuple[list[_Progress], int]:
    describer = make_describer(settings)
    library = load_prompts(PROMPTS[settings.describer])
    states = [_Progress(category, CategoryGate(names[category.category_id])) for category in categories]
    policy = make_policy(settings)
    known = 0
    with tqdm(desc="category descriptions", unit="request", total=0, disable=None) as bar:
        try:
            async with open_ledger(kb) as ledger:
                while planned := _plan_round(states, settings, describer, library):
                    missing = [each.request for _, each in planned if ledger.get(each.key) is None]
                    known += len(planned) - len(missing)
                    bar.total += len(planned)
                    bar.update(len(planned) - len(missing))
                    await ask_all(
                        missing,
                        describer,
                        ledger,
                        policy=policy,
                        run_id=run_id,
                        on_entry=lambda entry: bar.update(),
                    )
                    _add_rows(planned, ledger)
                    _report(states, settings, bar)
                _warn_of_errors(states, ledger)
        finally:
            await describer.close()
    return states, known


def _plan_round(
    states: list[_Progress], settings: DescribeCategories, describer: Describer, library: Library
) -> list[tuple[_Progress, Planned]]:
    """The next requests of every category that still lacks texts; empty when none does, or may ask on."""
    return [
        (state, plan(state.category, index, settings, describer, library))
        for state in states
        for index in _next_indices(state, settings)
    ]


def plan(
    category: Category, index: int, settings: DescribeCategories, describer: Describer, library: Library
) -> Planned:
    """Request number `index` of a category: which prompt, which seed."""
    prompt = library.prompts[index % len(library.prompts)]
    messages, opening = fill(prompt, category)
    request = Request(
        endpoint=describer.endpoint,
        model=describer.model,
        messages=messages,
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_tokens=settings.max_tokens,
        seed=derived_seed(settings.seed, category.category_id, index),
        sample_index=index,
        extra=library.extra,
    )
    return Planned(request, request_key(request), prompt, opening)


def _next_indices(state: _Progress, settings: DescribeCategories) -> range:
    """The next request numbers: as many as should yield what is missing, none beyond the limit."""
    asked, accepted = len(state.rows), state.gate.accepted
    limit = math.ceil(settings.n * settings.max_requests_per_text)
    share = max(accepted / asked, _LOWEST_YIELD) if asked else 1.0
    wanted = math.ceil(max(0, settings.n - accepted) / share)
    return range(asked, min(asked + wanted, limit))


def _add_rows(planned: list[tuple[_Progress, Planned]], ledger: Ledger) -> None:
    """Parse and judge a round's answers in plan order."""
    for state, each in planned:
        entry = ledger.get(each.key)
        if entry is None:
            raise KnowledgeBaseError(f"the ledger lost request {each.key}: was it changed by hand?")
        state.rows.append(_row(state, each, entry))


def _row(state: _Progress, planned: Planned, entry: Entry) -> dict[str, Any]:
    answer = None if entry.answer is None else read_answer(entry.answer)
    finish = "error" if answer is None else answer.finish_reason
    content = None if answer is None else answer.text
    parsed = None if content is None else parse_text(content, opening=planned.opening, finish_reason=finish)
    text = parsed or (content or "").strip()  # a rejected row keeps what the model said
    n_tokens = count_tokens([text])[0]
    verdict = state.gate.judge(
        row_id(planned.key, choice=0, item=0, parser_version=PARSER_VERSION),
        parsed,
        n_tokens=n_tokens,
        refused=finish in {"refusal", "content_filter"},
    )
    request = planned.request
    return description_row(
        kind="category",
        category_id=state.category.category_id,
        text=text,
        n_tokens=n_tokens,
        status=verdict.status,
        dup_of=verdict.dup_of,
        template_id=planned.prompt.template_id,
        template_version=planned.prompt.version,
        aspect=planned.prompt.aspect,
        prompt_hash=hash_json(request.messages),
        request_key=planned.key,
        provider=entry.provider,
        model_requested=request.model,
        model_resolved=(answer.model if answer else None) or request.model,
        temperature=request.temperature,
        top_p=request.top_p,
        max_tokens=request.max_tokens,
        seed=request.seed,
        finish_reason=finish,
        prompt_tokens=answer.prompt_tokens if answer else None,
        completion_tokens=answer.completion_tokens if answer else None,
        attempts=entry.attempts,
        latency_ms=entry.latency_ms,
        created_at=entry.time,
        source=entry.source,
        run_id=entry.run_id,
    )


def _warn_of_errors(states: list[_Progress], ledger: Ledger) -> None:
    """One line for all requests that failed for good; each has its reason in the ledger."""
    keys = [row["request_key"] for state in states for row in state.rows if row["finish_reason"] == "error"]
    if keys:
        first = ledger.get(keys[0])
        log.warning("%d requests failed for good, the first with: %s", len(keys), first and first.error)


def _report(states: list[_Progress], settings: DescribeCategories, bar: Any) -> None:
    accepted = sum(min(state.gate.accepted, settings.n) for state in states)
    wanted = settings.n * len(states)
    bar.set_postfix_str(f"{accepted}/{wanted} texts")
    asked = sum(len(state.rows) for state in states)
    log.info("category descriptions: %d of %d texts after %d requests", accepted, wanted, asked)


def _read_categories(kb: Path) -> list[Category]:
    path = kb / "categories.parquet"
    if not path.is_file():
        raise KnowledgeBaseError(f"{path} is missing: read in a manifest first (`unibind run` does)")
    rows = sorted(read_rows(path), key=lambda row: str(row["category_id"]))
    return [Category(**(row | {"aliases": tuple(row["aliases"])})) for row in rows]

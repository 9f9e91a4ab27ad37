"""Dry run: the requests that stage 1 still has to send, and what they cost at most.

The stages run on the stored answers alone and write into a temporary folder; a request without an answer is
counted instead of sent. So in the middle of a run the forecast is about the requests that are *left*.
"""

from __future__ import annotations

import asyncio
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.show import visible
from kb_builder.added.sources import FOLDER as ADDED
from kb_builder.ask.cost import CostEstimate, estimate, price_of
from kb_builder.ask.ledger import Entry, StoredEntries, read_ledger
from kb_builder.ask.request import Describer, Request, request_json, request_key
from kb_builder.ask.reuse import answered_elsewhere, reused
from kb_builder.describe.categories import (
    category_shard_count,
    describe_category_shards,
    read_categories,
    texts_to_write,
)
from kb_builder.describe.category import CategoryJob, CategorySubject, make_category_job
from kb_builder.describe.confusable import Confusable, find_confusable, ok_texts
from kb_builder.describe.contrasts import contrast_texts
from kb_builder.describe.fill import fill
from kb_builder.describe.prompts import Library, category_library, contrast_items, contrast_library
from kb_builder.describe.samples import describe_sample_shards, sample_shard_count
from kb_builder.describers.choose import make_describer
from kb_builder.describers.media import MediaFiles
from kb_builder.gates.gate import CategoryGate
from kb_builder.gates.names import category_names
from kb_builder.settings import TRAITS, Asking, DescribeCategories, DescribeSamples, Price

_TABLES = ("categories.parquet", "samples.parquet", "given_descriptions.parquet")
_CONTRASTS = "contrasts of confusable categories"
_NOTHING = CostEstimate(0, 0, 0, 0.0)


@dataclass(frozen=True)
class Forecast:
    """The requests that one describe stage has left.

    `expected` assumes that every text passes the gates; `most_requests` is the stage's limit, however many
    texts are rejected. Costs are upper bounds, for answers of full length; None where no price is known.
    """

    stage: str
    model: str
    answered: int
    expected: CostEstimate
    most_requests: int
    most_usd: float | None
    price: Price | None


class _Counter:
    """An `Asker` that sends nothing: looks answers up, and counts the requests that have none."""

    window = 10_000

    def __init__(self, ledger: StoredEntries | None, describer: Describer, settings: Asking) -> None:
        self._describer = describer
        self.model = describer.model
        self.price = price_of(describer.model, settings.price, endpoint=describer.endpoint)
        self.answered = 0
        self.missing = _NOTHING
        self.tried = 0  # requests made before for what the missing ones ask about again
        self._ledger, self._settings = ledger, settings

    async def ask(self, requests: Sequence[Request]) -> list[Entry | None]:
        """The stored entries; None for what would have to be sent."""
        found = self._find(requests)
        missing = [request for request, entry in zip(requests, found, strict=True) if entry is None]
        self.answered += len(found) - len(missing)
        self.tried += sum(request.sample_index for request in missing)
        if missing:
            batch = self._settings.submit == "batch"
            self.missing = _sum(self.missing, estimate(missing, self.price, batch=batch))
        return found

    def _find(self, requests: Sequence[Request]) -> list[Entry | None]:
        ledger = self._ledger
        if ledger is None:
            return [None] * len(requests)
        keys = [request_key(request) for request in requests]
        stored = ledger.get_many(keys)
        for key, request in zip(keys, requests, strict=True):
            if key not in stored and (old := self._otherwise(ledger, request)):
                stored[key] = old
        return [stored.get(key) for key in keys]

    def _otherwise(self, ledger: StoredEntries, request: Request) -> Entry | None:
        """An answer under another key, as the scheduler would find it."""
        aliases = getattr(self._describer, "aliases", ())
        if not aliases and not self._settings.reuse:
            return None
        text = request_json(request)
        old = reused(ledger, text, run_id="") if self._settings.reuse else None
        return old or answered_elsewhere(ledger, text, aliases, run_id="")

    def forecast(self, stage: str, *, expected: int, most: int) -> Forecast:
        """The forecast for this number of requests of the size of the missing ones."""
        left = _scaled(self.missing, expected)
        return Forecast(stage, self.model, self.answered, left, most, _scaled(left, most).usd, self.price)


class _Tally:
    """A `fill.Subject` that counts: the subjects of one category in turn, and the requests they have left."""

    def __init__(self, texts: Sequence[CategorySubject], job: CategoryJob, *, wanted: int) -> None:
        self.expected = self.most = 0
        self.rows: list[dict[str, Any]] = []
        self._texts = list(texts)
        self._wanted, self._items = wanted, job.items
        self._limit = math.ceil(wanted * job.settings.max_requests_per_text / job.items)
        self._missing = 0

    def plan(self) -> list[Request]:
        """The next round. A subject whose answers are missing does not keep the next from being counted."""
        while self._texts:
            if requests := self._texts[0].plan():
                return requests
            self._count(self._texts.pop(0))
        return []

    def absorb(self, entries: list[Entry | None]) -> None:
        """Judge the answers found."""
        self._missing = sum(entry is None for entry in entries)
        self._texts[0].absorb(entries)

    def _count(self, texts: CategorySubject) -> None:
        if not texts.abandoned:  # full, saturated or at its limit
            return
        most = self._limit - texts.spending.requests
        lacking = math.ceil(max(0, self._wanted - texts.ok) / self._items)
        self.expected += min(max(self._missing, lacking), most)
        self.most += most


def forecast(
    kb: Path,
    data_root: Path,
    categories: DescribeCategories,
    samples: DescribeSamples,
    *,
    encoder: str,
) -> list[Forecast]:
    """The requests left in each describe stage that sends any.

    Raises KnowledgeBaseError where nothing was ingested yet, or the ledger cannot be read.
    """
    with read_ledger(kb, checked=True) as ledger:
        found = [_categories(kb, ledger, categories, encoder)]
        library = contrast_library(categories, kb)
        if categories.contrast_pairs and library is not None:
            found.append(
                _likely_contrasts(kb, categories, library, encoder)
                if found[0].expected.requests
                else _contrasts(kb, ledger, categories, library, encoder)
            )
        traits = TRAITS[samples.describer]
        if traits.asks_model and not traits.placeholder:
            found.append(_samples(kb, data_root, ledger, samples, encoder))
    return found


def to_text(forecasts: Sequence[Forecast]) -> str:
    """The forecasts in words, and their total."""
    lines = []
    for each in forecasts:
        left = each.expected
        tokens = f"{left.prompt_tokens:,} tokens to send{' (estimated)' if left.prompt_tokens else ''}"
        if left.completion_tokens_max is not None:
            tokens += f" and at most {left.completion_tokens_max:,} to get"
        lines += [
            f"{each.stage} ({visible(each.model)})",
            f"  {each.answered:,} requests are answered already",
            f"  {left.requests:,} are left if every text is kept, {each.most_requests:,} at most: {tokens}",
            f"  {_cost(each)}",
        ]
        if each.price is not None:
            lines.append(f"  prices of {each.price.date}")
    known = [each.most_usd for each in forecasts]
    total = None if None in known else sum(cost for cost in known if cost is not None)
    requests = sum(each.most_requests for each in forecasts)
    lines.append(f"in all at most {requests:,} requests, {_dollars(total)}")
    return "\n".join(lines)


def _categories(
    kb: Path, ledger: StoredEntries | None, settings: DescribeCategories, encoder: str
) -> Forecast:
    describer = make_describer(settings)
    job = make_category_job(settings, describer, category_library(settings, kb), encoder=encoder, started=0)
    categories = read_categories(kb)
    names = category_names(categories)
    wanted = texts_to_write(kb, categories, job)
    texts = (
        [
            CategorySubject(
                category,
                CategoryGate(names[category.category_id], job.rules),
                job,
                wanted=wanted[category.category_id],
            )
        ]
        for category in categories
    )
    counter = _Counter(ledger, describer, settings)
    return _count("category descriptions", counter, texts, job, wanted=settings.n)


def _contrasts(
    kb: Path, ledger: StoredEntries | None, settings: DescribeCategories, library: Library, encoder: str
) -> Forecast:
    """The first pass is answered: its texts, in a temporary folder, show which categories are confusable."""
    describer, job = _contrast_job(settings, library, encoder)
    categories = read_categories(kb)
    counter = _Counter(ledger, describer, settings)
    with _scratch(kb) as scratch:
        describe_category_shards(
            scratch,
            range(category_shard_count(scratch, settings)),
            settings,
            run_id="",
            asker=_Counter(ledger, describer, settings),
            encoder=encoder,
        )
        found = find_confusable(scratch, pairs=settings.contrast_pairs)
        texts = contrast_texts(ok_texts(scratch), categories, found, job)
        return _count(_CONTRASTS, counter, texts, job, wanted=settings.contrast_texts)


def _likely_contrasts(kb: Path, settings: DescribeCategories, library: Library, encoder: str) -> Forecast:
    """Before the first pass the confusable pairs are unknown: each category is paired with the next by id."""
    describer, job = _contrast_job(settings, library, encoder)
    categories = read_categories(kb)
    wanted = texts_to_write(kb, categories, job)
    ids = [category.category_id for category in categories if wanted[category.category_id]]
    found = [
        Confusable(one, ids[(place + step) % len(ids)], mixing=0.0, cosine=0.0)
        for place, one in enumerate(ids)
        for step in range(1, min(settings.contrast_pairs, len(ids) - 1) + 1)
    ]
    texts = contrast_texts([(each, {}) for each in ids], categories, found, job)
    counter = _Counter(None, describer, settings)
    stage = f"{_CONTRASTS} (not looked up in the ledger before the first pass is done)"
    return _count(stage, counter, texts, job, wanted=settings.contrast_texts)


def _contrast_job(
    settings: DescribeCategories, library: Library, encoder: str
) -> tuple[Describer, CategoryJob]:
    describer = make_describer(settings)
    items = contrast_items(settings)
    return describer, make_category_job(settings, describer, library, encoder=encoder, started=0, items=items)


def _count(
    stage: str,
    counter: _Counter,
    texts: Iterable[Sequence[CategorySubject]],
    job: CategoryJob,
    *,
    wanted: int,
) -> Forecast:
    """Plan these subjects, those of one category after each other, and add up the requests they have left."""
    expected = most = 0

    def finish(tally: _Tally) -> None:
        nonlocal expected, most
        expected += tally.expected
        most += tally.most

    asyncio.run(fill((_Tally(each, job, wanted=wanted) for each in texts), counter, on_done=finish))
    return counter.forecast(stage, expected=expected, most=most)


def _samples(
    kb: Path, data_root: Path, ledger: StoredEntries | None, settings: DescribeSamples, encoder: str
) -> Forecast:
    counter = _Counter(ledger, make_describer(settings, files=MediaFiles(data_root, ())), settings)
    with _scratch(kb) as scratch:
        describe_sample_shards(
            scratch,
            data_root,
            range(sample_shard_count(scratch, settings)),
            settings,
            run_id="",
            asker=counter,
            encoder=encoder,
        )
    left = counter.missing.requests
    return counter.forecast("sample descriptions", expected=left, most=left * settings.tries - counter.tried)


@contextmanager
def _scratch(kb: Path) -> Iterator[Path]:
    """A temporary knowledge base of categories, samples and added texts alone."""
    with tempfile.TemporaryDirectory(prefix="unibind-dry-run-") as folder:
        for table in _TABLES:
            if (kb / table).is_file():
                shutil.copy(kb / table, folder)
        if (kb / ADDED).is_dir():
            shutil.copytree(kb / ADDED, Path(folder) / ADDED)
        yield Path(folder)


def _sum(one: CostEstimate, other: CostEstimate) -> CostEstimate:
    most = (one.completion_tokens_max, other.completion_tokens_max)
    return CostEstimate(
        one.requests + other.requests,
        one.prompt_tokens + other.prompt_tokens,
        None if most[0] is None or most[1] is None else most[0] + most[1],
        None if one.usd is None or other.usd is None else one.usd + other.usd,
    )


def _scaled(measured: CostEstimate, requests: int) -> CostEstimate:
    """The estimate for this number of requests of the size of the measured ones."""
    share = requests / measured.requests if measured.requests else 0.0
    most = measured.completion_tokens_max
    return CostEstimate(
        requests if measured.requests else 0,
        round(measured.prompt_tokens * share),
        None if most is None else round(most * share),
        None if measured.usd is None else measured.usd * share,
    )


def _cost(forecast: Forecast) -> str:
    if forecast.most_usd is not None:
        most = f"{_dollars(forecast.most_usd)} if as many are rejected as may be"
        return f"{_dollars(forecast.expected.usd)}, and {most}"
    if forecast.price is None:
        return "cost unknown: no price for this model (set `price` in the project file)"
    return "cost unknown: no price for what is sent beside words (pictures: set `image_tokens` in `price`)"


def _dollars(usd: float | None) -> str:
    """Whole cents, rounded up: an upper bound stays one."""
    return "cost unknown" if usd is None else f"at most ${math.ceil(round(usd * 100, 6)) / 100:,.2f}"

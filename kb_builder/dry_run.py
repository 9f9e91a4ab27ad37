"""What stage 1 would ask and cost, told before anything is sent.

The plan is carried out against the stored answers alone, into a folder that is thrown away: what is not in
the ledger yet is counted instead of sent. So after a pause the answer is what is *left*.
"""

from __future__ import annotations

import math
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import duckdb

from kb_builder.category_texts import contrast_library, texts_per_request
from kb_builder.cost import Estimate, estimate, price_of
from kb_builder.describe_categories import category_shard_count, describe_category_shards
from kb_builder.describe_samples import describe_sample_shards, sample_shard_count
from kb_builder.describers import make_describer
from kb_builder.ledger import Entry
from kb_builder.request import Request, request_key
from kb_builder.settings import Asking, DescribeCategories, DescribeSamples, Price

_TABLES = ("categories.parquet", "samples.parquet", "given_descriptions.parquet")
_FREE = frozenset({"facts", "fake", "none"})  # sample describers that ask nobody
_COLUMNS = ", ".join(field.name for field in fields(Entry))


@dataclass(frozen=True)
class Forecast:
    """What one describe stage has left to ask.

    `expected` is for every text passing the gates; `most_requests` is where the stage stops asking however
    many are rejected. Costs are upper bounds for answers at full length; None where no price is known.
    """

    stage: str
    model: str
    answered: int
    expected: Estimate
    most_requests: int
    most_usd: float | None
    price: Price | None


class _Counter:
    """An asker that sends nothing: it looks answers up, and counts the requests that have none."""

    window = 10_000

    def __init__(self, ledger: Path, price: Price | None, *, batch: bool) -> None:
        self.answered = 0
        self.missing = Estimate(0, 0, 0, 0.0, True)
        self._ledger, self._price, self._batch = ledger, price, batch

    async def ask(self, requests: Sequence[Request]) -> list[Entry | None]:
        """The stored entries; None for what would have to be sent."""
        found = self._find([request_key(request) for request in requests])
        missing = [request for request, entry in zip(requests, found, strict=True) if entry is None]
        self.answered += len(found) - len(missing)
        self.missing = _sum(self.missing, estimate(missing, self._price, batch=self._batch))
        return found

    def _find(self, keys: list[str]) -> list[Entry | None]:
        if not self._ledger.is_file():
            return [None] * len(keys)
        with closing(sqlite3.connect(f"{self._ledger.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            query = f"SELECT {_COLUMNS} FROM entries WHERE key = ?"
            rows = [connection.execute(query, (key,)).fetchone() for key in keys]
        return [row and Entry(*row) for row in rows]


def forecast(
    kb: Path,
    data_root: Path,
    categories: DescribeCategories,
    samples: DescribeSamples,
    *,
    encoder: str,
) -> list[Forecast]:
    """The describe stages that ask somebody, with what each has left to ask."""
    found = [_categories(kb, categories, encoder)]
    if categories.contrast_pairs and contrast_library(categories) is not None:
        found.append(_contrasts(kb, categories, found[0]))
    if samples.describer not in _FREE:
        found.append(_samples(kb, data_root, samples, encoder))
    return found


def tell(forecasts: Sequence[Forecast]) -> str:
    """The forecasts in words, and their sum."""
    lines = []
    for each in forecasts:
        left = each.expected
        tokens = f"{left.prompt_tokens:,} tokens to send{'' if left.exact_tokens else ' (estimated)'}"
        if left.completion_tokens_max is not None:
            tokens += f" and at most {left.completion_tokens_max:,} to get"
        lines += [
            f"{each.stage} ({each.model})",
            f"  {each.answered:,} requests are answered already",
            f"  {left.requests:,} are left if every text is kept, {each.most_requests:,} at most: {tokens}",
            f"  {_dollars(left.usd)}, and {_dollars(each.most_usd)} if as many are rejected as may be"
            if each.price is not None
            else "  cost unknown: no price for this model (set `price` in the project file)",
        ]
        if each.price is not None:
            lines.append(f"  prices of {each.price.date}")
    known = [each.most_usd for each in forecasts]
    total = None if None in known else sum(cost for cost in known if cost is not None)
    requests = sum(each.most_requests for each in forecasts)
    lines.append(
        f"in all at most {requests:,} requests"
        + (f", {_dollars(total)}" if total is not None else ", cost unknown")
    )
    return "\n".join(lines)


def _categories(kb: Path, settings: DescribeCategories, encoder: str) -> Forecast:
    counter, price, model = _counter(kb, settings)
    with _scratch(kb) as scratch:
        shards = range(category_shard_count(scratch, settings))
        describe_category_shards(
            scratch, shards, settings, run_id="", on_shard=_ignore, asker=counter, encoder=encoder
        )
        count = duckdb.sql(f"SELECT count(*) FROM '{scratch}/categories.parquet'").fetchall()[0][0]
        kept = f"""
            SELECT coalesce(sum(least(ok, {settings.n})), 0) FROM (
                SELECT count(*) FILTER (status = 'ok') AS ok
                FROM '{scratch}/descriptions/category/*.parquet' GROUP BY category_id
            )
        """
        ok = int(duckdb.sql(kept).fetchall()[0][0])
    items = texts_per_request(settings)
    lacking = math.ceil((count * settings.n - ok) / items) if counter.missing.requests else 0
    limit = math.ceil(settings.n * settings.max_requests_per_text / items) * count
    most = max(lacking, limit - counter.answered) if counter.missing.requests else 0
    expected = _scaled(counter.missing, max(lacking, counter.missing.requests))
    return Forecast(
        "category descriptions",
        model,
        counter.answered,
        expected,
        most,
        _scaled(expected, most).usd,
        price,
    )


def _contrasts(kb: Path, settings: DescribeCategories, first: Forecast) -> Forecast:
    """Who is confusable is known only after the first pass: as many requests, of the first pass's size."""
    count = duckdb.sql(f"SELECT count(*) FROM '{kb}/categories.parquet'").fetchall()[0][0]
    items = min(texts_per_request(settings), settings.contrast_texts)
    pairs = count * min(settings.contrast_pairs, max(0, count - 1))
    requests = pairs * math.ceil(settings.contrast_texts / items)
    expected = _scaled(first.expected, requests)
    most = pairs * math.ceil(settings.contrast_texts * settings.max_requests_per_text / items)
    return Forecast(
        "contrasts of confusable categories (not looked up in the ledger)",
        first.model,
        0,
        expected,
        most,
        _scaled(first.expected, most).usd,
        first.price,
    )


def _samples(kb: Path, data_root: Path, settings: DescribeSamples, encoder: str) -> Forecast:
    counter, price, model = _counter(kb, settings)
    with _scratch(kb) as scratch:
        shards = range(sample_shard_count(scratch, settings))
        describe_sample_shards(
            scratch,
            data_root,
            shards,
            settings,
            run_id="",
            on_shard=_ignore,
            asker=counter,
            encoder=encoder,
        )
    most = counter.missing.requests * settings.tries
    return Forecast(
        "sample descriptions",
        model,
        counter.answered,
        counter.missing,
        most,
        _scaled(counter.missing, most).usd,
        price,
    )


def _counter(kb: Path, settings: Any) -> tuple[_Counter, Price | None, str]:
    asking: Asking = settings
    describer = make_describer(settings)
    price = price_of(asking.model, asking.price, endpoint=describer.endpoint)
    counter = _Counter(kb / "ledger.sqlite", price, batch=asking.submit == "batch")
    return counter, price, describer.model


@contextmanager
def _scratch(kb: Path) -> Iterator[Path]:
    """A knowledge base of categories and samples alone, for the time of one question."""
    with tempfile.TemporaryDirectory(prefix="unibind-dry-run-") as folder:
        for table in _TABLES:
            if (kb / table).is_file():
                shutil.copy(kb / table, folder)
        yield Path(folder)


def _ignore(shard: int, summary: dict[str, Any]) -> None:
    pass


def _sum(one: Estimate, other: Estimate) -> Estimate:
    most = (one.completion_tokens_max, other.completion_tokens_max)
    return Estimate(
        one.requests + other.requests,
        one.prompt_tokens + other.prompt_tokens,
        None if most[0] is None or most[1] is None else most[0] + most[1],
        None if one.usd is None or other.usd is None else one.usd + other.usd,
        one.exact_tokens and other.exact_tokens,
    )


def _scaled(measured: Estimate, requests: int) -> Estimate:
    """The estimate for so many requests of the size of those that were measured."""
    share = requests / measured.requests if measured.requests else 0.0
    most = measured.completion_tokens_max
    return Estimate(
        requests if measured.requests else 0,
        round(measured.prompt_tokens * share),
        None if most is None else round(most * share),
        None if measured.usd is None else measured.usd * share,
        measured.exact_tokens and share in {0.0, 1.0},
    )


def _dollars(usd: float | None) -> str:
    return "cost unknown" if usd is None else f"at most ${usd:,.2f}"

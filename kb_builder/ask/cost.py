"""Costs: prices, the cost of an answer, the worst case of a request, and the estimate of a plan.

Unknown amounts are None, never a guess: for a model without a price, an answer without usage, or a picture
without `image_tokens`.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from data.files import canonical_json
from kb_builder.ask.ledger import Entry
from kb_builder.ask.request import OPENAI_URL, Media, Request, endpoint_identity
from kb_builder.settings import Price

OPENAI = endpoint_identity(OPENAI_URL)

_MILLION = 1e6
_MOST_TOKENS = 2**31 - 1  # of one answer; larger counts are errors
_LETTERS_PER_TOKEN = 4.0  # of English prose, roughly, in all common tokenizers
_TOKENS_PER_MESSAGE = 4  # role and separators
_MOST_TOKENS_PER_MESSAGE = 32


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """Tokens of a request: of its prompt, estimated from its length without media, and of its answer at most.

    `completion_max`: None for a request without max_tokens.
    """

    prompt: int
    completion_max: int | None


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """Cost of a plan whose answers all have their full length. `prompt_tokens` is an estimate."""

    requests: int
    prompt_tokens: int
    completion_tokens_max: int | None
    usd: float | None


@dataclass(frozen=True, slots=True)
class Usage:
    """The token counts that an answer reports."""

    prompt_tokens: int
    completion_tokens: int


def price_of(model: str | None, given: Price | None, *, endpoint: str = OPENAI) -> Price | None:
    """The price given in the project file, else that of prices.toml for OpenAI's own models, else None."""
    if given is not None:
        return given
    return _prices().get(model) if model is not None and endpoint == OPENAI else None


@cache
def _prices() -> dict[str, Price]:
    table = tomllib.loads((files(__package__) / "prices.toml").read_text(encoding="utf-8"))
    prices = {name: Price(**row, date=table["date"]) for name, row in table["models"].items()}
    return prices | {name: prices[same] for name, same in table["same"].items()}


def cost(
    price: Price | None, prompt_tokens: int | None, completion_tokens: int | None, *, batch: bool = False
) -> float | None:
    """The cost of these tokens in US dollars; None where the price or a count is not known."""
    if price is None or prompt_tokens is None or completion_tokens is None:
        return None
    share = price.batch_share if batch else 1.0
    return share * (price.input * prompt_tokens + price.output * completion_tokens) / _MILLION


def usage_of(body: str) -> Usage | None:
    """The usage that an answer (JSON text) reports, or None."""
    usage = json.loads(body).get("usage")
    if not isinstance(usage, dict):
        return None
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    return None if prompt is None or completion is None else Usage(prompt, completion)


def _count(value: Any) -> int | None:
    """A plausible number of tokens, else None. `true` is not a number here."""
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None


def worst_case(price: Price, request: Request, *, batch: bool = False) -> float | None:
    """The most that a request can cost in US dollars; None where nothing bounds it.

    A token is at least one byte of text. So the bytes of messages and response format bound the prompt's
    tokens; `Price.image_tokens` bounds a picture's, and `max_tokens` times `n` the answer's. Sound and video
    have no bound.
    """
    if request.max_tokens is None:
        return None
    prompt = len(canonical_json(dict(request.extra)).encode()) if request.extra else 0
    for role, content in request.messages:
        prompt += len(role) + _MOST_TOKENS_PER_MESSAGE
        for part in (content,) if isinstance(content, str) else content:
            tokens = len(part.encode()) if isinstance(part, str) else _media_tokens(price, part)
            if tokens is None:
                return None
            prompt += tokens
    return cost(price, prompt, request.max_tokens * _choices(request), batch=batch)


def _media_tokens(price: Price, media: Media) -> int | None:
    return price.image_tokens if media.kind == "image" else None


def estimate_tokens(request: Request) -> TokenEstimate:
    """The tokens of a request, at four letters per token. Media are not counted."""
    prompt = 0.0
    if request.extra:
        prompt += len(canonical_json(dict(request.extra))) / _LETTERS_PER_TOKEN
    for _, content in request.messages:
        prompt += _TOKENS_PER_MESSAGE
        for part in (content,) if isinstance(content, str) else content:
            if isinstance(part, str):
                prompt += len(part) / _LETTERS_PER_TOKEN
    most = None if request.max_tokens is None else request.max_tokens * _choices(request)
    return TokenEstimate(round(prompt), most)


def estimate(requests: Iterable[Request], price: Price | None, *, batch: bool) -> CostEstimate:
    """The cost of a plan, whose requests are read once, one at a time."""
    count = prompt = pictures = 0
    most: int | None = 0
    bounded = True
    for request in requests:
        tokens = estimate_tokens(request)
        count += 1
        prompt += tokens.prompt
        most = None if most is None or tokens.completion_max is None else most + tokens.completion_max
        for media in _media(request):
            known = _media_tokens(price, media) if price is not None else None
            bounded = bounded and known is not None
            pictures += known or 0
    usd = cost(price, prompt + pictures, most, batch=batch) if bounded else None
    return CostEstimate(count, prompt + pictures, most, usd)


def _media(request: Request) -> list[Media]:
    return [
        part
        for _, content in request.messages
        if not isinstance(content, str)
        for part in content
        if isinstance(part, Media)
    ]


def _choices(request: Request) -> int:
    return int(request.extra.get("n") or 1)


@dataclass
class Spending:
    """Requests and costs of one category. A cost is unknown (None) as soon as one entry's is."""

    requests: int = 0
    known: int = 0  # of these, answered from the ledger
    spent_usd: float | None = 0.0
    saved_usd: float | None = 0.0

    def count(self, entry: Entry, *, started: int) -> None:
        """Add one answered request."""
        self.requests += 1
        if entry.created_at < started:
            self.known += 1
            self.saved_usd = add_cost(self.saved_usd, entry.cost_usd)
        else:
            self.spent_usd = add_cost(self.spent_usd, entry.cost_usd)


def add_cost(one: float | None, other: float | None) -> float | None:
    """The sum; None where either is None."""
    return None if one is None or other is None else one + other

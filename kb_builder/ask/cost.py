"""What requests cost: prices, the cost of an answer, the most a request may cost, and the estimate of a plan.

What is not known is None, never a guess: a model without a price, an answer without usage, a picture whose
tokens nobody tells.
"""

from __future__ import annotations

import json
import os
import tempfile
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data.files import canonical_json, hash_file
from kb_builder.ask.ledger import Entry
from kb_builder.ask.request import OPENAI_URL, Media, Request, endpoint_identity
from kb_builder.settings import Price

OPENAI = endpoint_identity(OPENAI_URL)

_MILLION = 1e6
_MOST_TOKENS = 2**31 - 1  # of one answer: what says more knows nothing of it
_LETTERS_PER_TOKEN = 4.0  # of English prose, by all common tokenizers, more or less
_TOKENS_PER_MESSAGE = 4  # role and separators
_MOST_TOKENS_PER_MESSAGE = 32
# Names of tiktoken's files in its cache (SHA-1 of their addresses), and the SHA-256 of their contents.
_VOCABULARIES = {
    "cl100k_base": (
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
    "o200k_base": (
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
}


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """The tokens of a request. `completion_max` is None where it has no max_tokens.

    `known`: the prompt was counted with the model's own tokenizer; else it is a guess by its length. Media
    are not in it.
    """

    prompt: int
    completion_max: int | None
    known: bool


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """What a plan may cost: at most `usd`, if `prompt_tokens` is right, for every answer at full length."""

    requests: int
    prompt_tokens: int
    completion_tokens_max: int | None
    usd: float | None
    exact_tokens: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer says that it used."""

    prompt_tokens: int
    completion_tokens: int


def price_of(model: str | None, given: Price | None, *, endpoint: str = OPENAI) -> Price | None:
    """The project's own price, else the packaged one of OpenAI's model, else None."""
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
    """US dollars for so many tokens, or None where the price or a count is not known."""
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
    """A number of tokens, if it is one: `true` is none, nor is what no answer can have."""
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None


def worst_case(price: Price, request: Request, *, batch: bool = False) -> float | None:
    """The most that a request can cost, or None where nothing bounds it.

    A token is one byte of text at least, so the bytes of messages and response format bound the prompt's
    tokens, `Price.image_tokens` bounds a picture's, and `max_tokens` times `n` the answer's. Sound and video
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
    """The tokens of a request's words, by the model's own tokenizer where that is on this machine."""
    tokenizer = _tokenizer(request.model) if request.endpoint == OPENAI else None
    prompt = 0.0
    if request.extra:
        prompt += len(canonical_json(dict(request.extra))) / _LETTERS_PER_TOKEN
    for _, content in request.messages:
        prompt += _TOKENS_PER_MESSAGE
        for part in (content,) if isinstance(content, str) else content:
            if isinstance(part, str):
                prompt += (
                    len(tokenizer.encode_ordinary(part)) if tokenizer else len(part) / _LETTERS_PER_TOKEN
                )
    most = None if request.max_tokens is None else request.max_tokens * _choices(request)
    return TokenEstimate(round(prompt), most, tokenizer is not None)


def estimate(requests: Iterable[Request], price: Price | None, *, batch: bool) -> CostEstimate:
    """What a plan may cost: read once, one request at a time."""
    count = prompt = pictures = 0
    most: int | None = 0
    exact = bounded = True
    for request in requests:
        tokens = estimate_tokens(request)
        count += 1
        prompt += tokens.prompt
        exact = exact and tokens.known
        most = None if most is None or tokens.completion_max is None else most + tokens.completion_max
        for media in _media(request):
            known = _media_tokens(price, media) if price is not None else None
            bounded = bounded and known is not None
            pictures += known or 0
    usd = cost(price, prompt + pictures, most, batch=batch) if bounded else None
    return CostEstimate(count, prompt + pictures, most, usd, exact and not pictures and bounded)


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


@cache
def _tokenizer(model: str) -> Any:
    """tiktoken's encoding of an OpenAI model, or None. Never downloads: only what is in its cache is used."""
    if find_spec("tiktoken") is None:
        return None
    tiktoken = import_module("tiktoken")
    try:
        name = tiktoken.encoding_name_for_model(model)
    except KeyError:
        return None
    folder = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    cached, digest = _VOCABULARIES.get(name, ("", ""))
    path = Path(folder or Path(tempfile.gettempdir()) / "data-gym-cache") / cached
    if not cached or not path.is_file() or hash_file(path) != digest:  # tiktoken would fetch it
        return None
    return tiktoken.get_encoding(name)


@dataclass
class Spending:
    """Requests and money of one category; a cost is None as soon as one entry's is."""

    requests: int = 0
    known: int = 0  # of them, answered from the ledger
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
    """The sum; unknown where either is."""
    return None if one is None or other is None else one + other

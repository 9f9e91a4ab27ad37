"""The settings of stage 1. Each class is one section of the project file; extra keys are refused there."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from datetime import date
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import AfterValidator, BeforeValidator

Count = Annotated[int, Ge(1)]
Share = Annotated[float, Gt(0), Le(1)]
Seconds = Annotated[float, Gt(0)]
Dollars = Annotated[float, Ge(0)]
# TOML has no null: "off" in a project file says None.
OrOff = BeforeValidator(lambda value: None if value == "off" else value)


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("must be the name of a variable; the key itself belongs into none of these files")
    return name


def _address(url: str) -> str:
    """No message repeats the address: it may hold a password."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        usable = False
    if not usable:
        raise ValueError('must be an address such as "http://127.0.0.1:8000/v1"; leave it out for OpenAI')
    if parts.username is not None or parts.password is not None:
        raise ValueError("must hold no user name and no password: the key is read from `api_key_env`")
    return url


def _day(value: object) -> object:
    """TOML has dates of its own; a text must be one."""
    if isinstance(value, date):
        return value.isoformat()[:10]
    if isinstance(value, str):
        date.fromisoformat(value)  # its ValueError says what is wrong
    return value


Variable = Annotated[str, AfterValidator(_variable)]
Address = Annotated[str, AfterValidator(_address)]
Aspect = Literal["look", "shape", "material", "sound", "heat", "motion", "event", "use"]
Day = Annotated[str, BeforeValidator(_day)]


@dataclass(frozen=True)
class Price:
    """What a model costs, in US dollars per million tokens, and when that was true: `price = {...}`."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (read by pydantic at the project file's edge)

    input: Dollars
    output: Dollars
    date: Day  # YYYY-MM-DD
    batch_share: Share = 0.5  # what a batch costs, as a share of the price online
    image_tokens: Annotated[int, Ge(0)] | None = (
        None  # at most so many input tokens per picture; None: unknown
    )


@dataclass(frozen=True)
class Asking:
    """Whom to ask, and how hard: the keys that `[describe.categories]` and `[describe.samples]` share."""

    model: str | None = None  # required for `openai`; a folder or hub name for `llava`
    base_url: Address | None = None  # any OpenAI-compatible endpoint; None is OpenAI itself
    api_key_env: Variable = "OPENAI_API_KEY"  # the variable that holds the key; the key is never stored
    temperature: Annotated[float, Ge(0), Le(2)] = 0.9
    top_p: Share = 0.95
    max_tokens: Count = 40  # per text; a request for several texts may use as many times more
    seed: int = 0
    language: Annotated[Literal["en"] | None, OrOff] = "en"  # others are rejected; "off" keeps them all
    submit: Literal["online", "batch"] = "online"  # batch: OpenAI's Batch API, cheaper, up to a day later
    concurrency: Annotated[int, Ge(1), Le(1024)] | None = None  # in flight at most; None: the describer's own
    requests_per_minute: Count | None = None  # None: what the endpoint's headers say, if anything
    tokens_per_minute: Count | None = None
    request_timeout_s: Seconds = 120.0  # total deadline of one request, retries included
    outage_s: Seconds = 1800.0  # an endpoint that answers nothing for so long stops the run (resumable)
    budget_usd: Dollars | None = None  # never spend more, over all runs of this knowledge base
    price: Price | None = None  # None: kb_builder/prices.toml; a model that is not in it has no known price
    reuse: bool = False  # when only max_tokens grew: ask again only what was cut off by the old limit


# These say how a run goes about its work; no answer and no row depends on them.
_ONLY_HOW = frozenset(
    {
        "api_key_env",
        "submit",
        "concurrency",
        "requests_per_minute",
        "tokens_per_minute",
        "request_timeout_s",
        "outage_s",
        "budget_usd",
        "price",
        "reuse",  # a reused answer is recorded under the new request's key: later runs find it there
    }
)


@dataclass(frozen=True)
class DescribeCategories(Asking):
    """How category descriptions are written: `[describe.categories]`."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    describer: Literal["local", "openai", "fake"] = "local"
    n: Count = 50  # unique valid texts wanted per category
    aspects: Annotated[tuple[Aspect, ...], MinLen(1)] | None = None  # asked about; None: what samples show
    items: Count | None = None  # texts per request; None: 10 for `openai`, 1 for the others
    max_requests_per_text: Annotated[float, Ge(1)] = 6.0  # asks for at most n × this many texts per category
    saturated_below: Annotated[int, Ge(0), Le(100)] = 10  # stop at fewer new texts per 100 asked for
    near_jaccard: Share = 0.7  # near duplicate: character 3-grams that alike ...
    near_cosine: Annotated[Share | None, OrOff] = 0.95  # ... or embeddings that alike; "off": not compared
    contrast_pairs: Annotated[int, Ge(0)] = 1  # most confusable categories to set each one apart from
    contrast_texts: Count = 5  # texts wanted for each such pair
    shard_categories: Count | None = None  # per shard (a task and a file); None: about 1,000 requests


@dataclass(frozen=True)
class DescribeSamples(Asking):
    """How sample descriptions are written: `[describe.samples]`.

    A description given in the manifest always wins over a describer's.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    describer: Literal["facts", "facts+llm", "openai", "llava", "fake", "none"] = "facts"
    llm: Literal["local", "openai"] = "local"  # who phrases the facts of `facts+llm`
    max_tokens: Count = 80
    tries: Count = 3  # requests per sample until a text passes the gates
    max_side: Annotated[int, Ge(64), Le(4096)] = 768  # pixels of the longer side of a picture that is sent
    native: tuple[Literal["audio", "video"], ...] = ()  # sent as they are, where the endpoint takes them
    batch_size: Count = 8  # `llava`: samples per forward pass
    device: str = "auto"  # `llava`: cpu, cuda, cuda:1 ...
    shard_samples: Count = 1000  # samples per shard (one Prefect task, one Parquet file)


def what(settings: Asking) -> dict[str, Any]:
    """The settings that rows depend on: what makes a finished stage out of date when it changes."""
    return {f.name: getattr(settings, f.name) for f in fields(settings) if f.name not in _ONLY_HOW}


@dataclass(frozen=True)
class Encode:
    """Which frozen encoders make the vectors: `[encode]`."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    text: str = "minilm"  # or clip:FOLDER ... (docs/models.md), or any sentence-transformers model
    samples: str = "efficientnet-lite0"  # features of every modality's renderings, mapped by the heads
    zero_shot: Annotated[str | None, OrOff] = "conse"  # shares the text space without training; or "off"
    dtype: Literal["float16", "float32"] = "float16"  # of the stored vectors; computed with in float32
    device: str = "auto"  # cpu, cuda (every one), cuda:0,cuda:2 ...; auto: CUDA where there is one
    batch_size: Count = 64

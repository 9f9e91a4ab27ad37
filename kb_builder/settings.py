"""The settings of stage 1. Each class is one section of the project file; extra keys are refused there."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import AfterValidator, BeforeValidator

Count = Annotated[int, Ge(1)]
Share = Annotated[float, Gt(0), Le(1)]
Seconds = Annotated[float, Gt(0)]
Dollars = Annotated[float, Ge(0)]
# TOML has no null: "off" in a project file says None.
OrOff = BeforeValidator(lambda value: None if value == "off" else value)

OFF = "off"
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_SECRET = re.compile(
    r"(?i)(?:x[-_])?(?:api[-_]?key|apikey|authorization|password|secret|(?:access|auth|bearer)[-_]?token)"
)
# What `extra` may not say: fields that a request is made of, and what would change the form of its answer.
_OURS = {
    "model": "set `model` in the section itself",
    "messages": "the prompts are the program's own",
    "stream": "answers are read whole",
    "stream_options": "answers are read whole",
    "n": "every request asks for one answer",
}


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("must be the name of a variable; the key itself belongs into none of these files")
    return name


def _sent_as(value: object) -> object:
    if value is not None and not isinstance(value, str):
        raise ValueError(
            '"off", or the name by which the endpoint knows it; a value belongs into the section itself, '
            "beside `model`"
        )
    if isinstance(value, str) and not _FIELD.fullmatch(value):
        raise ValueError(f'{value!r} is no name of a parameter; write "off" to leave it out')
    return value


def _further(value: object) -> object:
    """Fields of a JSON body, which may hold neither a secret nor what the program itself has to send."""
    if not isinstance(value, Mapping):
        raise ValueError('must be a table such as { reasoning_effort = "low" }')
    for name in value:
        if name in _OURS:
            raise ValueError(f"may not hold `{name}`: {_OURS[name]}")
    _check_json(value, ())
    return value


def _check_json(value: object, keys: tuple[str, ...]) -> None:
    where = ".".join(keys)
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if _SECRET.fullmatch(str(name)):
                raise ValueError(
                    f"`{'.'.join((*keys, str(name)))}` looks like a secret, and would be stored with every "
                    "request; the key is read from `api_key_env`"
                )
            _check_json(inner, (*keys, str(name)))
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_json(inner, keys)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"`{where}` is {value}: JSON has no such number")
    elif value is not None and not isinstance(value, str | int | float | bool):
        raise ValueError(f"`{where}` is a {type(value).__name__}: JSON has no such value; write it as a text")


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


def _addresses(value: object) -> object:
    """One address or a list of them; no message repeats one, since its query may hold a secret."""
    if value is None or isinstance(value, str):
        return value if value is None else _address(value)
    if not isinstance(value, list | tuple) or not all(isinstance(url, str) for url in value):
        raise ValueError('must be an address, or a list of them: ["http://a:8000/v1", "http://b:8000/v1"]')
    if not value:
        raise ValueError("names no address; leave it out for OpenAI")
    urls = tuple(map(_address, value))
    ends = [url.rstrip("/").lower() for url in urls]
    if len(set(ends)) < len(ends):
        raise ValueError("names the same address twice")
    return urls


def _table(value: object) -> object:
    if value is None or isinstance(value, Mapping | Parameters):
        return value
    raise ValueError('must be a table such as { top_p = "off", max_tokens = "max_completion_tokens" }')


def _day(value: object) -> object:
    """TOML has dates of its own; a text must be one."""
    if isinstance(value, date):
        return value.isoformat()[:10]
    if isinstance(value, str):
        date.fromisoformat(value)  # its ValueError says what is wrong
    return value


Variable = Annotated[str, AfterValidator(_variable)]
Address = Annotated[str, AfterValidator(_address)]
Addresses = Annotated[str | tuple[str, ...] | None, BeforeValidator(_addresses)]
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


SentAs = Annotated[str | None, BeforeValidator(_sent_as)]


@dataclass(frozen=True)
class Parameters:
    """How parameters are sent to endpoints that refuse some: `parameters = { top_p = "off" }`.

    Each field is "off" (left out), another name, or None: as usual, or as a preset says. `extra` holds
    further fields of every request's body.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    temperature: SentAs = None
    top_p: SentAs = None
    max_tokens: SentAs = None
    seed: SentAs = None
    response_format: SentAs = None  # the JSON schema, where one request asks for several texts
    extra: Annotated[Mapping[str, Any], BeforeValidator(_further)] = field(default_factory=dict)

    def __post_init__(self) -> None:
        taken: dict[str, str] = {}
        for name in PARAMETERS:
            sent = getattr(self, name) or name
            if sent == OFF:
                continue
            if sent in _OURS:
                raise ValueError(f"`{name}` cannot be sent as `{sent}`: that is a field of its own")
            if sent in taken:
                raise ValueError(f"`{taken[sent]}` and `{name}` would both be sent as `{sent}`")
            taken[sent] = name
        for name in self.extra:
            if name in taken:
                raise ValueError(
                    f"`extra.{name}` hides `{taken[name]}`, which is sent as `{name}`: set `{taken[name]}` "
                    f'in the section itself, or write {taken[name]} = "off" beside `extra`'
                )
            if name in LIMITS and self.max_tokens != OFF:
                raise ValueError(
                    f'`extra.{name}` would be a second limit: write max_tokens = "{name}" beside `extra`, '
                    "and its value as `max_tokens` in the section itself"
                )

    def sent_as(self) -> dict[str, str]:
        """What is said of single parameters: name -> "off" or another name."""
        return {name: sent for name in PARAMETERS if (sent := getattr(self, name)) is not None}


# The parameters that a request has by itself, in the order in which they are sent.
PARAMETERS = ("temperature", "top_p", "max_tokens", "seed", "response_format")
# The names under which endpoints know the limit of an answer's tokens.
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens")


@dataclass(frozen=True)
class Asking:
    """Whom to ask, and how hard: the keys that `[describe.categories]` and `[describe.samples]` share."""

    section: ClassVar[str] = "describe"

    # `openai`: its name, required; `llava`: a folder or hub name; `local`: a GGUF file (None: the bundled
    # one)
    model: str | None = None
    # Any OpenAI-compatible endpoint, or several that serve the same model; None is OpenAI itself.
    base_url: Addresses = None
    api_key_env: Variable = "OPENAI_API_KEY"  # the variable that holds the key; the key is never stored
    temperature: Annotated[float, Ge(0), Le(2)] = 0.9
    top_p: Share = 0.95
    max_tokens: Count = 40  # per text; a request for several texts may use as many times more
    seed: int = 0
    parameters: Annotated[Parameters | None, BeforeValidator(_table)] = (
        None  # leave out, rename or add fields of a request
    )
    language: Annotated[Literal["en"] | None, OrOff] = "en"  # others are rejected; "off" keeps them all
    submit: Literal["online", "batch"] = "online"  # batch: OpenAI's Batch API, cheaper, up to a day later
    concurrency: Annotated[int, Ge(1), Le(1024)] | None = None  # in flight at most; None: the describer's own
    requests_per_minute: Count | None = None  # None: what the endpoint's headers say, if anything
    tokens_per_minute: Count | None = None
    request_timeout_s: Seconds = 120.0  # total deadline of one request, retries included
    max_answer_mb: Annotated[float, Gt(0), Le(1024)] = 8.0  # a longer body is read no further (unpacked)
    outage_s: Seconds = 1800.0  # an endpoint that answers nothing for so long stops the run (resumable)
    budget_usd: Dollars | None = None  # never spend more, over all runs of this knowledge base
    price: Price | None = (
        None  # None: kb_builder/ask/prices.toml; a model that is not in it has no known price
    )
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
        "max_answer_mb",
        "outage_s",
        "budget_usd",
        "price",
        "reuse",  # a reused answer is recorded under the new request's key: later runs find it there
    }
)


@dataclass(frozen=True)
class DescribeCategories(Asking):
    """How category descriptions are written: `[describe.categories]`."""

    section: ClassVar[str] = "describe.categories"
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

    section: ClassVar[str] = "describe.samples"
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


def writer_of(settings: Asking) -> str:
    """The describer that is asked for words: of `facts+llm` the one that phrases the facts."""
    name: str = getattr(settings, "describer", "openai")
    return str(getattr(settings, "llm", name)) if name == "facts+llm" else name


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

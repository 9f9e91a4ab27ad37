"""Settings of stage 1: each class is one section of the project file, where unknown keys are refused."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_type_hints
from urllib.parse import urlsplit

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AfterValidator, BeforeValidator

from kb_builder.bounds import NotNegative, Positive, distinct

Count = Annotated[int, Ge(1)]
Share = Annotated[float, Gt(0), Le(1)]
Seconds = Positive
Dollars = NotNegative
# TOML has no null: "off" in a project file means None.
OrOff = BeforeValidator(lambda value: None if value == "off" else value)

OFF = "off"
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_SECRET = re.compile(
    r"(?i)(?:x[-_])?(?:api[-_]?key|apikey|authorization|password|secret|(?:access|auth|bearer)[-_]?token)"
)
# Fields that `extra` may not hold, and why: the program sets them, or they change the form of the answer.
_RESERVED = {
    "model": "set `model` in the section itself",
    "messages": "the prompts are the program's own",
    "stream": "answers are read whole",
    "stream_options": "answers are read whole",
    "n": "every request asks for one answer",
}


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(
            "must be the name of an environment variable; never write the key itself into a project file"
        )
    return name


def _sent_as(value: object) -> object:
    if value is not None and not isinstance(value, str):
        raise ValueError(
            'must be "off", or the name by which the endpoint knows it; a value belongs into the section '
            "itself, beside `model`"
        )
    if isinstance(value, str) and not _FIELD.fullmatch(value):
        raise ValueError(f'{value!r} is not the name of a parameter; write "off" to leave it out')
    return value


def _further(value: object) -> object:
    """Check extra fields of a JSON body: no secret, and no field that the program sets itself."""
    if not isinstance(value, Mapping):
        raise ValueError('must be a table such as { reasoning_effort = "low" }')
    for name in value:
        if name in _RESERVED:
            raise ValueError(f"may not hold `{name}`: {_RESERVED[name]}")
    _check_json(value, ())
    return value


def _check_json(value: object, keys: tuple[str, ...]) -> None:
    where = ".".join(keys)
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if _SECRET.fullmatch(str(name)):
                raise ValueError(
                    f"`{'.'.join((*keys, str(name)))}` looks like a secret, and would be stored with every "
                    "request; the API key is read from `api_key_env`"
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
    """Check an address. No message repeats it, since it may hold a password."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is not a number
        usable = False
    if not usable:
        raise ValueError('must be an address such as "http://127.0.0.1:8000/v1"; leave it out for OpenAI')
    if parts.username is not None or parts.password is not None:
        raise ValueError("must hold no user name and no password: the API key is read from `api_key_env`")
    return url


def _addresses(value: object) -> object:
    """Check one address or a list of them. No message repeats one, since its query may hold a secret."""
    if value is None or isinstance(value, str):
        return value if value is None else _address(value)
    if not isinstance(value, list | tuple) or not all(isinstance(url, str) for url in value):
        raise ValueError('must be an address, or a list of them: ["http://a:8000/v1", "http://b:8000/v1"]')
    if not value:
        raise ValueError("is an empty list; leave it out for OpenAI")
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
    """Accept a TOML date, or a text that is an ISO date."""
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
CategoryDescriber = Literal["local", "openai", "fake"]
SampleDescriber = Literal["facts", "facts+llm", "openai", "llava", "fake", "none"]

_T = TypeVar("_T")


class _OnlyHow:
    """Marks a setting that changes how a run works, and no request, answer or row."""


# `name: OnlyHow[type]`: changing this setting leaves finished stages up to date (see `row_fields`).
OnlyHow = Annotated[_T, _OnlyHow]


@dataclass(frozen=True)
class Price:
    """Price of a model in US dollars per million tokens, and the day of that price: `price = {...}`."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (read by pydantic at the project file's edge)

    input: Dollars
    output: Dollars
    date: Day  # YYYY-MM-DD
    batch_share: Share = 0.5  # price of a batch request, as a share of the online price
    # Upper bound of the input tokens of one picture; None: unknown.
    image_tokens: Annotated[int, Ge(0)] | None = None


SentAs = Annotated[str | None, BeforeValidator(_sent_as)]


@dataclass(frozen=True)
class Parameters:
    """How request parameters are sent to endpoints that refuse some: `parameters = { top_p = "off" }`.

    Each field is "off" (left out), the name to send it under, or None: the usual name, or a preset's. `extra`
    holds additional fields of every request's body.
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
            if sent in _RESERVED:
                raise ValueError(f"`{name}` cannot be sent as `{sent}`: the program sets that field itself")
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
        """The parameters that are set: name -> "off" or the name to send it under."""
        return {name: sent for name in PARAMETERS if (sent := getattr(self, name)) is not None}


# The parameters that every request can have, in the order in which they are sent.
PARAMETERS = ("temperature", "top_p", "max_tokens", "seed", "response_format")
# Names that endpoints use for the limit of an answer's tokens.
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens")


@dataclass(frozen=True)
class Asking:
    """Which model to ask, and how: the keys that `[describe.categories]` and `[describe.samples]` share."""

    section: ClassVar[str] = "describe"

    # `openai`: the model's name, required; `llava`: a folder or hub name; `local`: a GGUF file (None: the
    # bundled model).
    model: Annotated[str, MinLen(1)] | None = None
    # Any OpenAI-compatible endpoint, or several that serve the same model; None is OpenAI itself.
    base_url: Addresses = None
    api_key_env: OnlyHow[Variable] = "OPENAI_API_KEY"  # the variable that holds the key
    temperature: Annotated[float, Ge(0), Le(2)] = 0.9
    top_p: Share = 0.95
    max_tokens: Count = 40  # per text; a request for n texts may use n times as many
    seed: int = 0
    # Leave out, rename or add fields of a request's body.
    parameters: Annotated[Parameters | None, BeforeValidator(_table)] = None
    language: Annotated[Literal["en"] | None, OrOff] = "en"  # others are rejected; "off" keeps them all
    submit: OnlyHow[Literal["online", "batch"]] = "online"  # batch: OpenAI's Batch API, cheaper, up to a day
    # Requests in flight at most; None: the describer's default.
    concurrency: OnlyHow[Annotated[int, Ge(1), Le(1024)] | None] = None
    requests_per_minute: OnlyHow[Count | None] = None  # None: what the endpoint's headers say, if anything
    tokens_per_minute: OnlyHow[Count | None] = None
    request_timeout_s: OnlyHow[Seconds] = 120.0  # total deadline of one request, retries included
    max_answer_mb: OnlyHow[Annotated[float, Gt(0), Le(1024)]] = 8.0  # longer bodies are not read (unpacked)
    outage_s: OnlyHow[Seconds] = 1800.0  # stop (resumable) after so long without any answer
    budget_usd: OnlyHow[Dollars | None] = None  # upper limit of the cost of all runs of this knowledge base
    # None: the price in kb_builder/ask/prices.toml; a model that is not listed there has no known price.
    price: OnlyHow[Price | None] = None
    # When only max_tokens grew: ask again only for answers that the old limit cut off. A reused answer is
    # recorded under the new request's key, so later runs find it there.
    reuse: OnlyHow[bool] = False


def row_fields(settings: type[Asking]) -> list[str]:
    """Names of the settings that rows depend on: every field that is not marked `OnlyHow`."""
    hints = get_type_hints(settings, include_extras=True)
    return [each.name for each in fields(settings) if _OnlyHow not in get_args(hints[each.name])]


@dataclass(frozen=True)
class DescribeCategories(Asking):
    """Settings of category descriptions: `[describe.categories]`."""

    section: ClassVar[str] = "describe.categories"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    describer: CategoryDescriber = "local"
    n: Count = 50  # unique valid texts wanted per category
    # None: those that samples show
    aspects: Annotated[tuple[Aspect, ...], MinLen(1), AfterValidator(distinct)] | None = None
    items: Count | None = None  # texts per request; None: 10 for `openai`, 1 for the others
    # `local` with a model that continues openings: write from notes, dictionary and the model's choices among
    # a few words alone; false: about every aspect, whatever it knows.
    grounded: bool = True
    # Asks for at most n × this many texts per category.
    max_requests_per_text: Annotated[float, Ge(1), Lt(math.inf)] = 6.0
    saturated_below: Annotated[int, Ge(0), Le(100)] = 10  # stop at fewer new texts per 100 asked for
    near_jaccard: Share = 0.7  # near-duplicate: at least this similar in character 3-grams ...
    near_cosine: Annotated[Share | None, OrOff] = 0.95  # ... or in embeddings; "off": not compared
    contrast_pairs: Annotated[int, Ge(0)] = 1  # confusable categories to contrast each one with
    contrast_texts: Count = 5  # texts wanted for each such pair
    # Texts added from files (`unibind kb add-texts`): beside the describer's, in their place for the
    # categories that have any (which are then not asked about), or left out.
    texts: Literal["both", "added", "written"] = "both"
    shard_categories: Count | None = None  # per shard (a task and a file); None: about 1,000 requests


@dataclass(frozen=True)
class DescribeSamples(Asking):
    """Settings of sample descriptions: `[describe.samples]`.

    A description given in the manifest takes precedence over the describer's.
    """

    section: ClassVar[str] = "describe.samples"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    describer: SampleDescriber = "facts"
    llm: Literal["local", "openai"] = "local"  # the model that phrases the facts of `facts+llm`
    max_tokens: Count = 80
    tries: Count = 3  # requests per sample until a text passes the gates
    max_side: Annotated[int, Ge(64), Le(4096)] = 768  # pixels of the longer side of a picture that is sent
    # Sent unchanged, if the endpoint takes them.
    native: Annotated[tuple[Literal["audio", "video"], ...], AfterValidator(distinct)] = ()
    batch_size: Count = 8  # `llava`: samples per forward pass
    device: str = "auto"  # `llava`: cpu, cuda, cuda:1 ...
    shard_samples: Count = 1000  # samples per shard (one Prefect task, one Parquet file)


@dataclass(frozen=True)
class DescriberTraits:
    """What a describer is like. Code asks for a trait, never for a describer's name."""

    asks_model: bool = True  # sends requests to a model; False: no request is ever made
    endpoint: bool = False  # the model is behind an HTTP endpoint of the user's choice, which may charge
    gguf: bool = False  # the model runs in this process, and `model` may name its GGUF file
    placeholder: bool = False  # its texts mean nothing and cost nothing: for tests and rehearsals
    one_text: bool = False  # one text per request, unless `items` says otherwise
    # Continues the opening of a sentence instead of following an instruction (a GGUF file may differ).
    openings: bool = False
    measures: bool = False  # its texts are, or are written from, measured facts of the file
    phrases_facts: bool = False  # the model named by `llm` phrases the measured facts
    describes: bool = True  # False: only descriptions given in the manifest are kept


# By the name in the project file. A new describer needs a line here, its name in `CategoryDescriber` or
# `SampleDescriber`, and a maker in kb_builder/describers/choose.py.
TRAITS = {
    "local": DescriberTraits(gguf=True, one_text=True, openings=True),
    "openai": DescriberTraits(endpoint=True),
    "llava": DescriberTraits(),
    "fake": DescriberTraits(placeholder=True, one_text=True, openings=True),
    "facts": DescriberTraits(asks_model=False, measures=True),
    "facts+llm": DescriberTraits(measures=True, phrases_facts=True),
    "none": DescriberTraits(asks_model=False, describes=False),
}
# Values of column `source` whose rows have no ledger entry: no request was made for them.
SOURCES_WITHOUT_REQUEST = frozenset({"facts", "manifest", "added"})


def writer_of(settings: Asking) -> str:
    """Name of the describer that answers requests: for `facts+llm` the one that phrases the facts."""
    name: str = getattr(settings, "describer", "openai")
    return str(getattr(settings, "llm", name)) if TRAITS[name].phrases_facts else name


def writer_traits(settings: Asking) -> DescriberTraits:
    """The traits of the describer that answers requests (`writer_of`)."""
    return TRAITS[writer_of(settings)]


_TEXTS_PER_PART, _SAMPLES_PER_PART = 4096, 512


@dataclass(frozen=True)
class Encode:
    """Settings of the frozen encoders: `[encode]`."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    text: str = "minilm"  # or clip:FOLDER ... (docs/models.md), or any sentence-transformers model
    samples: str = "efficientnet-lite0"  # features of every modality's renderings, mapped by the heads
    zero_shot: Annotated[str | None, OrOff] = "conse"  # in the text space without training; or "off"
    dtype: Literal["float16", "float32"] = "float16"  # of the stored vectors; computation is in float32
    device: str = "auto"  # cpu, cuda (all of them), cuda:0,cuda:2 ...; auto: CUDA if available
    batch_size: Count = 64
    # Rows of one part: the most work that is lost with its process, and what an engine gives to one worker.
    texts_per_part: Count = _TEXTS_PER_PART
    samples_per_part: Count = _SAMPLES_PER_PART
    # In their place: seconds that a part takes; kb_builder/encode/rates.py
    part_seconds: Annotated[float | None, Gt(0), Le(86_400), OrOff] = None

    def __post_init__(self) -> None:
        rows = self.texts_per_part, self.samples_per_part
        if self.part_seconds is not None and rows != (_TEXTS_PER_PART, _SAMPLES_PER_PART):
            raise ValueError(
                "`part_seconds` sets the size of parts in place of `texts_per_part` and `samples_per_part`:"
                " leave these out, or that"
            )

"""The settings of stage 1. Each class is one section of the project file; extra keys are refused there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

Count = Annotated[int, Ge(1)]


@dataclass(frozen=True)
class DescribeCategories:
    """How category descriptions are written: `[describe.categories]`."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (read by pydantic at the project file's edge)

    describer: Literal["local", "openai", "fake"] = "local"
    n: Count = 50  # unique valid texts wanted per category
    model: str | None = None  # required for `openai`; the bundled SmolLM2-135M for `local`
    base_url: str | None = None  # `openai`: any OpenAI-compatible endpoint; None is OpenAI itself
    api_key_env: str = "OPENAI_API_KEY"  # the variable that holds the key; the key is never stored
    temperature: Annotated[float, Ge(0), Le(2)] = 0.9
    top_p: Annotated[float, Gt(0), Le(1)] = 0.95
    max_tokens: Count = 40  # per answer
    concurrency: Annotated[int, Ge(1), Le(1024)] = 8  # requests in flight
    request_timeout_s: Annotated[float, Gt(0)] = 120.0  # total deadline of one request, retries included
    max_requests_per_text: Annotated[float, Ge(1)] = 6.0  # a category is saturated after n × this many
    seed: int = 0
    shard_categories: Count = 100  # categories per shard (one Prefect task, one Parquet file)


@dataclass(frozen=True)
class DescribeSamples:
    """How sample descriptions are written: `[describe.samples]`.

    A description given in the manifest always wins over a describer's.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    describer: Literal["facts", "fake", "none"] = "facts"
    shard_samples: Count = 1000  # samples per shard (one Prefect task, one Parquet file)


@dataclass(frozen=True)
class Encode:
    """Which frozen encoders make the vectors: `[encode]`."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    text: str = "minilm"  # or the name or folder of any sentence-transformers model
    samples: str = "efficientnet-lite0"  # features of every modality's renderings, mapped by the heads
    zero_shot: str | None = "conse"  # an encoder that shares the text space without training
    batch_size: Count = 64

"""Make the describer that a project file names."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from data.errors import RunError, UniBindError
from kb_builder.ask.endpoint.client import MOST_BYTES, NO_KEY, ChatClient, endpoint_of
from kb_builder.ask.endpoint.parameters import remedy
from kb_builder.ask.endpoint.pool import Pool
from kb_builder.ask.endpoint.status import Remedy
from kb_builder.ask.request import OPENAI_URL, Describer, Media, endpoint_identity
from kb_builder.describers import local_llm
from kb_builder.describers.fake import FakeDescriber
from kb_builder.describers.media import MediaFiles
from kb_builder.settings import (
    Asking,
    DescribeCategories,
    DescribeSamples,
    row_fields,
    writer_of,
    writer_traits,
)

log = logging.getLogger(__name__)

_IN_FLIGHT = 256  # requests at each endpoint of a pool


def _openai(settings: Asking, files: MediaFiles | None) -> Describer:
    urls = settings.base_url if isinstance(settings.base_url, tuple) else (settings.base_url,)
    endpoint = endpoint_of(settings.base_url)
    clients = [
        openai_client(
            model=settings.model,
            base_url=url,
            api_key_env=settings.api_key_env,
            load=None if files is None else files.part,
            remedy=_remedy(settings, endpoint, settings.model or ""),
            most_bytes=_most_bytes(settings),
        )
        for url in urls
    ]
    if len(clients) == 1:
        return clients[0]
    return Pool(clients, endpoint=endpoint, concurrency=settings.concurrency or _IN_FLIGHT)


def _local(settings: Asking, files: MediaFiles | None) -> Describer:
    if settings.model is not None and not local_llm.names_a_file(settings.model):
        log.warning(
            "[%s] model = %r is not a GGUF file: using the bundled model (%s)",
            settings.section,
            settings.model,
            local_llm.MODEL,
        )
    clients = local_llm.local_clients(settings.model, most_bytes=_most_bytes(settings))
    first = clients[0]
    for client in clients:
        client.remedy = _remedy(settings, first.endpoint, first.model)
    if len(clients) == 1:
        return first
    each = local_llm.in_flight(local_llm.find(settings.model))
    return Pool(clients, endpoint=first.endpoint, concurrency=each)


def _remedy(settings: Asking, endpoint: str, model: str) -> Remedy:
    return lambda said, param, code: remedy(
        settings, endpoint=endpoint, model=model, said=said, param=param, code=code
    )


def _most_bytes(settings: Asking) -> int:
    return int(settings.max_answer_mb * 1_000_000)


def _llava(settings: Asking, files: MediaFiles | None) -> Describer:
    from kb_builder.describers.llava import LlavaDescriber  # imports transformers

    if not isinstance(settings, DescribeSamples) or files is None:
        raise ValueError("llava describes samples only, and needs `files`")
    if not settings.model:
        raise RunError('describer = "llava" needs `model` in the project file: a folder or a hub name')
    if settings.parameters is not None:
        raise RunError(
            'describer = "llava" runs in this process, where `parameters` have no effect: remove them'
        )
    if settings.native:
        raise RunError('describer = "llava" takes pictures only: remove `native` from the project file')
    return LlavaDescriber(
        model=settings.model,
        load=files.encoded,
        batch_size=settings.batch_size,
        device=settings.device,
    )


_MAKERS: dict[str, Callable[[Asking, MediaFiles | None], Describer]] = {
    "local": _local,
    "openai": _openai,
    "llava": _llava,
    "fake": lambda settings, files: FakeDescriber(),
}


def make_describer(
    settings: DescribeCategories | DescribeSamples, *, files: MediaFiles | None = None
) -> Describer:
    """The describer of these settings. Servers and connections are opened at the first request.

    Samples need `files`, from which their media are read. Raises ValueError for `facts` and `none`, which
    make no requests.
    """
    name = writer_of(settings)
    if name not in _MAKERS:
        raise ValueError(f"describer {name!r} makes no requests")
    return _MAKERS[name](settings, files)


def openai_client(
    *,
    model: str | None,
    base_url: str | None,
    api_key_env: str,
    load: Callable[[Media], dict[str, Any]] | None = None,
    remedy: Remedy = lambda said, param, code: None,
    most_bytes: int = MOST_BYTES,
) -> ChatClient:
    """A client for OpenAI or any compatible endpoint. The key is read at the first request."""
    if not model:
        raise RunError('describer = "openai" needs `model` in the project file')
    url = base_url or OPENAI_URL

    def connect() -> tuple[str, str]:
        key = os.environ.get(api_key_env, "").strip()
        if not key and base_url is None:
            raise RunError(f"no API key: set the environment variable {api_key_env} (or set `base_url`)")
        if not (key.isascii() and key.isprintable()):
            raise RunError(
                f"the value of {api_key_env} is not an API key: it holds a line break or non-ASCII letters"
            )
        return url, key or NO_KEY

    return ChatClient(
        provider="openai",
        source="online",
        endpoint=endpoint_identity(url),
        model=model,
        connect=connect,
        load=load,
        key_name=api_key_env,
        remedy=remedy,
        most_bytes=most_bytes,
    )


def row_settings(settings: Asking) -> dict[str, Any]:
    """The settings that rows depend on, by name: a finished stage is out of date when one of them changes."""
    values = {name: getattr(settings, name) for name in row_fields(type(settings))}
    if settings.model is not None and writer_traits(settings).gguf:
        values["model"] = _model_identity(settings.model)
    return values


def _model_identity(model: str) -> str:
    """A GGUF file's content, so that replacing the file makes a finished stage out of date."""
    try:
        return local_llm.find(model).identity if local_llm.names_a_file(model) else model
    except UniBindError:  # the stage itself reports what is wrong
        return f"missing: {model}"

"""Which describer answers, by the name in the project file."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from data.errors import RunError, UniBindError
from kb_builder.ask.endpoint.client import MOST_BYTES, NO_KEY, ChatClient, endpoint_of
from kb_builder.ask.endpoint.parameters import remedy
from kb_builder.ask.endpoint.pool import Pool
from kb_builder.ask.endpoint.status import Remedy
from kb_builder.ask.request import OPENAI_URL, Describer, Media, endpoint_identity
from kb_builder.describers import local_llm
from kb_builder.describers.fake import FakeDescriber
from kb_builder.describers.local_llm import local_client
from kb_builder.describers.media import MediaFiles
from kb_builder.settings import _ONLY_HOW, Asking, DescribeCategories, DescribeSamples, writer_of

log = logging.getLogger(__name__)

_IN_FLIGHT = 256  # at one endpoint of several


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
            "[%s] model = %r is no GGUF file, so the bundled model is asked (%s)",
            settings.section,
            settings.model,
            local_llm.MODEL,
        )
    client = local_client(settings.model, most_bytes=_most_bytes(settings))
    client.remedy = _remedy(settings, client.endpoint, client.model)
    return client


def _remedy(settings: Asking, endpoint: str, model: str) -> Remedy:
    return lambda said, param, code: remedy(
        settings, endpoint=endpoint, model=model, said=said, param=param, code=code
    )


def _most_bytes(settings: Asking) -> int:
    return int(settings.max_answer_mb * 1_000_000)


def _llava(settings: Asking, files: MediaFiles | None) -> Describer:
    from kb_builder.describers.llava import LlavaDescriber  # transformers, for those who ask for it

    if not isinstance(settings, DescribeSamples) or files is None:
        raise ValueError("llava describes samples")
    if not settings.model:
        raise RunError('describer = "llava" needs `model` in the project file: a folder or a hub name')
    if settings.parameters is not None:
        raise RunError(
            'describer = "llava" runs here and refuses nothing: take `parameters` out of the project file'
        )
    if settings.native:
        raise RunError('describer = "llava" takes pictures only: take `native` out of the project file')
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
    """The describer of these settings. Opens nothing: servers and connections wait for the first request.

    Samples need `files`, from which their media are read. `facts` and `none` ask nobody and have none.
    """
    name = writer_of(settings)
    if name not in _MAKERS:
        raise ValueError(f"describer {name!r} asks nobody")
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
    """A client for OpenAI or any compatible endpoint. The key is read when it is first needed."""
    if not model:
        raise RunError('describer = "openai" needs `model` in the project file')
    url = base_url or OPENAI_URL

    def connect() -> tuple[str, str]:
        key = os.environ.get(api_key_env, "").strip()
        if not key and base_url is None:
            raise RunError(f"no API key: set the environment variable {api_key_env} (or set `base_url`)")
        if not (key.isascii() and key.isprintable()):
            raise RunError(
                f"the value of {api_key_env} is no API key: it holds a line break, or letters beyond ASCII"
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


def what(settings: Asking) -> dict[str, Any]:
    """The settings that rows depend on: what makes a finished stage out of date when it changes."""
    values = {f.name: getattr(settings, f.name) for f in fields(settings) if f.name not in _ONLY_HOW}
    if settings.model is not None and writer_of(settings) == "local":
        values["model"] = _content(settings.model)
    return values


def _content(model: str) -> str:
    """A GGUF file by its content: another file in its place makes a finished stage out of date."""
    from kb_builder.describers import local_llm

    try:
        return local_llm.find(model).identity if local_llm.names_a_file(model) else model
    except UniBindError:  # the stage itself says what is wrong
        return f"missing: {model}"

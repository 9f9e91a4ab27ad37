"""Which describer answers, by the name in the project file."""

from __future__ import annotations

import logging
from collections.abc import Callable

from data.errors import RunError
from kb_builder import local_llm
from kb_builder.client import Describer, endpoint_of, local_client, openai_client
from kb_builder.fake import FakeDescriber
from kb_builder.media import MediaFiles
from kb_builder.parameters import remedy
from kb_builder.pool import Pool
from kb_builder.settings import Asking, DescribeCategories, DescribeSamples, writer_of
from kb_builder.status import Remedy

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
    from kb_builder.llava import LlavaDescriber  # transformers, for those who ask for it

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

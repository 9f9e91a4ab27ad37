"""Which describer answers, by the name in the project file."""

from __future__ import annotations

from collections.abc import Callable

from data.errors import RunError
from kb_builder.client import Describer, local_client, openai_client
from kb_builder.fake import FakeDescriber
from kb_builder.media import MediaFiles
from kb_builder.settings import Asking, DescribeCategories, DescribeSamples


def _openai(settings: Asking, files: MediaFiles | None) -> Describer:
    return openai_client(
        model=settings.model,
        base_url=settings.base_url,
        api_key_env=settings.api_key_env,
        load=None if files is None else files.part,
    )


def _llava(settings: Asking, files: MediaFiles | None) -> Describer:
    from kb_builder.llava import LlavaDescriber  # transformers, for those who ask for it

    if not isinstance(settings, DescribeSamples) or files is None:
        raise ValueError("llava describes samples")
    if not settings.model:
        raise RunError('describer = "llava" needs `model` in the project file: a folder or a hub name')
    if settings.native:
        raise RunError('describer = "llava" takes pictures only: take `native` out of the project file')
    return LlavaDescriber(
        model=settings.model,
        load=files.encoded,
        batch_size=settings.batch_size,
        device=settings.device,
    )


_MAKERS: dict[str, Callable[[Asking, MediaFiles | None], Describer]] = {
    "local": lambda settings, files: local_client(),
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
    name = settings.llm if settings.describer == "facts+llm" else settings.describer
    if name not in _MAKERS:
        raise ValueError(f"describer {name!r} asks nobody")
    return _MAKERS[name](settings, files)

"""Which describer answers, by the name in the project file."""

from __future__ import annotations

from collections.abc import Callable

from kb_builder.client import Describer, local_client, openai_client
from kb_builder.fake import FakeDescriber
from kb_builder.settings import DescribeCategories

_MAKERS: dict[str, Callable[[DescribeCategories], Describer]] = {
    "local": lambda settings: local_client(),
    "openai": lambda settings: openai_client(
        model=settings.model, base_url=settings.base_url, api_key_env=settings.api_key_env
    ),
    "fake": lambda settings: FakeDescriber(),
}

# A small model goes on from an opening far better than it follows an instruction.
PROMPTS = {"local": "category_openings", "openai": "category", "fake": "category_openings"}


def make_describer(settings: DescribeCategories) -> Describer:
    """The describer of these settings. Opens nothing: servers and connections wait for the first request."""
    return _MAKERS[settings.describer](settings)

"""Which describer answers, by the name in the project file."""

from __future__ import annotations

from collections.abc import Callable

from kb_builder.client import Describer, local_client, openai_client
from kb_builder.fake import FakeDescriber
from kb_builder.scheduler import Policy
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


# The local model lives in this process: a late answer means a busy machine, never a lost request. Were it
# given up, the table would depend on what else the machine was doing.
_LOCAL_PATIENCE_S = 3600.0


def make_describer(settings: DescribeCategories) -> Describer:
    """The describer of these settings. Opens nothing: servers and connections wait for the first request."""
    return _MAKERS[settings.describer](settings)


def make_policy(settings: DescribeCategories) -> Policy:
    """How many requests at once, and how long to wait: two calls may hang before a request's deadline."""
    if settings.describer == "local":
        return Policy(
            concurrency=settings.concurrency or 8, deadline_s=_LOCAL_PATIENCE_S, call_s=_LOCAL_PATIENCE_S
        )
    deadline = settings.request_timeout_s
    return Policy(concurrency=settings.concurrency or 256, deadline_s=deadline, call_s=deadline / 3)

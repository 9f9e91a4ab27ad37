"""The prompt library: TOML files, one per purpose, each crossing templates with aspects (and openings).

    version = "1"                 raise it whenever a prompt's words change
    [extra]                       optional: further fields of every request's body
    [[template]]  id, user, system?    `{name}`, `{subject}` and `{ask}` are filled in
    [[aspect]]    id, ask, openings?   the start of the answer, for models that can go on from it

No prompt holds a worked example: a small model copies its material and shape into every answer.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import zip_longest
from typing import Any

from data.sample import Category
from kb_builder.request import Messages


@dataclass(frozen=True, slots=True)
class Prompt:
    """One way of asking about one aspect."""

    template_id: str
    version: str
    aspect: str
    system: str | None
    user: str
    ask: str
    opening: str | None


@dataclass(frozen=True)
class Library:
    """Every prompt of one purpose, in the order in which they are used: neighbours differ in aspect."""

    prompts: tuple[Prompt, ...]
    extra: Mapping[str, Any]


@cache
def load_prompts(purpose: str) -> Library:
    """Read `kb_builder/prompts/<purpose>.toml`."""
    content = tomllib.loads(resources.files(__name__).joinpath(f"{purpose}.toml").read_text(encoding="utf-8"))
    by_aspect = [
        [
            Prompt(
                template_id=template["id"] if opening is None else f"{template['id']}-{number}",
                version=content["version"],
                aspect=aspect["id"],
                system=template.get("system"),
                user=template["user"],
                ask=aspect["ask"],
                opening=opening,
            )
            for template in content["template"]
            for number, opening in enumerate(aspect.get("openings", [None]), start=1)
        ]
        for aspect in content["aspect"]
    ]
    turns = zip_longest(*by_aspect)
    prompts = tuple(prompt for turn in turns for prompt in turn if prompt is not None)
    return Library(prompts=prompts, extra=content.get("extra", {}))


def spoken_name(category: Category) -> str:
    """The name as a sentence says it: of `church_bells` both words, of `sea lion, seal` the first name."""
    return " ".join(category.name.split(",")[0].replace("_", " ").split())


def subject(category: Category) -> str:
    """The quoted name with what tells it from other things of that name."""
    hints = [f"a kind of {category.parent}" if category.parent else "", category.notes or ""]
    told = "; ".join(hint for hint in hints if hint)
    return f'"{spoken_name(category)}"' + (f" ({told})" if told else "")


def fill(prompt: Prompt, category: Category) -> tuple[Messages, str]:
    """The messages to send about a category, and the start of the answer ("" where none is given)."""
    words = {"name": spoken_name(category), "subject": subject(category), "ask": prompt.ask}
    # Not str.format: a category may be called "{x}".
    opening = _fill(prompt.opening or "", words)
    system = [("system", _fill(prompt.system, words))] if prompt.system else []
    prefill = [("assistant", opening)] if opening else []
    return (*system, ("user", _fill(prompt.user, words)), *prefill), opening


def _fill(text: str, words: Mapping[str, str]) -> str:
    parts = text.split("{")
    return parts[0] + "".join(
        words.get(name, "{" + name + ("}" if closed else "")) + rest
        for name, closed, rest in (part.partition("}") for part in parts[1:])
    )

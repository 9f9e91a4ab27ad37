"""The prompt library: TOML files, one per purpose, crossing templates, aspects and styles (or openings).

    version = "1"                       raise it whenever a prompt's words change
    [extra]                             optional: further fields of every request's body
    [[template]]  id, user, system?, several_user?, several_system?
                                        `{name}`, `{subject}`, `{ask}`, `{how}` and `{count}` are filled in;
                                        the `several_…` forms ask for `{count}` texts at once
    [[style]]     id, how               optional: the manner of the sentence
    [[aspect]]    id, ask, modality?, also?, openings?
                                        which modality shows it most, which others show it where that one is
                                        not there, and the start of the answer, for models that can go on
                                        from it

No prompt holds a worked example: a small model copies its material and shape into every answer.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from itertools import zip_longest
from typing import Any

from data.sample import Category
from kb_builder.request import LIST_SCHEMA, Messages

_BETWEEN_WORDS = re.compile(r"(?<=[^\W_])_+(?=[^\W_])")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One way of asking about one aspect."""

    template_id: str
    version: str
    aspect: str
    modality: str | None  # which modality shows the aspect most
    also: tuple[str, ...]  # which others show it, too
    system: str | None
    user: str
    ask: str
    how: str
    opening: str | None


@dataclass(frozen=True)
class Library:
    """Every prompt of one purpose, in the order in which they are used: neighbours differ in aspect."""

    prompts: tuple[Prompt, ...]
    extra: Mapping[str, Any]

    @property
    def aspects(self) -> int:
        """How many aspects there are: so many prompts in a row ask about different ones."""
        return len({prompt.aspect for prompt in self.prompts})

    def about(self, aspects: Collection[str]) -> Library:
        """The prompts about some aspects only, in the same order."""
        return replace(self, prompts=tuple(each for each in self.prompts if each.aspect in aspects))

    def shown_by(self, modalities: Collection[str]) -> Library:
        """The prompts about what these modalities show, in turns, so that each modality has as many.

        An aspect that another one of them shows more is that one's. The library stays as it is where it has
        no prompt for any of them, where they are all that it knows, and for texts alone, which may be about
        anything.
        """
        mine = {
            modality: [
                each
                for each in self.prompts
                if each.modality == modality or (modality in each.also and each.modality not in modalities)
            ]
            for modality in sorted(modalities)
        }
        chosen = [prompts for prompts in mine.values() if prompts]
        known = {prompt.modality for prompt in self.prompts}
        if not chosen or known <= set(modalities) or set(modalities) == {"text"}:
            return self
        turns = range(max(map(len, chosen)))
        in_turn = (prompts[turn % len(prompts)] for turn in turns for prompts in chosen)
        return replace(self, prompts=tuple(in_turn))


@cache
def load_prompts(purpose: str, *, several: bool = False) -> Library:
    """Read `kb_builder/prompts/<purpose>.toml`; `several` takes the form that asks for several texts at once.

    Raises KeyError where the file has no such form.
    """
    content = tomllib.loads(resources.files(__name__).joinpath(f"{purpose}.toml").read_text(encoding="utf-8"))
    form = "several_" if several else ""
    by_aspect = [
        [
            Prompt(
                template_id="-".join(part for part in (template["id"], style["id"], number) if part),
                version=content["version"],
                aspect=aspect["id"],
                modality=aspect.get("modality"),
                also=tuple(aspect.get("also", ())),
                system=template.get(f"{form}system"),
                user=template[f"{form}user"],
                ask=aspect["ask"],
                how=style["how"],
                opening=opening,
            )
            for style in content.get("style", [{"id": "", "how": ""}])
            for template in content["template"]
            for number, opening in _numbered(aspect.get("openings"))
        ]
        for aspect in content["aspect"]
    ]
    turns = zip_longest(*by_aspect)
    prompts = tuple(prompt for turn in turns for prompt in turn if prompt is not None)
    return Library(prompts=prompts, extra=content.get("extra", {}))


def _numbered(openings: list[str] | None) -> list[tuple[str, str | None]]:
    return (
        [(str(number), each) for number, each in enumerate(openings, start=1)] if openings else [("", None)]
    )


def several_texts(count: int) -> dict[str, Any]:
    """The body's `response_format` for `count` texts: strict JSON, `{"descriptions": ["…", …]}`."""
    texts = {"type": "array", "items": {"type": "string"}, "minItems": count, "maxItems": count}
    schema = {
        "type": "object",
        "properties": {"descriptions": texts},
        "required": ["descriptions"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": LIST_SCHEMA, "strict": True, "schema": schema}}


def spoken_name(category: Category) -> str:
    """The name as a sentence says it: of `church_bells` both words, of `sea lion, seal` the first name.

    An underscore at the edge of a word (`_why`, `__init__`) belongs to the name.
    """
    return " ".join(_BETWEEN_WORDS.sub(" ", category.name.split(",")[0]).split())


def subject(category: Category) -> str:
    """The quoted name with what tells it from other things of that name."""
    hints = [f"a kind of {category.parent}" if category.parent else "", category.notes or ""]
    told = "; ".join(hint for hint in hints if hint)
    return f'"{spoken_name(category)}"' + (f" ({told})" if told else "")


def fill(prompt: Prompt, category: Category, *, count: int = 1, rival: str = "") -> tuple[Messages, str]:
    """The messages to send about a category, and the start of the answer ("" where none is given).

    `rival` is the name of the category to set it apart from, for prompts that ask for that.
    """
    words = {
        "name": spoken_name(category),
        "subject": subject(category),
        "ask": prompt.ask,
        "how": prompt.how,
        "count": str(count),
        "rival": rival,
    }
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

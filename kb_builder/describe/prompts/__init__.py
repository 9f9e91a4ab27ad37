"""The prompt library: TOML files, one per purpose, crossing templates, aspects and styles (or openings).

    version = "1"                       raise it whenever a prompt's words change
    [extra]                             optional: further fields of every request's body
    [[template]]  id, user, system?, several_user?, several_system?
                                        `{name}`, `{subject}`, `{ask}`, `{how}` and `{count}` are filled in;
                                        the `several_…` forms ask for `{count}` texts at once
    [[style]]     id, how               optional: the manner of the sentence
    [[aspect]]    id, ask, modality?, also?, openings?
                                        the modality that shows it most, others that show it in the absence
                                        of that one, and starts of the answer, for models that can continue
                                        one

No prompt has a worked example: a small model copies its material and form into every answer.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from itertools import zip_longest
from pathlib import Path
from typing import Any

from data.errors import InputError
from data.reads import reading
from data.sample import Category
from kb_builder.ask.request import LIST_SCHEMA, Messages
from kb_builder.describers import local_llm
from kb_builder.settings import TRAITS, Asking, DescribeCategories, writer_traits
from kb_builder.tables.schemas import read_rows

_BETWEEN_WORDS = re.compile(r"(?<=[^\W_])_+(?=[^\W_])")
_MOST_ITEMS = 10  # texts per request where the settings do not say


@dataclass(frozen=True, slots=True)
class Prompt:
    """One way of asking about one aspect."""

    template_id: str
    version: str
    aspect: str
    modality: str | None  # which modality shows the aspect most
    also: tuple[str, ...]  # other modalities that show it
    system: str | None
    user: str
    ask: str
    how: str
    opening: str | None
    extra: Mapping[str, Any] = field(default_factory=dict)  # further fields of the body, over the library's
    known: str = ""  # all that the answer may rest on; "": anything


@dataclass(frozen=True)
class Library:
    """Every prompt of one purpose, in the order in which they are used: neighbours differ in aspect."""

    prompts: tuple[Prompt, ...]
    extra: Mapping[str, Any]

    @property
    def aspects(self) -> int:
        """The number of aspects: this number of consecutive prompts ask about different ones."""
        return len({prompt.aspect for prompt in self.prompts})

    def about(self, aspects: Collection[str]) -> Library:
        """The prompts about some aspects only, in the same order."""
        return replace(self, prompts=tuple(each for each in self.prompts if each.aspect in aspects))

    def shown_by(self, modalities: Collection[str]) -> Library:
        """The prompts about what these modalities show, in turns, so that each modality has as many.

        An aspect belongs to the modality that shows it most. The library is unchanged if it has no prompt
        for any of them, if they are all that it knows, and for texts alone, which may be about anything.
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
    """Read `<purpose>.toml` of this folder; `several` takes the form that asks for several texts at once.

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
    """The quoted name, with parent and notes, which distinguish it from other things of that name."""
    hints = [f"a kind of {category.parent}" if category.parent else "", category.notes or ""]
    known = "; ".join(hint for hint in hints if hint)
    return f'"{spoken_name(category)}"' + (f" ({known})" if known else "")


def fill_prompt(
    prompt: Prompt, category: Category, *, count: int = 1, rival: str = ""
) -> tuple[Messages, str]:
    """The messages to send about a category, and the start of the answer ("" where none is given).

    `rival` is the name of the category it is contrasted with, for contrast prompts.
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


def texts_per_request(settings: DescribeCategories) -> int:
    """How many texts one request asks for.

    By default one from the small model, else at most ten, and fewer where that would leave aspects unasked
    (50 texts in requests of ten would cover about five of the eight aspects).
    """
    if settings.items is not None:
        return settings.items
    if TRAITS[settings.describer].one_text:
        return 1
    aspects = load_prompts("category", several=True).aspects
    return max(1, min(_MOST_ITEMS, math.ceil(settings.n / aspects)))


def category_library(settings: DescribeCategories, kb: Path) -> Library:
    """The prompts about a category alone, about aspects that the knowledge base's modalities show.

    `aspects` in the settings takes precedence. Raises InputError for an aspect that this describer has no
    prompt about.
    """
    several = texts_per_request(settings) > 1
    openings = continues_openings(settings) and not several
    library = load_prompts("category_openings") if openings else load_prompts("category", several=several)
    if settings.aspects is None:
        return library.shown_by(present_modalities(kb)) if _knows_modalities(kb) else library
    lacking = sorted(set(settings.aspects) - {prompt.aspect for prompt in library.prompts})
    if lacking:
        raise InputError(
            f"describe.categories.aspects: describer {settings.describer!r} has no prompt about"
            f" {', '.join(lacking)}; take it out, or ask another describer"
        )
    return library.about(settings.aspects)


def is_grounded(settings: DescribeCategories) -> bool:
    """Whether texts are written from what is known alone, for a model in this process that knows little."""
    return settings.grounded and writer_traits(settings).gguf and continues_openings(settings)


def contrast_items(settings: DescribeCategories) -> int:
    """How many texts one request of the contrast pass asks for."""
    return min(texts_per_request(settings), settings.contrast_texts)


def contrast_library(settings: DescribeCategories, kb: Path) -> Library | None:
    """The prompts that contrast a category with another; None for models that are too small for them.

    Of the `aspects` in the settings, those with a contrast prompt; all contrast prompts if none has one.
    """
    # The bundled model was tried and failed: see prompts/category_openings.toml.
    if TRAITS[settings.describer].gguf and continues_openings(settings):
        return None
    library = load_prompts("contrast", several=contrast_items(settings) > 1)
    if settings.aspects is None:
        return library.shown_by(present_modalities(kb)) if _knows_modalities(kb) else library
    chosen = library.about(settings.aspects)
    return chosen if chosen.prompts else library


def continues_openings(settings: Asking) -> bool:
    """Whether the describer is given an opening to continue.

    A small or a base model continues one far better than it follows an instruction.
    """
    writer = writer_traits(settings)
    if writer.gguf and local_llm.names_a_file(settings.model):
        return local_llm.find(settings.model).openings
    return writer.openings


def _knows_modalities(kb: Path) -> bool:
    """Whether `ingest` listed the modalities; earlier versions did not, and asked about all aspects."""
    return reading(kb / "modalities.parquet").is_file()


def present_modalities(kb: Path) -> list[str]:
    """The modalities of the samples of a knowledge base, sorted."""
    return sorted(str(row["modality"]) for row in read_rows(kb / "modalities.parquet"))

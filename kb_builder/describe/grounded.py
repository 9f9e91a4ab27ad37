"""Texts from what is known: a small model restates statements one at a time, and is asked nothing else.

The statements come from the category's notes, from a dictionary, and from the model's own choices among a
few words (kb_builder/ground/). Those of notes and dictionary the model puts into its own words; with a word
that it chose itself it completes an opening, and may add nothing. The template of a row says what the text
rests on: `known-notes-1-1`, `known-gloss-1-1`, `known-model-touch-1` (source, statement, opening), or
`known-model-touch+like` for two statements in one text.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations, zip_longest
from pathlib import Path
from typing import Any

from data.sample import Category
from kb_builder.ask.ledger import Entry
from kb_builder.ask.request import Describer, Request
from kb_builder.describe.prompts import Library, Prompt, present_modalities, spoken_name
from kb_builder.ground.choose import (
    AskedChoice,
    ChoiceQuestion,
    Expected,
    from_choices,
    known_words,
    plan_choices,
    questions,
    read_expected,
)
from kb_builder.ground.dictionary import look_up
from kb_builder.ground.known import Known, Opening, from_gloss, from_notes
from kb_builder.ground.parts import by_group, name_parts
from kb_builder.settings import DescribeCategories

log = logging.getLogger(__name__)

VERSION = "1"
_RESTATED = 2  # tries at each opening of a statement that the model puts into its own words
# Added to the logits of a statement's tokens: with little of it a model prefers these words and still puts a
# sentence together; with more it repeats them. Where a grammar fixes the words, it spares the grammar work.
_PREFER, _FIXED = 2.0, 12.0
_SHORT = 8  # words of a statement that shares a text with another
_SHOWN = 8


class Ground:
    """A `fill.Subject` that comes before all others: asks the model's choices, then knows what is known."""

    def __init__(
        self, categories: Sequence[Category], settings: DescribeCategories, describer: Describer, kb: Path
    ) -> None:
        self.rows: list[dict[str, Any]] = []
        self._categories = categories
        self._wanted = _Wanted(settings, kb)
        self._parts = name_parts(categories, spoken_name)
        self._questions = [each for each in questions() if self._wanted.takes(each)]
        self._asked = list(
            plan_choices(
                by_group(self._parts),
                self._questions,
                endpoint=describer.endpoint,
                model=describer.model,
                seed=settings.seed,
            )
        )
        self._entries: list[Entry | None] | None = None

    def plan(self) -> list[Request]:
        """The choices, once."""
        return [each.request for each in self._asked] if self._entries is None else []

    def absorb(self, entries: list[Entry | None]) -> None:
        """Keep the answers; a choice that was not answered is not known."""
        self._entries = entries

    def libraries(self) -> dict[str, Library]:
        """category_id -> the prompts about what is known of it; categories of which nothing is are absent."""
        entries = self._entries or [None] * len(self._asked)
        chosen = _chosen(self._asked, entries, self._questions)
        found: dict[str, Library] = {}
        uncertain: list[str] = []
        for category in self._categories:
            known = self._statements(category, chosen, uncertain)
            if known:
                found[category.category_id] = Library(tuple(_prompts(known)), extra={})
        _say(list(dict.fromkeys(uncertain)), len(self._categories) - len(found))
        return found

    def _statements(
        self, category: Category, chosen: Mapping[tuple[str, str, str], str], uncertain: list[str]
    ) -> list[Known]:
        known: list[Known] = []
        if self._wanted.phrases:
            known += from_notes(category, spoken_name(category))
            in_grid = any(part.role == "head" for part in self._parts[category.category_id])
            sense, line = look_up(category, spoken_name(category), head=in_grid)
            if line is not None:
                uncertain.append(line)
            if sense is not None and sense.gloss != category.notes:
                known += from_gloss(sense.word, sense.gloss)
        return known + from_choices(self._parts[category.category_id], chosen, self._questions)


class _Wanted:
    """Which statements are wanted: by the aspects of the settings, else by the modalities of the samples."""

    def __init__(self, settings: DescribeCategories, kb: Path) -> None:
        self._aspects = settings.aspects
        modalities = kb / "modalities.parquet"
        self._modalities: Collection[str] | None = present_modalities(kb) if modalities.is_file() else None
        self.phrases = self._aspects is None or "use" in self._aspects

    def takes(self, question: ChoiceQuestion) -> bool:
        """Whether a question is asked: about an aspect that the samples show."""
        if self._aspects is not None:
            return question.aspect in self._aspects
        shown = self._modalities
        if shown is None or set(shown) == {"text"}:
            return True
        return question.modality in shown or any(each in shown for each in question.also)


def _chosen(
    asked: Sequence[AskedChoice], entries: Sequence[Entry | None], about: Sequence[ChoiceQuestion]
) -> dict[tuple[str, str, str], str]:
    """(question, group, thing) -> the word that the model expects more of it than of the others."""
    expected: dict[tuple[str, str], dict[str, list[Expected]]] = defaultdict(lambda: defaultdict(list))
    for each, entry in zip(asked, entries, strict=True):
        read = read_expected(entry.answer, list(each.question.words)) if entry and entry.answer else None
        if read is not None:
            expected[each.question.id, each.group][each.word].append(read)
    by_id = {each.id: each for each in about}
    return {
        (question, group, thing): word
        for (question, group), of_things in expected.items()
        for thing, word in known_words(by_id[question], of_things, grid=bool(group)).items()
    }


def _say(uncertain: Sequence[str], without: int) -> None:
    """The dictionary's uncertain senses, and how many categories nothing is known of, in a line each."""
    if uncertain:
        more = f" and {len(uncertain) - _SHOWN:,} more" if len(uncertain) > _SHOWN else ""
        log.warning("dictionary: %s%s", "; ".join(uncertain[:_SHOWN]), more)
    if without:
        log.warning(
            "nothing is known of %d categories: they get a few texts about any aspect; `notes` in the list "
            "of categories would say what they are",
            without,
        )


def _prompts(known: Sequence[Known]) -> Iterator[Prompt]:
    """Every statement by its first opening, then by the next, then two in one text; then further tries."""
    singles = [[_single(each, number) for number in range(len(each.openings))] for each in known]
    yield from (prompt for turn in zip_longest(*singles) for prompt in turn if prompt is not None)
    short = [each for each in known if each.whole and len(each.says.split()) <= _SHORT]
    yield from (_pair(one, other) for one, other in combinations(short, 2))
    yield from [prompt for prompts in singles for prompt in prompts if prompt.known] * (_RESTATED - 1)


def _single(known: Known, number: int) -> Prompt:
    opening = known.openings[number]
    template_id = f"known-{known.source}-{known.id}-{number + 1}"
    if opening.then:
        return _exact(known, template_id, opening)
    thing = known.thing[:1].upper() + known.thing[1:]
    return _prompt(
        known,
        template_id,
        f"{thing}: {known.says}.\nWhat is the {{name}}? Use the words above.",
        opening.start,
        {"min_p": 0.3, "logit_bias": {f" {known.says}.": _PREFER}, "stop": [".", "\n"]},
        f"{known.thing} {known.says}",
    )


def _pair(one: Known, other: Known) -> Prompt:
    first, second = f"{one.clause} {one.says}".strip(), f"{other.clause} {other.says}".strip()
    sources = "+".join(dict.fromkeys((one.source, other.source)))
    template_id = f"known-{sources}-{one.id}+{other.id}"
    return _exact(other, template_id, Opening(f"The {{name}} {first} and", second))


def _exact(known: Known, template_id: str, opening: Opening) -> Prompt:
    """A prompt whose answer is fixed: the words that the model has chosen before."""
    return _prompt(
        known,
        template_id,
        "Say what is known.",  # the same for all, so that a server reads it once
        opening.start,
        {
            "grammar": f'root ::= " {_escaped(opening.then)}."',
            "logit_bias": {f" {opening.then}.": _FIXED},
        },
    )


def _prompt(
    known: Known, template_id: str, user: str, opening: str, extra: dict[str, Any], rests_on: str = ""
) -> Prompt:
    return Prompt(
        template_id=template_id,
        version=VERSION,
        aspect=known.aspect,
        modality=known.modality,
        also=known.also,
        system=None,
        user=user,
        ask="",
        how="",
        opening=opening,
        extra=extra,
        known=rests_on,
    )


def _escaped(words: str) -> str:
    """Words within the quotes of a grammar."""
    return words.replace("\\", "\\\\").replace('"', '\\"')

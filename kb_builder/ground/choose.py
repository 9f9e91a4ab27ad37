"""Choices: which of a few words a model expects of a thing, and more of it than of other things.

A small model that is asked to write about a thing invents. Asked to choose a word it knows a good deal: that
glass is transparent, after "Air: transparent. Brick: opaque. Gold: shiny. Clay: dull. Glass:". The bare
probabilities say little, because some words are likely of everything; so the words of a thing are compared
with those of the other things (Holtzman et al., "Surface Form Competition", EMNLP 2021). A word counts as
known of a thing

- if it is expected several times as much of this thing as of the others (geometric mean over things, lists);
- if it has a good part of the probability of the question's words;
- and if the words together are not far less likely than the likeliest other one, by which the question does
  not fit the thing ("Rain: feathers").

One request asks for one token; `logit_bias` lifts the question's words above all others, so that the server's
probabilities after sampling are those among these words, and a few other ones show how far below they were.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import zip_longest
from typing import Any, NamedTuple

from kb_builder.ask.request import Request, derived_seed
from kb_builder.gates.names import normalise, stem
from kb_builder.ground.known import Known, opening
from kb_builder.ground.parts import NamePart, Role

_LIFT = 40.0  # added to the words' logits
_OTHERS = 3  # other tokens that the answer lists
_FLOOR = math.log(1e-6)  # of a word that is not listed
_TIE = 0.5  # how much a word's own likelihood counts beside its lead, to take one of several


class _Least(NamedTuple):
    """From when on a word counts as known."""

    lead: float  # in nats: how much likelier than of the other things
    share: float  # of the probability of the question's words
    fit: float  # in nats: the words together beside the likeliest other word


# Words in one place of a grid's names are of one kind. Whole names may be of any, so that much is likelier of
# one than of the others by chance alone. How they were set: docs/words.md.
_OF_GRID, _OF_WHOLE = _Least(1.0, 0.1, -1.9), _Least(1.5, 0.35, -1.2)
_LISTS_AT_ONCE = 8  # requests in flight at the servers of the bundled model on two cores
# Any thing: what is said of it is said of everything.
_ANYTHING = ("Thing", "Object")


@dataclass(frozen=True)
class ChoiceQuestion:
    """A question of choices.toml."""

    id: str
    aspect: str
    modality: str
    of: tuple[Role, ...]
    task: str
    lists: tuple[str, ...]
    words: Mapping[str, str]  # word -> what a text says for it
    openings: tuple[str, ...]
    clause: str
    also: tuple[str, ...] = ()

    def fits(self, part: NamePart) -> bool:
        """Whether it is asked of a part of this role; of a code ("KP-4211") a model knows nothing."""
        return part.role in self.of and not any(map(str.isdigit, part.word))


@dataclass(frozen=True, slots=True)
class AskedChoice:
    """One request of a question about a thing, by one of the lists."""

    question: ChoiceQuestion
    group: str
    word: str
    list_number: int
    request: Request


@cache
def questions() -> tuple[ChoiceQuestion, ...]:
    """The questions of choices.toml."""
    content = tomllib.loads(resources.files(__package__).joinpath("choices.toml").read_text(encoding="utf-8"))
    return tuple(map(_question, content["question"]))


def _question(written: Mapping[str, Any]) -> ChoiceQuestion:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in written.items()
    }
    return ChoiceQuestion(**values)


def plan_choices(
    groups: Mapping[str, Sequence[NamePart]],
    asked: Sequence[ChoiceQuestion],
    *,
    endpoint: str,
    model: str,
    seed: int,
) -> Iterator[AskedChoice]:
    """Every request: a few lists at a time, thing by thing.

    Servers keep the prompts of the last few requests and read only the rest of one that begins alike. Were a
    list asked about all things at once, the requests in flight would each read it anew.
    """
    by_list = [
        [
            AskedChoice(
                question, group, word, number, _request(question, examples, word, endpoint, model, seed)
            )
            for group, parts in groups.items()
            for word in _things(question, parts)
        ]
        for question in asked
        for number, examples in enumerate(question.lists)
    ]
    for start in range(0, len(by_list), _LISTS_AT_ONCE):
        for turn in zip_longest(*by_list[start : start + _LISTS_AT_ONCE]):
            yield from (each for each in turn if each is not None)


def _things(question: ChoiceQuestion, parts: Sequence[NamePart]) -> list[str]:
    """What a list is completed for: the words of a group that the question is asked of, and any thing."""
    words = [part.word for part in parts if question.fits(part)]
    return list(dict.fromkeys([*words, *(_ANYTHING if words else ())]))


def _request(
    question: ChoiceQuestion, examples: str, word: str, endpoint: str, model: str, seed: int
) -> Request:
    start = f"{examples} {word[:1].upper()}{word[1:]}:"
    extra: dict[str, Any] = {
        "top_k": 0,
        "min_p": 0.0,
        "logprobs": True,
        "top_logprobs": len(question.words) + _OTHERS,
        "post_sampling_probs": True,
        "logit_bias": {f" {each}": _LIFT for each in question.words},
    }
    return Request(
        endpoint=endpoint,
        model=model,
        messages=(("user", question.task), ("assistant", start)),
        temperature=1.0,
        top_p=1.0,
        max_tokens=1,
        seed=derived_seed(seed, "choice", question.id),
        sample_index=0,
        extra=extra,
    )


@dataclass(frozen=True, slots=True)
class Expected:
    """How a model completes one list: the log share of each word, and how well the words fit at all."""

    log_share: Mapping[str, float]
    fit: float


def read_expected(answer: str, words: Sequence[str]) -> Expected | None:
    """The probabilities in an answer's body, or None where the server gave none."""
    try:
        (first, *_) = json.loads(answer)["choices"][0]["logprobs"]["content"]
        listed = {str(each["token"]): float(each["prob"]) for each in first["top_probs"]}
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    mine = {word: listed.get(f" {word}", 0.0) for word in words}
    total = sum(mine.values())
    if total <= 0:
        return None
    others = max((share for token, share in listed.items() if token[1:] not in mine), default=0.0)
    fit = math.log(total / others) - _LIFT if others > 0 else 0.0
    shares = {
        word: max(_FLOOR, math.log(share / total)) if share > 0 else _FLOOR for word, share in mine.items()
    }
    return Expected(shares, fit)


def known_words(
    question: ChoiceQuestion, expected: Mapping[str, Sequence[Expected]], *, grid: bool
) -> dict[str, str]:
    """thing -> the word that is known of it, of the things of one group, "Thing" and "Object" among them.

    `grid`: they are words in one place of names, not whole names. A thing that not every list was completed
    for is left out; nothing is known where fewer than two are left.
    """
    whole = {thing: by_list for thing, by_list in expected.items() if len(by_list) == len(question.lists)}
    if len(whole) < 2:
        return {}
    share = {
        thing: {
            word: math.fsum(each.log_share[word] for each in by_list) / len(by_list)
            for word in question.words
        }
        for thing, by_list in whole.items()
    }
    total = {word: math.fsum(each[word] for each in share.values()) for word in question.words}
    least = _OF_GRID if grid else _OF_WHOLE
    found: dict[str, str] = {}
    for thing, mine in share.items():
        if thing in _ANYTHING:
            continue
        lead = {word: mine[word] - (total[word] - mine[word]) / (len(whole) - 1) for word in question.words}
        fit = math.fsum(each.fit for each in whole[thing]) / len(question.lists)
        best = max(question.words, key=lambda word: lead[word] + _TIE * mine[word])
        if lead[best] >= least.lead and mine[best] >= math.log(least.share) and fit >= least.fit:
            found[thing] = best
    return found


def from_choices(
    parts: Sequence[NamePart], chosen: Mapping[tuple[str, str, str], str], asked: Sequence[ChoiceQuestion]
) -> list[Known]:
    """The statements about a category by the words chosen for its parts, (question, group, part) -> word.

    A word that the name says itself ("the glass cone is made of glass") is left out.
    """
    own = {stem(word) for part in parts for word in normalise(part.word).split()}
    found = []
    for question in asked:
        for part in parts:
            word = chosen.get((question.id, part.group, part.word))
            if word is None or {stem(each) for each in normalise(question.words[word]).split()} & own:
                continue
            says = question.words[word]
            found.append(
                Known(
                    source="model",
                    id=question.id,
                    thing=part.word,
                    says=says,
                    openings=tuple(opening(each, says) for each in question.openings),
                    aspect=question.aspect,
                    modality=question.modality,
                    also=question.also,
                    clause=question.clause,
                )
            )
            break  # one statement a question: the head may not contradict what qualifies it
    return found

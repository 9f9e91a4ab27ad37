"""Which texts are kept: pure verdicts over parsed texts, in plan order, to be run again for free.

A text passes, in this order: is it a refusal, in the wanted language, about its own category and no other,
short enough for the encoder, more than empty words, and new? New means: not the same words as an earlier
text, not nearly the same letters (character 3-grams), and not nearly the same meaning (embeddings).

Not done: comparing texts across categories with the names masked ("X is round" of every X). What a category
keeps would then depend on which other categories are described in the same run. Counting the words that are
left without the name, the opening and words that fit everything (gates.toml) rejects the emptiest of them.
"""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from itertools import combinations

import numpy as np
import numpy.typing as npt

from data.sample import Category
from kb_builder.language import foreign_reason
from kb_builder.rows import normalise

GRID_CONTEXTS = 2
# Texts are compared by embedding where their 3-grams are at least this alike (Jaccard). Of the pairs that a
# real model's texts on 24 categories hold, none with a cosine of 0.95 had less than 0.48; embedding every
# text would make the encoder, not the endpoint, the pace of a run.
COSINE_FROM_JACCARD = 0.4

_FEWEST_CONTENT_WORDS = 2

Floats = npt.NDArray[np.float32]
Embed = Callable[[list[str]], Floats]  # N texts -> [N, D], unit rows

_LISTS = tomllib.loads(resources.files("kb_builder").joinpath("gates.toml").read_text(encoding="utf-8"))
_REFUSAL = re.compile(
    "|".join(_LISTS["refusal"]["patterns"])
    .replace("{cannot}", "|".join(_LISTS["refusal"]["cannot"]))
    .replace("{say}", "|".join(_LISTS["refusal"]["say"])),
    re.IGNORECASE,
)
_STOP = frozenset(_LISTS["hollow"]["stop"].split())
_GENERIC = frozenset(_LISTS["hollow"]["generic"].split())
_IRREGULAR: Mapping[str, str] = _LISTS["plurals"]
_SUFFIXES = ("ical", "en", "ed", "es", "al", "ic", "y", "s", "e")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The status of one text, the row it repeats where it is a duplicate, and why it was rejected."""

    status: str
    dup_of: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A text to be judged, or None where the parser found none (`reason` says why not)."""

    row_id: str
    text: str | None
    n_tokens: int = 0
    opening: str = ""  # the start that the model was given: it says nothing of the model's own
    refused: bool = False  # the endpoint itself says that the model declined
    reason: str | None = None


@dataclass(frozen=True)
class Rules:
    """What the gates compare with: the fields of `[describe.categories]`, and the encoder's limit."""

    token_limit: int
    language: str | None = "en"
    near_jaccard: float = 0.7
    near_cosine: float | None = None
    embed: Embed | None = None  # needed where `near_cosine` is set


@dataclass(frozen=True)
class Names:
    """What a category's texts must and must not say. Words are stems, phrases are normalised."""

    category_id: str
    spellings: tuple[str, ...]  # as they are written, for messages
    own: tuple[frozenset[str], ...]  # a text must hold all stems of one of these (name or alias), if any
    rival_words: frozenset[str]
    phrases: Mapping[str, frozenset[str]]  # of all categories: a name of several words -> whose it is
    longest: int  # words of the longest phrase


def category_names(categories: Sequence[Category]) -> dict[str, Names]:
    """For each category_id: its own names, and the words and phrases that name another category of the list.

    A *phrase* is another category's full name of two or more words. A single word is a rival only where the
    names form a grid (material × shape, colour × animal): two words are rivals if exchanging one for the
    other turns a name of the list into another one in at least `GRID_CONTEXTS` ways — wooden/steel in "…
    sphere" and "… cube". So "steel" and "cone" are rivals in a text about a wooden sphere, while among the
    thousand ImageNet names "dog", "water" or "ear" stay free to use in any text.
    """
    spellings = {category.category_id: _spellings(category) for category in categories}
    rivals = _grid_rivals({words for names in spellings.values() for words in names})
    owners: dict[str, set[str]] = defaultdict(set)
    for category_id, names in spellings.items():
        for words in names:
            if len(words) > 1:
                owners[" ".join(words)].add(category_id)
    phrases = {phrase: frozenset(ids) for phrase, ids in owners.items()}
    longest = max((len(phrase.split()) for phrase in phrases), default=0)
    found: dict[str, Names] = {}
    for category_id, names in spellings.items():
        stems = frozenset(stem(word) for words in names for word in words)
        others = {stem(rival) for words in names for word in words for rival in rivals.get(word, ())}
        found[category_id] = Names(
            category_id=category_id,
            spellings=tuple(" ".join(words) for words in names),
            own=tuple(frozenset(map(stem, words)) for words in names),
            rival_words=frozenset(others - stems),
            phrases=phrases,
            longest=longest,
        )
    return found


class CategoryGate:
    """Judges the texts of one category in plan order: what is a duplicate depends on what came before."""

    def __init__(self, names: Names, rules: Rules) -> None:
        self._names = names
        self._rules = rules
        self._own_stems = frozenset(word for own in names.own for word in own)
        self._own_words = frozenset(word for name in names.spellings for word in name.split())
        self._exact: dict[str, str] = {}  # the normalised text of what was kept -> its row
        self._index = _Index()

    @property
    def accepted(self) -> int:
        """How many texts were `ok`."""
        return len(self._exact)

    def remember(self, row_ids: Sequence[str], texts: Sequence[str]) -> None:
        """Take texts that were kept before as known, so that later ones are compared with them."""
        for row_id, text in zip(row_ids, texts, strict=True):
            plain = normalise(text)
            self._exact[plain] = row_id
            self._index.add(text, row_id, self._index.gram_ids(plain))
            self._index.kept[-1] = True

    def judge(
        self, candidates: Sequence[Candidate], *, rival: Sequence[frozenset[str]] = ()
    ) -> list[Verdict]:
        """The verdicts on the texts of one round; `ok` texts are remembered.

        `rival` holds the stems of each name of a category that these texts must not name in particular.
        """
        # "Collie" is no rival's name in a text about a Border collie.
        unwanted = [name for name in rival if not name <= self._own_stems]
        alone = [self._judge_alone(candidate, unwanted) for candidate in candidates]
        plain = [normalise(candidate.text or "") for candidate in candidates]
        met = self._meet(candidates, plain, alone)
        self._embed_where_needed(met.values())
        verdicts: list[Verdict] = []
        first: dict[str, int] = {}  # where each text that came through alone stands first
        for place, verdict in enumerate(alone):
            text = plain[place]
            if verdict is None and text in self._exact:
                verdict = Verdict("dup_exact", self._exact[text], "the same words")
            elif verdict is None:
                # A second copy of what was no news meets what was kept since, too, as in a later round.
                each = self._meet_again(met[first[text]], text) if text in first else met[place]
                first.setdefault(text, place)
                verdict = self._judge_new(each)
                if verdict.status == "ok":
                    self._exact[text] = candidates[place].row_id
                    self._index.kept[each.number] = True
            verdicts.append(verdict)
        return verdicts

    def _judge_alone(self, candidate: Candidate, unwanted: Sequence[frozenset[str]]) -> Verdict | None:
        """The verdict that needs no other text, or None."""
        text = candidate.text
        if candidate.refused:
            return Verdict("refusal", reason=candidate.reason or "the model declined")
        if text is None:
            return Verdict("unparsed", reason=candidate.reason)
        if refusal := refusal_in(text):
            return Verdict("refusal", reason=f"says {refusal!r}")
        english = self._rules.language == "en"
        if english and (reason := foreign_reason(text, ignored=self._own_words)):
            return Verdict("wrong_language", reason=reason)
        words = normalise(text).split()
        stems = [stem(word) for word in words]
        known = frozenset(stems)
        if self._names.own and not any(own <= known for own in self._names.own):
            return Verdict("no_name", reason=f"names none of: {', '.join(self._names.spellings)}")
        if other := self._other_name(words, stems):
            return Verdict("other_name", reason=f"names {other!r}")
        for name in unwanted:
            if name <= known:
                return Verdict("other_name", reason="names what it is to be set apart from")
        if candidate.n_tokens > self._rules.token_limit:
            limit = self._rules.token_limit
            return Verdict("too_long", reason=f"{candidate.n_tokens} tokens, the encoder reads {limit}")
        if english and (reason := self._hollow(words, stems, candidate.opening)):
            return Verdict("boilerplate", reason=reason)
        return None

    def _other_name(self, words: Sequence[str], stems: Sequence[str]) -> str | None:
        for word, its_stem in zip(words, stems, strict=True):
            if its_stem in self._names.rival_words:
                return word
        for length in range(2, self._names.longest + 1):
            for start in range(len(words) - length + 1):
                phrase = " ".join(words[start : start + length])
                owners = self._names.phrases.get(phrase)
                if owners and self._names.category_id not in owners and not self._in_own_name(phrase):
                    return phrase
        return None

    def _in_own_name(self, phrase: str) -> bool:
        return any(phrase in name for name in self._names.spellings)

    def _hollow(self, words: Sequence[str], stems: Sequence[str], opening: str) -> str | None:
        """Why a text says nothing, or None: beside name and opening it has only words that fit everything."""
        content = {
            its_stem: word
            for word, its_stem in zip(words, stems, strict=True)
            if word not in _STOP and its_stem not in self._own_stems
        }
        given = {stem(word) for word in normalise(opening).split()}
        told = [word for its_stem, word in content.items() if word not in _GENERIC and its_stem not in given]
        if told and len(content) >= _FEWEST_CONTENT_WORDS:
            return None
        return f"says no more than {told[0]!r}" if told else "says only what fits everything"

    def _meet(
        self, candidates: Sequence[Candidate], plain: Sequence[str], alone: Sequence[Verdict | None]
    ) -> dict[int, _Met]:
        """Each new text of a round, by its place, with the earlier texts (of this round too) like it."""
        met: dict[int, _Met] = {}
        seen: set[str] = set()
        for place, verdict in enumerate(alone):
            if verdict is not None or plain[place] in self._exact or plain[place] in seen:
                continue
            seen.add(plain[place])
            grams = self._index.gram_ids(plain[place])
            others, alike = self._index.like(grams, self._floor)
            number = self._index.add(candidates[place].text or "", candidates[place].row_id, grams)
            met[place] = _Met(number, others, alike)
        return met

    def _meet_again(self, met: _Met, plain: str) -> _Met:
        """A text with all texts like it; of those that count, the kept ones, each is embedded by now."""
        return _Met(met.number, *self._index.like(self._index.gram_ids(plain), self._floor))

    @property
    def _floor(self) -> float:
        """How alike texts must be, by their 3-grams, to be looked at more closely."""
        if self._rules.near_cosine is None:
            return self._rules.near_jaccard
        return min(self._rules.near_jaccard, COSINE_FROM_JACCARD)

    def _embed_where_needed(self, met: Iterable[_Met]) -> None:
        """Embed, together, the texts of which a verdict may need the embedding."""
        if self._rules.near_cosine is None:
            return
        needed: set[int] = set()
        for each in met:
            if len(each.others) and not self._is_near_to_kept(each):
                needed |= {each.number, *each.others.tolist()}
        missing = sorted(needed - self._index.vectors.keys())
        if missing:
            if self._rules.embed is None:
                raise ValueError("near_cosine is set, but there is nothing to embed with")
            vectors_ND = self._rules.embed([self._index.texts[number] for number in missing])
            self._index.vectors.update(zip(missing, vectors_ND, strict=True))

    def _is_near_to_kept(self, met: _Met) -> bool:
        """Whether the 3-grams alone make it a duplicate of what earlier rounds kept."""
        near = met.alike >= self._rules.near_jaccard
        return any(self._index.kept[other] for other in met.others[near].tolist())

    def _judge_new(self, met: _Met) -> Verdict:
        rules, index = self._rules, self._index
        kept = [place for place, other in enumerate(met.others.tolist()) if index.kept[other]]
        others, alike = met.others[kept], met.alike[kept]
        if not kept:
            return Verdict("ok")
        best = int(np.argmax(alike))
        if alike[best] >= rules.near_jaccard:
            return Verdict("dup_near", index.row_ids[others[best]], f"3-gram Jaccard {alike[best]:.2f}")
        if rules.near_cosine is None:
            return Verdict("ok")
        mine_D = index.vectors[met.number]
        # Rounded: the last digits depend on the machine's arithmetic.
        cosines = [round(float(mine_D @ index.vectors[other]), 4) for other in others.tolist()]
        best = int(np.argmax(cosines))
        if cosines[best] >= rules.near_cosine:
            return Verdict("dup_near", index.row_ids[others[best]], f"cosine {cosines[best]:.3f}")
        return Verdict("ok")


@dataclass(frozen=True, slots=True)
class _Met:
    """A new text's number in the index, and the numbers and likenesses of the earlier texts like it."""

    number: int
    others: npt.NDArray[np.intp]
    alike: npt.NDArray[np.float64]


@dataclass
class _Index:
    """The 3-grams of texts, and exactly how alike (Jaccard) a new text is to each of them.

    `_flat[_starts[i]:_starts[i + 1]]` are the numbers of text i's 3-grams: one gather over all of them and
    one sum per text count the shared ones. For 1,000 texts that takes about 0.1 ms.
    """

    texts: list[str] = field(default_factory=list)
    row_ids: list[str] = field(default_factory=list)
    kept: list[bool] = field(default_factory=list)
    vectors: dict[int, Floats] = field(default_factory=dict)  # of those texts that were embedded
    _numbers: dict[str, int] = field(default_factory=dict)
    _flat: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(4096, np.int32))
    _starts: npt.NDArray[np.intp] = field(default_factory=lambda: np.zeros(64, np.intp))

    def gram_ids(self, plain: str) -> npt.NDArray[np.int32]:
        """The numbers of a normalised text's distinct 3-grams; new ones are given numbers."""
        numbers = self._numbers
        ids = [numbers.setdefault(gram, len(numbers)) for gram in trigrams(plain)]
        return np.array(ids, np.int32)

    def like(
        self, grams: npt.NDArray[np.int32], floor: float
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """Which texts have a Jaccard similarity of at least `floor`, in order, and what it is."""
        count = len(self.texts)
        if not count:
            return np.zeros(0, np.intp), np.zeros(0)
        starts = self._starts[: count + 1]
        mine = np.zeros(len(self._numbers), np.int16)
        mine[grams] = 1
        shared = np.add.reduceat(mine[self._flat[: starts[-1]]], starts[:-1])
        alike = shared / (np.diff(starts) + len(grams) - shared)
        found = np.flatnonzero(alike >= floor)
        return found, alike[found]

    def add(self, text: str, row_id: str, grams: npt.NDArray[np.int32]) -> int:
        """Put a text in, not (yet) as a kept one; returns its number."""
        number = len(self.texts)
        end = self._starts[number] + len(grams)
        if end > len(self._flat):
            self._flat = np.concatenate([self._flat, np.zeros(max(len(self._flat), len(grams)), np.int32)])
        if number + 1 == len(self._starts):
            self._starts = np.concatenate([self._starts, np.zeros(len(self._starts), np.intp)])
        self._flat[self._starts[number] : end] = grams
        self._starts[number + 1] = end
        self.texts.append(text)
        self.row_ids.append(row_id)
        self.kept.append(False)
        return number


def refusal_in(text: str) -> str | None:
    """The words by which a text declines, or None. "It cannot be seen at night" declines nothing."""
    found = _REFUSAL.search(text.replace("’", "'"))
    return found[0] if found else None


def trigrams(plain: str) -> frozenset[str]:
    """The character 3-grams of a normalised text; a shorter text is its own only one."""
    return frozenset(plain[i : i + 3] for i in range(max(1, len(plain) - 2)))


def _spellings(category: Category) -> tuple[tuple[str, ...], ...]:
    """The name's and the aliases' words; `Shetland sheepdog, Shetland` is a name and an alias."""
    names: Iterable[str] = [*category.name.split(","), *category.aliases]
    return tuple(
        dict.fromkeys(words for words in (tuple(normalise(name).split()) for name in names) if words)
    )


def _grid_rivals(names: set[tuple[str, ...]]) -> dict[str, set[str]]:
    slots: dict[tuple[tuple[str, ...], tuple[str, ...]], set[str]] = defaultdict(set)
    for words in names:
        for place, word in enumerate(words):
            slots[words[:place], words[place + 1 :]].add(word)
    # Names of one word can all be exchanged for each other. That is one context for each pair, not counted
    # pair by pair: of 10,000 names there would be 50 million.
    alone = slots.pop(((), ()), set())
    contexts: dict[tuple[str, str], int] = defaultdict(int)
    for choices in slots.values():
        for pair in combinations(sorted(choices), 2):
            contexts[pair] += 1
    rivals: dict[str, set[str]] = defaultdict(set)
    for (one, other), count in contexts.items():
        if count + (one in alone and other in alone) >= GRID_CONTEXTS:
            rivals[one].add(other)
            rivals[other].add(one)
    return rivals


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """A crude stem: the singular, then at least four letters of it. Wooden meets wood, wolves wolf."""
    word = _singular(word)
    while True:
        for suffix in _SUFFIXES:
            if word.endswith(suffix) and not word.endswith("ss") and len(word) - len(suffix) >= 4:
                word = word.removesuffix(suffix)
                break
        else:
            return word


def _singular(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) > 5 and word.endswith("men"):
        return word[:-2] + "an"
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("xes", "zes", "ches", "shes", "sses")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word

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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kb_builder.gates.duplicates import COSINE_FROM_JACCARD, Embed, _Index, _Met
from kb_builder.gates.language import foreign_reason
from kb_builder.gates.names import _LISTS, NameRules, normalise, stem
from kb_builder.gates.verdict import Verdict

_FEWEST_CONTENT_WORDS = 2


_REFUSAL = re.compile(
    "|".join(_LISTS["refusal"]["patterns"])
    .replace("{cannot}", "|".join(_LISTS["refusal"]["cannot"]))
    .replace("{say}", "|".join(_LISTS["refusal"]["say"])),
    re.IGNORECASE,
)
_STOP = frozenset(_LISTS["hollow"]["stop"].split())
_GENERIC = frozenset(_LISTS["hollow"]["generic"].split())


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


class CategoryGate:
    """Judges the texts of one category in plan order: what is a duplicate depends on what came before."""

    def __init__(self, names: NameRules, rules: Rules) -> None:
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


def refusal_in(text: str) -> str | None:
    """The words by which a text declines, or None. "It cannot be seen at night" declines nothing."""
    found = _REFUSAL.search(text.replace("’", "'"))
    return found[0] if found else None

"""Category gate: decides which parsed texts of a category are kept.

Verdicts depend on the texts and their order alone, so stored answers can be judged again for free. In this
order a text is checked for: a refusal, another language, its own name missing, another category's name, more
tokens than the encoder reads, boilerplate, and repetition of an earlier text (the same words, nearly the same
character 3-grams, or nearly the same embedding).

Rejected alternative: comparing texts across categories with the names masked ("X is round" of every X). What
a category keeps would then depend on which other categories are described in the same run. The emptiest of
such texts are rejected as boilerplate: they have too few words beside the name, the opening and the generic
words of gates.toml.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kb_builder.gates.duplicates import COSINE_FROM_JACCARD, Embed, SimilarTexts, TrigramIndex, read_grams
from kb_builder.gates.language import foreign_reason
from kb_builder.gates.names import WORD_LISTS, NameRules, normalise, stem
from kb_builder.gates.verdict import Verdict

_FEWEST_CONTENT_WORDS = 2
_BEYOND_KNOWN = 0.4  # share of a text's words that may be other ones than those of what is known
_REFUSAL = re.compile(
    "|".join(WORD_LISTS["refusal"]["patterns"])
    .replace("{cannot}", "|".join(WORD_LISTS["refusal"]["cannot"]))
    .replace("{say}", "|".join(WORD_LISTS["refusal"]["say"])),
    re.IGNORECASE,
)
_REFUSAL_HINTS = tuple(WORD_LISTS["refusal"]["hints"])
_STOP = frozenset(WORD_LISTS["hollow"]["stop"].split())
_GENERIC = frozenset(WORD_LISTS["hollow"]["generic"].split())


@dataclass(frozen=True, slots=True)
class Candidate:
    """A text to be judged, or None where the parser found none (`reason` says why not)."""

    row_id: str
    text: str | None
    n_tokens: int = 0
    opening: str = ""  # the start that the model was given: its words are not the model's
    known: str = ""  # all that the text may rest on; "": anything
    refused: bool = False  # the endpoint reports that the model declined
    reason: str | None = None


@dataclass(frozen=True)
class Rules:
    """Limits of the gate: from `[describe.categories]`, and the text encoder's token limit."""

    token_limit: int
    language: str | None = "en"
    near_jaccard: float = 0.7
    near_cosine: float | None = None
    embed: Embed | None = None  # required if `near_cosine` is set


class CategoryGate:
    """Judges the texts of one category in plan order: duplicates depend on the texts before them."""

    def __init__(self, names: NameRules, rules: Rules) -> None:
        self._names = names
        self._rules = rules
        self._own_stems = frozenset(word for own in names.own for word in own)
        self._own_words = frozenset(word for name in names.spellings for word in name.split())
        self._exact: dict[str, str] = {}  # normalised text -> row_id, of kept texts
        self._index = TrigramIndex(_floor(rules))

    @property
    def accepted(self) -> int:
        """How many texts were `ok`."""
        return len(self._exact)

    def remember(self, row_ids: Sequence[str], texts: Sequence[str]) -> None:
        """Add texts kept in an earlier pass: later texts are compared with them."""
        for row_id, text in zip(row_ids, texts, strict=True):
            plain = normalise(text)
            self._exact[plain] = row_id
            self._index.add(text, row_id, *read_grams([plain]))
            self._index.kept[-1] = True

    def judge(
        self, candidates: Sequence[Candidate], *, rival: Sequence[frozenset[str]] = ()
    ) -> list[Verdict]:
        """The verdicts on the texts of one round; `ok` texts are remembered.

        `rival` holds the stems of each name of a category that these texts must not name in particular.
        """
        # In a text about a Border collie, "collie" does not name a rival.
        unwanted = [name for name in rival if not name <= self._own_stems]
        plain = [normalise(candidate.text or "") for candidate in candidates]
        alone = [
            self._judge_alone(candidate, text, unwanted)
            for candidate, text in zip(candidates, plain, strict=True)
        ]
        similar = self._find_similar(candidates, plain, alone)
        self._embed_where_needed(similar.values())
        verdicts: list[Verdict] = []
        first: dict[str, int] = {}  # text -> its first place in this round, of texts judged by comparison
        for place, verdict in enumerate(alone):
            text = plain[place]
            if verdict is None and text in self._exact:
                verdict = Verdict("dup_exact", self._exact[text], "the same words")
            elif verdict is None:
                # A second copy of a rejected text is compared with texts kept since, too.
                each = self._update(similar[first[text]], text) if text in first else similar[place]
                first.setdefault(text, place)
                verdict = self._judge_new(each)
                if verdict.status == "ok":
                    self._exact[text] = candidates[place].row_id
                    self._index.kept[each.number] = True
            verdicts.append(verdict)
        return verdicts

    def _judge_alone(
        self, candidate: Candidate, plain: str, unwanted: Sequence[frozenset[str]]
    ) -> Verdict | None:
        """The verdict that depends on no other text, or None; `plain` is the normalised text."""
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
        words = plain.split()
        stems = list(map(stem, words))
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
        if english and (reason := self._boilerplate(words, stems, candidate.opening)):
            return Verdict("boilerplate", reason=reason)
        if candidate.known and (reason := self._beyond(words, candidate)):
            return Verdict("unfaithful", reason=reason)
        return None

    def _beyond(self, words: Sequence[str], candidate: Candidate) -> str | None:
        """Why a text says more than is known, or None: too many of its words are not in what is known."""
        given = {stem(word) for word in normalise(f"{candidate.known} {candidate.opening}").split()}
        content = [word for word in words if word not in _STOP and stem(word) not in self._own_stems]
        beyond = [word for word in content if stem(word) not in given]
        if len(beyond) > _BEYOND_KNOWN * len(content):
            return f"says more than is known: {', '.join(dict.fromkeys(beyond))}"
        return None

    def _other_name(self, words: Sequence[str], stems: Sequence[str]) -> str | None:
        if not self._names.rival_words.isdisjoint(stems):
            return next(
                word
                for word, its_stem in zip(words, stems, strict=True)
                if its_stem in self._names.rival_words
            )
        if self._names.heads.isdisjoint(words):
            return None
        starts = [start for start, word in enumerate(words) if word in self._names.heads]
        for length in range(2, self._names.longest + 1):
            for start in starts:
                phrase = " ".join(words[start : start + length])
                owners = self._names.phrases.get(phrase)
                if owners and self._names.category_id not in owners and not self._in_own_name(phrase):
                    return phrase
        return None

    def _in_own_name(self, phrase: str) -> bool:
        return any(phrase in name for name in self._names.spellings)

    def _boilerplate(self, words: Sequence[str], stems: Sequence[str], opening: str) -> str | None:
        """Why a text is boilerplate, or None: beside name and opening it has only generic words."""
        content = {
            its_stem: word
            for word, its_stem in zip(words, stems, strict=True)
            if word not in _STOP and its_stem not in self._own_stems
        }
        given = {stem(word) for word in normalise(opening).split()} if opening else ()
        own = [word for its_stem, word in content.items() if word not in _GENERIC and its_stem not in given]
        if own and len(content) >= _FEWEST_CONTENT_WORDS:
            return None
        return f"says no more than {own[0]!r}" if own else "says only what fits everything"

    def _find_similar(
        self, candidates: Sequence[Candidate], plain: Sequence[str], alone: Sequence[Verdict | None]
    ) -> dict[int, SimilarTexts]:
        """For each new text of a round, by its place: the similar texts before it, this round's included."""
        similar: dict[int, SimilarTexts] = {}
        new: dict[str, int] = {}  # text -> its first place
        for place, verdict in enumerate(alone):
            if verdict is None and plain[place] not in self._exact:
                new.setdefault(plain[place], place)
        for place, grams in zip(new.values(), read_grams(list(new)), strict=True):
            others, jaccard = self._index.find_similar(grams)
            number = self._index.add(candidates[place].text or "", candidates[place].row_id, grams)
            similar[place] = SimilarTexts(number, others, jaccard)
        return similar

    def _update(self, earlier: SimilarTexts, plain: str) -> SimilarTexts:
        """The text with all texts similar to it by now: those that count, the kept ones, are embedded."""
        return SimilarTexts(earlier.number, *self._index.find_similar(*read_grams([plain])))

    def _embed_where_needed(self, similar: Iterable[SimilarTexts]) -> None:
        """Embed, in one call, the texts whose embedding a verdict may need."""
        if self._rules.near_cosine is None:
            return
        needed: set[int] = set()
        for each in similar:
            if each.others and not self._is_near_to_kept(each):
                needed |= {each.number, *each.others}
        missing = sorted(needed - self._index.vectors.keys())
        if missing:
            if self._rules.embed is None:
                raise ValueError(
                    "near_cosine is set, but `embed` is not: pass the function that embeds texts"
                )
            vectors_ND = self._rules.embed([self._index.texts[number] for number in missing])
            self._index.vectors.update(zip(missing, vectors_ND, strict=True))

    def _is_near_to_kept(self, similar: SimilarTexts) -> bool:
        """Whether the 3-grams alone make the text a duplicate of one kept in an earlier round."""
        return any(
            self._index.kept[other] and jaccard >= self._rules.near_jaccard
            for other, jaccard in zip(similar.others, similar.jaccard, strict=True)
        )

    def _judge_new(self, similar: SimilarTexts) -> Verdict:
        """The verdict by comparison with the kept texts among the similar ones."""
        rules, index = self._rules, self._index
        kept = [
            (other, jaccard)
            for other, jaccard in zip(similar.others, similar.jaccard, strict=True)
            if index.kept[other]
        ]
        if not kept:
            return Verdict("ok")
        nearest, jaccard = max(kept, key=lambda each: each[1])
        if jaccard >= rules.near_jaccard:
            return Verdict("dup_near", index.row_ids[nearest], f"3-gram Jaccard {jaccard:.2f}")
        if rules.near_cosine is None:
            return Verdict("ok")
        mine_D = index.vectors[similar.number]
        # Rounded: the last digits depend on the machine's arithmetic.
        cosines = [(other, round(float(mine_D @ index.vectors[other]), 4)) for other, _ in kept]
        nearest, cosine = max(cosines, key=lambda each: each[1])
        if cosine >= rules.near_cosine:
            return Verdict("dup_near", index.row_ids[nearest], f"cosine {cosine:.3f}")
        return Verdict("ok")


def _floor(rules: Rules) -> float:
    """The Jaccard similarity from which texts are compared further."""
    return rules.near_jaccard if rules.near_cosine is None else min(rules.near_jaccard, COSINE_FROM_JACCARD)


def refusal_in(text: str) -> str | None:
    """The words by which a text declines, or None: "It cannot be seen at night" is not a refusal."""
    text = text.replace("’", "'")
    if text.isascii():  # other letters match in any case too: K is also the sign of kelvin
        low = text.lower()
        if not any(hint in low for hint in _REFUSAL_HINTS):
            return None
    found = _REFUSAL.search(text)
    return found[0] if found else None

"""One category as a subject of stage 1: plans its requests, judges the answers, builds the rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from data.files import hash_json
from data.sample import Category
from kb_builder.ask.cost import Spending
from kb_builder.ask.endpoint.parameters import Shape, shape_for, shaped
from kb_builder.ask.ledger import Entry
from kb_builder.ask.request import Describer, Request, asked, derived_seed, request_key
from kb_builder.describe.prompts import Library, Prompt, fill_prompt, several_texts, texts_per_request
from kb_builder.describe.rows import JudgedText, RowQuestion, answer_columns, origin_of, row_id, text_row
from kb_builder.encoders.tokens import MINILM, TokenCounter, token_counter
from kb_builder.gates.duplicates import Floats
from kb_builder.gates.gate import Candidate, CategoryGate, Rules, refusal_in
from kb_builder.gates.verdict import Verdict
from kb_builder.parse.answers import PARSER_VERSION, Item, ParsedAnswer, parse_answer, read_answer
from kb_builder.settings import DescribeCategories

# Texts of a category that a small model knows nothing of: most of what it writes is wrong (docs/words.md).
UNKNOWN_TEXTS = 4
# A round asks for the missing texts divided by the share kept so far, assumed to be at least this ...
_LOWEST_YIELD = 0.25
# ... and for at most this number of texts, so that saturation is noticed before all requests are paid for;
# for fewer where less than half of the texts is kept.
_ROUND_TEXTS = 250
_POOR_YIELD, _POOR_ROUND_TEXTS = 0.5, 100
# Saturation is judged over the last 100 texts asked for, and at least 5 requests.
_WINDOW_TEXTS = 100
_WINDOW_REQUESTS = 5


@dataclass(frozen=True)
class CategoryJob:
    """What all categories of a run share."""

    settings: DescribeCategories
    endpoint: str
    model: str
    library: Library
    shape: Shape  # how parameters are sent
    items: int  # texts per request
    tokens: TokenCounter
    rules: Rules
    started: int  # microseconds since 1970: entries made before then were in the ledger already


@dataclass(frozen=True, slots=True)
class Planned:
    """One request of a plan, with what its rows repeat of it."""

    request: Request
    key: str
    prompt: Prompt
    opening: str
    prompt_hash: str


def make_category_job(
    settings: DescribeCategories,
    describer: Describer,
    library: Library,
    *,
    encoder: str,
    started: int,
    items: int | None = None,
) -> CategoryJob:
    """What the categories of a run share. `encoder` names the text encoder that will read the texts."""
    tokens = token_counter(encoder)
    return CategoryJob(
        settings=settings,
        endpoint=describer.endpoint,
        model=describer.model,
        library=library,
        shape=shape_for(settings, endpoint=describer.endpoint, model=describer.model),
        items=items or texts_per_request(settings),
        tokens=tokens,
        rules=gate_rules(settings, tokens),
        started=started,
    )


def gate_rules(settings: DescribeCategories, tokens: TokenCounter) -> Rules:
    """By which rules a category's texts are judged."""
    return Rules(
        token_limit=tokens.limit,
        language=settings.language,
        near_jaccard=settings.near_jaccard,
        near_cosine=settings.near_cosine,
        embed=embed_texts,
    )


def embed_texts(texts: Sequence[str]) -> Floats:
    """The texts' unit vectors by the bundled encoder, float32[N, 384], as near-duplicates are compared."""
    from kb_builder.encoders import load_encoder
    from kb_builder.encoders.workers import encode_by_length  # loads torch: only once a gate needs it

    return encode_by_length(load_encoder(MINILM), texts)


@dataclass(frozen=True, slots=True)
class Rival:
    """The category that another is contrasted with."""

    category_id: str
    name: str
    own: tuple[frozenset[str], ...]  # stems of its names, see `NameRules`


class CategorySubject:
    """A `fill.Subject`: one category that is to get `wanted` texts, alone or contrasted with a rival."""

    def __init__(
        self,
        category: Category,
        gate: CategoryGate,
        job: CategoryJob,
        *,
        wanted: int,
        rival: Rival | None = None,
        library: Library | None = None,
        on_ok: Callable[[int], None] = lambda count: None,
    ) -> None:
        """`library`: prompts about what is known of this category, each asked once.

        If they gave no text, the job's prompts are asked for `UNKNOWN_TEXTS`: a category needs one.
        """
        self.category = category
        self.rows: list[dict[str, Any]] = []
        self.ok = 0
        self.spending = Spending()
        self._gate = gate
        self._job = job
        self._wanted = wanted
        self._rival = rival
        self._own = library.prompts if library is not None else ()
        self._on_ok = on_ok
        self._asked: list[int] = []  # of every request absorbed, in order: its `ok` texts
        self._open: list[Planned] = []
        self.abandoned = False  # an answer is missing and will not come in this run

    @property
    def short(self) -> bool:
        """Whether it ended with fewer texts than wanted."""
        return self.ok < self._wanted

    def plan(self) -> list[Request]:
        """The next requests: as many as should yield the missing texts, within the limits."""
        self._open = [self._plan(index) for index in self._next_indices()]
        return [planned.request for planned in self._open]

    def absorb(self, entries: list[Entry | None]) -> None:
        """Parse and judge a round's answers in plan order."""
        answered = [
            (planned, entry) for planned, entry in zip(self._open, entries, strict=True) if entry is not None
        ]
        self.abandoned = len(answered) < len(entries)
        self._open = []
        before = self.ok
        for oks in self._add_rows(answered):
            self._asked.append(oks)
            self.ok += oks
        self._on_ok(min(self.ok, self._wanted) - min(before, self._wanted))

    def _next_indices(self) -> range:
        settings, items = self._job.settings, self._job.items
        asked = len(self._asked)
        if self.abandoned or self._saturated():
            return range(0)
        limit = math.ceil(self._wanted * settings.max_requests_per_text / items)
        wanted = self._wanted
        if self._own and (self.ok or asked < len(self._own)):
            limit = min(limit, len(self._own))
        elif self._own:
            wanted, limit = min(wanted, UNKNOWN_TEXTS), limit + len(self._own)
        # Of requests of the present kind: what the category's own prompts gave says nothing of the job's.
        first = asked in {0, len(self._own)}
        share = 1.0 if first else max(self.ok / (asked * items), _LOWEST_YIELD)
        most = _ROUND_TEXTS if share > _POOR_YIELD else _POOR_ROUND_TEXTS
        texts = min(max(0, wanted - self.ok) / share, most)
        return range(asked, min(asked + math.ceil(texts / items), limit))

    def _saturated(self) -> bool:
        """Whether the last window of requests yielded too few new texts."""
        items = self._job.items
        window = max(_WINDOW_REQUESTS, math.ceil(_WINDOW_TEXTS / items))
        if len(self._asked) < window:
            return False
        new = sum(self._asked[-window:])
        return new * 100 < self._job.settings.saturated_below * window * items

    def _plan(self, index: int) -> Planned:
        job, settings = self._job, self._job.settings
        if index < len(self._own):
            prompt = self._own[index]
            extra = prompt.extra
        else:
            prompt = job.library.prompts[(index - len(self._own)) % len(job.library.prompts)]
            extra = job.library.extra
        rival = self._rival
        messages, opening = fill_prompt(
            prompt, self.category, count=job.items, rival="" if rival is None else rival.name
        )
        several = job.items > 1
        about = [self.category.category_id, *(["contrast", rival.category_id] if rival else [])]
        request = Request(
            endpoint=job.endpoint,
            model=job.model,
            messages=messages,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=settings.max_tokens * job.items + 32 if several else settings.max_tokens,
            seed=derived_seed(settings.seed, *about, index),
            sample_index=index,
            extra={**extra, "response_format": several_texts(job.items)} if several else extra,
        )
        request = shaped(request, job.shape)
        return Planned(request, request_key(request), prompt, opening, hash_json(request.messages))

    def _add_rows(self, answered: Sequence[tuple[Planned, Entry]]) -> list[int]:
        """One row for each item of each answer; returns each request's number of `ok` texts."""
        read = [self._read(planned, entry) for planned, entry in answered]
        pieces = [
            (request, number, item)
            for request, (_, items) in enumerate(read)
            for number, item in enumerate(items)
        ]
        texts = [item.text or item.said for _, _, item in pieces]
        lengths = self._job.tokens.count(texts)
        candidates = [
            Candidate(
                row_id=row_id(answered[request][0].key, choice=0, item=number, parser_version=PARSER_VERSION),
                text=item.text,
                n_tokens=length,
                opening=answered[request][0].opening,
                known=answered[request][0].prompt.known,
                refused=_is_refused(read[request][0], item),
                reason=item.reason,
            )
            for (request, number, item), length in zip(pieces, lengths, strict=True)
        ]
        verdicts = self._gate.judge(candidates, rival=self._rival.own if self._rival else ())
        oks = [0] * len(answered)
        columns = [
            answer_columns(self._question(planned), origin_of(planned.request, entry, answer))
            for (planned, entry), (answer, _) in zip(answered, read, strict=True)
        ]
        for (request, number, item), candidate, verdict in zip(pieces, candidates, verdicts, strict=True):
            _, entry = answered[request]
            answer, items = read[request]
            if answer is None:
                verdict = Verdict("failed", reason=entry.error)
            oks[request] += verdict.status == "ok"
            judged = JudgedText(
                text=item.text or item.said,
                n_tokens=candidate.n_tokens,
                verdict=verdict,
                item=number,
                cost_usd=None if entry.cost_usd is None else entry.cost_usd / len(items),
            )
            self.rows.append(text_row(columns[request], judged, candidate.row_id))
        for _, entry in answered:
            self.spending.count(entry, started=self._job.started)
        return oks

    def _read(self, planned: Planned, entry: Entry) -> tuple[ParsedAnswer | None, tuple[Item, ...]]:
        if entry.answer is None:
            return None, (Item(None, "", entry.error),)
        question = asked(planned.request.messages)
        answer = read_answer(entry.answer, asked=question)
        several = self._job.items > 1
        return answer, parse_answer(answer, opening=planned.opening, several=several, asked=question)

    def _question(self, planned: Planned) -> RowQuestion:
        prompt = planned.prompt
        return RowQuestion(
            kind="category",
            subject_id=self.category.category_id,
            modality=prompt.modality,
            template_id=prompt.template_id if self._rival is None else f"contrast/{prompt.template_id}",
            template_version=prompt.version,
            aspect=prompt.aspect if self._rival is None else f"contrast:{self._rival.category_id}",
            prompt_hash=planned.prompt_hash,
            request_key=planned.key,
        )


def _is_refused(answer: ParsedAnswer | None, item: Item) -> bool:
    """Whether the endpoint reports a refusal, or the model declines in words ("I cannot help with that.").

    Whole texts that precede a content filter's cut are not refusals.
    """
    if answer is None:
        return False
    return answer.finish_reason == "refusal" or (
        item.text is None and (answer.finish_reason == "content_filter" or refusal_in(item.said) is not None)
    )

"""One sample as a subject of stage 1: plans its requests, judges the answers, builds the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data.errors import SampleError
from data.files import hash_json
from data.readers import read
from data.readers.axes import turned
from kb_builder.ask.cost import Spending
from kb_builder.ask.endpoint.parameters import Shape, shaped
from kb_builder.ask.ledger import Entry
from kb_builder.ask.request import Content, Describer, Media, Request, asked, derived_seed, request_key
from kb_builder.describe.prompts import continues_openings
from kb_builder.describe.prompts.samples import (
    SamplePrompt,
    SamplePrompts,
    load_sample_prompts,
    sample_purpose,
)
from kb_builder.describe.rows import JudgedText, RowOrigin, RowQuestion, description_row, origin_of
from kb_builder.describers.media import MediaFiles, media_for
from kb_builder.encoders.tokens import TokenCounter
from kb_builder.facts.sentence import FACTS_VERSION, measure
from kb_builder.gates.faithful import NamePhrases, contradiction, invented_name
from kb_builder.gates.gate import refusal_in
from kb_builder.gates.language import foreign_reason
from kb_builder.gates.verdict import Verdict
from kb_builder.parse.answers import parse_answer, read_answer
from kb_builder.settings import TRAITS, DescribeSamples

# A measurement is a function of the file and the version alone. Its rows carry no real time, so measuring
# again gives the same bytes and no later stage runs again.
_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SampleSource:
    """Who wrote a text: the columns that are the same for all rows of one describer."""

    source: str
    provider: str
    model: str
    version: str


GIVEN = SampleSource("manifest", provider="manifest", model="given", version="1")
FACTS = SampleSource("facts", provider="unibind", model=f"facts-{FACTS_VERSION}", version=FACTS_VERSION)


@dataclass(frozen=True)
class SampleJob:
    """What all samples of a run share."""

    settings: DescribeSamples
    describer: Describer | None  # None: nothing is asked
    shape: Shape | None  # how parameters are sent to it
    files: MediaFiles
    locate: Callable[[str], Path]
    given: Mapping[str, str]  # sample_id -> the manifest's text
    names: NamePhrases
    rejected: Mapping[str, str]  # sample_id -> why an earlier run rejected its file; empty but in a replay
    tokens: TokenCounter  # of the text encoder that will read the texts
    started: int  # microseconds since 1970: entries made before then were in the ledger already
    run_id: str

    def purpose(self, sample: Row) -> str:
        """The name of the prompts for a sample."""
        if TRAITS[self.settings.describer].phrases_facts:
            return "sample_facts_openings" if continues_openings(self.settings) else "sample_facts"
        return sample_purpose(sample, self.settings.native)


@dataclass(frozen=True)
class Facts:
    """What was measured of a sample; a text's facts are the text itself."""

    facts: str | None
    unreadable: str | None = None  # why its file cannot be read


def facts_of(sample: Row, locate: Callable[[str], Path]) -> Facts:
    """Measure a sample (`modality`, `uri`, perhaps `up`); `locate` finds its file. For any thread."""
    uri = sample["uri"]
    path = None
    try:
        path = locate(uri)
        return Facts(measure(read(sample["modality"], turned(path, sample.get("up")))))
    except SampleError as error:
        # By the path that the manifest gives: the table does not depend on where the folder lies.
        return Facts(None, str(error) if path is None else str(error).replace(str(path), uri))


class SampleSubject:
    """The `Subject` of one sample: at most `tries` requests, until one text passes the gates."""

    def __init__(self, job: SampleJob, shard: int, sample: Row) -> None:
        self.shard = shard
        self.sample = sample
        self._rows: list[Row] = []
        self.unreadable: str | None = None  # why the file cannot be read
        self.spending = Spending()
        self.facts: str | None = None
        self._job = job
        self._planned: tuple[Request, SamplePrompt] | None = None
        self._tries = 0
        self._settled = False
        given = job.given.get(sample["sample_id"])
        if given is not None:
            self._add(given, GIVEN)

    @property
    def rows(self) -> list[Row]:
        """What became of the answers so far: by source, and the tries of one source in their order."""
        return sorted(self._rows, key=lambda row: str(row["source"]))

    @property
    def is_described(self) -> bool:
        """Whether it has a text that is `ok`."""
        return any(row["status"] == "ok" for row in self._rows)

    @property
    def needs_facts(self) -> bool:
        """Whether its file must be measured before it can be planned."""
        traits = TRAITS[self._job.settings.describer]
        wanted = traits.measures or (self.sample["modality"] == "text" and traits.describes)
        return wanted and not self.is_described

    def measure(self) -> None:
        """Measure the file. May be called in any thread."""
        self.take(facts_of(self.sample, self._job.locate))

    def take(self, found: Facts) -> None:
        """Take what was measured, here or elsewhere."""
        self.facts, self.unreadable = found.facts, found.unreadable

    def plan(self) -> list[Request]:
        """The next try; [] with an `ok` text, after the last try, or without a describer."""
        job = self._job
        if self._settled or self.is_described or self.unreadable is not None:
            return []
        if job.describer is None or self.sample["modality"] == "text" or self._tries >= job.settings.tries:
            if self.facts is not None:  # describer `facts`, or no try of `facts+llm` agreed with the facts
                self._add(self.facts, FACTS)
            self._settled = True
            return []
        prompts = load_sample_prompts(job.purpose(self.sample))
        prompt = prompts.of_try(self._tries)
        request = self._request(job.describer, prompts, prompt)
        self._planned = request, prompt
        self._tries += 1
        return [request]

    def absorb(self, entries: list[Entry | None]) -> None:
        """Judge the try's answer. Without one, the file may have been unreadable when it was to be sent."""
        (entry,) = entries
        assert self._planned is not None
        request, prompt = self._planned
        if entry is None:
            self._settled = True
            reasons = map(self._job.files.unreadable.get, _media(request))
            before = self._job.rejected.get(self.sample["sample_id"])
            self.unreadable = next((reason for reason in reasons if reason is not None), before)
        else:
            self.spending.count(entry, started=self._job.started)
            self._rows.append(self._row(request, prompt, entry))

    def _request(self, describer: Describer, prompts: SamplePrompts, prompt: SamplePrompt) -> Request:
        settings, sample = self._job.settings, self.sample
        question: Content
        if self.facts is not None:
            question = prompt.user.replace("{facts}", self.facts)
        else:
            question = (*media_for(sample, settings), prompt.user)
        opening = (("assistant", prompt.opening),) if prompt.opening else ()
        request = Request(
            endpoint=describer.endpoint,
            model=describer.model,
            messages=(("system", prompt.system), ("user", question), *opening),
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=settings.max_tokens,
            seed=derived_seed(settings.seed, sample["sample_id"], self._tries),
            sample_index=self._tries,
            extra=prompts.extra,
        )
        assert self._job.shape is not None  # there is one wherever there is a describer
        return shaped(request, self._job.shape)

    def _row(self, request: Request, prompt: SamplePrompt, entry: Entry) -> Row:
        question = asked(request.messages)
        answer = None if entry.answer is None else read_answer(entry.answer, asked=question)
        item = None if answer is None else parse_answer(answer, opening=prompt.opening, asked=question)[0]
        text = "" if item is None else item.text or item.said  # a rejected row keeps what the model said
        (n_tokens,) = self._job.tokens.count([text])
        if answer is None or item is None:
            verdict = Verdict("failed", reason=entry.error)
        elif answer.finish_reason in {"refusal", "content_filter"}:
            verdict = Verdict("refusal", reason=item.reason or f"finish_reason {answer.finish_reason}")
        elif item.text is None:
            declined = refusal_in(item.said)
            verdict = Verdict("refusal" if declined else "unparsed", reason=item.reason)
        else:
            verdict = self._judge(item.text, n_tokens)
        return description_row(
            RowQuestion(
                kind="sample",
                subject_id=self.sample["sample_id"],
                modality=self.sample["modality"],
                template_id=prompt.template_id,
                template_version=prompt.version,
                prompt_hash=hash_json(request.messages),
                request_key=request_key(request),
            ),
            origin_of(request, entry, answer),
            JudgedText(text, n_tokens, verdict, cost_usd=entry.cost_usd),
        )

    def _judge(self, text: str, n_tokens: int) -> Verdict:
        """The verdict on a whole text; of `facts+llm`, it must agree with the facts."""
        if declined := refusal_in(text):
            return Verdict("refusal", reason=f"says {declined!r}")
        if self._job.settings.language is not None and (reason := foreign_reason(text)):
            return Verdict("wrong_language", reason=reason)
        if self.facts is not None:
            if name := invented_name(text, self.facts, self._job.names):
                return Verdict("other_name", reason=f"names {name!r}, which was not measured")
            if reason := contradiction(text, self.facts):
                return Verdict("unfaithful", reason=reason)
        return self._length(n_tokens)

    def _length(self, n_tokens: int) -> Verdict:
        limit = self._job.tokens.limit
        if n_tokens <= limit:
            return Verdict("ok")
        return Verdict("too_long", reason=f"{n_tokens} tokens, the encoder reads {limit}")

    def _add(self, text: str, source: SampleSource) -> None:
        """Add the row of a text for which no request was sent."""
        sample = self.sample
        (n_tokens,) = self._job.tokens.count([text])
        verdict = self._length(n_tokens)
        key = [source.provider, source.model, sample["sample_id"], sample["sha256"], text]
        question = RowQuestion(
            kind="sample",
            subject_id=sample["sample_id"],
            modality=sample["modality"],
            template_id=source.source,
            template_version=source.version,
            prompt_hash=hash_json([source.provider, source.model, sample["modality"]]),
            request_key=hash_json(key),
        )
        origin = RowOrigin(
            provider=source.provider,
            model_requested=source.model,
            model_resolved=source.model,
            finish_reason="stop",
            attempts=1,
            latency_ms=0.0,
            created_at=_NO_TIME,
            source=source.source,
            run_id=self._job.run_id,
        )
        self._rows.append(description_row(question, origin, JudgedText(text, n_tokens, verdict)))


def _media(request: Request) -> Iterator[Media]:
    for _, content in request.messages:
        yield from (part for part in content if isinstance(part, Media))

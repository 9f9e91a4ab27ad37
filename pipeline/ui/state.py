"""What the server keeps: the projects that were opened, their loaded models, and dropped files.

Everything is read again when a run has replaced its files: `data.reads.remembered` looks at them before every
use. Loading and encoding happen in threads, one at a time for each project.
"""

from __future__ import annotations

import secrets
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from data.errors import InputError, KnowledgeBaseError, SampleError, UniBindError
from data.modality import MODALITIES, Modality, guess_modality
from data.paths import resolver
from data.readers import read, use_budget, warm_up
from data.readers.axes import File, Up, turned, up_override
from data.readers.payload import Text
from data.reads import remembered
from data.show import shorten
from kb_builder.browse.query import connect
from pipeline.api import Project
from pipeline.predict.search import ANSWERS, Found, PlacedPart, Query, Searcher
from pipeline.project import ProjectFile
from pipeline.ui.watch import Runner

MOST_UPLOADS = 64  # dropped files that are kept; the oldest goes first
MOST_PLACED = 256  # parts of queries whose vectors are kept; the oldest goes first

# Whether an answer (`answers AS a`) is one of the categories of its sample (`v_samples AS s`), in SQL.
IS_RIGHT = "(a.named = s.category_id OR coalesce(list_contains(s.more_category_ids, a.named), false))"


class SampleRow(NamedTuple):
    """A row of samples.parquet that a page shows, and where its file is."""

    sample_id: str
    modality: Modality
    uri: str
    category_id: str | None
    more_category_ids: Sequence[str] | None
    split: str
    object_id: str | None
    sha256: str
    up: Up | None


class Timed(NamedTuple):
    """What a search found, and how long its parts took, in milliseconds."""

    found: Found
    encode_ms: float
    search_ms: float


class Opened:
    """One project and what is loaded of it."""

    def __init__(self, key: str, file: ProjectFile) -> None:
        self.key = key
        self.file = file
        self.api = Project(file)
        self.maps: dict[str, Any] = {}  # pipeline/ui/maps.py keeps its maps here
        self._lock = threading.Lock()  # while a model works
        self._answers_lock, self._views_lock = threading.Lock(), threading.Lock()
        self._open_views = remembered(partial(_Views, file.kb))
        self._views: _Views | None = None
        self._placed_by: Searcher | None = None
        self._placed: dict[Query, PlacedPart] = {}
        self._recognised_of: Searcher | None = None
        self._recognised = ANSWERS.empty_table()

    @property
    def has_kb(self) -> bool:
        """Whether a run has reached the stage that makes the knowledge base."""
        return (self.file.kb / "categories.parquet").is_file()

    def searcher(self) -> Searcher:
        """The loaded project: seconds at first, then at once. Raises KnowledgeBaseError before `localize`."""
        with self._lock:
            return self.api.searcher()

    def search(self, queries: Sequence[Query], *, top: int) -> Timed:
        """Encode the parts of a query and search by all of them together. Raises what its parts raise."""
        searcher = self.searcher()
        use_budget(self.file.data.budget)
        started = time.perf_counter()
        with self._lock:
            placed = [self._place(searcher, query) for query in queries]
        encoded = time.perf_counter()
        own = [str(query.source) for query in queries if query.is_sample]
        found = searcher.search(placed, top=top, without=own)
        ended = time.perf_counter()
        return Timed(found, 1e3 * (encoded - started), 1e3 * (ended - encoded))

    def _place(self, searcher: Searcher, query: Query) -> PlacedPart:
        """A part of a query in the space; what was placed is kept until the project is loaded again."""
        if searcher is not self._placed_by:
            self._placed, self._placed_by = {}, searcher
        if query not in self._placed:
            self._placed[query] = searcher.place(query)
            while len(self._placed) > MOST_PLACED:
                self._placed.pop(next(iter(self._placed)))
        return self._placed[query]

    def answers(self) -> pa.Table:
        """The answer for every sample (`ANSWERS`); empty before `localize` has chosen centers."""
        if not (self.file.kb / "centers.parquet").is_file():
            return ANSWERS.empty_table()
        searcher = self.searcher()
        with self._answers_lock:  # of many samples they take a minute, and need no model
            if searcher is not self._recognised_of:
                self._recognised, self._recognised_of = searcher.recognised(), searcher
            return self._recognised

    @property
    def not_evaluated(self) -> str:
        """Why the answers are without what an evaluation finds; empty where they have it."""
        searcher = self._recognised_of
        return "" if searcher is None else searcher.recogniser.evaluated.temperatures.missing or ""

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Hold the project while a model of it works: one thread at a time."""
        with self._lock:
            yield

    def held_out(self) -> list[str]:
        """The ids of the samples that were not trained on."""
        return [
            row["sample_id"] for row in self.rows("SELECT sample_id FROM v_samples WHERE split <> 'train'")
        ]

    def rows(self, query: str, values: Sequence[Any] = (), *, answers: bool = False) -> list[dict[str, Any]]:
        """The rows of one of our own queries over the views, with `values` for its question marks.

        With `answers`, there is a table `answers` too. Raises KnowledgeBaseError where there is no knowledge
        base, and where a run replaced a file meanwhile.
        """
        table = self.answers() if answers else None
        with self._views_lock:
            views = self._open_views()
            if self._views is not None and views is not self._views:
                self._views.close()
            self._views = views
        return views.rows(query, values, table)

    def close(self) -> None:
        """Close the connection to the knowledge base."""
        with self._views_lock:
            self._open_views = remembered(partial(_Views, self.file.kb))
            if self._views is not None:
                self._views.close()
            self._views = None

    def sample(self, sample_id: str) -> SampleRow:
        """One sample by its id. Raises InputError where there is none."""
        names = ", ".join(SampleRow._fields)
        rows = self.rows(f"SELECT {names} FROM v_samples WHERE sample_id = ? LIMIT 1", [sample_id])
        if not rows:
            raise InputError(f"there is no sample {sample_id!r} in this project")
        return SampleRow(**rows[0])

    def texts_of(self, sample_ids: Sequence[str], *, most: int = 300) -> dict[str, str]:
        """The beginnings of text samples, by id; of one that cannot be read, the reason."""
        found: dict[str, str] = {}
        for sample_id in sample_ids:
            try:
                payload = read("text", self.file_of(self.sample(sample_id)))
                assert isinstance(payload, Text)
                found[sample_id] = shorten(payload.text, most)
            except UniBindError as error:
                found[sample_id] = f"({error})"
        return found

    def file_of(self, sample: SampleRow) -> File:
        """The file of a sample. Raises SampleError where its path or a link leads out of the data folder."""
        path = resolver(self.file.data_root)(sample.uri)
        if not path.is_file():
            raise SampleError(f"{sample.uri}: the file is gone")
        return turned(path, sample.up)


class _Views:
    """A connection over the views of a knowledge base, for our own queries; several threads may use it."""

    def __init__(self, kb: Path) -> None:
        self._stack = ExitStack()
        self._connection = self._stack.enter_context(connect(kb, vectors=False))
        self._lock = threading.Lock()
        self._answers: pa.Table | None = None

    def close(self) -> None:
        """Close the connection; what still reads through a cursor of it ends as usual."""
        with self._lock:
            self._connection.close()

    def rows(self, query: str, values: Sequence[Any], answers: pa.Table | None) -> list[dict[str, Any]]:
        """The rows of one query; `answers` becomes the table of that name."""
        try:
            with self._lock:
                if answers is not None and answers is not self._answers:
                    self._connection.register("incoming", answers)
                    self._connection.execute("CREATE OR REPLACE TABLE answers AS FROM incoming")
                    self._connection.unregister("incoming")
                    self._answers = answers
                cursor = self._connection.cursor()
            result = cursor.execute(query, list(values))
            names = [column[0] for column in result.description]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
        except duckdb.Error as error:
            first = str(error).partition("\n")[0]
            raise KnowledgeBaseError(
                f"the knowledge base changed while it was read; try again ({first})"
            ) from error


@dataclass(frozen=True)
class Upload:
    """A dropped file: its own name, where it lies, and its modality, if its name shows it."""

    name: str
    path: Path
    modality: Modality | None


class DroppedFiles:
    """Dropped files in a temporary folder, by ids that cannot be guessed; the folder goes with the server."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="unibind-ui-", ignore_cleanup_errors=True)
        self._kept: dict[str, Upload] = {}
        self._lock = threading.Lock()

    def new_path(self, name: str) -> tuple[str, Path]:
        """A new id and the path for a file of that name: only its ending is kept."""
        identity = secrets.token_urlsafe(12)
        ending = "".join(letter for letter in Path(name).suffix if letter.isalnum())[:10]
        return identity, Path(self._folder.name) / f"{identity}.{ending}"

    def keep(self, identity: str, name: str, path: Path, modality: str | None = None) -> Upload:
        """Remember a file that was written to its new path."""
        given = next((each for each in MODALITIES if each == modality), None)
        # The name may say what it is (`thermal_…`), and an existing TIFF is opened.
        known = given or guess_modality(path.with_name(Path(name).name or path.name)) or guess_modality(path)
        upload = Upload(Path(name).name, path, known)
        with self._lock:
            self._kept[identity] = upload
            while len(self._kept) > MOST_UPLOADS:
                self._kept.pop(next(iter(self._kept))).path.unlink(missing_ok=True)
        return upload

    def get(self, identity: str) -> Upload:
        """A dropped file by its id. Raises InputError where there is none any more."""
        with self._lock:
            if identity not in self._kept:
                raise InputError("this dropped file is no longer there; drop it again")
            return self._kept[identity]

    def close(self) -> None:
        """Remove all dropped files."""
        self._folder.cleanup()


@dataclass
class Desk:
    """Everything that the pages work on."""

    projects: Mapping[str, Opened]
    allow_run: bool = False
    uploads: DroppedFiles = field(default_factory=DroppedFiles)
    _runners: dict[str, Runner] = field(default_factory=dict)

    def runner(self, opened: Opened) -> Runner:
        """What starts and pauses the runs of a project."""
        return self._runners.setdefault(opened.key, Runner(opened.file))

    def project(self, key: str | None) -> Opened:
        """A project by its key, or the first. Raises InputError for an unknown key."""
        if not key:
            return next(iter(self.projects.values()))
        if key not in self.projects:
            raise InputError(f"there is no project {key!r} here; there are {', '.join(self.projects)}")
        return self.projects[key]

    def warm_up(self) -> threading.Thread:
        """Load what the first page needs, in a thread."""

        def load() -> None:
            warm_up()
            for opened in self.projects.values():
                with suppress(UniBindError):  # the page that meets it again shows it
                    opened.search([Query("text", "warm up")], top=1)
                    opened.answers()

        thread = threading.Thread(target=load, name="warm-up", daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """Close the projects, and remove what is not to outlive the server."""
        for opened in self.projects.values():
            opened.close()
        self.uploads.close()


def open_desk(files: Sequence[ProjectFile], *, allow_run: bool = False) -> Desk:
    """Open projects; their keys are their names, with a number where two have the same."""
    projects: dict[str, Opened] = {}
    for file in files:
        key, number = file.name, 1
        while key in projects:
            number += 1
            key = f"{file.name}-{number}"
        projects[key] = Opened(key, file)
    return Desk(projects, allow_run)


def query_of(opened: Opened, desk: Desk, kind: str, value: str) -> Query:
    """A part of a query as an address has it: `q` words, `sample` an id, `file` the id of a dropped file."""
    if kind == "q":
        return Query("text", value)
    if kind == "sample":
        return Query(None, value, is_sample=True)
    upload = desk.uploads.get(value)
    return Query(upload.modality, upload.path)


def upload_file(opened: Opened, upload: Upload) -> File:
    """A dropped file, with the up axis of the project where it is a cloud or mesh without one of its own."""
    if upload.modality is None:
        raise SampleError(f"{upload.name}: its ending does not show its modality")
    return turned(upload.path, up_override(upload.modality, upload.path, opened.file.data.up_axis))

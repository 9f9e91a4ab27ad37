"""The Python API: a project as notebooks and scripts use it. docs/python.md shows it at work.

    project = Project.open("unibind.toml")
    project.run()
    project.kb.sql("SELECT status, count(*) FROM v_descriptions GROUP BY ALL")
    project.predict("dog.jpg")
    project.retrieve("a dog barking", into="audio", k=5)

It adds no behaviour to the command line's: the same stages, the same views, the same answers. Results show
themselves as tables, in a notebook as HTML in which every text is escaped. Errors are those of data.errors.

Shapes: N rows, D dimensions.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

import duckdb
import numpy as np
import pyarrow as pa

from data.errors import InputError, KnowledgeBaseError, MissingDependencyError
from data.modality import MODALITIES, Modality
from data.reads import reading, remembered
from data.show import visible
from kb_builder.browse.answer import QueryResult, printable
from kb_builder.browse.query import sql_table
from kb_builder.browse.views import VIEWS
from kb_builder.store.cards import read_card
from kb_builder.store.table import open_table, read_manifest
from pipeline.html.elements import el, table
from pipeline.predict.answers import Hit, Prediction, say_on_stderr
from pipeline.predict.recognise import open_recogniser, recognise, retrieve_samples
from pipeline.predict.records import HIT, PREDICTION_COLUMNS, hit_rows, prediction_rows
from pipeline.predict.search import Searcher, stored_samples
from pipeline.predict.space import Gallery, Space
from pipeline.project import ProjectFile, load_project
from pipeline.run.jobs import STAGE_NAMES, find_stage, plan
from pipeline.run.runner import run_stages
from pipeline.run.stage import StageResult
from pipeline.table import result_table
from trainer.align.heads import has_heads, load_heads
from trainer.inputs import KnowledgeBase, open_kb
from trainer.records import Floats

T = TypeVar("T")

VectorSpace = Literal["samples", "zero_shot", "aligned"]
TEXT_TABLES = ("category_texts", "sample_texts", "controls")
_SHOWN = 20  # rows of a table that shows itself
_LONG_LIST = 8  # a longer list is shown as its beginning and its length
_CENTERS = """\
SELECT c.category_id, g.name AS category, c.rank, coalesce(d.text, n.text) AS text, c.score, c.rule,
       c.guided_by, c.row_id
FROM v_centers AS c JOIN v_categories AS g USING (category_id)
LEFT JOIN v_descriptions AS d ON d.row_id = c.row_id
LEFT JOIN v_controls AS n ON n.row_id = c.row_id
ORDER BY c.category_id, c.rank"""


@dataclass(frozen=True, eq=False, repr=False)
class ResultTable:
    """Columns and rows, in memory.

    What it shows of itself is short: 20 rows (and how many more there are), fractions of three digits, lists
    of three values. `rows()`, `arrow()` and `df()` give all of it, unrounded.
    """

    data: pa.Table

    def arrow(self) -> pa.Table:
        """All rows as an Arrow table, from which Polars and others read without a copy."""
        return self.data

    def df(self) -> Any:
        """All rows as a pandas data frame. Raises MissingDependencyError where pandas is not installed."""
        if find_spec("pandas") is None:
            raise MissingDependencyError(
                "a data frame needs pandas: pip install pandas; .rows() and .arrow() need nothing"
            )
        return self.data.to_pandas()

    def rows(self) -> list[dict[str, Any]]:
        """All rows, each by the names of its columns."""
        rows: list[dict[str, Any]] = self.data.to_pylist()
        return rows

    def relation(self) -> duckdb.DuckDBPyRelation:
        """All rows as a DuckDB relation, to be filtered, joined and grouped on; it reads no file."""
        return duckdb.connect().from_arrow(self.data)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self.data.column_names)

    def __len__(self) -> int:
        return len(self.data)

    def _head(self) -> list[tuple[Any, ...]]:
        head = self.data.slice(0, _SHOWN)
        return list(zip(*(map(_short, column.to_pylist()) for column in head.columns), strict=True))

    @property
    def _more(self) -> str:
        left = len(self) - _SHOWN
        return f"… and {left:,} more; .rows(), .arrow() or .df() give all" if left > 0 else ""

    def __repr__(self) -> str:
        shown = str(QueryResult(self.columns, tuple(self._head())))
        return f"{shown}\n{self._more}" if self._more else shown

    def _repr_html_(self) -> str:
        rows = self._head()
        numeric = [
            any(isinstance(value, int | float) for value in column) for column in zip(*rows, strict=True)
        ]
        kinds = "".join("r" if each else "l" for each in numeric) or "l" * len(self.columns)
        cells = [[printable(value) for value in row] for row in rows]
        return table(kinds, self.columns, cells) + (el("p", self._more) if self._more else "")


@dataclass(frozen=True, eq=False, repr=False)
class Results(Sequence[T], Generic[T]):
    """What a call gave, in order; it shows itself as a table, and has that table's `df()` and `arrow()`."""

    items: tuple[T, ...]
    table: ResultTable

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def arrow(self) -> pa.Table:
        """The table's rows as an Arrow table."""
        return self.table.arrow()

    def df(self) -> Any:
        """The table's rows as a pandas data frame."""
        return self.table.df()

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


@dataclass(frozen=True, eq=False, repr=False)
class NamedVectors:
    """Unit vectors and whose they are: `ids, vectors_ND = project.vectors("image")`."""

    ids: list[str]  # N sample_ids, or row_ids of texts
    groups: list[str]  # N: a sample's modality, a text's category
    vectors_ND: Floats
    encoder: str  # the name of the encoder; of aligned ones with its head

    def __iter__(self) -> Iterator[Any]:
        return iter((self.ids, self.vectors_ND))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def table(self) -> ResultTable:
        """The columns id, group and vector."""
        n, dim = self.vectors_ND.shape
        flat = pa.array(self.vectors_ND.reshape(n * dim))
        vector = pa.FixedSizeListArray.from_arrays(flat, dim)
        return ResultTable(pa.table({"id": self.ids, "group": self.groups, "vector": vector}))

    def __repr__(self) -> str:
        n, dim = self.vectors_ND.shape
        return f"float32[{n:,}, {dim:,}] by {visible(self.encoder)}\n{self.table!r}"

    def _repr_html_(self) -> str:
        n, dim = self.vectors_ND.shape
        return el("p", f"float32[{n:,}, {dim:,}] by {self.encoder}") + self.table._repr_html_()


class Metrics(dict[str, Any]):
    """The content of metrics.json (docs/metrics.md); it shows the table of accuracies beside the controls."""

    def __repr__(self) -> str:
        return result_table(self)

    def _repr_html_(self) -> str:
        return el("pre", result_table(self))


@dataclass(frozen=True)
class KbReader:
    """A project's knowledge base, read by SQL over its views; nothing can be written."""

    folder: Path

    def sql(self, query: str) -> ResultTable:
        """The rows of one statement that reads: SELECT, DESCRIBE, SHOW or SUMMARIZE; EXPLAIN, too.

        Raises InputError for what does not read or what DuckDB refuses, with its reason, and
        KnowledgeBaseError for no knowledge base, a damaged file, and a file that a run replaced meanwhile.
        """
        return ResultTable(sql_table(self.folder, query))

    @property
    def views(self) -> ResultTable:
        """The views and macros, and what each holds."""
        return ResultTable(pa.table({"name": list(VIEWS), "holds": list(VIEWS.values())}))


class Project:
    """A project file that was opened. What is loaded to predict and retrieve stays, until its files change.

    The settings are those of the moment of `open`: open again after editing the project file. One thread at a
    time may use it.
    """

    def __init__(self, file: ProjectFile) -> None:
        self.file = file
        self._space = remembered(partial(Space, file))
        self._recogniser = remembered(lambda: open_recogniser(file, self._space()))
        self._samples = remembered(lambda: self._space().samples())
        self._galleries = remembered(lambda: [Gallery.of(each) for each in self._samples().values()])
        self._searcher = remembered(self._load_searcher)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str] = "unibind.toml", *, changes: Mapping[str, Any] | None = None
    ) -> Project:
        """Read and check a project file, with `changes` as if they were written in it.

        They are nested as its tables are: `{"localize": {"k": 5}}`. Raises ProjectError with all mistakes.
        """
        return cls(load_project(Path(path), changes))

    def run(self, until: str | None = None) -> Results[StageResult]:
        """Run the stages up to `until`, or all; finished ones are skipped. Progress goes to stderr.

        Raises InputError for an unknown stage, KnowledgeBaseError where another process works on the project,
        and every UniBindError of a stage; the next call resumes where this one stopped.
        """
        names = plan(self.file)
        if until is not None:
            wanted = STAGE_NAMES[: STAGE_NAMES.index(find_stage(until).name) + 1]
            names = [name for name in wanted if name in names or name == until]
        done = outside_event_loop(lambda: run_stages(self.file, names))
        columns = {
            "stage": [each.name for each in done],
            "seconds": [each.seconds for each in done],
            "skipped": [each.skipped for each in done],
            "why": [each.why for each in done],
        }
        return Results(tuple(done), ResultTable(pa.table(columns)))

    @property
    def kb(self) -> KbReader:
        """The knowledge base."""
        return KbReader(self.file.kb)

    def predict(
        self,
        files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        top: int = 5,
        modality: Modality | None = None,
        say: Callable[[str], None] = say_on_stderr,
    ) -> Results[Prediction]:
        """Recognise a file, several, or those in folders; the table has a row for each of the `top` answers.

        `modality` is that of the files, where their names do not show it. A file that cannot be read is a
        Prediction with `error`. Raises KnowledgeBaseError where the project has no centers yet.
        """
        given = [files] if isinstance(files, str | os.PathLike) else files
        pairs = [(Path(file), modality) for file in given]
        found = tuple(recognise(self._recogniser(), pairs, top=_at_least_one(top, "top"), say=say))
        return Results(found, _as_table(prediction_rows(found), PREDICTION_COLUMNS))

    def retrieve(
        self,
        query: str | os.PathLike[str],
        *,
        into: Modality | None = None,
        k: int = 10,
        modality: Modality | None = None,
        say: Callable[[str], None] = say_on_stderr,
    ) -> Results[Hit]:
        """The `k` samples nearest to a file or to words, across modalities; `into` keeps to one.

        Raises SampleError for an unreadable file, and for words that look like a file name with no such file.
        """
        hits = tuple(
            retrieve_samples(
                self.file,
                os.fspath(query),
                modality=modality,
                into=into,
                top=_at_least_one(k, "k"),
                say=say,
                space=self._space(),
                galleries=self._galleries(),
            )
        )
        return Results(hits, _as_table(hit_rows(hits), HIT))

    def searcher(self) -> Searcher:
        """The project loaded to search by several queries at once, and to recognise all of its samples.

        Raises KnowledgeBaseError where the project has no knowledge base, vectors or centers.
        """
        return self._searcher()

    def _load_searcher(self) -> Searcher:
        samples = self._samples()
        return Searcher(self._recogniser(), self._galleries(), stored_samples(self._space(), samples))

    def vectors(self, name: str, *, space: VectorSpace = "samples") -> NamedVectors:
        """The vectors of a modality's samples, or of category_texts, sample_texts or controls, as stored.

        `space`, of samples: `samples` are the features that the heads map, `zero_shot` those of the encoder
        that shares the texts' space, `aligned` what the trained head makes of the features (unit rows in the
        shared space). Texts have one space, but for `aligned`: there they are placed as words are, without
        the mean of the centers, to be compared with aligned samples. Raises InputError for an unknown name or
        space and KnowledgeBaseError where there are no such vectors.
        """
        if space not in get_args(VectorSpace):
            raise InputError(f"there is no space {space!r}; there are {', '.join(get_args(VectorSpace))}")
        kb = open_kb(self.file.kb)
        if name in TEXT_TABLES:
            stored = _stored(kb, kb.encoder("text"), name, None)
            return self._aligned(stored, None) if space == "aligned" else stored
        if name not in MODALITIES:
            known = ", ".join((*MODALITIES, *TEXT_TABLES))
            raise InputError(f"there are no vectors {name!r}; there are those of {known}")
        role = "text" if name == "text" else "zero_shot" if space == "zero_shot" else "samples"
        found = _stored(kb, kb.encoder(role), "samples", name)
        return self._aligned(found, name) if space == "aligned" else found

    def _aligned(self, found: NamedVectors, modality: str | None) -> NamedVectors:
        """Samples of a modality, or texts (None), in the shared space of the trained heads."""
        heads = load_heads(self.file.run) if has_heads(self.file.run) else None
        if heads is None or (modality is not None and modality not in heads.modalities):
            raise KnowledgeBaseError(
                f"{self.file.run}: no head was trained for {modality or 'any modality'}; add"
                f" {modality or 'labelled'} samples to the train split and run the stage `train`"
            )
        placed_ND = (
            heads.place_text(found.vectors_ND) if modality is None else heads.map(modality, found.vectors_ND)
        )
        return NamedVectors(found.ids, found.groups, placed_ND, f"{found.encoder}, aligned")

    @property
    def metrics(self) -> Metrics:
        """The content of metrics.json. Raises KnowledgeBaseError where nothing was evaluated yet."""
        path = self.file.run / "metrics.json"
        if not path.is_file():
            raise KnowledgeBaseError(f"{path} is not there yet; run the project to its stage `evaluate`")
        return Metrics(json.loads(reading(path).read_text(encoding="utf-8")))

    @property
    def centers(self) -> ResultTable:
        """The embedding centers: category_id, category, rank, text, score, rule, guided_by, row_id.

        Raises KnowledgeBaseError where none were chosen yet.
        """
        path = self.file.kb / "centers.parquet"
        if not path.is_file():
            raise KnowledgeBaseError(f"{path} is not there yet; run the project to its stage `localize`")
        return self.kb.sql(_CENTERS)

    def __repr__(self) -> str:
        return f"<Project {self.file.name!r} of {visible(self.file.path)}>"


def outside_event_loop(function: Callable[[], T]) -> T:
    """Call a function that starts an event loop, also from inside one, as a notebook's cell is.

    In that case it runs in another thread, and Ctrl-C (a notebook's "interrupt") ends it there.
    """
    if not _in_event_loop():
        return function()
    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(threading.get_ident).result()
        try:
            answer = pool.submit(function)
            # In turns: a signal that comes just before an endless wait for a lock would not end it.
            while not wait([answer], timeout=0.2).done:
                continue
            return answer.result()
        except KeyboardInterrupt:
            # Python sends SIGINT to the main thread only; asyncio cancels its tasks on this exception.
            interrupt = ctypes.py_object(KeyboardInterrupt)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), interrupt)
            raise


def _short(value: Any) -> Any:
    """A cell as it is shown: fewer digits, and of a vector its beginning."""
    if isinstance(value, float) and math.isfinite(value):
        return round(value, 3) if abs(value) >= 1 else float(f"{value:.3g}")
    if isinstance(value, list) and len(value) > _LONG_LIST:
        shown = ", ".join(printable(_short(each)) for each in value[:3])
        return f"[{shown}, … {len(value):,} values]"
    return value


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _stored(kb: KnowledgeBase, folder: Path, name: str, group: str | None) -> NamedVectors:
    """A table of the embedding store, or one group of it."""
    if read_manifest(folder / name) is None:
        raise KnowledgeBaseError(f"{folder / name}: no vectors; run the project to its stage `encode`")
    opened = open_table(folder / name)
    groups = list(opened.groups) if group is None else [group]
    encoder = str(read_card(folder).get("name", folder.name))
    if group is not None and group not in opened.groups:
        raise KnowledgeBaseError(f"{folder / name}: {encoder} has encoded no {group} sample of {kb.folder}")
    blocks = [opened.read(each) for each in groups]
    return NamedVectors(
        ids=[row for block in blocks for row in block.ids],
        groups=[each for block in blocks for each in block.groups],
        vectors_ND=np.concatenate([np.zeros((0, opened.dim), np.float32), *(b.vectors_ND for b in blocks)]),
        encoder=encoder,
    )


def _as_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> ResultTable:
    return ResultTable(pa.table({name: pa.array([row[name] for row in rows]) for name in columns}))


def _at_least_one(number: int, name: str) -> int:
    if number < 1:
        raise InputError(f"{name} = {number}: give 1 or more")
    return number

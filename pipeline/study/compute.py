"""Compute the missing cells of a study: in processes of this machine, or on an engine's workers."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.environment import environment
from data.errors import UniBindError
from data.work import Carry, Work, here, require_folder
from pipeline.study.cells import CellFile, read_cell, write_cell
from trainer.evaluate.outcomes import write_outcomes
from trainer.variant import Variant, run_variant

# The processes of a study show no progress bar and have one thread each.
_QUIET = {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class CellOrder:
    """One cell to be computed: a variant with one seed."""

    key: str
    variant: Variant

    @property
    def name(self) -> str:
        """The cell, for messages."""
        return f"cell {self.key} (seed {self.variant.train.seed})"


@dataclass(frozen=True)
class CellWork:
    """Computes cells in any process that sees the knowledge base and the study's folder."""

    kb: Path
    cells: Path

    def __call__(self, orders: Iterable[CellOrder]) -> Iterator[str]:
        """The key of each cell, which is written by then.

        Raises KnowledgeBaseError where this process does not see the knowledge base: a cell would keep it as
        its variant's error.
        """
        for order in orders:
            require_folder(self.kb, "the project's folder")
            _compute_cell(self.kb, self.cells / order.key, order.variant)
            yield order.key


def compute_cells(work: CellWork, wanted: Mapping[str, Variant], carry: Carry) -> None:
    """Compute the cells that are not there. Each is written when it is done, so a stopped study goes on."""
    missing = [
        CellOrder(key, variant) for key, variant in wanted.items() if read_cell(work.cells / key) is None
    ]
    if not missing:
        return
    with (
        tqdm(total=len(missing), desc="study", unit="cell", disable=None) as bar,
        closing(carry(work, missing)) as done,
    ):
        for number, _ in enumerate(done, start=1):
            bar.update()
            if bar.disable and number % 20 == 0:
                print(f"  study: {number:,} of {len(missing):,} cells", file=sys.stderr, flush=True)


def by_processes(jobs: int) -> Carry:
    """Carries out orders in that many processes of this machine, and in this one where it is one."""

    def carry(work: Work, orders: Iterable[Any]) -> Generator[Any]:
        orders = list(orders)
        with (
            environment(_QUIET),
            ProcessPoolExecutor(min(jobs, len(orders)), multiprocessing.get_context("spawn")) as pool,
        ):
            futures = [pool.submit(_one, work, order) for order in orders]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    return here if jobs == 1 else carry  # starting a process takes seconds


def _one(work: Callable[[Iterable[Any]], Iterator[Any]], order: Any) -> Any:
    (result,) = work([order])
    return result


def _compute_cell(kb: Path, folder: Path, variant: Variant) -> None:
    """Compute a cell and write it; where the variant fails, with its error."""
    folder.mkdir(parents=True, exist_ok=True)
    content: CellFile = {"variant": asdict(variant), "balance": {}, "error": None}
    try:
        measured = run_variant(kb, variant)
    except UniBindError as error:
        content["error"] = str(error)
    else:
        write_outcomes(folder, measured.named, measured.ranks)
        content["balance"] = {row["measure"]: row["value"] for row in measured.metrics["balance"]}
    write_cell(folder, content)  # last: it marks the cell as complete

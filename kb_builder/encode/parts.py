"""Resumable encoding: carry out a plan part by part, and reuse the vectors that are stored already.

    survey ─▶ orders ─▶ make part ─▶ commit

What each part encodes depends on the rows alone (kb_builder/encode/plan.py), so a run that was killed and
resumed forms the same batches as an uninterrupted one and gives the same bytes, and so does one whose parts
were made by several processes or machines.

A planned part whose file exists is kept. Any other file is replaced: the vectors of contents that it shares
with the new plan are carried over, so only new contents are encoded, and removed or changed contents leave
no vector behind. The tables' manifests (kb_builder/store/table.py) are written last, when all parts exist.

A part may copy vectors from parts before it. In one process the parts are made in order. Elsewhere they are
made in two waves, whatever depends on what: first every part that copies nothing, and of each other part what
it encodes itself, as a file of its own; then the others are put together from those files.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from data.progress import Step
from kb_builder.encode.hardware import UNKNOWN, classes, forget_classes, hardware_class, require_one_class
from kb_builder.encode.make import MadePart, encode_sheets, write_own, write_part
from kb_builder.encode.plan import Plan
from kb_builder.encode.rates import MOST_ROWS
from kb_builder.encode.sheet import Sheet, SheetColumns, keys_of, write_sheet
from kb_builder.encode.spread import PartOrder, PartWork, Spread
from kb_builder.encode.survey import Survey, survey
from kb_builder.encoders.base import Encoder
from kb_builder.settings import Encode
from kb_builder.store.shards import Shard
from kb_builder.store.table import commit, read_manifest_or_none

# Of parts made elsewhere, in seconds: the work of a table from which their size matters, the least that a
# part should take, and what is advised where they take less.
_LONG_S, _LEAST_S, _GOAL_S = 600, 5, 60
ORDERS = ".orders"  # the folder of sheets for other processes, beside the tables

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counts:
    """What a run of `encode_parts` did."""

    distinct: int = 0  # distinct contents
    encoded: int = 0  # contents encoded now
    carried: int = 0  # contents whose vectors were carried over from replaced files
    reused: int = 0  # rows of parts that were kept
    quarantined: int = 0  # rows without a vector, since their file cannot be read


@dataclass(frozen=True)
class Encoded:
    """The counts, the reason for each quarantined row, by its id, and what to tell."""

    counts: Counts
    reasons: dict[str, str]
    notes: tuple[str, ...] = ()


class _Progress:
    """What has been made so far, and a bar that shows it."""

    def __init__(self, found: Survey, numbers: list[int], title: str, unit: str) -> None:
        self.made: dict[int, MadePart] = {}
        self.rejects = found.rejects
        self.rejected = 0
        self.seconds: list[float] = []  # of each file that was made elsewhere
        self._to_encode = found.to_encode
        total = int(found.to_encode[numbers].sum()) if numbers else 0
        self.total = total
        self.bar = tqdm(total=total, desc=title, unit=f" {unit}", disable=None if total else True)
        self._step = Step(title, total=total)

    def advance(self, count: int) -> None:
        """Move the bar by contents that are encoded."""
        self.bar.update(count)
        self._step.add(count)

    def take(self, made: MadePart) -> None:
        """Note a file that was made."""
        self.made[made.index] = made
        self.rejects |= made.rejects
        self.rejected += len(made.rejects)

    def count(self, made: MadePart) -> None:
        """Move the bar by a part that was made elsewhere, and note how long it took."""
        self.seconds.append(made.seconds)
        self.advance(int(self._to_encode[made.index]))


def encode_parts(
    plan: Plan,
    encoder: Encoder,
    settings: Encode,
    *,
    what: str,
    spread: Spread | None = None,
    load: Callable[[], Encoder] | None = None,
) -> Encoded:
    """Write every missing part, then the tables' manifests, and delete the files that are not in the plan.

    `spread` says where parts are made, by default in this process, and `load` how other processes get the
    encoder. Files that cannot be read (SampleError) get no row; any other error ends the run, which can be
    resumed. `what` names the contents in the progress bar. With a share, only its parts are made, and no
    manifest is written. Raises InputError where `same_hardware` is asked for and does not hold.
    """
    spread = spread or Spread()
    found = survey(plan, encoder, settings.dtype)
    share = spread.share
    numbers = [number for number in found.missing if share is None or share.has(number)]
    uncommitted = _uncommitted(found) if share is None and found.missing else 0
    progress = _Progress(found, numbers, f"encode {what} ({encoder.name})", what)
    if progress.total:
        logger.info("encoding %d %s with %s", progress.total, what, encoder.name)
    with progress.bar:
        if spread.elsewhere:
            work = PartWork(load or (lambda: encoder), encoder.identity, settings, spread.budget)
            _make_elsewhere(found, numbers, work, spread, progress)
        else:
            _make_here(found, numbers, encoder, settings, spread, progress)
    notes = [_left(found, uncommitted)] if uncommitted else []
    if small := advice_on_size(progress.seconds, plan, what, settings.part_seconds):
        notes.append(small)
    if share is None:
        notes += _commit(found, progress, spread)
    reasons = _reasons(plan, progress.rejects)
    return Encoded(
        Counts(
            distinct=plan.distinct,
            encoded=progress.total - progress.rejected,
            carried=int(found.carried[found.missing].sum()),
            reused=sum(each.shard.rows for each in found.finished.values()),
            quarantined=len(reasons),
        ),
        reasons,
        tuple(notes),
    )


def advice_on_size(
    seconds: Sequence[float], plan: Plan, what: str, asked_s: float | None = None
) -> str | None:
    """What to tell of parts that took these seconds elsewhere: None where they are few, or long enough.

    `asked_s` is what they should have taken (`part_seconds`).
    """
    whole = sum(seconds)
    if whole < _LONG_S or whole >= len(seconds) * _LEAST_S:
        return None
    mean, rows = whole / len(seconds), max(part.stop - part.start for part in plan.parts)
    if asked_s is not None:
        if mean >= asked_s / 4 or rows == MOST_ROWS:
            return None
        return (
            f"{plan.folder.name}: {len(seconds):,} parts took {mean:.2g} s each, not {asked_s:g}: their rates"
            " (rate-*.json) were measured where it took longer; delete these files, and the next run measures"
            " again"
        )
    wanted = round(rows * _GOAL_S / mean)
    return (
        f"{plan.folder.name}: {len(seconds):,} parts took {mean:.2g} s each; with larger ones the driver has"
        f" less to do: [encode] {what}_per_part = {wanted} makes them of about {_GOAL_S} s"
    )


def _make_here(
    found: Survey,
    numbers: list[int],
    encoder: Encoder,
    settings: Encode,
    spread: Spread,
    progress: _Progress,
) -> None:
    """Make parts in order; one that must wait for another share leaves what it encodes itself."""
    hardware = hardware_class(encoder.name, settings.device)

    def make(orders: Iterable[Sheet]) -> Iterator[MadePart]:
        done = encode_sheets(orders, encoder, settings.batch_size, on_batch=progress.advance)
        for sheet, own in done:
            if all(index in paths for index in sheet.lent):
                made = write_part(sheet, own, progress.rejects, paths, hardware)
                paths[made.index] = made.path
                yield made
            elif sheet.encode:
                yield write_own(sheet, own, hardware)

    paths: dict[int, Path] = {}
    sheets = (found.sheet(number) for number in numbers)
    with closing(spread.map(make, sheets)) as results:
        for made in results:
            progress.take(made)


def _make_elsewhere(
    found: Survey, numbers: list[int], work: PartWork, spread: Spread, progress: _Progress
) -> None:
    """Make parts wherever `spread.map` has room, in two waves."""
    folder = found.plan.folder / ORDERS
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    later: list[int] = []
    rejects = found.rejects

    def first() -> Iterator[PartOrder]:
        for number in numbers:
            columns = found.columns(number)
            if not columns.is_borrowing:
                yield _order(folder, columns, rejects)
                continue
            later.append(number)
            if columns.is_encoding:
                yield _order(folder, columns.own(), {}, whole=False)

    def second() -> Iterator[PartOrder]:
        paths = {index: made.path for index, made in progress.made.items()}
        for number in later:
            yield _order(folder, found.columns(number, paths), progress.rejects)

    try:
        for wave in (first, second):
            with closing(spread.map(work, wave())) as results:
                for made in results:
                    if made.index not in progress.made:
                        progress.count(made)
                    progress.take(made)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _order(folder: Path, columns: SheetColumns, rejects: dict[str, str], *, whole: bool = True) -> PartOrder:
    """Write a sheet for another process; its order names it, and the rejects that concern it."""
    name = f"{Path(columns.about['folder']).name}-{columns.about['number']:05d}"
    path = folder / f"{name}-{'whole' if whole else 'own'}.order"
    write_sheet(columns, path)
    own = {key: rejects[key] for key in columns.keys_not_encoded() if key in rejects} if rejects else {}
    return PartOrder(path, whole, columns.name, own)


def _commit(found: Survey, progress: _Progress, spread: Spread) -> list[str]:
    """Write the manifests; what to tell about the hardware that made the parts."""
    plan, notes = found.plan, []
    shards: dict[int, Shard] = {number: each.shard for number, each in found.finished.items()}
    shards |= {number: made.shard for number, made in progress.made.items()}
    tables = {
        name: [shards[number] for number, part in enumerate(plan.parts) if part.table == name]
        for name in plan.tables
    }
    hardware = {
        name: classes(plan.folder / name, [each.name for each in shards]) for name, shards in tables.items()
    }
    for name, by_class in hardware.items():
        if spread.same_hardware:
            require_one_class(plan.folder / name, by_class)
        if len(by_class.keys() - {UNKNOWN}) > 1:
            counts = "; ".join(f"{len(parts):,} by {each}" for each, parts in by_class.items())
            notes.append(f"{plan.folder.name}/{name}: parts made by several classes of hardware: {counts}")
    for name, of_table in tables.items():
        folder = plan.folder / name
        commit(folder, of_table, encoder=plan.identity, dim=found.dim, dtype=found.dtype)
        forget_classes(folder, [each.name for each in of_table])
    return notes


def _uncommitted(found: Survey) -> int:
    """How many finished parts no manifest names: part jobs or a run that was stopped made them."""
    named: set[Path] = set()
    for table in found.plan.tables:
        folder = found.plan.folder / table
        manifest = read_manifest_or_none(folder)
        named |= {folder / each["name"] for each in manifest["shards"]} if manifest else set()
    return sum(each.path not in named for each in found.finished.values())


def _left(found: Survey, uncommitted: int) -> str:
    """What to tell where some parts were on disk and others were missing."""
    missing = [found.plan.parts[number] for number in found.missing]
    some = ", ".join(f"{part.table} {part.number}" for part in missing[:5])
    more = f" and {len(missing) - 5:,} more" if len(missing) > 5 else ""
    return (
        f"{found.plan.folder.name}: {uncommitted:,} parts were there from part jobs or a run that was"
        f" stopped; {len(missing):,} were not and were made now: {some}{more}"
    )


def _reasons(plan: Plan, rejects: dict[str, str]) -> dict[str, str]:
    """The reason for each row without a vector, by its id."""
    reasons: dict[str, str] = {}
    for part in plan.parts if rejects else ():
        rows = plan.rows(part)
        keys = keys_of(rows.groups, rows.contents, files=plan.tables[part.table])
        reasons |= {id_: rejects[key] for id_, key in zip(rows.ids, keys, strict=True) if key in rejects}
    return reasons

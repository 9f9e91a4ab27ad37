"""Join the answers of several runs sample by sample, and resample them over objects.

Shapes: N questions, O objects, R runs, G groups (modalities, or pairs of them), B resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer.evaluate.intervals import resampled, swap_test
from trainer.records import Bools, Doubles, Ints


def joined(tables: Sequence[pa.Table], keys: list[str], answer: str) -> pa.Table:
    """The rows whose keys are in every table: keys, the first table's object_id, answer_0, answer_1 …"""
    both = tables[0].select([*keys, "object_id", answer]).rename_columns([*keys, "object_id", "answer_0"])
    for number, table in enumerate(tables[1:], start=1):
        other = table.select([*keys, answer]).rename_columns([*keys, f"answer_{number}"])
        both = both.join(other, keys=keys, join_type="inner")
    return both.sort_by([(key, "ascending") for key in keys])


def columns(rows: pa.Table, runs: int) -> Ints:
    """The answers of a joined table: int64[N, R]."""
    return np.column_stack([rows[f"answer_{run}"].to_numpy().astype(np.int64) for run in range(runs)])


@dataclass(frozen=True)
class Summary:
    """One number per run, and the lead of the others over the first."""

    value_R: Doubles
    ahead_BR: Doubles  # per resample, of all runs but the first; NaN if a group was not drawn
    p: list[float]  # of the swap test, of all runs but the first
    n: int  # questions


@dataclass(frozen=True)
class JoinedAnswers:
    """Which runs answered each question rightly, its group, and the object that it is about."""

    hits_NR: Bools
    group_N: Ints
    unit_N: Ints

    @classmethod
    def of(cls, table: pa.Table, groups: Sequence[str], hits_NR: Bools) -> JoinedAnswers:
        """The answers of a joined table; questions with equal values in the columns `groups` form a group."""
        labels = pc.binary_join_element_wise(*[table[name] for name in groups], "\n")
        # A sample without an object is its own object; no object id contains a line break.
        own = pc.binary_join_element_wise("\n", table["sample_id"], "")
        return cls(hits_NR, _numbers(labels), _numbers(pc.coalesce(table["object_id"], own)))

    def summary(self, statistic: Callable[[Doubles], Doubles], *, resamples: int, seed: int) -> Summary:
        """A statistic of the share of right answers per group; whole objects are resampled or swapped."""
        groups, runs = int(self.group_N.max()) + 1, self.hits_NR.shape[1]
        counts_NR = np.column_stack([self.hits_NR, np.ones(len(self.hits_NR))])
        sums_OGR = np.zeros((int(self.unit_N.max()) + 1, groups, runs + 1))
        np.add.at(sums_OGR, (self.unit_N, self.group_N), counts_NR)
        n_G = sums_OGR[..., -1].sum(axis=0)
        drawn = resampled(sums_OGR.reshape(len(sums_OGR), -1), resamples=resamples, seed=seed)
        drawn_BGR = drawn.reshape(resamples, groups, runs + 1)
        with np.errstate(invalid="ignore"):  # 0/0 where no question of a group was drawn
            value_BR = statistic(np.moveaxis(drawn_BGR[..., :-1] / drawn_BGR[..., -1:], 1, 2))
        hits = [sums_OGR[..., run] for run in range(runs)]
        return Summary(
            value_R=np.array([float(statistic(each.sum(axis=0) / n_G)) for each in hits]),
            ahead_BR=value_BR[:, 1:] - value_BR[:, :1],
            p=[swap_test(hits[0], each, n_G, statistic, resamples=resamples, seed=seed) for each in hits[1:]],
            n=len(self.hits_NR),
        )


def _numbers(column: pa.ChunkedArray) -> Ints:
    return np.unique(column.to_numpy(), return_inverse=True)[1].astype(np.int64)

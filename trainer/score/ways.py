"""Rank categories in several ways from one product: fewer centers, soft scores, other candidates or owners.

An evaluation compares the same centers with the same samples many times. What differs (how many centers
count, how they are scored, which categories are candidates) costs little beside the product, so the product
is computed once. As in `topk`, it only proposes: every category that may be among the best within its error
bound is scored again in float64 and rounded, and that score decides.

Shapes: N queries, Q queries of a block, D dimensions, M centers, F runs of centers (each of one category),
S runs of a tile with K centers each, T best, P pairs of a run and a query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.records import Doubles, Floats, Ints
from trainer.score.blas import fastest_exponential, largest_error, one_thread_each, parallel_map
from trainer.score.geometry import rounded
from trainer.score.pairs import best_places, in_order, surely_best
from trainer.score.screen import first_threshold
from trainer.score.segments import Keys

# Up to this many multiplications (about a second), everything is float64; above, float32, in half the time.
_SMALL = 2**35
# Up to this length of a vector, float32 neither overflows nor loses precision that matters.
_LARGEST_NORM = 1e6
_QUERIES = 512  # of one product
_CELLS = 2**23  # scores of a block: 32 MiB on each core
_ROUND = 16  # blocks whose pairs are scored again together: the more, the more pairs share a run
_PAIRS = 4096  # scored again by one job
_NORM_ROWS = 1024
_LARGEST_EXPONENT = 60  # a sum of a million million such exponentials fits into float32

Scores = npt.NDArray[np.floating]  # float32 or float64


@dataclass(frozen=True)
class Measure:
    """How a run of centers is scored."""

    soft: bool = False  # τ log mean exp(x · z / τ), else the largest x · z
    first: int | None = None  # over the first N centers; None: over all


@dataclass(frozen=True)
class Way:
    """A measure, and the category that each run belongs to: int64[F], -1 for runs that are left out."""

    measure: Measure
    owner_F: Ints


@dataclass(frozen=True)
class Ranking:
    """The T best categories of each query, best first, by float64 scores rounded to nine decimals."""

    categories_NT: Ints
    scores_NT: Doubles  # [N, 0] where only the order was asked for


def rank_ways(
    queries_ND: Floats,
    centers_MD: Floats,
    starts_F: Ints,
    ways: Sequence[Way],
    *,
    top: int,
    temperature: float,
    whole: Measure | None = None,
    order_only: bool = False,
) -> tuple[list[Ranking], Scores]:
    """Each way's ranking; and every run's score for each query by the measure `whole`: [N, F], else empty.

    The runs begin at the rows `starts_F`. T is `top`, or the number of candidates if that is less. Ties go to
    the lower category. The scores by `whole` are float64, rounded, for up to 2³⁵ multiplications; beyond,
    float32 as NumPy's product gives them, with errors of about 10⁻⁷ of the vectors' lengths. `order_only`: no
    scores in the rankings, so that float64 need not decide where float32 does. Values must be finite. Beside
    the result it needs about 100 MB on each core.
    """
    keys = Keys(centers_MD, np.append(starts_F, len(centers_MD)).astype(np.int64))
    measures = list(dict.fromkeys([way.measure for way in ways] + ([] if whole is None else [whole])))
    n, n_runs = len(queries_ND), len(starts_F)
    kinds = [(way.measure, (way.owner_F >= 0).tobytes()) for way in ways]  # ways of one kind propose the same
    tops = [min(top, int((way.owner_F >= 0).sum())) for way in ways]
    found = [Ranking(np.empty((n, t), np.int64), np.empty((n, 0 if order_only else t))) for t in tops]
    with one_thread_each():
        norms_N, longest = _lengths(queries_ND), float(_lengths(centers_MD).max())
        is_long = max(longest, float(norms_N.max(initial=0))) > _LARGEST_NORM
        is_exact = n * centers_MD.size <= _SMALL or is_long
        coarse = _Coarse(
            keys,
            measures,
            temperature,
            np.float64 if is_exact else np.float32,
            largest=longest * float(norms_N.max(initial=0)),
            whole=whole,
        )
        slack_N = coarse.slack(norms_N * longest)
        whole_NF = np.empty((n, n_runs if whole else 0), coarse.dtype)
        step = max(1, min(_QUERIES, _CELLS // max(coarse.widest, n_runs * len(measures))))
        for first in range(0, n, step * _ROUND):
            rows = slice(first, min(first + step * _ROUND, n))

            def propose(start: int, rows: slice = rows) -> list[Ints]:
                block = slice(start, min(start + step, rows.stop))
                scores = coarse.scores(queries_ND[block])
                if whole is not None:
                    whole_NF[block] = scores[whole].T
                    if is_exact:
                        rounded(whole_NF[block])
                proposed: dict[tuple[Measure, bytes], _Proposed] = {}
                for way, t, kind in zip(ways, tops, kinds, strict=True):
                    if kind not in proposed:
                        proposed[kind] = _propose(
                            scores[way.measure], way.owner_F, t, slack_N[block], order_only=order_only
                        )
                for way, ranking, kind in zip(ways, found, kinds, strict=True):
                    sure = proposed[kind]
                    ranking.categories_NT[start + sure.query_A] = way.owner_F[sure.run_AT]
                pairs = {
                    kind: each.run_P * (rows.stop - rows.start) + start - rows.start + each.query_P
                    for kind, each in proposed.items()
                }
                return [pairs[kind] for kind in kinds]

            proposed = zip(*parallel_map(propose, range(rows.start, rows.stop, step)), strict=True)
            pairs = [np.concatenate(blocks) for blocks in proposed]
            if pairs:
                _decide(queries_ND, keys, rows, ways, pairs, temperature, found)
    return found, whole_NF


class _Coarse:
    """All measures of all runs for a block of queries, from one product in float32 or float64."""

    def __init__(
        self,
        keys: Keys,
        measures: Sequence[Measure],
        temperature: float,
        dtype: type,
        *,
        largest: float,
        whole: Measure | None,
    ) -> None:
        """`largest`: of the products' sizes. The scores by `whole` are a result, the others only propose."""
        self.dtype = np.dtype(dtype)
        # Where no exponential overflows, soft scores share them, and the maximum need not be taken off.
        fits = largest / temperature <= _LARGEST_EXPONENT
        self._quick = {measure for measure in measures if measure.soft and fits and measure != whole}
        self._keys, self._measures, self._temperature = keys, measures, temperature
        self._tiles = keys.tiles()
        self.widest = max(int(keys.bounds[last] - keys.bounds[first]) for first, last in self._tiles)
        self._most = int(np.diff(keys.bounds).max())

    def slack(self, norms_N: Doubles) -> Doubles:
        """How far below the T-th best coarse score a run's score may lie if it belongs to the T best.

        Twice the error bound of a score, plus differences that rounding to decimals ties. A soft score has
        the error of its largest product, plus that of its own arithmetic: exponents of at most
        2 norms / temperature, a sum of K terms, a logarithm.
        """
        error_N = largest_error(self._keys.vectors_MD.shape[1], 0.0) * norms_N
        if any(measure.soft for measure in self._measures):
            unit = float(np.finfo(self.dtype).eps)
            error_N = error_N + unit * (2 * self._temperature * (self._most + 16) + 8 * norms_N)
        return 2 * error_N + 2e-9

    def scores(self, queries_QD: Floats) -> dict[Measure, Scores]:
        """The coarse scores by each measure: [F, Q]."""
        n, bounds = len(queries_QD), self._keys.bounds
        x_DQ = np.ascontiguousarray(queries_QD.T, dtype=self.dtype)
        product, scratch = (np.empty((self.widest, n), self.dtype) for _ in range(2))
        found: dict[Measure, Scores] = {
            measure: np.empty((len(bounds) - 1, n), self.dtype) for measure in self._measures
        }
        for first, last in self._tiles:
            start, stop = int(bounds[first]), int(bounds[last])
            keys_KD = np.require(self._keys.vectors_MD[start:stop], self.dtype, ["C"])
            products_KQ = np.matmul(keys_KD, x_DQ, out=product[: stop - start])
            sizes_S = np.diff(bounds[first : last + 1])
            # Runs of one size are scored together.
            alike = (
                [(first, last)] if (sizes_S == sizes_S[0]).all() else [(s, s + 1) for s in range(first, last)]
            )
            for here, there in alike:
                below, above = int(bounds[here]) - start, int(bounds[there]) - start
                cosines_SKQ = products_KQ[below:above].reshape(there - here, -1, n)
                outs: dict[Measure, Scores] = {m: scores_FQ[here:there] for m, scores_FQ in found.items()}
                self._measure(cosines_SKQ, outs, scratch)
        return found

    def _measure(self, cosines_SKQ: Scores, outs: dict[Measure, Scores], scratch: Scores) -> None:
        """Write each measure of the runs; the cosines may be overwritten."""
        n_runs, n_keys, n = cosines_SKQ.shape
        counts = {measure: min(measure.first or n_keys, n_keys) for measure in outs}
        quick = [measure for measure in outs if measure in self._quick]
        highest = _running(np.maximum, cosines_SKQ, [counts[m] for m in outs if m not in quick])
        for measure, out_SQ in outs.items():
            k = counts[measure]
            if not measure.soft:
                out_SQ[...] = highest[k]
            elif measure not in quick:
                powers_SKQ = scratch.reshape(-1)[: n_runs * k * n].reshape(n_runs, k, n)
                np.subtract(cosines_SKQ[:, :k], highest[k][:, None], out=powers_SKQ)  # at most 0: no overflow
                powers_SKQ *= 1 / self._temperature
                np.exp(powers_SKQ, out=powers_SKQ)
                powers_SKQ.mean(axis=1, out=out_SQ)
                np.log(out_SQ, out=out_SQ)
                out_SQ *= self._temperature
                out_SQ += highest[k]
        if quick:
            powers_SKQ = cosines_SKQ[:, : max(counts[measure] for measure in quick)]
            exponential, log_base = fastest_exponential()
            powers_SKQ *= 1 / (self._temperature * log_base)
            exponential(powers_SKQ, out=powers_SKQ)
            sums = _running(np.add, powers_SKQ, [counts[measure] for measure in quick])
            for measure in quick:
                k = counts[measure]
                np.log(sums[k] / k, out=outs[measure])
                outs[measure] *= self._temperature


def _running(ufunc: np.ufunc, x_SKQ: Scores, counts: Sequence[int]) -> dict[int, Scores]:
    """The sum or maximum over the first k of the K, for each k in `counts`: [S, Q]."""
    found: dict[int, Scores] = {}
    before: Scores | None = None
    start = 0
    for stop in sorted(set(counts)):
        among: Scores = ufunc.reduce(x_SKQ[:, start:stop], axis=1)
        found[stop] = before = among if before is None else ufunc(before, among)
        start = stop
    return found


@dataclass(frozen=True)
class _Proposed:
    """The best runs of some queries of a block, and the pairs of the others."""

    query_A: Ints
    run_AT: Ints
    run_P: Ints  # may be among the T best of its query
    query_P: Ints


def _propose(scores_FQ: Scores, owner_F: Ints, top: int, slack_Q: Doubles, *, order_only: bool) -> _Proposed:
    """What the coarse scores decide about the T best of the runs with an owner; only with `order_only`."""
    taking = np.flatnonzero(owner_F >= 0)
    none = np.zeros(0, np.int64)
    if len(taking) == 0:
        return _Proposed(none, np.zeros((0, 0), np.int64), none, none)
    among_FQ = scores_FQ if len(taking) == len(owner_F) else scores_FQ[taking]
    threshold_Q = (first_threshold(among_FQ, top) - slack_Q).astype(among_FQ.dtype)
    at_P = np.flatnonzero(among_FQ >= threshold_Q)
    place_P, query_P = np.divmod(at_P, among_FQ.shape[1])
    run_P = taking[place_P]
    if not order_only:
        return _Proposed(none, np.zeros((0, top), np.int64), run_P, query_P)
    query_A, best_AT, is_left_P = surely_best(query_P, among_FQ.ravel()[at_P], slack_Q, top)
    return _Proposed(query_A, run_P[best_AT], run_P[is_left_P], query_P[is_left_P])


def _decide(
    queries_ND: Floats,
    keys: Keys,
    rows: slice,
    ways: Sequence[Way],
    pairs: Sequence[Ints],
    temperature: float,
    found: Sequence[Ranking],
) -> None:
    """Write the best of each way's pairs, by their float64 scores, into the rows of their queries."""
    n = rows.stop - rows.start
    # Every pair once, by run, so that its centers serve many queries; marks, because sorting takes longer.
    is_asked = np.zeros(n * (len(keys.bounds) - 1), dtype=np.bool_)
    for some_P in pairs:
        is_asked[some_P] = True
    every_P = np.flatnonzero(is_asked)
    place_of = np.empty(len(is_asked), dtype=np.int32)
    place_of[every_P] = np.arange(len(every_P), dtype=np.int32)
    measures = list(dict.fromkeys(way.measure for way in ways))
    exact = {measure: np.empty(len(every_P)) for measure in measures}
    run_P, query_P = np.divmod(every_P, n)
    x_QD = queries_ND[rows]

    def score_again(start: int) -> None:
        part = slice(start, start + _PAIRS)
        edges = np.flatnonzero(np.diff(run_P[part], prepend=-1, append=-1)) + start
        for here, there in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            own = slice(int(keys.bounds[run_P[here]]), int(keys.bounds[run_P[here] + 1]))
            own_QD = x_QD[query_P[here:there]].astype(np.float64)
            cosines_QK = own_QD @ keys.vectors_MD[own].astype(np.float64).T
            for measure, score_P in exact.items():
                score_P[here:there] = _exactly(cosines_QK[:, : measure.first], measure.soft, temperature)

    def choose(number: int) -> None:
        way, ranking = ways[number], found[number]
        place_P = place_of[pairs[number]]
        query, score, owner = query_P[place_P], exact[way.measure][place_P], way.owner_F[run_P[place_P]]
        order = in_order(query, score, owner)
        asked, best_AT = best_places(query, order, ranking.categories_NT.shape[1])
        ranking.categories_NT[rows.start + asked] = owner[best_AT]
        if ranking.scores_NT.shape[1]:
            ranking.scores_NT[rows.start + asked] = score[best_AT]

    parallel_map(score_again, range(0, len(every_P), _PAIRS))
    parallel_map(choose, range(len(ways)))


def _exactly(cosines_QK: Doubles, soft: bool, temperature: float) -> Doubles:
    """The score of one run by a measure, in float64 and rounded: [Q]."""
    highest_Q = cosines_QK.max(axis=1)
    if soft:
        powers_QK = np.exp((cosines_QK - highest_Q[:, None]) / temperature)
        highest_Q += temperature * np.log(powers_QK.mean(axis=1))
    return rounded(highest_Q)


def _lengths(x_ND: Floats) -> Doubles:
    lengths_N = np.empty(len(x_ND))

    def measure(start: int) -> None:
        x_RD = x_ND[start : start + _NORM_ROWS].astype(np.float64)
        lengths_N[start : start + _NORM_ROWS] = np.sqrt(np.vecdot(x_RD, x_RD))

    parallel_map(measure, range(0, len(x_ND), _NORM_ROWS))
    return lengths_N

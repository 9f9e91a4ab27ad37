"""L-BFGS over one vector, for problems so small that most of torch.optim.LBFGS's time is spent around them.

J. Nocedal, S. Wright, "Numerical Optimization" (2nd ed. 2006), algorithms 7.4 (two loops), 3.5 and 3.6 (line
search for the strong Wolfe conditions). Step for step as torch.optim.LBFGS with `line_search_fn` does it, to
the same bits (a test compares the two); but scalars are Python's, and the objective brings its own gradient.

Shapes: X numbers of the vector.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# The objective at a vector: its value, and its gradient [X] in a tensor of its own.
Objective = Callable[[Tensor], tuple[float, Tensor]]

_HISTORY = 20
_LEAST_GRADIENT = 1e-6  # of the largest element: below, the minimum is found
_LEAST_CHANGE = 1e-12  # of value or vector: below, there is no progress
_LEAST_BRACKET = 1e-9  # of a line search
_LEAST_CURVATURE = 1e-10
_ARMIJO, _WOLFE = 1e-4, 0.9


@dataclass(frozen=True, slots=True)
class _Point:
    """A point of a line search: the step to it, and value, gradient and slope there."""

    step: float
    value: float
    gradient_X: Tensor
    slope: float


@torch.inference_mode()  # less around each operation than `no_grad`
def minimise(objective: Objective, start_X: Tensor, *, iterations: int) -> Tensor:
    """The vector near `start_X` at which `objective` is least: float64[X]. `start_X` is not changed."""
    most_evaluations = iterations * 5 // 4
    x_X = start_X.clone()
    value, gradient_X = objective(x_X)
    evaluations = 1
    if float(gradient_X.abs().max()) <= _LEAST_GRADIENT:
        return x_X
    memory: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=_HISTORY)  # (Δgradient, Δx, 1 / their product)
    scale, step = 1.0, min(1.0, 1.0 / float(gradient_X.abs().sum()))
    direction_X, before_X = gradient_X.neg(), gradient_X
    for iteration in range(iterations):
        if iteration:
            y_X, s_X = gradient_X.sub(before_X), direction_X.mul(step)
            curvature = float(y_X.dot(s_X))
            if curvature > _LEAST_CURVATURE:
                memory.append((y_X, s_X, 1.0 / curvature))
                scale = curvature / float(y_X.dot(y_X))
            direction_X, step = _direction(gradient_X, memory, scale), 1.0
        before_X, value_before = gradient_X, value
        slope = float(gradient_X.dot(direction_X))
        if slope > -_LEAST_CHANGE:
            break
        here = _Point(0, value, gradient_X, slope)
        found, taken = _line_search(objective, x_X, direction_X, step, here, most_evaluations - evaluations)
        step, value, gradient_X = found.step, found.value, found.gradient_X
        x_X.add_(direction_X, alpha=step)
        evaluations += taken
        if (
            evaluations >= most_evaluations
            or float(gradient_X.abs().max()) <= _LEAST_GRADIENT
            or float(direction_X.mul(step).abs().max()) <= _LEAST_CHANGE
            or abs(value - value_before) < _LEAST_CHANGE
        ):
            break
    return x_X


def _direction(gradient_X: Tensor, memory: deque[tuple[Tensor, Tensor, float]], scale: float) -> Tensor:
    """The gradient times the approximate inverse Hessian, downhill."""
    q_X = gradient_X.neg()
    factors = []
    for y_X, s_X, rho in reversed(memory):
        factor = float(s_X.dot(q_X)) * rho
        factors.append(factor)
        q_X.add_(y_X, alpha=-factor)
    r_X = q_X.mul_(scale)
    for (y_X, s_X, rho), factor in zip(memory, reversed(factors), strict=True):
        r_X.add_(s_X, alpha=factor - float(y_X.dot(r_X)) * rho)
    return r_X


def _line_search(
    objective: Objective, x_X: Tensor, direction_X: Tensor, step: float, start: _Point, most: int
) -> tuple[_Point, int]:
    """A step that fulfils the strong Wolfe conditions, or the best one found; and the evaluations it took."""

    def at(step: float) -> _Point:
        value, gradient_X = objective(x_X.add(direction_X, alpha=step))
        return _Point(step, value, gradient_X, float(gradient_X.dot(direction_X)))

    def too_high(point: _Point) -> bool:
        return point.value > start.value + _ARMIJO * point.step * start.slope

    longest = float(direction_X.abs().max())
    previous, now = start, at(step)
    tried = 0
    while True:
        if tried >= most:
            low, high = start, now
            break
        if too_high(now) or (tried > 1 and now.value >= previous.value):
            low, high = previous, now
            break
        if abs(now.slope) <= -_WOLFE * start.slope:
            return now, tried + 1
        if now.slope >= 0:
            low, high = previous, now
            break
        bounds = now.step + 0.01 * (now.step - previous.step), now.step * 10
        previous, now = now, at(_cubic_minimum(previous, now, bounds))
        tried += 1
    pair = [low, high]  # in the order in which they came
    lowest = 0 if pair[0].value <= pair[1].value else 1
    stuck = False
    while tried < most:
        first, last = min(each.step for each in pair), max(each.step for each in pair)
        if abs(pair[1].step - pair[0].step) * longest < _LEAST_BRACKET:
            break
        step = _cubic_minimum(pair[0], pair[1], (first, last))
        margin = 0.1 * (last - first)
        if min(last - step, step - first) < margin:  # close to a bound: the second time, move away from it
            if stuck or step >= last or step <= first:
                step = last - margin if abs(step - last) < abs(step - first) else first + margin
                stuck = False
            else:
                stuck = True
        else:
            stuck = False
        now = at(step)
        tried += 1
        if too_high(now) or now.value >= pair[lowest].value:
            pair[1 - lowest] = now
            lowest = 0 if pair[0].value <= pair[1].value else 1
            continue
        done = abs(now.slope) <= -_WOLFE * start.slope
        if not done and now.slope * (pair[1 - lowest].step - pair[lowest].step) >= 0:
            pair[1 - lowest] = pair[lowest]
        pair[lowest] = now
        if done:
            break
    return pair[lowest], tried + 1


def _cubic_minimum(one: _Point, other: _Point, bounds: tuple[float, float]) -> float:
    """Where the cubic through two points, with their slopes, is least within bounds; else their middle."""
    low, high = bounds
    # The order of operations decides the last bits.
    d1 = one.slope + other.slope - _ratio(3 * (one.value - other.value), one.step - other.step)
    square = d1 * d1 - one.slope * other.slope
    if not square >= 0:
        return (low + high) / 2.0
    d2 = math.sqrt(square)
    if one.step <= other.step:
        part = _ratio(other.slope + d2 - d1, other.slope - one.slope + 2 * d2)
        best = other.step - (other.step - one.step) * part
    else:
        part = _ratio(one.slope + d2 - d1, one.slope - other.slope + 2 * d2)
        best = one.step - (one.step - other.step) * part
    return min(max(best, low), high)


def _ratio(a: float, b: float) -> float:
    """a / b, not a number where b is 0."""
    return a / b if b else math.nan

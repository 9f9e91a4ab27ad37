"""Rate limits and budget of a run: whether a request may be sent, and what its calls used."""

from __future__ import annotations

from dataclasses import dataclass

from data.errors import RunError, ThrottledError, TransientError
from kb_builder.ask.budget import bounded_worst_case, open_budget
from kb_builder.ask.cost import cost, estimate_tokens, usage_of
from kb_builder.ask.ledger import Ledger
from kb_builder.ask.limits import Rates
from kb_builder.ask.policy import Policy
from kb_builder.ask.request import Describer, Reply, Request


@dataclass(slots=True)
class RequestUse:
    """What one call of a request may use: tokens by an estimate, US dollars by its worst case."""

    tokens: float = 0.0
    worst_usd: float = 0.0
    bounded: bool = False  # `worst_usd` is known


@dataclass(frozen=True, slots=True)
class CallCost:
    """What a call cost in US dollars (None: not known), and what must be written off for it, if anything."""

    usd: float | None
    write_off_usd: float | None


class Allowance:
    """The rates and the budget of a run's policy.

    The order is `weigh`, `wait`, `reserve` before a call, `take` when it is sent, `settle` after it. Times
    are seconds of a monotonic clock.
    """

    def __init__(self, policy: Policy, ledger: Ledger, describer: Describer) -> None:
        self._price = policy.price
        self._rates = Rates(
            requests_per_minute=policy.requests_per_minute, tokens_per_minute=policy.tokens_per_minute
        )
        self._budget = (
            None
            if policy.budget_usd is None or policy.price is None
            else open_budget(
                policy.budget_usd, policy.price, ledger, endpoint=describer.endpoint, model=describer.model
            )
        )

    def weigh(self, request: Request, use: RequestUse) -> None:
        """Fill in `use` as far as it is needed. Raises `RunError` where nothing bounds the cost."""
        if self._rates.counts_tokens and not use.tokens:
            tokens = estimate_tokens(request)
            use.tokens = tokens.prompt + (tokens.completion_max or 0)
        if self._budget is not None and self._price is not None and not use.bounded:
            use.worst_usd = bounded_worst_case(self._price, request)
            use.bounded = True

    def wait(self, now: float, use: RequestUse) -> float:
        """Seconds until the rates allow the call; 0.0 if they do now."""
        return self._rates.wait(now, use.tokens)

    def reserve(self, use: RequestUse) -> bool:
        """Reserve the worst case in the budget; False where it does not fit."""
        return self._budget is None or self._budget.reserve(use.worst_usd)

    def used_up(self, use: RequestUse) -> RunError:
        """The error that says that the budget has no room for the call."""
        assert self._budget is not None
        return self._budget.used_up(use.worst_usd)

    def take(self, use: RequestUse) -> None:
        """The call is sent."""
        self._rates.take(use.tokens)

    def settle(self, use: RequestUse, outcome: Reply | Exception, now: float) -> CallCost:
        """Replace what was reserved for a call by what it used, and learn from its headers."""
        used: float | None = None
        paid: float | None = None
        if isinstance(outcome, Reply) and (self._price is not None or self._rates.counts_tokens):
            usage = usage_of(outcome.body)
            if usage is not None:
                used = usage.prompt_tokens + usage.completion_tokens
                paid = cost(self._price, usage.prompt_tokens, usage.completion_tokens)
        self._rates.settle(use.tokens, 0.0 if isinstance(outcome, ThrottledError) else used)
        limits = outcome.limits if isinstance(outcome, Reply | ThrottledError) else None
        if limits is not None:
            self._rates.learn(now, limits)
        if self._budget is None:
            return CallCost(paid, None)
        # An answer without usage counts in full, and so does one that broke off: it may have been charged.
        broken_off = isinstance(outcome, TransientError) and outcome.maybe_paid
        unknown = isinstance(outcome, Reply) or broken_off
        self._budget.settle(use.worst_usd, paid if paid is not None else use.worst_usd * unknown)
        return CallCost(paid, use.worst_usd if broken_off else None)

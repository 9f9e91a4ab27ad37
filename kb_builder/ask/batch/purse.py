"""The costs of batches, and the budget that they must stay in, if there is one."""

from __future__ import annotations

import math
from collections.abc import Iterable

from data.errors import RunError
from kb_builder.ask.batch.jobs import Job
from kb_builder.ask.budget import Budget, booked_cost, bounded_worst_case, open_budget
from kb_builder.ask.cost import cost, usage_of, worst_case
from kb_builder.ask.endpoint.client import ChatClient
from kb_builder.ask.ledger import Entry, Ledger
from kb_builder.ask.policy import policy_for
from kb_builder.ask.request import Request, request_from_json
from kb_builder.settings import Asking

_ROUNDING = 1e-9  # US dollars: error of sums of floats


class BatchPurse:
    """Reserves the worst case of every file that is submitted, and books its answers.

    All amounts are US dollars at the price of batches. Raises `ProjectError` where a budget is set and the
    model's price is not known.
    """

    def __init__(self, client: ChatClient, ledger: Ledger, settings: Asking) -> None:
        policy = policy_for(client, settings)
        self.price = policy.price
        self._budget: Budget | None = None
        if policy.budget_usd is not None and policy.price is not None:
            self._budget = open_budget(
                policy.budget_usd, policy.price, ledger, endpoint=client.endpoint, model=client.model
            )

    def room(self) -> float:
        """What may still be reserved."""
        if self._budget is None:
            return math.inf
        return self._budget.most - self._budget.spent - self._budget.reserved

    @property
    def has_reservations(self) -> bool:
        """Whether an amount is reserved for jobs that have not ended."""
        return self._budget is not None and self._budget.reserved > _ROUNDING

    def bound(self, request: Request) -> float:
        """The most that a request can cost; 0 without a budget. Raises `RunError` where nothing bounds it."""
        if self._budget is None or self.price is None:
            return 0.0
        return bounded_worst_case(self.price, request, batch=True)

    def used_up(self, wanted: float) -> RunError:
        """The error that says that not even one request fits into the budget."""
        assert self._budget is not None
        return self._budget.used_up(wanted)

    def worst_case(self, requests: Iterable[Request]) -> float | None:
        """The most that a file can cost; None where the price or a request's bound is not known."""
        if self.price is None:
            return None
        worst = [worst_case(self.price, request, batch=True) for request in requests]
        known = [each for each in worst if each is not None]
        return sum(known) if len(known) == len(worst) else None

    def cost(self, answer: str) -> float | None:
        """The cost of an answer; None where its price or usage is not known."""
        usage = usage_of(answer)
        if usage is None:
            return None
        return cost(self.price, usage.prompt_tokens, usage.completion_tokens, batch=True)

    def reserve(self, job: Job) -> None:
        """Reserve a job's worst case, even beyond the budget: the job may be submitted already."""
        if self._budget is not None:
            self._budget.reserved += job.reserved_usd or 0.0

    def release(self, job: Job) -> None:
        """Give back the reservation of a job that has ended."""
        if self._budget is not None:
            self._budget.settle(job.reserved_usd or 0.0, 0.0)

    def spend(self, entries: Iterable[Entry]) -> None:
        """Book the cost of answers."""
        if self._budget is None or self.price is None:
            return
        for entry in entries:
            if entry.answer is not None:
                request = request_from_json(entry.request)
                self._budget.spent += booked_cost(self.price, request, entry.answer, batch=True)

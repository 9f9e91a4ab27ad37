"""Request policy: how many requests are in flight, how often each is retried, and how long each may take."""

from __future__ import annotations

from dataclasses import dataclass

from data.errors import ProjectError
from kb_builder.ask.budget import unknown_price
from kb_builder.ask.cost import price_of
from kb_builder.ask.request import Describer
from kb_builder.settings import Asking, Price

# Calls in flight, for describers that state none (attribute `concurrency`).
_IN_FLIGHT = {"online": 256, "local": 8, "fake": 8}

# A late answer of a model in this process means a busy machine, not a lost request. If it were given up, the
# tables would depend on the load of the machine.
_LOCAL_PATIENCE_S = 3600.0


@dataclass(frozen=True)
class Policy:
    """`concurrency`: calls in flight at most; `call_s` ends a call, `deadline_s` a request with its retries.

    After a failure a request pauses for up to `first_pause_s`, doubled each time up to `longest_pause_s`. The
    first probe of an outage is sent after `probe_s`.
    """

    concurrency: int
    deadline_s: float
    call_s: float
    outage_s: float = 1800.0
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    budget_usd: float | None = None
    price: Price | None = None
    reuse: bool = False
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    probe_s: float = 1.0


def policy_for(describer: Describer, settings: Asking) -> Policy:
    """The policy for a describer. Two calls of a request may hang before its deadline is over."""
    local = describer.source == "local"
    deadline = max(_LOCAL_PATIENCE_S, settings.request_timeout_s) if local else settings.request_timeout_s
    price = price_of(describer.model, settings.price, endpoint=describer.endpoint)
    if settings.budget_usd is not None and price is None and not local:
        raise ProjectError(unknown_price(describer.model))
    own: int = getattr(describer, "concurrency", _IN_FLIGHT.get(describer.source, 8))
    return Policy(
        concurrency=settings.concurrency or own,
        deadline_s=deadline,
        call_s=deadline if local else deadline / 3,
        outage_s=settings.outage_s,
        requests_per_minute=settings.requests_per_minute,
        tokens_per_minute=settings.tokens_per_minute,
        budget_usd=settings.budget_usd if price is not None else None,  # a local model costs nothing
        price=price,
        reuse=settings.reuse,
    )

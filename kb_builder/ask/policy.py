"""Request policy: how many requests are in flight, how often each is retried, and how long each may take."""

from __future__ import annotations

from dataclasses import dataclass

from data.errors import ProjectError
from kb_builder.ask.budget import unknown_price
from kb_builder.ask.cost import price_of
from kb_builder.ask.request import Describer
from kb_builder.settings import Asking, Price

# A describer may say itself how many calls it takes at once (`concurrency`).
_IN_FLIGHT = {"online": 256, "local": 8, "fake": 8}


# A model in this process: a late answer means a busy machine, never a lost request. Were it given up, the
# table would depend on what else the machine was doing.
_LOCAL_PATIENCE_S = 3600.0


@dataclass(frozen=True)
class Policy:
    """`concurrency` calls in flight at most; `call_s` for a call, `deadline_s` for a request with its sleeps.

    After a failure a request sleeps for up to `first_pause_s`, doubled each time as far as `longest_pause_s`.
    An outage is first probed after `probe_s`.
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
    """How to ask this describer: two calls of a request may hang before its deadline is over."""
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
        budget_usd=settings.budget_usd if price is not None else None,  # what runs here costs nothing
        price=price,
        reuse=settings.reuse,
    )

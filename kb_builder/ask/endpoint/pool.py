"""Pool of endpoints of one model, as one describer: each request is sent to the least busy endpoint.

Every endpoint has a circuit breaker: after three failures in a row it is set aside, and probed by one request
now and then. It also has a limiter: after a 429 it gets fewer requests, and none before its Retry-After is
over. A request that it did not take is sent to another endpoint at once, but never to two at a time. An
answer that broke off may have been charged, so it is left to the scheduler, as with a single endpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from data.errors import RequestError, RunError, SampleError, ThrottledError, TransientError
from kb_builder.ask.breaker import Breaker
from kb_builder.ask.endpoint.client import ChatClient
from kb_builder.ask.limits import Limiter
from kb_builder.ask.request import Reply, Request

_MOST_IN_FLIGHT = 1024  # in the whole pool
_FAILURES = 3  # in a row, until an endpoint is set aside


@dataclass(eq=False)
class _Member:
    client: ChatClient
    limiter: Limiter
    breaker: Breaker
    in_flight: int = 0
    sent: int = 0

    def clock(self) -> float:
        """The time of the event loop in seconds."""
        return asyncio.get_running_loop().time()

    def load(self) -> tuple[float, int]:
        """Sort key: the share of its limit in flight, then the requests sent so far."""
        return self.in_flight / self.limiter.limit, self.sent

    def has_room(self) -> bool:
        """Whether its limit allows another call."""
        return self.in_flight < self.limiter.limit


class Pool:
    """A `Describer` over clients of the same model. `endpoint` identifies the pool in a request's key.

    `aliases` are the identities of the other endpoints: answers in the ledger under one of them count too.
    """

    def __init__(self, clients: Sequence[ChatClient], *, endpoint: str, concurrency: int) -> None:
        first = clients[0]
        self.provider, self.source, self.model = first.provider, first.source, first.model
        self.endpoint = endpoint
        self.aliases = tuple(client.endpoint for client in clients if client.endpoint != endpoint)
        self.concurrency = min(concurrency * len(clients), _MOST_IN_FLIGHT)
        self._members = [
            _Member(
                client,
                Limiter(concurrency),
                Breaker(outage_s=float("inf"), failures=_FAILURES, who=client.endpoint),
            )
            for client in clients
        ]

    async def answer(self, request: Request) -> Reply:
        """See `Describer.answer`. If an endpoint does not take the request, another one is tried."""
        tried: list[_Member] = []
        while True:
            member = self._pick(tried)
            tried.append(member)
            try:
                return await self._ask(member, request)
            except TransientError as error:
                if error.maybe_paid or not self._others(tried):
                    raise
            except ThrottledError as error:
                if not self._others(tried):
                    # The other endpoints need not wait for the Retry-After of this one.
                    alone = all(each.breaker.retry_after_left(each.clock()) > 0.0 for each in self._members)
                    wait = min(each.breaker.retry_after_left(each.clock()) for each in self._members)
                    raise ThrottledError(str(error), retry_after=wait if alone else None) from None

    async def close(self) -> None:
        """Close all connections."""
        for member in self._members:
            await member.client.close()

    def _others(self, tried: Sequence[_Member]) -> list[_Member]:
        """The endpoints that may be tried next."""
        return [
            member
            for member in self._members
            if member not in tried and member.breaker.wait(member.clock()) == 0.0 and member.has_room()
        ]

    def _pick(self, tried: Sequence[_Member]) -> _Member:
        if tried:
            return min(self._others(tried), key=_Member.load)
        now = self._members[0].clock()
        ready = [member for member in self._members if member.breaker.wait(now) == 0.0]
        if ready:
            return min(ready, key=_Member.load)
        # All are set aside. The scheduler's breaker covers the whole pool, so what it sends is sent.
        waits = {member: member.breaker.retry_after_left(now) for member in self._members}
        free = [member for member in self._members if not waits[member]]
        if not free:
            raise ThrottledError(
                f"all {len(self._members)} endpoints ask to wait", retry_after=min(waits.values())
            )
        return min(free, key=lambda member: (member.breaker.wait(now), member.load()))

    async def _ask(self, member: _Member, request: Request) -> Reply:
        began = member.clock()
        probe = member.breaker.sent()
        member.in_flight += 1
        member.sent += 1
        try:
            reply = await member.client.answer(request)
        except asyncio.CancelledError:  # the deadline of the call
            self._failed(member, "no answer in time", probe)
            raise
        except ThrottledError as error:
            now = member.clock()
            member.breaker.answered(now)
            member.limiter.throttled(now, sent=began)
            if error.retry_after:
                member.breaker.retry_after(now, error.retry_after, str(error))
            raise
        except TransientError as error:
            self._failed(member, str(error), probe)
            raise
        except (RequestError, RunError):
            member.breaker.answered(member.clock())
            raise
        except SampleError:
            member.breaker.unsent(probe=probe)
            raise
        finally:
            member.in_flight -= 1
        now = member.clock()
        member.breaker.answered(now)
        member.limiter.answered(now, sent=began)
        # Without its rate limits, which are of one endpoint: the scheduler's are of the pool.
        return Reply(reply.body)

    @staticmethod
    def _failed(member: _Member, why: str, probe: bool) -> None:
        member.breaker.failed(member.clock(), why, most=0, probe=probe)

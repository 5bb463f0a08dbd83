"""Admission control and load figures of one deployment."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque

from daitn.objects.readings import ServingReading
from daitn.openai.errors import ApiError
from daitn.tools.monitoring.metrics import FIRST_TOKEN_S, REQUEST_S, Histogram
from daitn.topology.qrrt.observation import averaged, first_share

__all__ = ["AdmissionQueue"]

ERROR_HALF_LIFE_S = 10.0
"""Half-life of the error share. It decays without queries, so that somebody tries whether the
deployment works again."""
_MIN_RETRY_AFTER_S, _MAX_RETRY_AFTER_S = 0.1, 60.0
_DEFAULT_ANSWER_S = 1.0
"""Assumed duration of an answer until one is measured."""


class AdmissionQueue:
    """Slots with a bounded first-come, first-served queue, and smoothed load figures."""

    def __init__(self, slots: int, queue: int) -> None:
        self.slots = slots
        """Queries answered at the same time."""
        self._queue = queue
        self._waiters: deque[asyncio.Future[None]] = deque()
        self.in_flight = 0
        self.idle = asyncio.Event()
        """Set while no query runs or waits."""
        self.idle.set()
        self._first_token_s: float | None = None
        self._per_token_s: float | None = None
        self._answered_at_s = 0.0
        self._answer_s: float | None = None
        self._error_share = 0.0
        self._error_share_at_s = time.monotonic()
        self.queue_time = Histogram(REQUEST_S)
        self.duration = Histogram(REQUEST_S)
        self.first_token = Histogram(FIRST_TOKEN_S)
        self.tokens = self.failed = self.rejected = 0
        """Tokens written, failed answers, and queries for which there was no room."""

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    async def acquire(self) -> None:
        """Take a slot, or wait for one. Raises `ApiError` (429) if the queue is full."""
        if self.in_flight < self.slots and not self._waiters:
            self.in_flight += 1
            self.idle.clear()
            return
        if len(self._waiters) >= self._queue:
            self.rejected += 1
            raise self._full()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release()  # It got the slot at the same moment.
            else:
                with contextlib.suppress(ValueError):  # `release` may have removed it already.
                    self._waiters.remove(waiter)
            raise

    def release(self) -> None:
        """Pass the slot to the next waiting query, or free it."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self.in_flight -= 1
        if self.in_flight == 0:
            self.idle.set()

    def record_answer(self, first_token_s: float | None, seconds: float, tokens: int) -> None:
        """Record a whole answer of `tokens`, `seconds` after it got its slot."""
        self._record_outcome(failed=0.0)
        now_s = time.monotonic()
        age_s, self._answered_at_s = now_s - self._answered_at_s, now_s
        self._answer_s = averaged(self._answer_s, seconds)
        self.duration.observe(seconds)
        self.tokens += tokens
        if first_token_s is None:
            first_s, further_s = self._split(seconds, tokens)
        else:
            self.first_token.observe(first_token_s)
            first_s, further_s = first_token_s, max(0.0, seconds - first_token_s)
        self._first_token_s = averaged(self._first_token_s, first_s, age_s)
        if tokens > 1 and further_s is not None:
            self._per_token_s = averaged(self._per_token_s, further_s / (tokens - 1), age_s)

    def _split(self, seconds: float, tokens: int) -> tuple[float, float | None]:
        """How long the first token and all further ones took of an answer that came in one piece:
        their usual shares of the time. None if nothing is known of the further ones."""
        usual_s, per_token_s = self._first_token_s, self._per_token_s
        if tokens <= 1 or usual_s is None:
            return seconds, None
        if per_token_s is None:
            return (usual_s, seconds - usual_s) if seconds > usual_s else (seconds, None)
        share = first_share(usual_s, per_token_s, tokens)
        return share * seconds, (1.0 - share) * seconds

    def record_failure(self) -> None:
        """Record an answer that failed or broke off."""
        self.failed += 1
        self._record_outcome(failed=1.0)

    def reset_errors(self) -> None:
        """Clear the error share: the backend that failed has restarted."""
        self._error_share = 0.0

    def _record_outcome(self, failed: float) -> None:
        self._error_share = averaged(self._decayed_error_share(), failed)
        self._error_share_at_s = time.monotonic()

    def _decayed_error_share(self) -> float:
        idle_s = time.monotonic() - self._error_share_at_s
        return float(self._error_share * 0.5 ** (idle_s / ERROR_HALF_LIFE_S))

    def reading(self, deployment: str) -> ServingReading:
        """The current load and speed."""
        return ServingReading(
            deployment=deployment,
            in_flight=self.in_flight,
            waiting=len(self._waiters),
            first_token_s=self._first_token_s,
            per_token_s=self._per_token_s,
            error_share=self._decayed_error_share(),
        )

    def _full(self) -> ApiError:
        each_s = _DEFAULT_ANSWER_S if self._answer_s is None else self._answer_s
        wait_s = each_s * (len(self._waiters) + 1) / self.slots
        return ApiError(
            429,
            "facility_full",
            f"{self.in_flight} queries are running and {len(self._waiters)} are waiting",
            retry_after_s=min(max(wait_s, _MIN_RETRY_AFTER_S), _MAX_RETRY_AFTER_S),
        )

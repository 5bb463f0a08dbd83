"""Who is served now, who waits, and how fast it goes, for one deployment."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque

from daitn.objects.readings import ServingReading
from daitn.openai.errors import ApiError

__all__ = ["AdmissionQueue"]

NEWEST_WEIGHT = 0.2
"""Weight of the newest answer in the moving averages: they follow a change within some ten."""
ERRORS_HALVE_S = 10.0
"""Without queries the share of errors fades: somebody has to try whether it is well again."""
_LEAST_AGAIN_S, _MOST_AGAIN_S = 0.1, 60.0
_UNMEASURED_S = 1.0
"""What an answer is taken to last while none has ended."""


class AdmissionQueue:
    """Slots, a bounded queue before them in order of arrival, and smoothed figures."""

    def __init__(self, slots: int, queue: int) -> None:
        self._slots = slots
        self._queue = queue
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.in_flight = 0
        self.idle = asyncio.Event()
        """Set while nobody is served and nobody waits."""
        self.idle.set()
        self._first_token_s: float | None = None
        self._per_token_s: float | None = None
        self._seconds: float | None = None
        self._error_share = 0.0
        self._counted_at_s = time.monotonic()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def enter(self) -> None:
        """Wait for a slot. Raises `ApiError` (429) where too many wait already."""
        if self.in_flight < self._slots and not self._waiting:
            self.in_flight += 1
            self.idle.clear()
            return
        if len(self._waiting) >= self._queue:
            raise self._full()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # The slot came in the same moment.
            else:
                with contextlib.suppress(ValueError):  # `leave` may have passed over it by now.
                    self._waiting.remove(turn)
            raise

    def leave(self) -> None:
        """Give the slot to the next who waits."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.in_flight -= 1
        if self.in_flight == 0:
            self.idle.set()

    def answered(self, first_token_s: float | None, seconds: float, tokens: int) -> None:
        """An answer of `tokens` ended `seconds` after it got its slot."""
        self._count(0.0)
        self._seconds = _smoothed(self._seconds, seconds)
        if first_token_s is not None:
            self._first_token_s = _smoothed(self._first_token_s, first_token_s)
        begun_s = first_token_s if first_token_s is not None else self._first_token_s
        if tokens > 1 and begun_s is not None:
            per_token_s = max(0.0, seconds - begun_s) / (tokens - 1)
            self._per_token_s = _smoothed(self._per_token_s, per_token_s)
        elif begun_s is None:
            self._first_token_s = seconds

    def failed(self) -> None:
        """An answer did not come, or not whole."""
        self._count(1.0)

    def recovered(self) -> None:
        """What failed is another one now."""
        self._error_share = 0.0

    def _count(self, failed: float) -> None:
        self._error_share = _smoothed(self._faded(), failed)
        self._counted_at_s = time.monotonic()

    def _faded(self) -> float:
        idle_s = time.monotonic() - self._counted_at_s
        return float(self._error_share * 0.5 ** (idle_s / ERRORS_HALVE_S))

    def reading(self, deployment: str) -> ServingReading:
        """How it does now."""
        return ServingReading(
            deployment=deployment,
            in_flight=self.in_flight,
            waiting=len(self._waiting),
            first_token_s=self._first_token_s,
            per_token_s=self._per_token_s,
            error_share=self._faded(),
        )

    def _full(self) -> ApiError:
        each_s = _UNMEASURED_S if self._seconds is None else self._seconds
        wait_s = each_s * (len(self._waiting) + 1) / self._slots
        return ApiError(
            429,
            "facility_full",
            f"{self.in_flight} queries are being answered and {len(self._waiting)} wait",
            retry_after_s=min(max(wait_s, _LEAST_AGAIN_S), _MOST_AGAIN_S),
        )


def _smoothed(before: float | None, sample: float) -> float:
    return sample if before is None else before + NEWEST_WEIGHT * (sample - before)

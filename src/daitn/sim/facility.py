"""One deployment at work: slots, and a bounded first-come-first-served queue."""

from __future__ import annotations

import heapq
from collections import deque

from daitn.control.queries.attempts import Cause
from daitn.objects.readings import ServingReading
from daitn.sim.attempt import Served, SimulatedAttempt
from daitn.sim.clock import Clock
from daitn.sim.load import Arrival
from daitn.sim.network import DeploymentSpec
from daitn.topology.qrrt.observation import averaged

__all__ = ["SimulatedFacility"]


class SimulatedFacility:
    """Serves attempts, in virtual time."""

    def __init__(self, spec: DeploymentSpec, clock: Clock) -> None:
        self.spec = spec
        self._clock = clock
        self._alive = True
        self._times = 1.0
        self._coming: dict[SimulatedAttempt, None] = {}
        self._serving: dict[SimulatedAttempt, None] = {}
        self._waiting: deque[SimulatedAttempt] = deque()
        self._first_token_s: float | None = None
        self._per_token_s: float | None = None
        self._measured_at_s = 0.0

    @property
    def load(self) -> tuple[int, int]:
        """Numbers of attempts being served and waiting."""
        return len(self._serving), len(self._waiting)

    def reading(self) -> ServingReading:
        """The facility's report on the deployment."""
        return ServingReading(
            deployment=self.spec.name,
            in_flight=len(self._serving),
            waiting=len(self._waiting),
            first_token_s=self._first_token_s,
            per_token_s=self._per_token_s,
        )

    def comes(self, attempt: SimulatedAttempt) -> None:
        """An attempt was sent and will arrive at its time."""
        self._coming[attempt] = None
        self._clock.at(attempt.reaches_at_s, lambda: self._reached(attempt))

    def cancel(self, attempt: SimulatedAttempt) -> None:
        """The gateway no longer wants the answer."""
        if self._coming.pop(attempt, attempt) is None:
            return
        if attempt in self._waiting:
            self._waiting.remove(attempt)
        elif self._serving.pop(attempt, attempt) is None:
            self._next()

    def die(self) -> None:
        """Everything here breaks off."""
        self._alive = False
        broken = [*self._serving, *self._waiting]
        self._serving.clear()
        self._waiting.clear()
        for attempt in broken:
            self._tell(attempt, Cause.FAILED)

    def live(self) -> None:
        self._alive = True

    def slow(self, times: float) -> None:
        """From now on everything takes this many times its usual time, even work in progress."""
        changed, self._times = times / self._times, times
        now_s = self._clock.now_s
        for attempt in self._serving:
            self._end_at(attempt, now_s + (attempt.ends_at_s - now_s) * changed)

    def would_end_at_s(self, arrival: Arrival, reaches_at_s: float) -> float | None:
        """When the answer to a query sent now would end; none if it would not be served.

        Takes into account all attempts here or on their way, from all gateways, and their lengths.
        """
        before = sorted((a for a in self._coming if a.reaches_at_s <= reaches_at_s), key=_reaches)
        room = self.spec.slots + self.spec.queue
        if not self._alive or len(self._serving) + len(self._waiting) + len(before) >= room:
            return None
        free_at_s = [attempt.ends_at_s for attempt in self._serving]
        free_at_s += [self._clock.now_s] * (self.spec.slots - len(free_at_s))
        heapq.heapify(free_at_s)
        for attempt in (*self._waiting, *before):
            begins_s = max(free_at_s[0], attempt.reaches_at_s)
            heapq.heapreplace(free_at_s, begins_s + self.service_s(attempt.arrival))
        return max(free_at_s[0], reaches_at_s) + self.service_s(arrival)

    def service_s(self, arrival: Arrival) -> float:
        """Duration of its answer here now, from slot to end."""
        return self._times * arrival.luck * self.spec.service_s(arrival.tokens_out)

    def _reached(self, attempt: SimulatedAttempt) -> None:
        if self._coming.pop(attempt, attempt) is not None:
            return
        attempt.reached_at_s = self._clock.now_s
        if not self._alive:
            self._tell(attempt, Cause.FAILED)  # The machine says that nobody listens.
        elif len(self._serving) < self.spec.slots:
            self._begin(attempt)
        elif len(self._waiting) < self.spec.queue:
            self._waiting.append(attempt)
        else:
            self._tell(attempt, Cause.FULL)

    def _begin(self, attempt: SimulatedAttempt) -> None:
        attempt.began_at_s = self._clock.now_s
        self._serving[attempt] = None
        self._end_at(attempt, self._clock.now_s + self.service_s(attempt.arrival))

    def _end_at(self, attempt: SimulatedAttempt, at_s: float) -> None:
        attempt.ends_at_s = at_s
        self._clock.at(at_s, lambda: self._ends(attempt, at_s))

    def _ends(self, attempt: SimulatedAttempt, at_s: float) -> None:
        if attempt not in self._serving or attempt.ends_at_s != at_s:
            return  # It was cancelled, broke off, or now ends at another time.
        del self._serving[attempt]
        self._next()
        seconds = at_s - attempt.began_at_s
        usual_s = self.spec.service_s(attempt.arrival.tokens_out)
        first_s = seconds * self.spec.first_token_s / usual_s
        self._measure(first_s, seconds, attempt.arrival.tokens_out)
        waited_s = attempt.began_at_s - attempt.reached_at_s
        self._tell(attempt, Served(waited_s, first_s, seconds))

    def _next(self) -> None:
        if self._waiting:
            self._begin(self._waiting.popleft())

    def _measure(self, first_s: float, seconds: float, tokens: int) -> None:
        now_s = self._clock.now_s
        age_s, self._measured_at_s = now_s - self._measured_at_s, now_s
        self._first_token_s = averaged(self._first_token_s, first_s, age_s)
        if tokens > 1:
            per_token_s = (seconds - first_s) / (tokens - 1)
            self._per_token_s = averaged(self._per_token_s, per_token_s, age_s)

    def _tell(self, attempt: SimulatedAttempt, outcome: Served | Cause) -> None:
        self._clock.after(attempt.rtt_s / 2, lambda: attempt.ended(attempt, outcome))


def _reaches(attempt: SimulatedAttempt) -> float:
    return attempt.reaches_at_s

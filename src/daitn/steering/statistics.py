"""What a forwarder learns from answers: real durations of objects, per next hop and origin.

Q-routing (Boyan and Littman, "Packet Routing in Dynamically Changing Networks: A Reinforcement
Learning Approach", 1994), with two changes. A forwarder learns the difference from what summaries
advertise, so that a better summary counts at once. What it learned decays, so that it tries a
congested route again. Unanswered objects count too: if the oldest has waited much longer than
expected, the route is taken to need at least that long.

The load of an origin is counted, not learned. Every answer reports how many objects were under way
at its origin when it left; answers are far more frequent than summaries, and reach exactly the
forwarders that send there. A forwarder adds what it has sent there since.
"""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["HopStatistics", "OriginLoad", "Statistics"]

INFINITE = float("inf")

LEARNING_RATE = 0.03
"""Low, as serving times vary severalfold between objects. Waits are counted."""
SLOW_RATE = 0.3
"""For refusals and overdue objects, which such variation does not explain."""
OVERDUE = 4.0
"""The oldest object counts as overdue beyond this multiple of the expected time: the oldest of
several is always a slow one."""
HALF_LIFE_S = 5.0
"""Half of what was learned is forgotten in this time."""
MOST_STATISTICS = 4096
REFUSAL_PENALTY_S = 2.0
"""A refusal counts as an answer that came this much later than expected."""


class HopStatistics:
    """How much longer than advertised objects take, for one next hop and origin."""

    __slots__ = ("_bias_at_s", "_bias_s", "waiting")

    def __init__(self) -> None:
        self._bias_s = 0.0
        self._bias_at_s = 0.0
        self.waiting: dict[Hashable, float] = {}
        """Pending objects to the time at which each was sent, oldest first."""

    def bias_s(self, now_s: float) -> float:
        """How much longer objects take than summaries say."""
        if self._bias_s == 0.0:
            return 0.0
        return float(self._bias_s * 0.5 ** (max(0.0, now_s - self._bias_at_s) / HALF_LIFE_S))

    def oldest_s(self, now_s: float) -> float:
        """Age of the oldest pending object; 0 if there is none."""
        for sent_at_s in self.waiting.values():
            return now_s - sent_at_s
        return 0.0

    def overdue_s(self, expected_s: float, now_s: float) -> float:
        """The age of the oldest object if it is overdue, else 0."""
        oldest_s = self.oldest_s(now_s)
        return oldest_s if oldest_s > OVERDUE * expected_s else 0.0

    def learn(self, late_s: float, now_s: float, rate: float) -> None:
        """Record an object that took `late_s` longer than expected, bias included."""
        self._bias_s = self.bias_s(now_s) + rate * late_s
        self._bias_at_s = now_s


class OriginLoad:
    """How many objects are pending at one origin, from everywhere, as far as this site knows."""

    __slots__ = ("_advertised_wait_s", "_count", "_distance_s", "_since_s", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[Hashable, float] = {}
        """Unanswered objects that this site sent there, with their times, oldest first."""
        self._count = 0.0
        self._since_s = -INFINITE
        """`_count` does not include what this site sent later."""
        self._distance_s = 0.0
        self._advertised_wait_s = -1.0

    def ahead(self) -> float:
        """Number of objects ahead of one that is sent now."""
        count = self._count
        for sent_at_s in reversed(self.waiting.values()):
            if sent_at_s <= self._since_s:
                break
            count += 1.0
        return count

    def reported(self, count: float, now_s: float) -> None:
        """Take the origin's count from a message that arrives now.

        It does not include what this site sent within the last round trip.
        """
        self._count, self._since_s = count, now_s - 2.0 * self._distance_s

    def advertised(self, wait_s: float, count: float, distance_s: float, now_s: float) -> None:
        """Take the count implied by an advertised wait. Each wait counts once: after that, answers
        are newer."""
        if wait_s == self._advertised_wait_s:
            self._distance_s = min(self._distance_s, distance_s)
            return
        self._advertised_wait_s, self._distance_s = wait_s, distance_s
        if distance_s:
            self.reported(count, now_s)
        else:  # The origin is this site: `waiting` has what came by packet, `_count` the rest.
            self._count = max(0.0, count - len(self.waiting))


class Statistics:
    """Next-hop statistics and origin loads of one forwarder."""

    def __init__(self) -> None:
        self._statistics: dict[tuple[str, str], HopStatistics] = {}
        self._loads: dict[str, OriginLoad] = {}
        self.version = 0
        """Increases with everything that is learned or counted."""

    def hop_statistics(self, via: str, origin: str) -> HopStatistics:
        """The statistics of a neighbour (empty means this site itself) and an origin."""
        hop_statistics = self._statistics.get((via, origin))
        if hop_statistics is None:
            if len(self._statistics) >= MOST_STATISTICS:
                self._forget_idle()
            hop_statistics = self._statistics[via, origin] = HopStatistics()
        return hop_statistics

    def load(self, origin: str) -> OriginLoad:
        """The load of an origin."""
        load = self._loads.get(origin)
        if load is None:
            load = self._loads[origin] = OriginLoad()
        return load

    def sent(self, via: str, origin: str, object_key: Hashable, now_s: float) -> None:
        """An object was sent on."""
        self.version += 1
        hop_statistics = self._statistics.get((via, origin)) or self.hop_statistics(via, origin)
        load = self._loads.get(origin) or self.load(origin)
        hop_statistics.waiting[object_key] = load.waiting[object_key] = now_s

    def load_reported(self, origin: str, count: int, now_s: float) -> None:
        """An answer reports how many objects were pending at its origin when it left."""
        load = self._loads.get(origin)
        if load is not None:  # Otherwise no ranked next hop leads there.
            self.version += 1
            load.reported(count, now_s)

    def answered(
        self, via: str, origin: str, object_key: Hashable, expected_s: float, now_s: float
    ) -> float | None:
        """An object was answered, or is late enough to be sent again.

        Returns how long it took; None if it was not under way there.
        """
        hop_statistics = self._statistics.get((via, origin))
        sent_at_s = (
            None if hop_statistics is None else self._remove(hop_statistics, origin, object_key)
        )
        if hop_statistics is None or sent_at_s is None:
            return None
        taken_s = now_s - sent_at_s
        rate = SLOW_RATE if taken_s > OVERDUE * expected_s else LEARNING_RATE
        hop_statistics.learn(taken_s - expected_s, now_s, rate)
        return taken_s

    def refused(self, via: str, origin: str, object_key: Hashable, now_s: float) -> None:
        """An object was refused: it counts as `REFUSAL_PENALTY_S` late."""
        if self.abandoned(via, origin, object_key) is not None:
            self._statistics[via, origin].learn(REFUSAL_PENALTY_S, now_s, SLOW_RATE)

    def abandoned(self, via: str, origin: str, object_key: Hashable) -> float | None:
        """An object will get no answer from there, which teaches nothing. Returns when it was sent;
        None if it was not pending there."""
        hop_statistics = self._statistics.get((via, origin))
        return None if hop_statistics is None else self._remove(hop_statistics, origin, object_key)

    def _remove(
        self, hop_statistics: HopStatistics, origin: str, object_key: Hashable
    ) -> float | None:
        self.version += 1
        load = self._loads.get(origin)
        if load is not None:
            load.waiting.pop(object_key, None)
        return hop_statistics.waiting.pop(object_key, None)

    def _forget_idle(self) -> None:
        self._statistics = {
            key: hop_statistics
            for key, hop_statistics in self._statistics.items()
            if hop_statistics.waiting
        }
        self._loads = {origin: load for origin, load in self._loads.items() if load.waiting}

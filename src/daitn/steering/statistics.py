"""What a forwarder learns from receipts: how long objects really take, way by way.

Q-routing (Boyan and Littman, "Packet Routing in Dynamically Changing Networks: A Reinforcement
Learning Approach", 1994), with two changes. What is learned is the difference from what the
summaries promise, so that a better summary counts at once. And it fades without receipts, so that
a way that was congested is tried again. Objects that are still waiting speak too: a way on which
the oldest of them has waited much longer than expected takes at least that long.

What is under way at an origin is counted rather than learned. Every answer says how much there was
when it left, far more often than summaries do, and to just those who send there; what has gone
there from here since then, this forwarder knows itself.
"""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["HopStatistics", "OriginLoad", "Statistics"]

INFINITE = float("inf")

LEARNING_RATE = 0.03
"""Times to serve differ several times from object to object; what waits is known without it."""
SLOW_RATE = 0.3
"""Of what is no such difference: refusals, and what was overdue."""
OVERDUE = 4.0
"""By so many times the oldest object has to outlast what is expected before it speaks: the oldest
of several is always one of those that take long."""
FADES_S = 5.0
"""In which half of what was learned is forgotten."""
MOST_HOPS_KEPT = 4096
REFUSED_S = 2.0
"""What a refusal counts as, beyond what was expected."""


class HopStatistics:
    """One way: a neighbour and the origin that is reached through it."""

    __slots__ = ("_bias_at_s", "_bias_s", "waiting")

    def __init__(self) -> None:
        self._bias_s = 0.0
        self._bias_at_s = 0.0
        self.waiting: dict[Hashable, float] = {}
        """Objects under way on it, to when they left; the oldest first."""

    def bias_s(self, now_s: float) -> float:
        """By how much it takes longer than the summaries say."""
        if self._bias_s == 0.0:
            return 0.0
        return float(self._bias_s * 0.5 ** (max(0.0, now_s - self._bias_at_s) / FADES_S))

    def oldest_s(self, now_s: float) -> float:
        """How long the oldest object that is under way on it has been."""
        for left_s in self.waiting.values():
            return now_s - left_s
        return 0.0

    def overdue_s(self, expected_s: float, now_s: float) -> float:
        """The least that this way takes, by the oldest object; 0 where that is not overdue."""
        oldest_s = self.oldest_s(now_s)
        return oldest_s if oldest_s > OVERDUE * expected_s else 0.0

    def learn(self, late_s: float, now_s: float, rate: float) -> None:
        """An object took so much longer than was expected with all that was learned before."""
        self._bias_s = self.bias_s(now_s) + rate * late_s
        self._bias_at_s = now_s


class OriginLoad:
    """What is under way at one origin, from everywhere, as far as it is known here."""

    __slots__ = ("_count", "_far_s", "_offered_s", "_since_s", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[Hashable, float] = {}
        """What went there from here and is not answered, to when it left; the oldest first."""
        self._count = 0.0
        self._since_s = -INFINITE
        """What left here after that is not in `_count`."""
        self._far_s = 0.0
        self._offered_s = -1.0

    def ahead(self) -> float:
        """How many are before one more that leaves now."""
        count = self._count
        for left_s in reversed(self.waiting.values()):
            if left_s <= self._since_s:
                break
            count += 1.0
        return count

    def told(self, count: float, now_s: float) -> None:
        """So many were there when what is here now left there. What set out from here later than
        a round trip ago came after that."""
        self._count, self._since_s = count, now_s - 2.0 * self._far_s

    def offered(self, wait_s: float, count: float, far_s: float, now_s: float) -> None:
        """A summary says so of an origin that is so far. It counts once: after that, answers are
        newer."""
        if wait_s == self._offered_s:
            self._far_s = min(self._far_s, far_s)
            return
        self._offered_s, self._far_s = wait_s, far_s
        if far_s:
            self.told(count, now_s)
        else:  # All of its own is here to be counted at any time; the rest came otherwise.
            self._count = max(0.0, count - len(self.waiting))


class Statistics:
    """All ways of one forwarder."""

    def __init__(self) -> None:
        self._statistics: dict[tuple[str, str], HopStatistics] = {}
        self._loads: dict[str, OriginLoad] = {}
        self.version = 0
        """Counts up whenever something is learned or counted here."""

    def hop_statistics(self, via: str, origin: str) -> HopStatistics:
        """The lane by neighbour (empty: this site itself) and origin."""
        hop_statistics = self._statistics.get((via, origin))
        if hop_statistics is None:
            if len(self._statistics) >= MOST_HOPS_KEPT:
                self._forget_idle()
            hop_statistics = self._statistics[via, origin] = HopStatistics()
        return hop_statistics

    def load(self, origin: str) -> OriginLoad:
        """What is under way at an origin."""
        load = self._loads.get(origin)
        if load is None:
            load = self._loads[origin] = OriginLoad()
        return load

    def left(self, via: str, origin: str, object_key: Hashable, now_s: float) -> None:
        """An object went on."""
        self.version += 1
        hop_statistics = self._statistics.get((via, origin)) or self.hop_statistics(via, origin)
        load = self._loads.get(origin) or self.load(origin)
        hop_statistics.waiting[object_key] = load.waiting[object_key] = now_s

    def told(self, origin: str, count: int, now_s: float) -> None:
        """An answer says how much was under way at its origin when it left there."""
        load = self._loads.get(origin)
        if load is not None:  # Otherwise nothing ranked here goes there.
            self.version += 1
            load.told(count, now_s)

    def back(
        self, via: str, origin: str, object_key: Hashable, expected_s: float, now_s: float
    ) -> float | None:
        """Its receipt came, or it is not waited for any more as it takes so long.

        Returns how long it took; None if it was not under way there.
        """
        hop_statistics = self._statistics.get((via, origin))
        left_s = None if hop_statistics is None else self._off(hop_statistics, origin, object_key)
        if hop_statistics is None or left_s is None:
            return None
        taken_s = now_s - left_s
        rate = SLOW_RATE if taken_s > OVERDUE * expected_s else LEARNING_RATE
        hop_statistics.learn(taken_s - expected_s, now_s, rate)
        return taken_s

    def refused(self, via: str, origin: str, object_key: Hashable, now_s: float) -> None:
        """It came back unanswered: a while of waiting is what going there again is worth."""
        if self.gave_up(via, origin, object_key) is not None:
            self._statistics[via, origin].learn(REFUSED_S, now_s, SLOW_RATE)

    def gave_up(self, via: str, origin: str, object_key: Hashable) -> float | None:
        """No receipt will come: nothing is learned of it. Returns when it left; None if it was not
        under way there."""
        hop_statistics = self._statistics.get((via, origin))
        return None if hop_statistics is None else self._off(hop_statistics, origin, object_key)

    def _off(
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

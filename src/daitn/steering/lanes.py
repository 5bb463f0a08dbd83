"""What a forwarder learns from receipts: how long objects really take, way by way.

Q-routing (Boyan and Littman, "Packet Routing in Dynamically Changing Networks: A Reinforcement
Learning Approach", 1994), with two changes. What is learned is the difference from what the
summaries promise, so that a better summary counts at once. And it fades without receipts, so that
a way that was congested is tried again. Objects that are still waiting speak too: a way on which
the oldest of them has waited longer than expected takes at least that long.
"""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["Lane", "Lanes"]

LEARNING_RATE = 0.3
FADES_S = 5.0
"""In which half of what was learned is forgotten."""
MOST_LANES = 4096
REFUSED_S = 2.0
"""What a refusal counts as, beyond what was expected."""


class Lane:
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

    def learn(self, taken_s: float, expected_s: float, now_s: float) -> None:
        bias_s = self.bias_s(now_s)
        self._bias_s = bias_s + LEARNING_RATE * (taken_s - expected_s - bias_s)
        self._bias_at_s = now_s


class Lanes:
    """All ways of one forwarder."""

    def __init__(self) -> None:
        self._lanes: dict[tuple[str, str], Lane] = {}

    def lane(self, via: str, origin: str) -> Lane:
        """The lane by neighbour (empty: this site itself) and origin."""
        lane = self._lanes.get((via, origin))
        if lane is None:
            if len(self._lanes) >= MOST_LANES:
                self._forget_idle()
            lane = self._lanes[via, origin] = Lane()
        return lane

    def under_way(self, origin: str, vias: tuple[str, ...]) -> int:
        """Objects that went towards an origin from here and are not answered."""
        count = 0
        for via in vias:
            lane = self._lanes.get((via, origin))
            if lane is not None:
                count += len(lane.waiting)
        return count

    def left(self, via: str, origin: str, object_key: Hashable, now_s: float) -> None:
        """An object went on."""
        lane = self._lanes.get((via, origin)) or self.lane(via, origin)
        lane.waiting[object_key] = now_s

    def back(
        self, via: str, origin: str, object_key: Hashable, expected_s: float, now_s: float
    ) -> float | None:
        """Its receipt came, or it is not waited for any more as it takes so long.

        Returns how long it took; None if it was not under way there.
        """
        lane = self._lanes.get((via, origin))
        left_s = lane.waiting.pop(object_key, None) if lane is not None else None
        if lane is None or left_s is None:
            return None
        lane.learn(now_s - left_s, expected_s, now_s)
        return now_s - left_s

    def refused(
        self, via: str, origin: str, object_key: Hashable, expected_s: float, now_s: float
    ) -> None:
        """It came back unanswered: a while of waiting is what going there again is worth."""
        lane = self._lanes.get((via, origin))
        if lane is not None and lane.waiting.pop(object_key, None) is not None:
            lane.learn(expected_s + REFUSED_S, expected_s, now_s)

    def gave_up(self, via: str, origin: str, object_key: Hashable) -> None:
        """No receipt will come: nothing is learned of it."""
        lane = self._lanes.get((via, origin))
        if lane is not None:
            lane.waiting.pop(object_key, None)

    def _forget_idle(self) -> None:
        self._lanes = {key: lane for key, lane in self._lanes.items() if lane.waiting}

"""Token buckets that keep an owner or a neighbour from flooding a forwarder."""

from __future__ import annotations

from daitn.objects.rates import Bucket

__all__ = ["Buckets"]

MOST_BUCKETS = 65536


class Buckets:
    """A bucket per neighbour and owner, and one per neighbour.

    Intents claim their owners, so one who lies uses up a neighbour's share: the neighbour's own
    bucket bounds that.
    """

    def __init__(self, per_s: float, burst: float, owners_per_neighbour: float) -> None:
        self._owner = per_s, burst
        self._neighbour = per_s * owners_per_neighbour, burst * owners_per_neighbour
        self._buckets: dict[tuple[str, str] | str, Bucket] = {}

    def take(self, neighbour: str, owner: str, now_s: float) -> float:
        """Take a token for the owner's next object. Returns the seconds to wait; 0 means none."""
        key = neighbour, owner
        own = self._buckets.get(key) or self._add(key, self._owner, now_s)
        common = self._buckets.get(neighbour) or self._add(neighbour, self._neighbour, now_s)
        # The owner's bucket goes first: what it rejects takes nothing from the neighbour's.
        return own.take(now_s) or common.take(now_s)

    def _add(self, key: tuple[str, str] | str, rate: tuple[float, float], now_s: float) -> Bucket:
        if len(self._buckets) >= MOST_BUCKETS:
            self._forget_full(now_s)
        bucket = self._buckets[key] = Bucket(*rate, now_s)
        return bucket

    def _forget_full(self, now_s: float) -> None:
        """Drop full buckets, which equal new ones. If all are in use, drop all owners': a neighbour
        that invents owners is still bound by its own bucket."""
        kept = {
            key: bucket
            for key, bucket in self._buckets.items()
            if isinstance(key, str) or not bucket.full(now_s)
        }
        if len(kept) >= MOST_BUCKETS:
            kept = {key: bucket for key, bucket in kept.items() if isinstance(key, str)}
        self._buckets = kept

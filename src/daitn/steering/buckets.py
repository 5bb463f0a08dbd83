"""Token buckets, so that no owner and no neighbour floods a forwarder."""

from __future__ import annotations

__all__ = ["Bucket", "Buckets"]

MOST_BUCKETS = 65536


class Bucket:
    """`burst` at once, `per_s` in the long run."""

    __slots__ = ("_at_s", "_tokens")

    def __init__(self, burst: float, now_s: float) -> None:
        self._tokens = burst
        self._at_s = now_s

    def take(self, per_s: float, burst: float, now_s: float) -> float:
        """Seconds until a token is there; 0: it was there and is taken."""
        tokens = self._tokens
        if now_s > self._at_s:
            tokens += (now_s - self._at_s) * per_s
            if tokens > burst:
                tokens = burst
            self._at_s = now_s
        if tokens < 1.0:
            self._tokens = tokens
            return (1.0 - tokens) / per_s
        self._tokens = tokens - 1.0
        return 0.0

    def full(self, per_s: float, burst: float, now_s: float) -> bool:
        """Whether it is as a new one would be."""
        return self._tokens + (now_s - self._at_s) * per_s >= burst


class Buckets:
    """One bucket for each owner at each neighbour that its objects come from.

    An owner is what an intent says; who lies about it takes from one neighbour's share, so a
    neighbour as a whole has a bucket too.
    """

    def __init__(self, per_s: float, burst: float, owners_per_neighbour: float) -> None:
        self._owner = per_s, burst
        self._neighbour = per_s * owners_per_neighbour, burst * owners_per_neighbour
        self._buckets: dict[tuple[str, str] | str, Bucket] = {}

    def take(self, neighbour: str, owner: str, now_s: float) -> float:
        """Seconds until the owner's next object may pass; 0: this one may."""
        # The owner's bucket first: what is turned away there takes nothing from the neighbour's.
        return self._take((neighbour, owner), self._owner, now_s) or self._take(
            neighbour, self._neighbour, now_s
        )

    def _take(self, key: tuple[str, str] | str, rate: tuple[float, float], now_s: float) -> float:
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= MOST_BUCKETS:
                self._forget_full(now_s)
            bucket = self._buckets[key] = Bucket(rate[1], now_s)
        return bucket.take(rate[0], rate[1], now_s)

    def _forget_full(self, now_s: float) -> None:
        """A full bucket is no different from a new one. If all are in use, all start anew:
        whoever invents owners is still held by the bucket of its neighbour."""
        kept = {
            key: bucket
            for key, bucket in self._buckets.items()
            if isinstance(key, str) or not bucket.full(*self._owner, now_s)
        }
        if len(kept) >= MOST_BUCKETS:
            kept = {key: bucket for key, bucket in kept.items() if isinstance(key, str)}
        self._buckets = kept

"""Token buckets, so that no owner and no neighbour floods a forwarder."""

from __future__ import annotations

__all__ = ["Bucket", "Buckets"]

MOST_BUCKETS = 65536


class Bucket:
    """`burst` at once, `per_s` in the long run."""

    __slots__ = ("_at_s", "_burst", "_per_s", "_tokens")

    def __init__(self, per_s: float, burst: float, now_s: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._tokens = burst
        self._at_s = now_s

    def take(self, now_s: float) -> float:
        """Seconds until a token is there; 0: it was there and is taken."""
        tokens = self._tokens
        if now_s > self._at_s:
            tokens += (now_s - self._at_s) * self._per_s
            if tokens > self._burst:
                tokens = self._burst
            self._at_s = now_s
        if tokens < 1.0:
            self._tokens = tokens
            return (1.0 - tokens) / self._per_s
        self._tokens = tokens - 1.0
        return 0.0

    def full(self, now_s: float) -> bool:
        """Whether it is as a new one would be."""
        return self._tokens + (now_s - self._at_s) * self._per_s >= self._burst


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
        key = neighbour, owner
        own = self._buckets.get(key) or self._add(key, self._owner, now_s)
        common = self._buckets.get(neighbour) or self._add(neighbour, self._neighbour, now_s)
        # The owner's bucket first: what is turned away there takes nothing from the neighbour's.
        return own.take(now_s) or common.take(now_s)

    def _add(self, key: tuple[str, str] | str, rate: tuple[float, float], now_s: float) -> Bucket:
        if len(self._buckets) >= MOST_BUCKETS:
            self._forget_full(now_s)
        bucket = self._buckets[key] = Bucket(*rate, now_s)
        return bucket

    def _forget_full(self, now_s: float) -> None:
        """A full bucket is no different from a new one. If all are in use, all start anew:
        whoever invents owners is still held by the bucket of its neighbour."""
        kept = {
            key: bucket
            for key, bucket in self._buckets.items()
            if isinstance(key, str) or not bucket.full(now_s)
        }
        if len(kept) >= MOST_BUCKETS:
            kept = {key: bucket for key, bucket in kept.items() if isinstance(key, str)}
        self._buckets = kept

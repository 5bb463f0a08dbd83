"""A token bucket: a burst at once, a rate sustained."""

from __future__ import annotations

__all__ = ["Bucket"]


class Bucket:
    """A token bucket: `burst` at once, `per_s` sustained."""

    __slots__ = ("_at_s", "_burst", "_per_s", "_tokens")

    def __init__(self, per_s: float, burst: float, now_s: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._tokens = burst
        self._at_s = now_s

    def take(self, now_s: float) -> float:
        """Take a token. Returns the seconds until the next one; 0 if one was taken."""
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
        """Whether it equals a new one."""
        return self._tokens + (now_s - self._at_s) * self._per_s >= self._burst

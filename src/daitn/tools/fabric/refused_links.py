"""When a process with refused links reconnects."""

from __future__ import annotations

import random
from typing import Final

__all__ = ["SHORT_S", "Reconnection"]

SHORT_S: Final = 2.0
"""A link closed by the other end sooner than this was refused."""
_TRIES: Final = 3
"""Consecutive refused links before the first pause: one may be an accident."""
_FIRST_S: Final = 1.0
_MOST_S: Final = 60.0


class Reconnection:
    """Pauses before new links, each twice as long as the one before, with jitter.

    Times are seconds on one clock of the caller. It does not distinguish peers, because Zenoh is
    held back for all or for none: while one end refuses, a link to another one that breaks comes
    back up to `_MOST_S` later.
    """

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, no secret.
        self._refused = 0
        """Number of consecutive refused links."""
        self._refused_at_s = 0.0
        self._until_s = 0.0

    @property
    def refused(self) -> bool:
        """Whether consecutive links are being refused."""
        return self._refused >= _TRIES

    def closed(self, lasted_s: float, now_s: float) -> None:
        """A link was closed by the other end."""
        if lasted_s >= SHORT_S:
            self._refused = 0
            return
        self._refused += 1
        self._refused_at_s = now_s
        if self.refused:
            doubled = min(self._refused - _TRIES, 16)
            pause_s = min(_FIRST_S * 2.0**doubled, _MOST_S)
            self._until_s = now_s + pause_s * self._rng.uniform(0.5, 1.0)

    def holds(self, made_at_s: float, now_s: float) -> None:
        """A link opened at that time is up."""
        if made_at_s > self._refused_at_s and now_s - made_at_s >= SHORT_S:
            self._refused = 0

    def may_connect(self, now_s: float) -> bool:
        """Whether a link may be opened now."""
        return not self.refused or now_s >= self._until_s

"""A deployment that was slow is asked again: what was told of it long ago counts ever less.

Figures of times come from queries. A deployment that looks slow gets none, so it would look slow
for ever, though whatever slowed it is over. While nobody asks it, its figures go back to what is
usual for it; then it gets a query, which tells how it is.
"""

from __future__ import annotations

__all__ = ["Recovery"]

HALF_S = 2.0
"""In so much time without a query, half of what a figure exceeds the usual one is forgotten."""
SLOW = 1.5
"""Times the usual figure, from which on a deployment counts as slow: from query to query figures
differ by less."""
_USUAL_HALF_S = 600.0
"""In so much time of queries that are slower, what is usual becomes half as slow."""


class Recovery:
    """One figure of one deployment, as its facility reports it."""

    __slots__ = ("_reported_at_s", "_said", "_since_s", "_usual")

    def __init__(self, said: float, now_s: float) -> None:
        self._said = self._usual = said
        self._since_s = self._reported_at_s = now_s

    def expected(self, said: float, now_s: float) -> float:
        """What to expect of the deployment now, of which its facility said so."""
        if said != self._said:
            self._said, self._since_s = said, now_s
            slower = 1.0 - 0.5 ** (max(0.0, now_s - self._reported_at_s) / _USUAL_HALF_S)
            self._usual = min(said, self._usual + slower * (said - self._usual))
        self._reported_at_s = now_s
        if said <= SLOW * self._usual:
            return said
        kept: float = 0.5 ** (max(0.0, now_s - self._since_s) / HALF_S)
        return self._usual + kept * (said - self._usual)

"""Lets a slow deployment be tried again: bad old figures fade towards its usual ones.

Times are measured on queries. A deployment that looks slow gets no queries, so it would look slow
for ever, even after it recovered. While it gets none, its figures return to their usual values.
Then a query arrives and measures it anew.
"""

from __future__ import annotations

__all__ = ["Recovery"]

HALF_S = 2.0
"""Half-life, without queries, of the excess of a figure over its usual value."""
SLOW = 1.5
"""Multiple of its usual figure from which a deployment counts as slow. From query to query, figures
differ by less."""
_USUAL_HALF_S = 600.0
"""Half-life of the usual figure's adaptation to slower queries."""


class Recovery:
    """One figure of one deployment, as its facility reports it."""

    __slots__ = ("_reported", "_reported_at_s", "_since_s", "_usual")

    def __init__(self, reported: float, now_s: float) -> None:
        self._reported = self._usual = reported
        self._since_s = self._reported_at_s = now_s

    def expected(self, reported: float, now_s: float) -> float:
        """The figure to expect now, given what the facility `reported` last.

        A figure near the usual one is expected as reported. A slow one fades towards the usual one
        with half-life `HALF_S`, counted from its report. The usual figure follows faster reports at
        once and slower ones with half-life `_USUAL_HALF_S`.
        """
        if reported != self._reported:
            self._reported, self._since_s = reported, now_s
            slower = 1.0 - 0.5 ** (max(0.0, now_s - self._reported_at_s) / _USUAL_HALF_S)
            self._usual = min(reported, self._usual + slower * (reported - self._usual))
        self._reported_at_s = now_s
        if reported <= SLOW * self._usual:
            return reported
        kept: float = 0.5 ** (max(0.0, now_s - self._since_s) / HALF_S)
        return self._usual + kept * (reported - self._usual)

"""How often queries of each kind come, smoothed."""

from __future__ import annotations

import math

from daitn.objects.identifiers import SiteId
from daitn.objects.messages import Demand, DemandRate

__all__ = ["DemandEstimator"]

SMOOTHED_OVER_S = 30.0
"""Models are moved over minutes; a rate follows a lasting change within one."""
_MOST_KINDS = 256
"""Kinds that are told apart: the names in them come from outside."""
_LEAST_PER_S = 1e-3
"""Fewer than one query in a quarter of an hour is no demand."""
_NEWEST_WEIGHT = 0.1


class _Rate:
    """Events per second, with weights that decay exponentially."""

    __slots__ = ("_at_s", "_per_s")

    def __init__(self) -> None:
        self._per_s = 0.0
        self._at_s = 0.0

    def count(self, now_s: float) -> None:
        self._per_s = self.per_s(now_s) + 1.0 / SMOOTHED_OVER_S
        self._at_s = now_s

    def per_s(self, now_s: float) -> float:
        return self._per_s * math.exp(min(0.0, self._at_s - now_s) / SMOOTHED_OVER_S)


class _Kind:
    __slots__ = ("asked", "shed", "tokens_out")

    def __init__(self) -> None:
        self.asked = _Rate()
        self.shed = _Rate()
        self.tokens_out = 0.0


class DemandEstimator:
    """Rates per topic and wanted model. Times are seconds since the epoch."""

    def __init__(self, site: SiteId) -> None:
        self._site = site
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def count(self, topic: str, model: str, tokens_out: int | None, now_s: float) -> None:
        """A query ended; `tokens_out` of its answer, none where it was turned away for load."""
        kind = self._kinds.get((topic, model))
        if kind is None:
            if len(self._kinds) >= _MOST_KINDS:
                self._forget_least(now_s)
            kind = self._kinds[topic, model] = _Kind()
        kind.asked.count(now_s)
        if tokens_out is None:
            kind.shed.count(now_s)
        elif tokens_out:
            weight = _NEWEST_WEIGHT if kind.tokens_out else 1.0
            kind.tokens_out += weight * (tokens_out - kind.tokens_out)

    def demand(self, now_s: float) -> Demand:
        """What is asked now, the most frequent first."""
        rates = [
            DemandRate(
                topic=topic,
                model=model,
                per_s=per_s,
                shed_per_s=kind.shed.per_s(now_s),
                tokens_out=kind.tokens_out,
            )
            for (topic, model), kind in self._kinds.items()
            if (per_s := kind.asked.per_s(now_s)) >= _LEAST_PER_S
        ]
        told = {(rate.topic, rate.model) for rate in rates}
        self._kinds = {key: kind for key, kind in self._kinds.items() if key in told}
        rates.sort(key=lambda rate: (-rate.per_s, rate.topic, rate.model))
        return Demand(site=self._site, at_s=now_s, rates=tuple(rates))

    def _forget_least(self, now_s: float) -> None:
        least = min(self._kinds, key=lambda key: self._kinds[key].asked.per_s(now_s))
        del self._kinds[least]

"""Smoothed rates of queries per topic and model."""

from __future__ import annotations

import math

from daitn.objects.identifiers import SiteId
from daitn.objects.messages import Demand, DemandRate

__all__ = ["DemandEstimator"]

TIME_CONSTANT_S = 30.0
"""Models move over minutes; a rate follows a lasting change within one."""
_MAX_KINDS = 256
"""Limit on distinct kinds: their names come from clients."""
_MIN_PER_S = 1e-3
"""A rate below one query per quarter of an hour counts as none."""
_NEWEST_WEIGHT = 0.1


class _Rate:
    """Events per second, with exponentially decaying weights."""

    __slots__ = ("_at_s", "_per_s")

    def __init__(self) -> None:
        self._per_s = 0.0
        self._at_s = 0.0

    def count(self, now_s: float) -> None:
        self._per_s = self.per_s(now_s) + 1.0 / TIME_CONSTANT_S
        self._at_s = now_s

    def per_s(self, now_s: float) -> float:
        return self._per_s * math.exp(min(0.0, self._at_s - now_s) / TIME_CONSTANT_S)


class _Kind:
    __slots__ = ("arrivals", "shed", "tokens_out")

    def __init__(self) -> None:
        self.arrivals = _Rate()
        self.shed = _Rate()
        self.tokens_out = 0.0


class DemandEstimator:
    """Query rates per topic and requested model. Times are seconds since the epoch."""

    def __init__(self, site: SiteId) -> None:
        self._site = site
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def count(self, topic: str, model: str, tokens_out: int | None, now_s: float) -> None:
        """Count a finished query, with the `tokens_out` of its answer; `None` means it was shed."""
        kind = self._kinds.get((topic, model))
        if kind is None:
            if len(self._kinds) >= _MAX_KINDS:
                self._drop_rarest(now_s)
            kind = self._kinds[topic, model] = _Kind()
        kind.arrivals.count(now_s)
        if tokens_out is None:
            kind.shed.count(now_s)
        elif tokens_out:
            weight = _NEWEST_WEIGHT if kind.tokens_out else 1.0
            kind.tokens_out += weight * (tokens_out - kind.tokens_out)

    def demand(self, now_s: float) -> Demand:
        """The current rates, highest first."""
        rates = [
            DemandRate(
                topic=topic,
                model=model,
                per_s=per_s,
                shed_per_s=kind.shed.per_s(now_s),
                tokens_out=kind.tokens_out,
            )
            for (topic, model), kind in self._kinds.items()
            if (per_s := kind.arrivals.per_s(now_s)) >= _MIN_PER_S
        ]
        reported = {(rate.topic, rate.model) for rate in rates}
        self._kinds = {key: kind for key, kind in self._kinds.items() if key in reported}
        rates.sort(key=lambda rate: (-rate.per_s, rate.topic, rate.model))
        return Demand(site=self._site, at_s=now_s, rates=tuple(rates))

    def _drop_rarest(self, now_s: float) -> None:
        rarest = min(self._kinds, key=lambda key: self._kinds[key].arrivals.per_s(now_s))
        del self._kinds[rarest]

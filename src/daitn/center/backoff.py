"""How long a deployment waits for a facility before another one takes it."""

from __future__ import annotations

from daitn.objects.identifiers import SiteId

__all__ = ["FAILING_FOR_S", "GONE_AFTER_S", "REFUSED_FOR_S", "Backoff"]

GONE_AFTER_S = 10.0
"""A facility that is away so long is replaced: longer than a restart takes."""
FAILING_FOR_S = 60.0
"""A facility that could not load a model for so long is replaced. It tries every ten seconds, and
what hinders it, holders that are away for instance, may hinder others too."""
REFUSED_FOR_S = 60.0
"""A facility that said no is not asked again for so long, where another one may do it."""


class Backoff:
    """What was seen of facilities lately. Times are seconds on one clock of the caller's."""

    def __init__(self) -> None:
        self._there_s: dict[SiteId, float] = {}
        self._failing_since_s: dict[tuple[str, SiteId], float] = {}
        self._refused_s: dict[tuple[str, SiteId], float] = {}

    def there(self, site: SiteId, now_s: float) -> None:
        """The facility is there, or was when the control centre last looked."""
        self._there_s[site] = now_s

    def tried(self, name: str, site: SiteId, failing: bool, now_s: float) -> None:
        """The facility says whether it fails to load what is wished of it."""
        if not failing:
            self._failing_since_s.pop((name, site), None)
        elif now_s - self._failing_since_s.setdefault((name, site), now_s) >= FAILING_FOR_S:
            self.refused(name, site, now_s)

    def refused(self, name: str, site: SiteId, now_s: float) -> None:
        """The facility does not take a deployment, for a reason that stays for a while."""
        self._refused_s[name, site] = now_s

    def accepted(self, name: str, site: SiteId) -> None:
        self._refused_s.pop((name, site), None)

    def away(self, now_s: float) -> frozenset[SiteId]:
        """Facilities that were there lately: if they are not now, they are waited for."""
        return frozenset(
            s for s, there_s in self._there_s.items() if now_s - there_s < GONE_AFTER_S
        )

    def avoided(self, name: str, now_s: float) -> frozenset[SiteId]:
        """Facilities that refused this deployment lately."""
        return frozenset(
            site
            for (of, site), refused_s in self._refused_s.items()
            if of == name and now_s - refused_s < REFUSED_FOR_S
        )

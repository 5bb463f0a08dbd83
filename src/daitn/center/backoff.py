"""How long a deployment waits for a facility before another one takes it."""

from __future__ import annotations

from daitn.objects.identifiers import SiteId

__all__ = ["FAILING_FOR_S", "GONE_AFTER_S", "REFUSED_FOR_S", "Backoff"]

GONE_AFTER_S = 10.0
"""A facility absent for this long is replaced; a restart takes less."""
FAILING_FOR_S = 60.0
"""A facility that fails to load a model for this long is replaced. It tries every ten seconds, and
the cause, such as absent holders, may affect others too."""
REFUSED_FOR_S = 60.0
"""A facility that refused is not asked again for this long, if another one is eligible."""


class Backoff:
    """Recent observations of facilities. Times are seconds on one clock of the caller."""

    def __init__(self) -> None:
        self._seen_at_s: dict[SiteId, float] = {}
        self._failing_since_s: dict[tuple[str, SiteId], float] = {}
        self._refused_at_s: dict[tuple[str, SiteId], float] = {}

    def seen(self, site: SiteId, now_s: float) -> None:
        """The facility is connected, or was when the control centre last checked."""
        self._seen_at_s[site] = now_s

    def load_reported(self, name: str, site: SiteId, failing: bool, now_s: float) -> None:
        """The facility reports whether it fails to load a desired deployment."""
        if not failing:
            self._failing_since_s.pop((name, site), None)
        elif now_s - self._failing_since_s.setdefault((name, site), now_s) >= FAILING_FOR_S:
            self.refused(name, site, now_s)

    def refused(self, name: str, site: SiteId, now_s: float) -> None:
        """The facility refused a deployment for a reason that will last for a while."""
        self._refused_at_s[name, site] = now_s

    def accepted(self, name: str, site: SiteId) -> None:
        self._refused_at_s.pop((name, site), None)

    def recently_seen(self, now_s: float) -> frozenset[SiteId]:
        """Facilities that were connected recently; an absent one among them may still return."""
        return frozenset(
            s for s, seen_at_s in self._seen_at_s.items() if now_s - seen_at_s < GONE_AFTER_S
        )

    def avoided(self, name: str, now_s: float) -> frozenset[SiteId]:
        """Facilities that refused this deployment recently."""
        return frozenset(
            site
            for (of, site), refused_at_s in self._refused_at_s.items()
            if of == name and now_s - refused_at_s < REFUSED_FOR_S
        )

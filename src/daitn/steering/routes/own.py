"""What a site says of an origin for which it speaks, and how often it says something new."""

from __future__ import annotations

from collections.abc import Mapping

from daitn.steering.routes.offers import Change, change
from daitn.steering.wire.summaries import INFINITE, Offer

__all__ = ["EDITION_S", "Own"]

EDITION_S = 1.0
LOAD_S = 5.0

MOST_AHEAD = 1 << 31
"""Editions count up from the time at which a life began, in seconds, once a second at most: no
earlier life is further ahead. A neighbour that says so would silence the site."""


class Own:
    """The offers of one origin: at most one edition per `EDITION_S`, and one per `LOAD_S` where
    only times to wait or dates changed, and none for small changes (`routes_offers.change`)."""

    def __init__(self, now_s: float) -> None:
        self.edition = max(0, int(now_s))
        self.offers: Mapping[str, Offer] = {}
        """By key, as they are told."""
        self.publish_s = INFINITE
        """When the latest ones are to be told."""
        self._latest: Mapping[str, Offer] = {}
        self._edition_s = -INFINITE

    def intent(self, offers: Mapping[str, Offer], *, at_once: bool = False) -> None:
        """These are its offers from now on. `at_once`: the next edition need not wait."""
        self._latest = offers
        changed = change(self.offers, offers)
        wait_s = LOAD_S if changed is Change.LOAD else EDITION_S
        publish_s = -INFINITE if at_once else self._edition_s + wait_s
        self.publish_s = INFINITE if changed is Change.NONE else publish_s

    def publish(self, now_s: float) -> bool:
        """Makes a new edition where it is time to. Says whether it did."""
        if now_s < self.publish_s:
            return False
        self.edition, self._edition_s, self.publish_s = self.edition + 1, now_s, INFINITE
        self.offers = self._latest
        return True

    def restore(self, edition: int) -> bool:
        """Others know that edition, of an earlier life: go on from there. Says whether it did."""
        if not self.edition < edition <= self.edition + MOST_AHEAD:
            return False
        self.edition = edition + 1
        return True

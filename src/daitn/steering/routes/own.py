"""The offers of an origin that this site represents, and how often it advertises new ones."""

from __future__ import annotations

from collections.abc import Mapping

from daitn.steering.routes.offers import Change, change
from daitn.steering.wire.offers import INFINITE, Offer

__all__ = ["EDITION_S", "OwnOffers"]

EDITION_S = 1.0
LOAD_S = 5.0

MOST_AHEAD = 1 << 31
"""Editions start at the node's start time in seconds and grow by at most one a second, so no
earlier run is further ahead than this. A neighbour that claims more would silence the site."""


class OwnOffers:
    """The offers of one origin, in editions: at most one per `EDITION_S`, one per `LOAD_S` if only
    waiting times or dates changed, and none for small changes (`offers.change`)."""

    def __init__(self, now_s: float) -> None:
        self.edition = max(0, int(now_s))
        self.offers: Mapping[str, Offer] = {}
        """By key, as advertised."""
        self.publish_s = INFINITE
        """When the latest offers are due to be advertised."""
        self._latest: Mapping[str, Offer] = {}
        self._edition_s = -INFINITE

    def update(self, offers: Mapping[str, Offer], *, at_once: bool = False) -> None:
        """Replace the offers. `at_once`: the next edition need not wait."""
        self._latest = offers
        changed = change(self.offers, offers)
        wait_s = LOAD_S if changed is Change.LOAD else EDITION_S
        publish_s = -INFINITE if at_once else self._edition_s + wait_s
        self.publish_s = INFINITE if changed is Change.NONE else publish_s

    def publish(self, now_s: float) -> bool:
        """Start a new edition if one is due. Returns whether it did."""
        if now_s < self.publish_s:
            return False
        self.edition, self._edition_s, self.publish_s = self.edition + 1, now_s, INFINITE
        self.offers = self._latest
        return True

    def restore(self, edition: int) -> bool:
        """Continue from an edition of an earlier run that others know. Returns whether it did."""
        if not self.edition < edition <= self.edition + MOST_AHEAD:
            return False
        self.edition = edition + 1
        return True

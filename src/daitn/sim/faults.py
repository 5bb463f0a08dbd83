"""Faults in a simulated world, and when they occur."""

from __future__ import annotations

import math
from dataclasses import dataclass

from daitn.objects.identifiers import SiteId

__all__ = ["Dies", "Fault", "LinkSlows", "Slows"]


@dataclass(frozen=True, slots=True)
class Dies:
    """A facility disappears, with all its work in progress."""

    at_s: float
    site: SiteId
    until_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Slows:
    """A facility takes this many times its usual time."""

    at_s: float
    site: SiteId
    times: float
    until_s: float = math.inf


@dataclass(frozen=True, slots=True)
class LinkSlows:
    """The link from a gateway to a site takes this many times its usual time."""

    at_s: float
    gateway: SiteId
    site: SiteId
    times: float
    until_s: float = math.inf


Fault = Dies | Slows | LinkSlows

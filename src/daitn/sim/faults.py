"""What goes wrong in a simulated world, and when."""

from __future__ import annotations

import math
from dataclasses import dataclass

from daitn.objects.identifiers import SiteId

__all__ = ["Dies", "Fault", "LinkSlows", "Slows"]


@dataclass(frozen=True, slots=True)
class Dies:
    """A facility is gone, with all that it had under way."""

    at_s: float
    site: SiteId
    until_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Slows:
    """A facility takes so many times what is usual."""

    at_s: float
    site: SiteId
    times: float
    until_s: float = math.inf


@dataclass(frozen=True, slots=True)
class LinkSlows:
    """The way from a gateway to a site takes so many times what is usual."""

    at_s: float
    gateway: SiteId
    site: SiteId
    times: float
    until_s: float = math.inf


Fault = Dies | Slows | LinkSlows

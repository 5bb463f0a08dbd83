"""Names of origins: a site's own name, or `domain:<name>@<site>/<number>`.

The latter is a domain as reached by one of its border sites. That site counts its sequence number,
so routes to it are free of loops like routes to a site. The number distinguishes several offers of
the same key (see `daitn.steering.routes.domains`). For sites of no domain, the name is empty.
"""

from __future__ import annotations

import re

from daitn.objects.errors import Corrupt
from daitn.objects.identifiers import NAME_FORM

__all__ = ["check_origin", "domain_of", "domain_origin", "site_of"]

_DOMAIN = "domain:"
_FORM = re.compile(f"{NAME_FORM}|{_DOMAIN}(?:{NAME_FORM})?@{NAME_FORM}/[1-9][0-9]{{0,2}}")


def domain_origin(domain: str, site: str, number: int) -> str:
    """The name of a domain's origin at a border site."""
    return f"{_DOMAIN}{domain}@{site}/{number}"


def domain_of(origin: str) -> str | None:
    """The domain that an origin stands for; None if it is a site."""
    if not origin.startswith(_DOMAIN):
        return None
    return origin[len(_DOMAIN) :].partition("@")[0]


def site_of(origin: str) -> str:
    """The site to which routes to an origin lead: itself, or its domain's border site."""
    if not origin.startswith(_DOMAIN):
        return origin
    return origin.partition("@")[2].partition("/")[0]


def check_origin(origin: str) -> None:
    """Check an origin's name. Raises `Corrupt` if it is neither a site's nor a domain's."""
    if not _FORM.fullmatch(origin):
        raise Corrupt(
            f"a summary names the origin {origin!r}", field="origin", fix="ask its sender"
        )

"""A roster of a few members, and what they sign."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from daitn.identity.grants import GrantBook, new_token, sign_statement
from daitn.identity.keys import SigningKey
from daitn.objects.deployments import DeploymentTerms, ModelPolicy
from daitn.objects.grants import DeploymentGrant, Mandate, NameGrant, PlaceGrant, Signed
from daitn.objects.identifiers import Digest, OwnerId, SiteId
from daitn.objects.roster import Kind, Member

__all__ = ["NETWORK", "NOW_S", "Members", "digest"]

NETWORK, NOW_S = "test", 1_000_000.0
SITES = tuple(SiteId(site) for site in ("north", "south", "east", "own", "hall", "mdf"))
NO_TERMS = DeploymentTerms(
    recipe="",
    config=Digest(""),
    policy=ModelPolicy(),
    price_usd_per_1k_in=0.0,
    price_usd_per_1k_out=0.0,
)
"""Of a descriptor that says nothing of them."""
KINDS = {
    "acme": Kind.OWNER,
    "rival": Kind.OWNER,
    "center": Kind.CENTER,
    "center2": Kind.CENTER,
    "operator": Kind.OPERATOR,
    "north": Kind.SITE,
}


def digest(letter: str) -> Digest:
    return Digest(letter * 64)


@dataclass
class Members:
    """Everybody's keys, the roster, and the time. `stranger` has a key and is not a member."""

    now_s: float = NOW_S
    keys: dict[str, SigningKey] = field(
        default_factory=lambda: {name: SigningKey.generate() for name in (*KINDS, "stranger")}
    )
    current: dict[str, Member] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kind in KINDS.items():
            public = self.keys[name].public
            self.current[public] = Member(
                name=name, kind=kind, public_key=public, until_s=NOW_S + 1e9
            )

    def book(self) -> GrantBook:
        return GrantBook(NETWORK, lambda: self.current, lambda: self.now_s)

    def until(self, after_s: float) -> float:
        """The time so long after `NOW_S`, which it is from now on."""
        self.now_s = NOW_S + after_s
        return self.now_s

    def revoke(self, name: str) -> None:
        del self.current[self.keys[name].public]

    def grant(self, by: str = "acme", **said: Any) -> Signed:
        plain = DeploymentGrant(
            network=NETWORK,
            owner=OwnerId("acme"),
            name="doctor",
            manifest=digest("a"),
            terms=NO_TERMS.digest,
            sites=SITES,
            issued_at_s=NOW_S,
            until_s=NOW_S + 100,
        )
        return sign_statement(msgspec.structs.replace(plain, **said), self.keys[by])

    def name(self, by: str = "center", **said: Any) -> Signed:
        plain = NameGrant(
            network=NETWORK,
            owner=OwnerId("acme"),
            name="doctor",
            issued_at_s=NOW_S,
            until_s=NOW_S + 100,
        )
        return sign_statement(msgspec.structs.replace(plain, **said), self.keys[by])

    def place(self, by: str = "center", **said: Any) -> Signed:
        plain = PlaceGrant(
            network=NETWORK,
            owner=OwnerId("acme"),
            name="doctor",
            manifest=digest("a"),
            site=SiteId("north"),
            until_s=NOW_S + 50,
        )
        return sign_statement(msgspec.structs.replace(plain, **said), self.keys[by])

    def mandate(self, by: str = "acme", **said: Any) -> Signed:
        plain = Mandate(
            network=NETWORK,
            owner=OwnerId("acme"),
            gateways=(SiteId("gate"),),
            secret="0" * 64,
            until_s=NOW_S + 100,
        )
        return sign_statement(msgspec.structs.replace(plain, **said), self.keys[by])

    def token(
        self,
        owner: str = "acme",
        *gateways: str,
        by: str = "",
        network: str = NETWORK,
        lasts_s: float = 100.0,
        limits: tuple[float, int] = (100.0, 200),
    ) -> str:
        sites = tuple(SiteId(site) for site in gateways or ("gate",))
        key = self.keys[by or owner]
        return new_token(network, owner, sites, NOW_S + lasts_s, limits, key)

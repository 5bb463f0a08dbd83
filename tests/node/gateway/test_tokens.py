"""A gateway asks in its own owner's name, or in that of one who gave it a mandate."""

from __future__ import annotations

from typing import Any

import pytest

from daitn.identity.grants import split_token
from daitn.identity.keys import SigningKey
from daitn.identity.passes import PassBook, sign_pass
from daitn.node.config import GatewayConfig, KeyConfig
from daitn.node.gateway.auth import ApiKeys, Authenticator, Tokens
from daitn.node.gateway.gateway import Gateway
from daitn.node.mandates import Mandates
from daitn.objects.errors import InvalidInput, Refused
from daitn.objects.identifiers import SiteId
from daitn.openai.errors import ApiError
from tests.scenes.grants import NOW_S, Members

from .scene import Network, View

GATE, DOOR, MDF = SiteId("gate"), SiteId("door"), SiteId("mdf")
SHA256 = "e8a4de9dc8ca01e1a2aa7a1ed8a6de5b7d0bb0b24be3e8b9ec1a2d42d3d2a2b9"


class Scene:
    """The gateways `gate` (of `host`) and `door` (of `rival`), and a facility."""

    def __init__(self) -> None:
        self.members = Members()
        self.keys = {GATE: SigningKey.generate(), DOOR: SigningKey.generate()}
        self.owners = {GATE: "host", DOOR: "rival"}

    def mandates(self, site: SiteId = MDF) -> Mandates:
        passes = PassBook(site, lambda one: key.public if (key := self.keys.get(one)) else None)
        return Mandates(site, self.members.book(), passes, self.owners.get)

    def door(self, keys: tuple[KeyConfig, ...] = (), **said: Any) -> Authenticator:
        settings = {"needs_token": False, **said}
        return Authenticator(
            ApiKeys(keys),
            "host",
            Tokens(GATE, self.mandates(GATE)),
            clocks=(lambda: self.members.now_s, lambda: self.members.now_s),
            **settings,
        )

    def shown(self, owner: str, mandate: str = "", origin: SiteId | None = None) -> dict[str, str]:
        headers = {"daitn-owner": owner, "daitn-mandate": mandate}
        if origin is not None:
            headers["daitn-origin-pass"] = sign_pass(origin, MDF, NOW_S, self.keys[origin])
        return headers


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_token_asks_in_its_owners_name_and_shows_no_secret(scene: Scene) -> None:
    token = scene.members.token()
    door = scene.door()
    for _ in range(2):
        caller = door.admit(f"Bearer {token}")
        assert (caller.owner, caller.relayed_by) == ("acme", None)
        assert caller.mandate == split_token(token)[1]
        assert (
            scene.mandates().speaks_for(GATE, scene.shown("acme", caller.mandate), NOW_S) == "acme"
        )


def test_a_token_that_does_not_hold_is_refused(scene: Scene) -> None:
    members = scene.members
    good = members.token()
    secret, mandate = good.split(".")
    refused = {
        "signed by a rival": members.token("acme", by="rival"),
        "signed by nobody known": members.token("acme", by="stranger"),
        "signed by the control centre": members.token("acme", by="center"),
        "for another gateway": members.token("acme", "door"),
        "of another network": members.token("acme", network="other"),
        "expired": members.token("acme", lasts_s=0.0),
        "with another secret": f"{members.token().split('.')[0]}.{mandate}",
        "without its secret": f"daitn-.{mandate}",
        "the secret alone": secret,
        "cut short": good[:-4],
        "too long": good + "A" * 10_000,
    }
    door = scene.door()
    for _ in range(2):
        for token in refused.values():
            with pytest.raises(ApiError) as error:
                door.admit(f"Bearer {token}")
            assert error.value.status == 401
        assert door.admit(f"Bearer {good}").owner == "acme"


def test_a_token_ends_with_its_time_and_its_owner(scene: Scene) -> None:
    token, mandates = scene.members.token(), scene.mandates(GATE)
    tokens = Tokens(GATE, mandates)
    tokens.admit(token, NOW_S, 0.0)
    scene.members.now_s = NOW_S + 100
    with pytest.raises(ApiError):
        tokens.admit(token, NOW_S + 100, 0.0)
    scene.members.now_s = NOW_S
    tokens.admit(token, NOW_S, 0.0)
    scene.members.revoke("acme")
    mandates.forget()
    with pytest.raises(ApiError):
        tokens.admit(token, NOW_S, 0.0)


def test_each_token_and_key_has_limits_of_its_own(scene: Scene) -> None:
    """All keys of an owner had the limits of its last one."""
    one = scene.members.token(limits=(1.0, 2))
    other = scene.members.token(limits=(1.0, 3))
    door = scene.door()
    for token, burst in ((one, 2), (other, 3)):
        for _ in range(burst):
            door.admit(f"Bearer {token}")
        with pytest.raises(ApiError) as error:
            door.admit(f"Bearer {token}")
        assert error.value.status == 429
    scene.members.now_s += 1.0
    door.admit(f"Bearer {one}")


def test_who_shows_nothing_asks_in_the_gateways_owners_name_or_not_at_all(scene: Scene) -> None:
    for shown in (None, "", "Bearer whatever", "Basic eA=="):
        assert scene.door().admit(shown).owner == "host"
        with pytest.raises(ApiError):
            scene.door(needs_token=True).admit(shown)
        with pytest.raises(ApiError):
            scene.door((KeyConfig(owner="host", sha256=SHA256),)).admit(shown)
    assert scene.door(needs_token=True).admit(f"Bearer {scene.members.token()}").owner == "acme"


def test_a_facility_believes_no_gateway_that_names_an_owner(scene: Scene) -> None:
    """A gateway that signs its own pass could name any owner: 20 of 20 were let in."""
    _, mandate = split_token(scene.members.token())
    _, rivals = split_token(scene.members.token("rival", "gate"))
    mandates = scene.mandates()
    assert mandates.speaks_for(GATE, scene.shown(""), NOW_S) == ""
    assert mandates.speaks_for(GATE, scene.shown("host"), NOW_S) == "host"
    for site, headers in (
        (GATE, scene.shown("acme")),
        (GATE, scene.shown("acme", rivals)),
        (GATE, scene.shown("acme", "rubbish")),
        (DOOR, scene.shown("acme", mandate)),
        (DOOR, scene.shown("host")),
        (SiteId("unknown"), scene.shown("acme", mandate)),
    ):
        with pytest.raises(Refused):
            mandates.speaks_for(site, headers, NOW_S)


def test_a_relaying_gateway_needs_the_first_ones_pass(scene: Scene) -> None:
    _, mandate = split_token(scene.members.token())
    mandates = scene.mandates()
    relayed = scene.shown("acme", mandate, GATE)
    assert mandates.speaks_for(DOOR, relayed, NOW_S) == "acme"
    assert mandates.speaks_for(DOOR, scene.shown("host", origin=GATE), NOW_S) == "host"
    stolen = {**relayed, "daitn-origin-pass": sign_pass(GATE, DOOR, NOW_S, scene.keys[GATE])}
    forged = {**relayed, "daitn-origin-pass": sign_pass(GATE, MDF, NOW_S, scene.keys[DOOR])}
    for headers in (stolen, forged, scene.shown("acme", mandate, DOOR)):
        with pytest.raises(Refused):
            mandates.speaks_for(DOOR, headers, NOW_S)


def test_a_gateways_file_gives_out_no_keys_of_others(scene: Scene) -> None:
    def made(owner: str) -> Gateway:
        return Gateway(
            GATE,
            GatewayConfig(keys=(KeyConfig(owner=owner, sha256=SHA256),)),
            View(Network().state, GATE),
            scene.keys[GATE],
            lambda shown, now_s: GATE,
            lambda text: ("", 0.0),
            owner="host",
            mandates=scene.mandates(GATE),
        )

    made("host")
    with pytest.raises(InvalidInput, match="keys of acme"):
        made("acme")

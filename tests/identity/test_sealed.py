"""A sealed query is read by one facility, and its answer by who asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daitn.cli.sealed import choosing, sealed
from daitn.identity.grants import new_token, sign_statement, signed_text
from daitn.identity.keys import SigningKey
from daitn.identity.roster import RosterFile, sign_roster, write_roster
from daitn.identity.sealed import open_query, seal_answer, seal_query
from daitn.identity.sealing import ReceiverKey
from daitn.objects.deployments import Api, DeploymentDescriptor, DeploymentState, Runtime
from daitn.objects.descriptors import Role
from daitn.objects.errors import Corrupt, DaitnError, InvalidInput, Refused
from daitn.objects.grants import DeploymentGrant, NameGrant, SealingKey, Signed
from daitn.objects.identifiers import Digest, OwnerId, SiteId
from daitn.objects.roster import Kind, Member, Roster
from daitn.tools import clock

HALL = SiteId("hall")
DOCTOR = "doctor@hall"
KEY = ReceiverKey.generate()
SECRET = "the patient in bed seven"
BODY: dict[str, Any] = {
    "model": "doctor",
    "messages": [{"role": "user", "content": SECRET}],
    "max_tokens": 16,
    "daitn": {"jurisdictions": ["US"], "topic": "medicine"},
}


def key(**said: Any) -> SealingKey:
    plain = SealingKey(network="test", site=HALL, public=KEY.public, until_s=1e12)
    return msgspec.structs.replace(plain, **said)


def test_the_facility_reads_it_and_the_asker_its_answer() -> None:
    query = seal_query(b"a question", DOCTOR, key())
    body, reply_to = open_query(query.text, DOCTOR, KEY)
    assert body == b"a question"
    answer = seal_answer(b"an answer", query.text, reply_to, {"prompt_tokens": 2})
    assert query.open(msgspec.json.encode(answer)) == b"an answer"


def test_nobody_else_does_and_nothing_of_it_can_be_changed() -> None:
    query, other = (
        seal_query(b"a question", DOCTOR, key()),
        seal_query(b"a question", DOCTOR, key()),
    )
    for text, deployment, opener in (
        (query.text, DOCTOR, ReceiverKey.generate()),
        (query.text, "doctor@evil", KEY),
        (query.text, "quack@hall", KEY),
        (query.text[:-8] + "AAAAAAA=", DOCTOR, KEY),
        ("", DOCTOR, KEY),
        ("?", DOCTOR, KEY),
    ):
        with pytest.raises(DaitnError):
            open_query(text, deployment, opener)
    _, reply_to = open_query(query.text, DOCTOR, KEY)
    crossed = msgspec.json.encode(seal_answer(b"an answer", other.text, reply_to))
    stranger = ReceiverKey.generate().public
    forged = msgspec.json.encode(seal_answer(b"an answer", query.text, stranger))
    for answer in (crossed, forged, b"{}", b'{"sealed": 1}', b'{"choices": []}'):
        with pytest.raises((Corrupt, Refused)):
            query.open(answer)


class Scene:
    """The roster of a network with acme's facility `hall` in the US, the gateway `gate`, rival's
    facility `evil`, a control centre and two owners."""

    def __init__(self, folder: Path) -> None:
        self.keys = {site: SigningKey.generate() for site in ("hall", "gate", "evil")}
        self.others = {name: SigningKey.generate() for name in ("center", "acme", "rival")}
        now_s = clock.wall_s()
        members = tuple(
            Member(
                name=site,
                kind=Kind.SITE,
                public_key=key.public,
                until_s=now_s + 1000,
                roles=(Role.GATEWAY if site == "gate" else Role.FACILITY,),
                owner="rival" if site == "evil" else "acme",
                jurisdiction="US",
            )
            for site, key in self.keys.items()
        )
        members += tuple(
            Member(
                name=name,
                kind=Kind.CENTER if name == "center" else Kind.OWNER,
                public_key=key.public,
                until_s=now_s + 1000,
            )
            for name, key in self.others.items()
        )
        roster = Roster(
            network="test", version=1, issued_at_s=now_s, until_s=now_s + 1000, members=members
        )
        root = SigningKey.generate()
        self.roster = folder / "roster.json"
        file = RosterFile(root=root.public, signed=sign_roster(roster, root))
        write_roster(self.roster, file)

    def name(self, owner: str = "acme") -> Signed:
        """The bare name `doctor`, given."""
        given = NameGrant(
            network="test", owner=OwnerId(owner), name="doctor", issued_at_s=0.0, until_s=1e12
        )
        return sign_statement(given, self.others["center"])

    def deployment(self, owner: str = "acme", **said: Any) -> DeploymentDescriptor:
        """An upstream server's."""
        plain = DeploymentDescriptor(
            name="doctor",
            owner=OwnerId(owner),
            runtime=Runtime.OPENAI,
            apis=(Api.CHAT,),
            state=DeploymentState.READY,
        )
        return msgspec.structs.replace(plain, **said)

    def hosted(self, *sites: str) -> DeploymentDescriptor:
        """acme's, which it placed at these facilities."""
        plain = self.deployment(manifest=Digest("a" * 64), name_grant=self.name())
        grant = DeploymentGrant(
            network="test",
            owner=plain.owner,
            name=plain.name,
            manifest=Digest("a" * 64),
            terms=plain.terms.digest,
            sites=tuple(SiteId(site) for site in sites),
            issued_at_s=0.0,
            until_s=1e12,
        )
        signed = sign_statement(grant, self.others["acme"])
        return msgspec.structs.replace(plain, grant=signed)

    def choice(
        self,
        by: str = "hall",
        model: str = "doctor@hall",
        deployment: DeploymentDescriptor | None = None,
        **said: Any,
    ) -> bytes:
        signing = self.keys.get(by) or SigningKey.generate()
        signed = signed_text(sign_statement(key(**said), signing))
        named = deployment or self.deployment(name_grant=self.name())
        return msgspec.json.encode({"model": model, "sealing": signed, "deployment": named})

    def evil(self, deployment: DeploymentDescriptor) -> bytes:
        """The choice of a deployment at rival's facility."""
        return self.choice("evil", "doctor@evil", deployment, site=SiteId("evil"))


def test_gateways_see_what_a_query_is_about_and_not_its_text(tmp_path: Path) -> None:
    outer, query = sealed(BODY, Scene(tmp_path).choice(), tmp_path / "roster.json")
    for request in (choosing(BODY), outer):
        assert SECRET not in json.dumps(request)
    assert outer["model"] == "doctor@hall"
    for anything in ("auto", "auto:medicine"):
        wanted = {**BODY, "model": anything}
        outer, _ = sealed(wanted, Scene(tmp_path).choice(), tmp_path / "roster.json")
        assert outer["model"] == "doctor@hall"
    assert json.loads(open_query(query.text, DOCTOR, KEY)[0])["messages"] == BODY["messages"]


def test_a_gateway_that_lies_about_the_facility_learns_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    own = ReceiverKey.generate().public
    for choice in (
        scene.choice("gate", public=own),
        scene.choice("stranger", public=own),
        scene.choice("gate", "doctor@gate", site=SiteId("gate"), public=own),
        scene.choice(model="doctor@gate"),
        scene.choice(model="quack@hall"),
        scene.choice(network="other"),
        scene.choice(until_s=0.0),
        b"{}",
    ):
        with pytest.raises(DaitnError):
            sealed(BODY, choice, scene.roster)
    with pytest.raises(Refused, match="for auto-pilot"):
        sealed({**BODY, "model": "auto-pilot"}, scene.choice(), scene.roster)
    for changes in ({"jurisdictions": ["FR"]}, {"owners": ["rival"]}):
        with pytest.raises(Refused):
            sealed({**BODY, "daitn": changes}, scene.choice(), scene.roster)


def test_a_query_is_sealed_to_whom_its_owner_entitled(tmp_path: Path) -> None:
    """A gateway chose a rival's model of the same name; another's grant; no grant."""
    scene = Scene(tmp_path)
    for deployment in (
        scene.deployment("rival"),
        scene.deployment("rival", name_grant=scene.name()),
        scene.deployment("rival", name_grant=scene.name("rival")),
        scene.deployment("acme"),
        scene.hosted("hall"),
        scene.hosted(),
    ):
        with pytest.raises(DaitnError):
            sealed({**BODY, "model": "acme/doctor"}, scene.evil(deployment), scene.roster)
    for deployment in (scene.deployment("rival"), scene.hosted("hall")):
        with pytest.raises(DaitnError):
            sealed(BODY, scene.evil(deployment), scene.roster)
    for asked in ("auto", "doctor@evil", "acme/doctor@evil"):
        with pytest.raises(DaitnError):
            sealed({**BODY, "model": asked}, scene.evil(scene.hosted("hall")), scene.roster)
    for asked in ("doctor", "acme/doctor", "auto", "doctor@evil", "acme/doctor@evil"):
        body = {**BODY, "model": asked}
        assert sealed(body, scene.evil(scene.hosted("evil")), scene.roster)[1]


def test_an_owners_own_model_goes_by_its_bare_name(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    own = scene.evil(scene.deployment("rival"))
    tokens = {
        owner: new_token("test", owner, (SiteId("gate"),), 1e12, (1.0, 1), scene.others[owner])
        for owner in ("acme", "rival")
    }
    assert sealed(BODY, own, scene.roster, tokens["rival"])[1]
    for token in (tokens["acme"], "none", ""):
        with pytest.raises(Refused):
            sealed(BODY, own, scene.roster, token)


def test_what_needs_several_facilities_cannot_be_sealed() -> None:
    for changes in ({"strategy": "ensemble"}, {"strategy": "cascade"}, {"autonomous": True}):
        with pytest.raises(InvalidInput):
            choosing({**BODY, "daitn": changes})

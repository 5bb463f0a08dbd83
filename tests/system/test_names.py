"""Nobody answers under another owner's name, and nobody asks in one, on a running network.

Tried by outsiders, by members of the wrong kind or role, and by an authorised but curious owner.
"""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from daitn.cli import identity as identities
from daitn.identity.grants import sign_statement
from daitn.identity.keys import SigningKey
from daitn.identity.passes import sign_pass
from daitn.identity.signing import sign_advert
from daitn.objects.deployments import DeploymentDescriptor, Runtime
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import Refused
from daitn.objects.grants import DeploymentGrant, NameGrant
from daitn.objects.identifiers import Digest, OwnerId, SiteId
from daitn.objects.messages import NameAnswer, NameQuestion
from daitn.objects.wire import decode, encode
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.identity import Identity
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.zenoh import open_zenoh
from tests.scenes.clinic import facility, gateway
from tests.scenes.openai_server import OpenAiServer
from tests.scenes.waiting import PATIENCE_S, wait_until

from .conftest import Network, build

pytestmark = pytest.mark.processes

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
HALL, EVIL, GATE = SiteId("hall"), SiteId("evil"), SiteId("gate")
ATTEMPTS = 30


@dataclass
class Scene:
    """acme's facility `hall`, a gateway `gate` of `host`, and `evil`, a facility and gateway of
    `rival`. `doctor` may be asked by everybody, `private` by acme and carl only."""

    network: Network
    url: str
    server: OpenAiServer
    lies: OpenAiServer

    def client(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def ask(self, model: str, key: str = "none") -> tuple[str, str]:
        """The answer, and the site that gave it."""
        answer = self.client(key).chat.completions.with_raw_response.create(
            model=model, messages=HELLO, temperature=0
        )
        return answer.parse().choices[0].message.content or "", answer.headers["daitn-facility"]

    def models(self, key: str = "none") -> set[str]:
        return {model.id for model in self.client(key).models.list().data}

    def token(self, owner: str, *options: str) -> str:
        make = ("token", "create", "--owner", owner, "--new-owner", "--gateway", "gate")
        made = self.network.json(*make, *options)
        return str(made["token"])

    def described(self, site: str) -> NodeDescriptor:
        listed = self.network.json("get", "nodes")
        nodes = (msgspec.convert(node["descriptor"], NodeDescriptor) for node in listed)
        return next(node for node in nodes if node.site == site)

    def key(self, who: str) -> SigningKey:
        """Of a site or the control centre, an owner, or of a stranger."""
        state = self.network.folder / "state" / who
        if state.is_dir():
            return SigningKey.at(state / "key")
        if who == "stranger":
            return SigningKey.generate()
        identity = identities.owner_identity(self.network.processes.endpoint, who)
        assert identity is not None
        return identity.key

    @property
    def name(self) -> str:
        """Of the network."""
        identity = identities.owner_identity(self.network.processes.endpoint, "curious")
        assert identity is not None
        return identity.network

    def publish(self, who: str, key: str, payload: bytes) -> None:
        async def work() -> None:
            async with self.speaking(who) as (fabric, _):
                await fabric.publish(key, payload)

        asyncio.run(work())

    @asynccontextmanager
    async def speaking(self, who: str) -> AsyncIterator[tuple[Fabric, Identity]]:
        endpoint = self.network.processes.endpoint
        known = identities.owner_identity(endpoint, "curious")
        assert known is not None
        identity = Identity(self.key(who), known.network, known.members)
        settings = FabricSettings(mode="client", connect=(endpoint,))
        carrier = await open_zenoh(settings, connect_timeout_s=PATIENCE_S)
        try:
            yield identity.signs(carrier), identity
        finally:
            await carrier.close()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder: Path = tmp_path_factory.mktemp("names")
    door = gateway("gate")
    with ExitStack() as stack:
        server = stack.enter_context(OpenAiServer(text="the truth"))
        lies = stack.enter_context(OpenAiServer(text="a lie"))
        offered = {"url": server.url, "apis": ["chat"]}
        private = {"name": "private", "policy": {"askers": ["acme", "carl"]}, **offered}
        hall = facility("hall", {"name": "doctor", **offered}, private, owner="acme")
        evil = facility("evil", {"name": "quack", "url": lies.url, "apis": ["chat"]}, owner="rival")
        evil["roles"], evil["gateway"] = ["facility", "gateway"], gateway("evil")["gateway"]
        network = build(folder, [hall, {**door, "owner": "host"}, evil])
        stack.callback(network.processes.stop)
        scene = Scene(network, f"http://{door['gateway']['listen']}", server, lies)
        wait_until(lambda: scene.models() >= {"doctor", "private", "quack"})
        yield scene


def forgeries(scene: Scene) -> list[DeploymentDescriptor]:
    """Every claim to acme's name that somebody other than acme can make."""
    plain = scene.described("hall").facility
    assert plain is not None
    true = next(d for d in plain.deployments if d.name == "doctor")
    digest = Digest("a" * 64)
    until_s = clock.wall_s() + 3600
    own = {"network": scene.name, "name": "doctor", "issued_at_s": 0.0, "until_s": until_s}
    made = [true, msgspec.structs.replace(true, owner=OwnerId("rival"))]
    for who in ("stranger", "evil", "rival", "curious", "gate"):
        key = scene.key(who)
        for owner in (OwnerId("acme"), OwnerId(who)):
            terms = true.terms.digest
            grant = DeploymentGrant(owner=owner, manifest=digest, terms=terms, **own)  # type: ignore[arg-type]
            name = NameGrant(owner=owner, **own)  # type: ignore[arg-type]
            made.append(
                msgspec.structs.replace(
                    true,
                    runtime=Runtime.EMBEDDED,
                    manifest=digest,
                    grant=sign_statement(grant, key),
                    name_grant=sign_statement(name, key),
                )
            )
    return made


def test_a_rival_does_not_answer_under_anothers_name(scene: Scene) -> None:
    """A site advertised an existing name: 30 of 30 queries of others were read and answered."""
    evil = scene.described("evil")
    offered_by_it = evil.facility
    assert offered_by_it is not None
    own, version = offered_by_it.deployments[0], evil.version

    def offer(*deployments: DeploymentDescriptor) -> None:
        nonlocal version
        version += 1000
        offered = msgspec.structs.replace(
            offered_by_it, deployments=deployments, endpoint=scene.lies.url[:-3]
        )
        lie = msgspec.structs.replace(evil, facility=offered, version=version)
        scene.publish("evil", keys.site_advert(EVIL), encode(sign_advert(lie, scene.key("evil"))))

    for number, forged in enumerate(forgeries(scene)):
        # A name of its own shows when the gateway has heard of it.
        offer(forged, msgspec.structs.replace(own, name=f"mark-{number}", name_grant=None))
        wait_until(lambda: f"rival/mark-{number}" in scene.models())  # noqa: B023
        assert {"doctor", "private"} <= scene.models()
        for _ in range(ATTEMPTS // 10):
            assert scene.ask("doctor") == ("the truth", "hall")
            assert scene.ask("acme/doctor") == ("the truth", "hall")
        for model in ("doctor@evil", "acme/doctor@evil"):
            if forged.owner == "rival" and model == "doctor@evil":
                continue  # Who names this one deployment means it.
            with pytest.raises(openai.NotFoundError):
                scene.ask(model)
    # Under its own owner's name it answers; nobody is in anybody's way.
    offer(msgspec.structs.replace(own, name="doctor", name_grant=None))
    wait_until(lambda: "rival/doctor" in scene.models())
    assert scene.ask("rival/doctor") == ("a lie", "evil")
    assert scene.ask("doctor") == ("the truth", "hall")
    # To the rival itself its own comes first.
    assert scene.ask("doctor", scene.token("rival")) == ("a lie", "evil")


@pytest.mark.parametrize("who", ["stranger", "curious", "acme", "gate", "evil"])
async def test_a_bare_name_stays_with_whom_it_was_given(scene: Scene, who: str) -> None:
    question = encode(NameQuestion(name="doctor"))
    async with scene.speaking(who) as (fabric, _):
        with pytest.raises(Refused):
            await fabric.request(keys.center_do("name"), question, timeout_s=PATIENCE_S)
    async with scene.speaking("hall") as (fabric, identity):
        answer = await fabric.request(keys.center_do("name"), question, timeout_s=PATIENCE_S)
        signed = decode(answer, NameAnswer).grant
        assert signed is not None
        assert decode(signed.statement, NameGrant).owner == "acme"
        assert signed.public_key == scene.key("center").public != identity.key.public


def posted(scene: Scene, model: str, headers: dict[str, str]) -> int:
    """The status with which acme's facility answers."""
    facility = scene.described("hall").facility
    assert facility is not None
    body = msgspec.json.encode({"model": model, "messages": HELLO})
    request = urllib.request.Request(
        f"{facility.endpoint}/v1/chat/completions",
        data=body,
        headers={"content-type": "application/json", **headers},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_gateway_names_no_owner_but_its_own(scene: Scene) -> None:
    """A gateway signed its own pass and named any owner: 20 of 20 were let in."""

    def shown(who: str, holder: SiteId, **more: str) -> dict[str, str]:
        return {"daitn-pass": sign_pass(holder, HALL, clock.wall_s(), scene.key(who)), **more}

    acmes = scene.token("acme").split(".", 1)[1]
    rivals = scene.token("rival").split(".", 1)[1]
    for who, holder in (("evil", EVIL), ("stranger", EVIL), ("evil", GATE), ("acme", GATE)):
        for mandate in ("", acmes, rivals):
            named = {"daitn-owner": "acme", "daitn-mandate": mandate}
            for model in ("private", "doctor"):
                assert posted(scene, model, shown(who, holder, **named)) == 401
            stolen = {**named, "daitn-origin-pass": sign_pass(GATE, EVIL, 0.0, scene.key("gate"))}
            assert posted(scene, "private", shown(who, holder, **stolen)) == 401
    own = shown("evil", EVIL, **{"daitn-owner": "rival"})
    assert posted(scene, "doctor", own) == 200
    assert posted(scene, "private", own) == 403
    assert posted(scene, "doctor", shown("evil", EVIL)) == 200
    assert posted(scene, "private", shown("evil", EVIL)) == 403
    # The gateway that acme named, for comparison.
    named = {"daitn-owner": "acme", "daitn-mandate": acmes}
    assert posted(scene, "private", shown("gate", GATE, **named)) == 200


def test_a_client_of_openai_asks_with_its_owners_token(scene: Scene) -> None:
    assert scene.ask("private", scene.token("acme"))[1] == "hall"
    for key in ("none", scene.token("rival"), scene.token("curious")):
        with pytest.raises(openai.BadRequestError):
            scene.ask("private", key)
    wrong = scene.token("acme")
    for key in (
        wrong[:-8],
        wrong.replace("daitn-", "daitn-x"),
        scene.token("acme", "--days", "1")[:60],
    ):
        with pytest.raises(openai.AuthenticationError):
            scene.ask("private", key)
    recorded = scene.network.json("get", "queries")
    assert {"acme", "rival", "curious", "host"} <= {query["owner"] for query in recorded}


def test_a_token_ends_with_its_owners_membership(scene: Scene) -> None:
    token = scene.token("carl")
    assert scene.ask("private", token)[1] == "hall"
    ended = scene.network.daitn("network", "revoke", "owner", "carl")
    assert ended.returncode == 0, ended.stderr

    def refused() -> bool:
        try:
            scene.ask("private", token)
        except openai.AuthenticationError:
            return True
        return False

    wait_until(refused)


def test_nobody_makes_a_token_for_an_owner_without_its_key(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "key"
    SigningKey.at(path)
    options = ("token", "create", "--owner", "acme", "--gateway", "gate")
    ended = scene.network.daitn_as(path, *options)
    assert ended.returncode == 3
    assert "not acme's" in ended.stderr


def test_a_sealed_query_is_answered_and_its_errors_quote_nothing(scene: Scene) -> None:
    options = ("query", "a secret", "--sealed", "--gateway", scene.url)
    for key in ("none", scene.token("acme")):
        asked = scene.network.json(*options, "--model", "doctor", "--key", key)
        assert asked["answer"]["choices"][0]["message"]["content"] == "the truth"
        assert asked["daitn"]["facility"] == "hall"
    text = scene.network.daitn(*options, "--model", "doctor")
    assert text.stdout == "the truth\n"
    refused = scene.network.daitn(*options, "--model", "private")
    assert refused.returncode == 3
    # Without the seal it is the same request, which the facility cannot open.
    with pytest.raises(openai.BadRequestError, match="cannot be opened"):
        scene.client().chat.completions.create(
            model="doctor@hall", messages=HELLO, extra_body={"sealed": "AAAA"}
        )

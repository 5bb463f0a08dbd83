"""Nobody acts without the right to: attacks on a running network, by everyone who might try.

Each is tried by outsiders, with and without a key; by members of the wrong kind or role; and by an
authorised but curious owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from daitn.cli import identity as identities
from daitn.identity.certificates import ENTRY, requested
from daitn.identity.keys import SigningKey, key_mark
from daitn.identity.orders import sign_order
from daitn.identity.signing import sign_advert, sign_attestation, sign_report
from daitn.objects.accounts import AccountList, AccountQuestion
from daitn.objects.descriptors import NodeDescriptor, Role
from daitn.objects.errors import DaitnError, NotFound, Refused
from daitn.objects.findings import Finding
from daitn.objects.identifiers import Digest, JobId, SiteId, VisitId
from daitn.objects.intents import TrainingIntent
from daitn.objects.jobs import JobView
from daitn.objects.messages import (
    CertificateAnswer,
    CertificateQuestion,
    ChunkRequest,
    ModelsNeeded,
    Sensed,
    Serving,
    StatusQuestion,
    VerifyWork,
    VisitWork,
    WorkOutcome,
    WorkState,
    WorkStatus,
)
from daitn.objects.models import ModelRef
from daitn.objects.orders import SignedOrder
from daitn.objects.requests import JobList, JobQuery, SubmitIntent
from daitn.objects.wire import checked, decode, encode
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.authority import CENTER_VERBS
from daitn.tools.fabric.identity import Identity
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.zenoh import open_zenoh
from tests.scenes.breast_cancer import INTENT, write_intent, write_network
from tests.scenes.waiting import PATIENCE_S

from .conftest import Network, running

pytestmark = pytest.mark.processes

NORTH, MPVU, GHOST = SiteId("north"), SiteId("mpvu"), SiteId("ghost")
OPEN_JOBS = 3
EVERY_SITE = ("describe", "estimate", "work", "status", "stop", "retain", "chunk")
"""Verbs of a site without further roles."""
ACCOUNTS = ("accounts", "ledger", "metered")
FOR_SITES = {"report", "name", "certify", "value", "usage", "travelled", *ACCOUNTS}
OUTSIDERS = ("nobody", "stranger")
"""Without a key, and with one that the roster does not hold."""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("trust")
    path = write_network(folder)
    plain = yaml.safe_load(path.read_text())
    plain["center"]["open_jobs"] = OPEN_JOBS
    path.write_text(yaml.safe_dump(plain))
    network = running(folder, path)
    yield network
    network.processes.stop()


def identity(network: Network, who: str) -> Identity | None:
    """Of an attacker, or of whom it pretends to be able to be."""
    endpoint = network.processes.endpoint
    member = identities.owner_identity(endpoint, "curious")
    assert member is not None
    match who:
        case "nobody":
            return None
        case "stranger":
            return Identity(SigningKey.generate(), member.network, member.members)
        case "operator":
            return identities.person_identity(endpoint)
        case "center" | "north" | "mpvu":
            key = SigningKey.at(network.folder / "state" / who / "key")
            return Identity(key, member.network, member.members)
        case owner:
            return identities.owner_identity(endpoint, owner)


@asynccontextmanager
async def speaking(network: Network, who: str) -> AsyncIterator[Fabric]:
    settings = FabricSettings(mode="client", connect=(network.processes.endpoint,))
    carrier = await open_zenoh(settings, connect_timeout_s=PATIENCE_S)
    member = identity(network, who)
    try:
        yield member.signs(carrier) if member else carrier
    finally:
        await carrier.close()


async def refusal(fabric: Fabric, key: str, payload: bytes = b"") -> str:
    """Why a request is refused; it must be."""
    with pytest.raises((Refused, NotFound)) as caught:
        await fabric.request(key, payload, timeout_s=PATIENCE_S)
    return caught.value.problem


def intent(**changes: object) -> TrainingIntent:
    return checked({**INTENT, **changes}, TrainingIntent, "intent")


def ordered(
    network: Network, wanted: TrainingIntent, by: str, start: Digest | None = None
) -> SignedOrder:
    member = identity(network, by)
    assert member is not None
    until_s = clock.wall_s() + 3600
    return sign_order(wanted, member.network, until_s, member.key, start=start)


def submission(network: Network, wanted: TrainingIntent, by: str) -> bytes:
    return encode(SubmitIntent(intent=wanted, order=ordered(network, wanted, by)))


async def job_of(fabric: Fabric, request: bytes) -> JobView:
    return decode(await fabric.request(keys.center_do("submit"), request, timeout_s=60), JobView)


@pytest.mark.parametrize("who", OUTSIDERS)
async def test_an_outsider_commands_nobody(network: Network, who: str) -> None:
    requests = [keys.center_do(verb) for verb in CENTER_VERBS]
    requests += [keys.site_do(NORTH, verb) for verb in EVERY_SITE]
    requests += [keys.site_echo(NORTH), keys.site_stream(NORTH)]
    async with speaking(network, who) as fabric:
        for key in requests:
            why = await refusal(fabric, key)
            assert "not a member of the network" in why or "only signed messages" in why


@pytest.mark.parametrize("who", ["north", "mpvu", "curious", "operator"])
async def test_a_member_commands_no_site(network: Network, who: str) -> None:
    """Emptying a site's store among it: 40 models were gone within a second."""
    blobs = network.folder / "state" / "north" / "models" / "blobs"
    before = sorted(blobs.rglob("*"))
    async with speaking(network, who) as fabric:
        for verb in ("work", "stop", "status", "retain", "estimate"):
            payload = encode(ModelsNeeded(models=())) if verb == "retain" else b""
            assert "may not do this" in await refusal(fabric, keys.site_do(NORTH, verb), payload)
    assert set(before) <= set(blobs.rglob("*"))


@pytest.mark.parametrize("who", ["north", "mpvu"])
async def test_a_site_is_no_owner_and_no_operator(network: Network, who: str) -> None:
    async with speaking(network, who) as fabric:
        for verb in sorted(set(CENTER_VERBS) - FOR_SITES):
            assert "may not do this" in await refusal(fabric, keys.center_do(verb))


@pytest.mark.parametrize("who", ["north", "mpvu", "curious"])
async def test_a_member_sees_no_account_but_its_own(network: Network, who: str) -> None:
    others = AccountQuestion(account="owner/acme")
    async with speaking(network, who) as fabric:
        for verb in ACCOUNTS:
            assert "is not yours" in await refusal(fabric, keys.center_do(verb), encode(others))
        reply = await fabric.request(
            keys.center_do("accounts"), encode(AccountQuestion()), timeout_s=20
        )
    own = {f"{kind}/{who}" for kind in ("owner", "site", "gateway", "facility", "verifier")}
    assert {view.account for view in decode(reply, AccountList).accounts} <= own


@pytest.mark.parametrize("who", ["north", "curious", "operator"])
async def test_a_member_gets_certificates_of_its_own_only(
    network: Network, who: str, tmp_path: Path
) -> None:
    """Whatever it asks for: the roster says who it is, and at which hosts."""
    question = CertificateQuestion(request=requested(tmp_path, ["control.example.org"]))
    async with speaking(network, who) as fabric:
        reply = await fabric.request(
            keys.center_do("certify"), encode(question), timeout_s=PATIENCE_S
        )
    given = decode(reply, CertificateAnswer)
    asked = identity(network, who)
    assert asked is not None
    for pem in (given.membership, given.certificate):
        certificate = x509.load_pem_x509_certificate(pem.encode())
        (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        assert str(name.value).removeprefix(ENTRY) == asked.key.public
        assert b"control.example.org" not in certificate.public_bytes(Encoding.DER)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert not constraints.value.ca


async def test_an_owner_does_not_steer(network: Network) -> None:
    async with speaking(network, "curious") as fabric:
        assert "may not do this" in await refusal(fabric, keys.center_do("steer"))
        assert "may not do this" in await refusal(fabric, keys.center_do("report"))
        assert "may not do this" in await refusal(fabric, keys.center_do("name"))


async def test_a_curious_owner_sees_and_commands_its_own_jobs_only(network: Network) -> None:
    async with speaking(network, "acme") as acme, speaking(network, "curious") as curious:
        job = (await job_of(acme, submission(network, intent(), "acme"))).job
        asked = encode(JobQuery(job=job))
        for verb in ("jobs", "decisions", "lineage", "cancel"):
            assert "there is no job" in await refusal(curious, keys.center_do(verb), asked)
        everything = encode(JobQuery(job=JobId("")))
        listed = await curious.request(keys.center_do("jobs"), everything, timeout_s=PATIENCE_S)
        assert decode(listed, JobList).jobs == ()
        listed = await acme.request(keys.center_do("jobs"), everything, timeout_s=PATIENCE_S)
        assert job in {one.job for one in decode(listed, JobList).jobs}
        with contextlib.suppress(Refused):  # It may have ended.
            await acme.request(keys.center_do("cancel"), asked, timeout_s=PATIENCE_S)


@pytest.mark.parametrize("who", ["curious", "operator"])
async def test_nobody_submits_in_the_name_of_an_owner(network: Network, who: str) -> None:
    """The owner in an intent was free text: writing a trusted name sufficed."""
    wanted = intent()
    requests = {
        "without an order": encode(SubmitIntent(intent=wanted)),
        "with an order of its own": submission(network, wanted, who),
        "with an order for another intent": encode(
            SubmitIntent(intent=wanted, order=ordered(network, intent(name="other"), "acme"))
        ),
    }
    async with speaking(network, who) as fabric:
        for request in requests.values():
            await refusal(fabric, keys.center_do("submit"), request)


def visit(number: int, order: SignedOrder | None, **changes: Any) -> VisitWork:
    model = INTENT["model"]
    work = VisitWork(
        visit=VisitId(f"tumour-99.{number}"),
        job=JobId("tumour-99"),
        recipe=model["recipe"],
        config=model["config"],
        seed=1,
        owner="acme",
        dataset="biopsies",
        examples=0,
        model=None,
        previous=(),
        order=order,
    )
    return msgspec.structs.replace(work, **changes)


def measurement(number: int, order: SignedOrder | None, **changes: Any) -> VerifyWork:
    work = VerifyWork(
        visit=VisitId(f"tumour-99.{number}"),
        job=JobId("tumour-99"),
        recipe="classifier",
        config=INTENT["model"]["config"],
        topic="medicine",
        metric="accuracy",
        model=ModelRef(manifest=Digest("0" * 64), size_bytes=1, holders=()),
        previous=(),
        owner="acme",
        order=order,
    )
    return msgspec.structs.replace(work, **changes)


async def outcome(fabric: Fabric, work: VisitWork | VerifyWork) -> WorkOutcome:
    """How a site ends work that a control centre gives it."""
    await fabric.request(keys.site_do(NORTH, "work"), encode(work), timeout_s=PATIENCE_S)
    question = encode(StatusQuestion(visit=work.visit))
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await fabric.request(
                keys.site_do(NORTH, "status"), question, timeout_s=PATIENCE_S
            )
            status = decode(answer, WorkStatus)
            if status.outcome is not None:
                return status.outcome
            await asyncio.sleep(0.05)


async def test_not_even_a_control_centre_goes_beyond_what_an_owner_ordered(
    network: Network,
) -> None:
    wanted = intent(
        budget={"examples": 5000},
        requirements=[{"quantity": "site", "none_of": ["west"]}],
    )
    order = ordered(network, wanted, "acme")
    elsewhere = ordered(network, intent(data={"topics": ["finance"]}), "acme")
    excluding = ordered(
        network, intent(requirements=[{"quantity": "site", "none_of": ["north"]}]), "acme"
    )
    member = identity(network, "acme")
    assert member is not None
    ended = sign_order(wanted, member.network, clock.wall_s() - 1, member.key)
    foreign = sign_order(wanted, "another", clock.wall_s() + 3600.0, member.key)
    config = {**INTENT["model"]["config"], "label": "mrn"}
    refused = {
        "nobody ordered it": visit(1, None),
        "not an owner": visit(2, ordered(network, wanted, "center")),
        "cannot order for": visit(3, ordered(network, wanted, "curious")),
        "signature": visit(4, msgspec.structs.replace(order, order=order.order + b" ")),
        "has expired": visit(5, ended),
        "another network": visit(6, foreign),
        "configuration": visit(7, order, config=config),
        "6000 examples": visit(8, order, examples=6000),
        "work for curious": visit(9, order, owner="curious"),
        "the data set biopsies": visit(10, elsewhere),
        "data set": visit(11, excluding),
        "job": visit(12, order, job=JobId("other-1")),
    }
    async with speaking(network, "center") as center:
        for why, work in refused.items():
            ended_ = await outcome(center, work)
            assert ended_.state is WorkState.FAILED
            assert ended_.error is not None
            assert why in ended_.error.problem, ended_.error
        within = await outcome(center, visit(14, order))
        assert within.state is WorkState.DONE, within.error
        assert within.entry is not None
        fresh = {"model": within.model, "examples": 1000}
        assert within.model is not None
        made = {**fresh, "lineage": (within.entry,)}
        unordered = measurement(20, order, model=within.model, lineage=(within.entry,))
        ended_ = await outcome(center, unordered)
        assert ended_.error is not None
        assert "accuracy on medicine" in ended_.error.problem
        elsewhere_made = ordered(network, wanted, "acme")
        for number, work in enumerate(
            (
                visit(15, order, **fresh),
                visit(16, elsewhere_made, **made),
                visit(17, ordered(network, wanted, "acme", start=Digest("0" * 64)), **made),
                visit(18, ordered(network, wanted, "acme", start=Digest("0" * 64))),
            )
        ):
            ended_ = await outcome(center, work)
            assert ended_.error is not None, number
            assert "order" in ended_.error.problem, ended_.error
        trained = await outcome(center, visit(19, order, **made))
        assert trained.state is WorkState.DONE, trained.error
        assert trained.model is not None
    await only_its_owner_gets(network, trained.model)


async def only_its_owner_gets(network: Network, model: ModelRef) -> None:
    """Any member could fetch any model whose digest it knew, and digests are published."""
    key, wanted = keys.site_do(NORTH, "chunk"), encode(ChunkRequest(digest=model.manifest))
    for who in (*OUTSIDERS, "curious", "center"):
        async with speaking(network, who) as fabric:
            await refusal(fabric, key, wanted)
    for who in ("acme", "operator", "mpvu"):
        async with speaking(network, who) as fabric:
            assert await fabric.request(key, wanted, timeout_s=PATIENCE_S)


async def test_claims_of_others_are_not_heard(network: Network) -> None:
    """A deployment under somebody's name, a verifier's finding, load, links, another's report."""
    descriptor = (await described(network))["north"]
    async with speaking(network, "operator") as operator:
        heard: list[str] = []

        async def message(key: str, payload: bytes) -> None:
            heard.append(key)

        await operator.subscribe("daitn/site/ghost/*", message)
        await operator.subscribe(keys.site_attested(MPVU), message)
        await operator.subscribe(keys.site_serving(NORTH), message)
        await operator.subscribe("daitn/center/**", message)
        for who in (*OUTSIDERS, "curious", "north"):
            member = identity(network, who)
            key = member.key if member else SigningKey.generate()
            claimed = msgspec.structs.replace(
                descriptor,
                public_key=key.public,
                roles=(Role.FACILITY, Role.VERIFIER, Role.GATEWAY),
                started_at_s=clock.now_s() + 100,
            )
            ghost = msgspec.structs.replace(claimed, site=GHOST)
            finding = Finding(
                verifier=MPVU,
                site=NORTH,
                deployment="doctor",
                manifest=None,
                topic="oncology/breast",
                metric="accuracy",
                value=1.0,
                standard_error=0.0,
                items=1000,
                at_s=clock.now_s(),
            )
            async with speaking(network, who) as fabric:
                await fabric.announce(keys.site_alive(GHOST, key_mark(key.public)))
                claims = {
                    keys.site_advert(GHOST): encode(sign_advert(ghost, key)),
                    keys.site_sensed(GHOST): encode(Sensed(site=GHOST)),
                    keys.site_attested(MPVU): encode(sign_attestation(finding, key)),
                    keys.site_serving(NORTH): encode(
                        Serving(site=NORTH, at_s=0.0, memory_free_bytes=0, deployments=())
                    ),
                    keys.center_advice(): b"",
                    keys.job_event(JobId("tumour-1")): b"",
                }
                if who != "north":
                    claims[keys.site_advert(NORTH)] = encode(sign_advert(claimed, key))
                for to, payload in claims.items():
                    await fabric.publish(to, payload)
                forged = sign_report(
                    WorkOutcome(
                        visit=VisitId("tumour-1.1"),
                        job=JobId("tumour-1"),
                        site=MPVU,
                        state=WorkState.FAILED,
                    ),
                    key,
                )
                await refusal(fabric, keys.center_do("report"), encode(forged))
        # The true sites are heard after all of these.
        async with speaking(network, "mpvu") as mpvu, asyncio.timeout(PATIENCE_S):
            while keys.site_attested(MPVU) not in heard:
                await mpvu.publish(keys.site_attested(MPVU), b"")
                await asyncio.sleep(0.05)
    assert set(heard) <= {keys.site_attested(MPVU), keys.center_advice()}
    seen = await described(network)
    assert "ghost" not in seen
    assert seen["north"] == descriptor


async def described(network: Network) -> dict[str, NodeDescriptor]:
    """What the control centre knows of the sites."""
    listed = await asyncio.to_thread(network.json, "get", "nodes")
    nodes = [msgspec.convert(node["descriptor"], NodeDescriptor) for node in listed]
    return {node.site: node for node in nodes}


async def test_rivals_under_true_keys_change_nothing(network: Network, tmp_path: Path) -> None:
    """All requests were heard by a rival queryable, and some answered."""

    async def lies(key: str, payload: bytes) -> bytes:
        return b""

    async with contextlib.AsyncExitStack() as stack:
        for who in (*OUTSIDERS, "curious", "mpvu"):
            fabric = await stack.enter_async_context(speaking(network, who))
            for verb in ("submit", "jobs", "report", "lineage", "nodes"):
                await fabric.serve(keys.center_do(verb), lies)
            for verb in ("work", "estimate", "describe", "chunk", "status"):
                await fabric.serve(keys.site_do(NORTH, verb), lies)
        path = write_intent(tmp_path, name="rivals", route=[{"site": "north", "examples": 3000}])
        ended = await asyncio.to_thread(
            network.daitn, "train", "-f", str(path), "--watch", "--json"
        )
    job = json.loads(ended.stdout)
    assert [visit["site"] for visit in job["route"]] == ["north"], ended.stderr


async def test_an_owner_fills_no_queue_and_an_order_is_one_job(network: Network) -> None:
    """A hundred jobs in four seconds held up everybody else's; a retried one was another job."""
    async with speaking(network, "curious") as curious, speaking(network, "acme") as acme:
        request = submission(network, intent(name="again", owner="curious"), "curious")
        given = await asyncio.gather(*(job_of(curious, request) for _ in range(5)))
        assert {view.job for view in given} == {given[0].job}
        tried = [
            submission(network, intent(name=f"flood{n}", owner="curious"), "curious")
            for n in range(3 * OPEN_JOBS)
        ]
        results = await asyncio.gather(
            *(job_of(curious, one) for one in tried), return_exceptions=True
        )
        taken = [one for one in results if isinstance(one, JobView)]
        refused = [one for one in results if isinstance(one, Refused)]
        assert len(taken) + len(refused) == len(tried)
        assert len(taken) <= OPEN_JOBS
        assert all("open jobs" in error.problem for error in refused)
        honest = await job_of(acme, submission(network, intent(name="honest"), "acme"))
        for fabric, views in ((curious, [given[0], *taken]), (acme, [honest])):
            for view in views:
                with contextlib.suppress(DaitnError):
                    await fabric.request(
                        keys.center_do("cancel"), encode(JobQuery(job=view.job)), timeout_s=20
                    )


def test_a_command_without_a_key_of_the_network_is_told_so(
    network: Network, tmp_path: Path
) -> None:
    SigningKey.at(tmp_path / "key")
    stranger = network.daitn_as(tmp_path / "key", "get", "jobs")
    assert stranger.returncode == 3
    assert "not a member of the network" in stranger.stderr

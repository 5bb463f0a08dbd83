"""A verification unit over real servers: directly, and through a real gateway."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from daitn.control.attesting import Tally
from daitn.files.state_folder import NodeState
from daitn.identity.keys import SigningKey
from daitn.identity.signing import check_attestation
from daitn.learning.corpora.clinic import clinic
from daitn.learning.corpora.records import write_records
from daitn.learning.corpora.split import choices
from daitn.node.admission import Admission, Attempt
from daitn.node.audit import AuditLog, entries
from daitn.node.config import AskingConfig, KeyConfig, NodeConfig, PolicyConfig
from daitn.node.config import TestSetConfig as ExamConfig
from daitn.node.config.policy import ANYBODY
from daitn.node.verifier import deployments as examining
from daitn.node.verifier.deployments import DeploymentVerifier
from daitn.node.verifier.probing import PROBES
from daitn.objects.access import UsageLimits
from daitn.objects.audit import AuditEvent
from daitn.objects.deployments import DeploymentDescriptor, FacilityDescriptor
from daitn.objects.descriptors import NodeDescriptor, Role
from daitn.objects.errors import Corrupt, Refused
from daitn.objects.findings import Attestation, Finding
from daitn.objects.identifiers import Digest, OwnerId, SiteId
from daitn.objects.queries import QueryStatus
from daitn.objects.wire import decode, encode
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.memory import MemoryNetwork
from daitn.tools.http import HttpServer, Request, Response
from daitn.tools.membership import Membership
from daitn.topology.qrrt.findings import Findings
from tests.node.gateway.scene import Network, deployment
from tests.scenes.openai_server import OpenAiServer
from tests.scenes.waiting import PATIENCE_S

UNIT = SiteId("mpvu")
ITEMS = 24


class Nodes:
    """A directory of what the test says is there."""

    def __init__(self) -> None:
        self.there: dict[SiteId, NodeDescriptor] = {}

    def nodes(self) -> tuple[NodeDescriptor, ...]:
        return tuple(self.there.values())

    def node(self, site: SiteId) -> NodeDescriptor | None:
        return self.there.get(site)

    def facility(self, site: str, url: str, manifest: Digest | None = None) -> None:
        self.there[SiteId(site)] = NodeDescriptor(
            site=SiteId(site),
            owner=OwnerId(f"provider-of-{site}"),
            roles=(Role.FACILITY,),
            jurisdiction="US",
            public_key="",
            started_at_s=1.0,
            version=1,
            software="daitn",
            facility=FacilityDescriptor(
                endpoint=url.removesuffix("/v1"),
                hosts=False,
                memory_bytes=0,
                deployments=(deployment("doctor", manifest=manifest),),
            ),
        )


class Unit:
    """An examiner, and those who hear it."""

    def __init__(self, folder: Path, exam: Path, nodes: Nodes) -> None:
        self.folder, self.exam, self.nodes = folder, exam, nodes
        self.key = SigningKey.generate()
        self.told: asyncio.Queue[Attestation] = asyncio.Queue()

    @asynccontextmanager
    async def at_work(
        self,
        window: int = 240,
        now_s: Callable[[], float] = clock.now_s,
        policy: PolicyConfig = ANYBODY,
        items: int = ITEMS,
    ) -> AsyncIterator[DeploymentVerifier]:
        config = NodeConfig(
            site=UNIT,
            owner=OwnerId("board"),
            jurisdiction="US",
            roles=(Role.VERIFIER,),
            center=("tcp/127.0.0.1:1",),
            state=str(self.folder),
            tests=(
                ExamConfig(
                    topic="medicine",
                    path=str(self.exam),
                    test_schema="multiple-choice/1",
                    policy=policy,
                ),
            ),
            asking=AskingConfig(every_s=0.01, items=items, window=window),
        )
        fabric = MemoryNetwork().open(UNIT)
        heard = await fabric.subscribe(keys.ALL_ATTESTED, self._hear)
        membership = cast(Membership, self.nodes)
        audit = AuditLog(self.folder / "audit", UNIT, self.key)
        examiner = DeploymentVerifier(
            config,
            fabric,
            membership,
            self.key,
            random.Random(7),
            Admission(audit, config.tests),
            now_s,
        )
        await examiner.start()
        yield examiner
        await examiner.close()
        await heard.close()
        await fabric.close()
        audit.close()

    async def _hear(self, key: str, payload: bytes) -> None:
        self.told.put_nowait(decode(payload, Attestation))

    async def next(self, site: str = "") -> Finding:
        """The next finding, of one site where one is named."""
        while True:
            attestation = await asyncio.wait_for(self.told.get(), PATIENCE_S)
            if not site or attestation.finding.site == site:
                return attestation.finding

    async def until_degraded(self, degraded: bool, within: int) -> Finding:
        for _ in range(within):
            finding = await self.next()
            if finding.degraded is degraded:
                return finding
        raise AssertionError(f"not so within {within} rounds")

    def drop_told(self) -> None:
        """Forget what was told and not yet looked at."""
        while not self.told.empty():
            self.told.get_nowait()


def drained(unit: Unit) -> list[Attestation]:
    told = []
    while not unit.told.empty():
        told.append(unit.told.get_nowait())
    return told


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "FIRST_AFTER_S", 0.0)
    monkeypatch.setattr(examining, "NEW_SEEN_WITHIN_S", 0.01)


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    items = [item for pairs in clinic().values() for item in choices(pairs, "exam")][:160]
    path = tmp_path_factory.mktemp("exam") / "exam.jsonl"
    write_records(path, items)
    return path


@pytest.fixture
def server(exam: Path) -> Iterator[OpenAiServer]:
    with OpenAiServer(accuracy=0.9, answers=str(exam), seed=3) as server:
        yield server


@pytest.fixture
def unit(tmp_path: Path, exam: Path) -> Unit:
    return Unit(tmp_path, exam, Nodes())


async def test_what_is_found_is_what_the_server_is(unit: Unit, server: OpenAiServer) -> None:
    unit.nodes.facility("mdf", server.url)
    async with unit.at_work() as examiner:
        for _ in range(10):
            finding = await unit.next()
        assert not finding.degraded
        assert finding.items == 10 * ITEMS
        assert abs(finding.value - 0.9) < 4 * finding.standard_error < 0.1
        (kept,) = examiner.current()
    check_attestation(kept, unit.key.public, encode(kept))
    better = msgspec.structs.replace(kept.finding, value=1.0)
    changed = msgspec.structs.replace(kept, finding=better)
    with pytest.raises(Corrupt, match="signature"):
        check_attestation(changed, unit.key.public, encode(changed))
    with pytest.raises(Corrupt, match="signature"):
        check_attestation(kept, SigningKey.generate().public, encode(kept))


async def test_a_finding_is_over_as_many_items_as_the_owner_demands_and_coarse(
    unit: Unit, server: OpenAiServer
) -> None:
    unit.nodes.facility("mdf", server.url)
    policy = PolicyConfig(recipes=("*",), least_records=20)
    async with unit.at_work(policy=policy, items=4, window=4):
        for _ in range(4):
            finding = await unit.next()
            assert finding.items >= 20
            missed = round(finding.items * (1.0 - finding.value), 6)
            assert missed % 5 == 0
        asked = server.control()["requests"]
        server.control(fail=0.4)
        unit.drop_told()
        await _until(lambda: server.control()["requests"] > asked + 100)
    assert all(finding.items >= 20 for finding in [a.finding for a in drained(unit)])


async def test_a_test_set_of_equal_items_examines_nobody(
    tmp_path: Path, server: OpenAiServer, caplog: pytest.LogCaptureFixture
) -> None:
    items = [item for pairs in clinic().values() for item in choices(pairs, "exam")][:9]
    write_records(tmp_path / "same.jsonl", items * 20)
    unit = Unit(tmp_path, tmp_path / "same.jsonl", Nodes())
    unit.nodes.facility("mdf", server.url)
    async with unit.at_work():
        await _until(lambda: "no deployment is examined on medicine" in caplog.text)
    assert server.control()["requests"] == 0
    assert unit.told.empty()


async def test_probes_are_put_to_no_deployment(
    tmp_path: Path, server: OpenAiServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever saw them could have them in his data; and their answers are made up."""
    caplog.set_level("INFO")
    items = [item for pairs in clinic().values() for item in choices(pairs, "exam")][:160]
    told = [msgspec.structs.replace(item, member=n % 2 == 0) for n, item in enumerate(items)]
    write_records(tmp_path / "probes.jsonl", told)
    unit = Unit(tmp_path, tmp_path / "probes.jsonl", Nodes())
    unit.nodes.facility("mdf", server.url)
    async with unit.at_work():
        await _until(lambda: "its items are probes" in caplog.text)
    assert server.control()["requests"] == 0
    assert unit.told.empty()


async def test_a_policy_bounds_the_rounds_and_the_owner_sees_them(
    unit: Unit, server: OpenAiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: asyncio.Queue[None] = asyncio.Queue()

    def examination(admission: Admission, test: ExamConfig, of: DeploymentDescriptor) -> Attempt:
        try:
            return admit(admission, test, of)
        except Refused:
            refused.put_nowait(None)
            raise

    admit = Admission.examination
    monkeypatch.setattr(Admission, "examination", examination)
    unit.nodes.facility("mdf", server.url)
    policy = PolicyConfig(recipes=("*",), limits=UsageLimits(measurements_per_day=2))
    async with unit.at_work(policy=policy):
        found = [await unit.next(), await unit.next()]
        for _ in range(3):
            await asyncio.wait_for(refused.get(), PATIENCE_S)
    assert unit.told.empty()
    assert server.control()["requests"] <= 2 * ITEMS + PROBES, "none alone of a third round"
    entries_ = [e for e in entries(unit.folder) if e.event is not AuditEvent.STARTED]
    assert [e.event for e in entries_] == 2 * [AuditEvent.BEGUN, AuditEvent.MEASURED]
    assert [e.values["accuracy"] for e in entries_[1::2]] == [one.value for one in found]
    assert entries_[1].visit == "doctor@mdf"


async def test_a_fall_is_found_and_a_rise_too(unit: Unit, server: OpenAiServer) -> None:
    async def becomes(accuracy: float) -> None:
        """Between two rounds: none has answers of both."""
        unit.nodes.there.clear()
        await _until(lambda: all(task.done() for task in examiner._at.values()))
        unit.drop_told()
        server.control(accuracy=accuracy)
        unit.nodes.facility("mdf", server.url)

    unit.nodes.facility("mdf", server.url)
    async with unit.at_work() as examiner:
        for _ in range(5):
            await unit.next()
        await becomes(0.3)
        fell = await unit.until_degraded(True, within=4)
        assert fell.before == pytest.approx(0.9, abs=0.1)
        assert fell.value < 0.7
        await becomes(1.0)
        well = await unit.until_degraded(False, within=2)
        assert well.value == 1.0
        assert well.before is None


async def test_a_restart_is_no_chance_to_be_measured_anew(unit: Unit, server: OpenAiServer) -> None:
    unit.nodes.facility("mdf", server.url)
    async with unit.at_work() as first:
        for _ in range(4):
            await unit.next()
        server.control(accuracy=0.1)
        await unit.until_degraded(True, within=3)
        (before,) = first.current()
    unit.nodes.there.clear()
    unit.drop_told()
    async with unit.at_work() as second:
        assert second.current()[0].finding.degraded
        unit.nodes.facility("mdf", server.url)
        finding = await unit.next()
    assert finding.degraded
    assert finding.items > ITEMS
    assert finding.before == before.finding.before


async def test_a_unit_that_goes_back_a_release_is_still_believed(
    unit: Unit, server: OpenAiServer
) -> None:
    """Its later release signed more of each finding than this one knows."""
    unit.nodes.facility("mdf", server.url)
    async with unit.at_work():
        await unit.next()
    file = unit.folder / NodeState.EXAMINATIONS
    state = msgspec.msgpack.decode(file.read_bytes())
    (kept,) = state["findings"]
    kept["finding"]["median_s"] = 0.5
    kept["signature"] = unit.key.sign(encode(kept["finding"]))
    file.write_bytes(encode(state))
    async with unit.at_work() as again:
        (shown,) = again.current()
    check_attestation(shown, unit.key.public, encode(shown))


async def test_a_restart_forgets_nothing_that_a_slow_fall_is_compared_with(
    unit: Unit, server: OpenAiServer
) -> None:
    unit.nodes.facility("mdf", server.url)
    async with unit.at_work() as first:
        await unit.next()
        (examination,) = first._examinations.values()
        examination.older = Tally(95, 100)  # As after many rounds.
        await unit.next()
    unit.nodes.there.clear()
    async with unit.at_work() as second:
        (again,) = second._examinations.values()
        assert again == examination
        assert again.older.items >= 100


async def test_what_is_found_after_the_clock_was_set_back_is_of_later(
    unit: Unit, server: OpenAiServer
) -> None:
    unit.nodes.facility("mdf", server.url)
    async with unit.at_work():
        await unit.next()
    unit.drop_told()
    kept = Findings()
    async with unit.at_work(now_s=lambda: clock.now_s() - 3600.0) as later:
        kept.keep(later.current()[0].finding)
        for _ in range(3):
            assert kept.keep(await unit.next())


async def test_names_that_come_and_go_leave_nothing_behind(
    unit: Unit, server: OpenAiServer
) -> None:
    server.control(fail=1.0)
    async with unit.at_work() as examiner:
        asked = 0
        for number in range(20):
            unit.nodes.there.clear()
            unit.nodes.facility(f"mdf-{number}", server.url)
            await _until(lambda asked=asked: server.control()["requests"] > asked)
            asked = server.control()["requests"]
        assert len(examiner._decks) <= 2


async def test_who_cannot_answer_is_not_called_bad(unit: Unit, server: OpenAiServer) -> None:
    unit.nodes.facility("mdf", server.url)
    server.control(fail=0.3)
    async with unit.at_work() as examiner:
        for _ in range(6):
            finding = await unit.next()
        assert finding.items < 6 * ITEMS
        assert abs(finding.value - 0.9) < 4 * finding.standard_error
        server.control(fail=1.0)
        unit.drop_told()
        asked = server.control()["requests"]
        await _until(lambda: server.control()["requests"] > asked + 3 * ITEMS)
        assert not examiner.current()[0].finding.degraded


async def test_what_is_no_answer_ends_nothing(unit: Unit, server: OpenAiServer) -> None:
    """Bytes that no server should send, beside one that behaves."""
    bodies = iter(
        [
            b'{"choices": [{"message": {"content": "\xff\xfe"}}]}',
            b'{"x": ' + b"[" * 60_000,
            b'{"choices": [{"message": {"content": "' + b"A" * 10_000_000,
            b'{"choices": 7}',
        ]
    )
    seen: list[bytes] = []

    async def hostile(request: Request) -> Response:
        seen.append(await request.body(1 << 20))
        body = next(bodies, b"<html>")
        return Response(body, headers={"content-type": "application/json"})

    evil = HttpServer("127.0.0.1:0", "listen", hostile)
    await evil.start()
    unit.nodes.facility("evil", evil.endpoint)
    async with unit.at_work() as examiner:
        await _until(lambda: len(seen) > 2 * examining._SILENT_AFTER)
        unit.nodes.facility("mdf", server.url)
        assert (await unit.next()).site == "mdf"
        assert {kept.finding.site for kept in examiner.current()} == {SiteId("mdf")}
    await evil.close()


async def test_who_is_silent_holds_up_none_but_itself(unit: Unit, server: OpenAiServer) -> None:
    with OpenAiServer(hang=True) as silent:
        unit.nodes.facility("silent", silent.url)
        async with unit.at_work():
            await _until(lambda: silent.control()["in_flight"] == examining.AT_ONCE)
            unit.nodes.facility("mdf", server.url)
            for _ in range(3):
                assert (await unit.next()).site == "mdf"
            assert silent.control()["requests"] == examining.AT_ONCE


async def test_other_weights_are_examined_anew(unit: Unit, server: OpenAiServer) -> None:
    one, other = Digest("ab" * 32), Digest("cd" * 32)
    unit.nodes.facility("mdf", server.url, one)
    async with unit.at_work():
        for _ in range(3):
            finding = await unit.next()
        assert (finding.manifest, finding.items) == (one, 3 * ITEMS)
        unit.nodes.facility("mdf", server.url, other)
        while finding.manifest == one:
            finding = await unit.next()
        assert (finding.manifest, finding.items) == (other, ITEMS)


async def test_questions_are_anybodys_and_come_once_each(
    unit: Unit, exam: Path, server: OpenAiServer
) -> None:
    """Through a gateway that wants keys; what reaches the server tells nothing of the asker."""
    network = Network()
    network.keys[UNIT] = unit.key
    network.facility("mdf", server.url, deployment("doctor"))
    gateway = await network.gateway(keys=(KeyConfig(owner="alice", sha256="0" * 64),))
    for site, node in network.state.snapshot().nodes.items():
        unit.nodes.there[site] = node
    async with unit.at_work():
        await unit.next()
        seen = server.control()
    asked = [record["body"]["messages"][0]["content"] for record in seen["last"]]
    assert len(set(asked)) == len(asked)
    assert {record["headers"]["daitn-owner"] for record in seen["last"]} == {""}
    told = str(seen["last"]).lower()
    assert UNIT not in told
    assert "verif" not in told
    assert seen["most_in_flight"] <= examining.AT_ONCE
    # The last ones may have been under way when the unit stopped.
    assert QueryStatus.ANSWERED in {query.status for query in gateway.queries(ITEMS)}
    await network.close()


async def _until(holds: Any) -> None:
    """Wait for what another process sees, or fail."""
    ends_s = time.monotonic() + PATIENCE_S
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < ends_s, f"it did not come to that within {PATIENCE_S:g} s"
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(("count", "gone"), [(0, 0), (6, 0), (10, 0), (12, 2)])
def test_what_is_known_is_pruned_at_its_limit_and_not_before(count: int, gone: int) -> None:
    kept = dict.fromkeys(range(count))
    assert examining.oldest_beyond(kept, 10) == list(range(gone))

"""What a policy limits is counted at the site, from its audit log, and outlives a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from msgspec.structs import replace

from daitn.identity.keys import SigningKey
from daitn.identity.signing import sign_entry
from daitn.learning.sandbox.policy import Available, Mechanism
from daitn.node import descriptor
from daitn.node.admission import Admission, request_of
from daitn.node.audit import AuditLog, entries
from daitn.node.config import DatasetConfig, PolicyConfig, SandboxDemand
from daitn.node.config import TestSetConfig as ExamConfig
from daitn.node.descriptor import described_dataset, described_test_set
from daitn.objects.access import UsageLimits
from daitn.objects.audit import AuditEvent
from daitn.objects.errors import DaitnError, InvalidInput, Refused, WorkFailed
from daitn.objects.identifiers import Digest, JobId, SiteId, VisitId
from daitn.objects.lineage import Origin, Verification, Visit
from daitn.objects.messages import VerifyWork, VisitWork
from daitn.objects.models import ModelRef

KEY = SigningKey.generate()
MODEL = ModelRef(manifest=Digest("0" * 64), size_bytes=1, holders=())
MIDNIGHT_S = 1_800_000_000.0 - 1_800_000_000.0 % 86_400.0
LIMITS = UsageLimits(
    visits_per_day=2, examples_per_day=100, measurements_per_day=1, compute_s_per_day=1e6
)
NOTES = DatasetConfig(
    name="notes",
    path="notes.csv",
    data_schema="table/1",
    topics=("t",),
    policy=PolicyConfig(recipes=("*",), limits=LIMITS, time_zone="Europe/Berlin"),
)
EXAM = ExamConfig(
    topic="t",
    path="t.csv",
    test_schema="table/1",
    policy=PolicyConfig(recipes=("*",), limits=LIMITS),
)


MADE = sign_entry(
    Origin(
        job=JobId("j-1"), visit=VisitId("j-1.0"), site=SiteId("north"), at_s=MIDNIGHT_S,
        recipe="classifier", seed=0, model=MODEL.manifest,
    ),
    (),
    KEY,
)  # fmt: skip


def visit(owner: str = "acme", examples: int = 40, number: int = 1) -> VisitWork:
    return VisitWork(
        visit=VisitId(f"j-1.{number}"), job=JobId("j-1"), recipe="classifier", config={}, seed=0,
        owner=owner, dataset="notes", examples=examples, model=MODEL, previous=(),
        lineage=(MADE,),
    )  # fmt: skip


def verify(owner: str = "acme") -> VerifyWork:
    return VerifyWork(
        visit=VisitId("j-1.9"), job=JobId("j-1"), recipe="classifier", config={}, topic="t",
        metric="accuracy", model=MODEL, previous=(), owner=owner,
    )  # fmt: skip


class Site:
    """A site's admission, which can be restarted, and its clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_s = MIDNIGHT_S + 3600.0 * 12
        self.start()

    def start(self) -> None:
        self.audit = AuditLog(self.folder, SiteId("north"), KEY, lambda: self.now_s)
        self.admission = Admission(self.audit, (NOTES, EXAM), lambda: self.now_s)

    def restart(self) -> None:
        self.audit.close()
        self.start()

    def come(
        self,
        work: VisitWork | VerifyWork,
        then: BaseException | None = None,
    ) -> None:
        """Let work in, and have it end in an error, or as stopped."""
        data = NOTES if isinstance(work, VisitWork) else EXAM
        with self.admission.attempt(work) as attempt:
            attempt.about["data"] = data.disclosure.name
            self.admission.check(data, request_of(work))
            self.admission.begin(data, request_of(work), attempt)
            raise then or asyncio.CancelledError

    def takes(self, work: VisitWork | VerifyWork) -> bool:
        """Whether work is let in."""
        try:
            self.come(work)
        except Refused:
            return False
        except asyncio.CancelledError:
            return True
        raise AssertionError

    def events(self) -> list[AuditEvent]:
        return [e.event for e in entries(self.folder) if e.event is not AuditEvent.STARTED]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize("restarted", [False, True])
def test_what_an_owner_used_today_counts(site: Site, restarted: bool) -> None:
    def again() -> None:
        if restarted:
            site.restart()

    assert site.takes(visit(examples=60))
    again()
    assert not site.takes(visit(examples=41)), "60 of 100 examples are used"
    again()
    assert site.takes(visit(examples=40))
    again()
    assert not site.takes(visit(examples=0 + 10)), "both visits are made"
    assert site.takes(visit("clinic"))
    assert site.takes(verify())
    again()
    assert not site.takes(verify())
    assert site.takes(verify("clinic"))


def test_a_visit_that_goes_on_counts_once(site: Site) -> None:
    """Even where it uses up the day, and on another day, or outside of the hours."""

    def resume(counted_at_s: float, work: VisitWork) -> None:
        with site.admission.attempt(work) as attempt:
            attempt.about["data"] = NOTES.disclosure.name
            site.admission.check(NOTES, request_of(work), counted_at_s)
            site.admission.resume(NOTES, request_of(work), attempt, counted_at_s)

    began_s = site.now_s
    assert site.takes(visit(examples=100))
    assert not site.takes(visit(examples=10))
    for restarted in (False, True):
        if restarted:
            site.restart()
        resume(began_s, visit(examples=100))
    site.now_s += 86_400.0
    resume(began_s, visit(examples=100))
    assert site.takes(visit(examples=100)), "none of it counts on that day"
    closed = msgspec.structs.replace(NOTES, policy=PolicyConfig(recipes=("other",)))
    with pytest.raises(Refused):
        site.admission.check(closed, request_of(visit()), began_s)
    assert site.events().count(AuditEvent.RESUMED) == 3


def test_a_failure_counts_as_a_visit(site: Site) -> None:
    for _ in range(2):
        with pytest.raises(WorkFailed):
            site.come(visit(), WorkFailed("the recipe failed"))
    assert not site.takes(visit())
    assert site.events() == 2 * [AuditEvent.BEGUN, AuditEvent.FAILED] + [AuditEvent.REFUSED]


def test_a_day_is_one_of_the_policys_zone(site: Site) -> None:
    """In January, midnight in Berlin is 23:00 UTC."""
    site.now_s = MIDNIGHT_S + 3600.0 * 22.5
    assert site.takes(visit())
    assert site.takes(visit())
    site.now_s += 1740.0
    assert not site.takes(visit())
    site.now_s += 60.0
    assert site.takes(visit())
    site.restart()
    assert site.takes(visit())
    assert not site.takes(visit())


@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_that_is_set_back_opens_no_new_day(site: Site, restarted: bool) -> None:
    assert site.takes(visit())
    assert site.takes(visit())
    site.now_s -= 86_400.0
    if restarted:
        site.restart()
    assert not site.takes(visit())


def test_computing_time_is_counted_for_all(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    elapsed = iter([0.0, 2e6, 2e6, 3e6])
    monkeypatch.setattr("daitn.node.admission.clock.elapsed_s", lambda: next(elapsed))
    assert site.takes(visit())
    assert not site.takes(visit("clinic"))
    site.restart()
    assert not site.takes(visit("clinic"))
    assert site.takes(verify()), "of other data"


async def test_data_that_demands_another_sandbox_is_not_offered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def available() -> Available:
        return Available(mechanisms=(Mechanism.LIMITS,))

    monkeypatch.setattr(descriptor, "available", available)
    demand = SandboxDemand(required=(Mechanism.LIMITS, Mechanism.LANDLOCK))
    policy = PolicyConfig(recipes=("*",), sandbox=demand)
    nobody = cast(Any, None)
    for described in (
        described_dataset(nobody, replace(NOTES, policy=policy), "datasets[0]", nobody, nobody),
        described_test_set(replace(EXAM, policy=policy), "tests[0]", nobody, nobody),
    ):
        with pytest.raises(InvalidInput, match="demands a sandbox") as caught:
            await described
        assert "landlock" in caught.value.fix
        assert "landlock" not in caught.value.problem, "everybody reads this"


def test_what_leaves_is_logged(site: Site) -> None:
    work = verify()
    with site.admission.attempt(work) as attempt:
        attempt.about["data"] = EXAM.disclosure.name
        site.admission.begin(EXAM, request_of(work), attempt)
        fact = Verification(
            job=work.job, visit=work.visit, site=SiteId("north"), at_s=1.0, seconds=1.0,
            transfer_s=0.0, bytes_in=0, model=MODEL.manifest, topic="t", metric="accuracy",
            value=0.75, items=40, standard_error=0.1, by_label={"yes": 0.5},
        )  # fmt: skip
        site.admission.finished(attempt, sign_entry(fact, (), KEY), None)
    last = list(entries(site.folder))[-1]
    assert last.event is AuditEvent.MEASURED
    assert (last.owner, last.job, last.data) == ("acme", "j-1", "test set t")
    assert last.values == {"accuracy": 0.75, "accuracy of yes": 0.5}
    assert last.model == MODEL.manifest


def test_a_refusal_is_logged_with_its_reason(site: Site) -> None:
    site.takes(verify())
    with pytest.raises(DaitnError) as caught:
        site.come(verify())
    assert isinstance(caught.value, Refused)
    last = list(entries(site.folder))[-1]
    assert last.event is AuditEvent.REFUSED
    assert (
        last.reason == caught.value.problem == "the owner of test set t allows no more "
        "measurements of acme today"
    )


def test_weights_that_an_owner_brought_learn_only_where_the_data_owner_agreed(site: Site) -> None:
    """A start model whose units are thresholds carried every record of a site away in one step."""
    made = visit()
    first = replace(made, lineage=())
    learned = sign_entry(
        Visit(
            job=JobId("j-1"), visit=VisitId("j-1.1"), site=SiteId("north"), dataset="notes",
            at_s=MIDNIGHT_S, seconds=1.0, transfer_s=0.0, overhead_s=0.0,
            bytes_in=0, examples=40, loss=None,
            model_in=Digest("1" * 64), model_out=MODEL.manifest, size_bytes=1,
        ),
        (),
        KEY,
    )  # fmt: skip
    later = replace(made, lineage=(learned,))
    assert not site.takes(first)
    assert not site.takes(later), "learning elsewhere makes no fresh model of it"
    agreed = PolicyConfig(recipes=("*",), start_models=True)
    for work in (first, later):
        site.admission.check(replace(NOTES, policy=agreed), request_of(work))
    assert site.takes(replace(first, model=None)), "a fresh model is made"
    assert site.takes(made)

"""Whole runs under faults: seeds of the harness, and whether it would notice what it looks for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daitn.center.accounts import Accounts
from daitn.center.jobs import JobService
from daitn.control.jobs.job import moments_of
from daitn.node.agents.accounts import TravelReports
from daitn.node.agents.home_requests import HomeRequests
from daitn.node.agents.store import AgentStore
from daitn.node.training.privacy_ledger import PrivacyLedger
from daitn.node.training.sums import SecureSums, _terms
from daitn.node.training.work_queue import WorkQueue
from daitn.node.verifier.probing import Probing
from daitn.objects.lineage import Merge
from daitn.objects.messages import MergeWork
from daitn.objects.models import ModelRef
from daitn.objects.requests import JobList
from daitn.objects.secure_sum import Joined
from daitn.objects.usage import UsageCompared
from daitn.objects.wire import encode
from daitn.tools.journal.leadership import Term
from daitn.tools.qrrt_feed import QrrtFeed
from tests.faults import liars
from tests.faults.playing import play
from tests.faults.run import run
from tests.faults.toy import Toy
from tests.faults.weather import Fault
from tests.faults.world import World


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_lost_or_counted_twice_whatever_goes_wrong() -> None:
    assert play("--seeds", "0:20").startswith("20 seeds, ")


@pytest.mark.slow
def test_a_seed_is_the_same_run_again() -> None:
    runs = [re.search(r"run (\w+)", play("--seed", "3")) for _ in range(2)]
    first, second = (found.group(1) if found else "" for found in runs)
    assert first == second != ""


@pytest.mark.long
@pytest.mark.timeout(14_460)
def test_many_seeds() -> None:
    play("--seeds", "1000:4000", within_s=14_400.0)


# ------------------------------------------------------- whether the harness would notice


def forgets_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobService, "_restore_unless_ended", lambda service, job: None)


def counts_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    train = Toy.train

    def twice(toy: Toy, model: Path, config: Any, data: Path, n: int, *rest: Any) -> Any:
        done = train(toy, model, config, data, n, *rest)
        seed, out, watch = rest
        return done if n < 10 else train(toy, out, config, data, n, seed, out, watch)

    monkeypatch.setattr(Toy, "train", twice)


def charges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PrivacyLedger, "_keep", lambda ledger, kept: None)


def fails_oddly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorkQueue, "status", lambda queue, visit: 1 / 0)


def homes_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HomeRequests, "_on_jobs", answers_nothing)


async def answers_nothing(home: HomeRequests, key: str, payload: bytes) -> bytes:
    return encode(JobList(jobs=()))


def homes_report_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TravelReports, "note", lambda reports, agent, entries, ended: None)


def hosts_keep_what_went_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AgentStore, "drop", lambda store, agent: None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sabotage", "words"),
    [
        (homes_forget, "was accepted, and its home has []"),
        (homes_report_nothing, "was done, and is not paid"),
        (hosts_keep_what_went_on, "has ended, and is at"),
    ],
)
def test_what_goes_wrong_with_models_that_travel_by_themselves_is_noticed(
    sabotage: Callable[[pytest.MonkeyPatch], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.faults.run._TRAVELS", 1.0)
    faults = (Fault(25.0, "kill", "home", lasts_s=1.0, size=0.05),)
    monkeypatch.setattr("tests.faults.run.drawn", lambda rng, nodes, until_s: faults)
    sabotage(monkeypatch)
    problems = run(4).problems
    assert any(words in problem for problem in problems), problems


@pytest.mark.slow
def test_a_gateway_that_answers_no_more_without_a_control_centre_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("_ALONE", 1.0), ("ALONE_S", 40.0), ("_TRAVELS", 0.0)):
        monkeypatch.setattr(f"tests.faults.run.{name}", value)
    monkeypatch.setattr("tests.faults.run.LIARS", {"gateway": 1.0})
    monkeypatch.setattr("tests.faults.run.drawn", lambda rng, nodes, until_s: ())
    monkeypatch.setattr("daitn.center.names.PLACE_LASTS_S", 30.0)
    problems = run(100).problems
    assert any("was not answered, though all is well" in one for one in problems), problems


@pytest.mark.slow
def test_a_control_centre_that_writes_when_another_one_leads_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("_STANDS_BY", 1.0), ("_TRAVELS", 0.0)):
        monkeypatch.setattr(f"tests.faults.run.{name}", value)
    # In turns, and in several networks: not each of them has something to write when it goes on.
    faults = tuple(
        Fault(10.0 + 14.0 * turn, "stop", ("center", "center-2")[turn % 2], lasts_s=8.0)
        for turn in range(5)
    )
    monkeypatch.setattr("tests.faults.run.drawn", lambda rng, nodes, until_s: faults)
    monkeypatch.setattr(Term, "fence", lambda term, connection: None)
    assert any("wrote during" in problem for seed in range(10) for problem in run(seed).problems)


def believes_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daitn.control.agreeing.agree", lambda one, other: True)


def compares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accounts, "_summed", lambda accounts, statement, new: {})


def knows_no_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UsageCompared, "overcharges", False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lies", "how", "seed", "sabotage", "words"),
    [
        ("verifier", 0.3, 0, believes_everybody, "a quorum of 2, and its model is"),
        ("gateway", liars._twice, 1, compares_nothing, "that it did not ask, and sees 0"),
        ("gateway", liars._dearly, 1, knows_no_prices, "and does not see it"),
    ],
)
def test_lies_that_come_through_are_noticed(
    lies: str,
    how: Any,
    seed: int,
    sabotage: Callable[[pytest.MonkeyPatch], None],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("LIARS", {lies: 1.0}), ("CLIENTS", ("bob",)), ("_TRAVELS", 0.0)):
        monkeypatch.setattr(f"tests.faults.run.{name}", value)
    if lies == "gateway":
        monkeypatch.setattr("tests.faults.run.drawn", lambda rng, nodes, until_s: ())
    monkeypatch.setattr("tests.faults.run._CALM", 0.0)
    monkeypatch.setattr(liars, "_ODD_VERIFIERS", 0.0)
    monkeypatch.setattr(liars, "PRAISE" if lies == "verifier" else "_CLAIMS", (how,))
    sabotage(monkeypatch)
    problems = run(seed).problems
    assert any(words in problem for problem in problems), problems


def plain(monkeypatch: pytest.MonkeyPatch, **other: Any) -> None:
    """Let a run have nothing but a few sites that train along a route, and what is given."""
    shares = dict.fromkeys(("_SUMS", "_TRAVELS", "_STANDS_BY", "_ALONE", "_WELL_PLANNED"), 0.0)
    nothing = {"_SITES": (3,), "LIARS": {"": 1.0}, "drawn": lambda rng, nodes, until_s: ()}
    for name, value in {**shares, **nothing, **other}.items():
        monkeypatch.setattr(f"tests.faults.run.{name}", value)
    monkeypatch.setattr("tests.faults.intents.DIRECTED", ("sequential",))


def asks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Probing.plan

    def planned(probing: Probing[Any], target: Any, items: Any, now_s: float, _: float) -> None:
        plan(probing, target, items, now_s, 0.0)

    monkeypatch.setattr(Probing, "plan", planned)


def suspects_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daitn.control.two_faced.ALARM", 1.0)


def hears_no_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QrrtFeed, "_attested", lambda feed, site, attestation: None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sabotage", "words"),
    [
        (asks_at_once, "is two-faced: of"),
        (suspects_everybody, "answers all alike, and is said to be two-faced"),
        (hears_no_verifier, "is two-faced, and was asked q"),
    ],
)
def test_facilities_that_answer_verifiers_better_and_are_not_found_are_noticed(
    sabotage: Callable[[pytest.MonkeyPatch], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain(monkeypatch, LIARS={"facility": 1.0}, _NAMED_WITHIN_S=50.0)
    sabotage(monkeypatch)
    problems = run(5).problems
    assert any(words in problem for problem in problems), problems


def masks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("member.pair_mask", "member.add_mask", "unmasking.pair_mask"):
        monkeypatch.setattr(f"daitn.learning.secure_sum.{name}", lambda *what, **how: None)
    hides_no_sum(monkeypatch)


def hides_no_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks of pairs alone: they cancel in the sum before its members agree to it."""
    for name in ("member", "unmasking"):
        monkeypatch.setattr(f"daitn.learning.secure_sum.{name}.add_mask", lambda *_, **how: None)


def tells_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    join = SecureSums.join

    def told(sums: SecureSums, work: MergeWork) -> Joined:
        joined = join(sums, work)
        (folder,) = sums._sums[work.visit].folders
        parts = {path.name: path.read_bytes() for path in folder.iterdir()}
        return msgspec.structs.replace(joined, parts=parts)

    monkeypatch.setattr(SecureSums, "join", told)


def names_who_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    gather = SecureSums.gather

    async def gathered(sums: SecureSums, work: MergeWork, base: Path, into: Path) -> Any:
        await gather(sums, work, base, into)
        return _terms(work, 1).members

    monkeypatch.setattr(SecureSums, "gather", gathered)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sabotage", "words"),
    [
        (masks_nothing, "is not masked"),
        (hides_no_sum, "is not masked"),
        (tells_what_it_has, "a record left its site: an update, from site"),
        (names_who_was_lost, "its lineage says"),
    ],
)
def test_secure_sums_that_are_not_secret_or_not_true_are_noticed(
    sabotage: Callable[[pytest.MonkeyPatch], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = (Fault(5.0, "leave", "site1", "masked"),)
    plain(monkeypatch, _SUMS=1.0, drawn=lambda rng, nodes, until_s: faults)
    monkeypatch.setattr("tests.faults.run.Run._leaving", lambda run: ())
    sabotage(monkeypatch)
    problems = run(0).problems
    assert any(words in problem for problem in problems), problems


@pytest.mark.slow
def test_a_merge_with_moments_of_another_model_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    first: list[ModelRef] = []

    def kept(merge: Merge) -> ModelRef:
        first.append(moments_of(merge))
        return first[0]

    monkeypatch.setattr("daitn.control.jobs.rounds.moments_of", kept)
    plain(monkeypatch)
    monkeypatch.setattr("tests.faults.intents.DIRECTED", ("fedadam",))
    problems = run(1).problems
    assert any("another model's moments" in problem for problem in problems), problems


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sabotage", "words"),
    [
        (forgets_jobs, "the control centre does not know it"),
        (counts_twice, "its lineage says"),
        (charges_nothing, "without a charge"),
        (fails_oddly, "an exception that no code expected"),
    ],
)
def test_what_must_not_be_is_noticed(
    sabotage: Callable[[pytest.MonkeyPatch], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(monkeypatch)
    faults = (Fault(25.0, "kill", "center", lasts_s=1.0, size=0.05),)
    monkeypatch.setattr("tests.faults.run.drawn", lambda rng, nodes, until_s: faults)
    monkeypatch.setattr("tests.faults.run._CALM", 0.0)
    found = World.found

    def found_private(world: World) -> None:
        world.private = set(world.data_sites)
        found(world)

    monkeypatch.setattr(World, "found", found_private)
    problems = run(5).problems
    assert any(words in problem for problem in problems), problems

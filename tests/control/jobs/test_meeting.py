"""Models of one job that walk by themselves, and are averaged where they meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.control.jobs import meeting
from daitn.control.jobs.commands import Command, StartWork
from daitn.control.jobs.job import Job
from daitn.control.jobs.machine import replay
from daitn.control.jobs.ordered import check_ordered
from daitn.control.jobs.question import route_question
from daitn.control.jobs.walkers import view_of
from daitn.control.route.next_site import NOWHERE
from daitn.identity.keys import SigningKey
from daitn.identity.orders import OrderBook, sign_order
from daitn.identity.signing import check_descent, check_lineage
from daitn.node.agents.itinerary import Itinerary
from daitn.objects.agents import Agent, DatedFact
from daitn.objects.decisions import Route
from daitn.objects.errors import Corrupt, Refused
from daitn.objects.identifiers import Digest, JobId, SiteId, VisitId
from daitn.objects.intents import Budget, Training
from daitn.objects.jobs import JobState, LeftModel, Planned, Reported, SiteLost, Submitted
from daitn.objects.lineage import (
    Entry,
    Lineage,
    LineageFact,
    Merge,
    Origin,
    Visit,
    given_to,
    left_by,
)
from daitn.objects.merging import GOSSIP_RULE, Algorithm, MergeRule
from daitn.objects.messages import MergeWork, VisitWork, Work
from daitn.objects.orders import OrderUsage, SignedOrder
from daitn.objects.roster import Kind, Member
from daitn.objects.wire import decode, encode

from .test_ordered import HERE
from .world import DECISION, INTENT, KEYS, World, failed, stop

WALKERS = 3
GOSSIP = msgspec.structs.replace(
    INTENT,
    budget=Budget(),
    training=Training(algorithm=Algorithm.GOSSIP, walkers=WALKERS),
)
ACME = SigningKey.generate()
OWNER = Member(name="acme", kind=Kind.OWNER, public_key=ACME.public, until_s=2000.0)
ORDERS = OrderBook("net", lambda: {ACME.public: OWNER}, lambda: 1000.0)
ORDER = sign_order(GOSSIP, "net", 2000.0, ACME)
SITES = {SiteId(name): key.public for name, key in KEYS.items()}
FRESH = Digest("f" * 64)
Left = dict[str, LeftModel]


class Walker(World):
    """One model of the job, and the sites where it may meet another."""

    def __init__(self, walker: int, left: Left, order: SignedOrder | None = ORDER) -> None:
        super().__init__(GOSSIP, job="qa-home-1", order=order)
        self.left = left
        self.at = "general"
        first = self.facts[0][0]
        assert isinstance(first, Submitted)
        self.facts[0] = (msgspec.structs.replace(first, walker=walker), self.facts[0][1])
        self.job.walker = walker

    def next_route(self, job: Job) -> Route | None:
        start = job.latest.model.manifest if job.latest else None
        return Route(start=start, visits=(stop(self.at),), reaches=True)

    def planned(self) -> Planned:
        left = self.left.get(self.at)
        route = self.routes(self.job)
        meets = meeting.unknown(self.job, left, route) if left and route else None
        return Planned(route=route, decision=DECISION, meets=meets)

    def fact(self, site: SiteId, work: Work) -> LineageFact:
        made = super().fact(site, work)
        if isinstance(made, Origin):  # All begin alike.
            return msgspec.structs.replace(made, model=FRESH)
        if isinstance(made, Visit):
            self.skill = dict.fromkeys(self.skill, 0.5)
        return made

    def agent(self) -> Agent:
        facts = tuple(DatedFact(at_s, event) for event, at_s in self.facts)
        job, walker = self.job.id, self.job.walker
        return Agent(job=job, home=SiteId("home"), walker=walker, facts=facts)

    def leave(self) -> None:
        """What the site keeps, as it reads it again from its disk."""
        left = Itinerary.of(self.agent()).leaves()
        assert left is not None
        self.left[self.at] = decode(encode(left), LeftModel)

    def until(self, *kinds: type[Work]) -> StartWork | None:
        """Go on until work of these kinds is to be done; none: it has ended."""

        def wanted(command: Command) -> bool:
            return isinstance(command, StartWork) and isinstance(command.work, kinds)

        while self.pending:
            if wanted(self.pending[0]):
                found = self.pending.pop(0)
                assert isinstance(found, StartWork)
                return found
            self.step()
        return None

    def visit(self, site: str) -> StartWork | None:
        """Learn at a site; returns the merge to be done there, if another left a model."""
        self.at = site
        while True:
            begun = self.until(VisitWork)
            assert begun is not None
            self.feed(Reported(self.done(begun)))
            if begun.work.models:
                break
        waiting = self.pending[0]
        if isinstance(waiting, StartWork) and isinstance(waiting.work, MergeWork):
            self.pending.pop(0)
            return waiting
        return None


def visits_of(entries: Sequence[Entry], model: Digest) -> Mapping[VisitId, int]:
    """The visits behind a model and their examples, found by going back from it: an oracle."""
    made = {left_by(e.fact): e.fact for e in entries if isinstance(e.fact, Origin | Visit | Merge)}
    found: dict[VisitId, int] = {}
    todo = [model]
    while todo:
        fact = made[todo.pop()]
        if isinstance(fact, Visit):
            found[fact.visit] = fact.examples
        todo += given_to(fact)
    return found


def check_merge(walker: Walker, begun: StartWork) -> None:
    """A site accepts it under the order; and no visit counts twice in it."""
    work = begun.work
    assert isinstance(work, MergeWork)
    order = decode(ORDER.order, type(ORDERS.read(ORDER)))
    usage = OrderUsage(order=ORDER.digest, until_s=2000.0)
    check_descent(work.lineage, None, work.job, ORDER.digest, SITES)
    check_ordered(work, order, HERE, usage)
    one, other = (visits_of(walker.job.lineage, model.manifest) for model in work.trained)
    mine, theirs = one.keys() - other.keys(), other.keys() - one.keys()
    assert mine
    assert theirs
    assert work.shares == (sum(one[v] for v in mine), sum(other[v] for v in theirs))


acts = st.tuples(
    st.integers(0, WALKERS - 1),
    st.sampled_from(list(KEYS)),
    st.sampled_from(
        ["well", "well", "well", "merge fails", "site lost", "left lost", "left again"]
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(acts, max_size=25))
def test_no_visit_counts_twice_however_models_meet(course: list[tuple[int, str, str]]) -> None:
    """Whatever fails on the way: sites lose what was left, or keep it after it was met; merges
    fail; a site is lost with what was made there."""
    left: Left = {}
    older: Left = {}
    walkers = [Walker(number, left) for number in range(WALKERS)]
    for number, site, happens in course:
        walker = walkers[number]
        if walker.job.state.final or site in walker.job.excluded:
            continue
        if happens == "left lost":
            left.pop(site, None)
        if happens == "left again" and site in older:
            left[site] = older[site]
        merge = walker.visit(site)
        if merge is not None:
            check_merge(walker, merge)
            if happens == "merge fails":
                walker.feed(Reported(failed(merge, "Corrupt", "models[1]")))
            elif happens == "site lost":
                walker.feed(SiteLost(SiteId(site)))
                assert walker.job.candidate is None
                continue
            else:
                walker.feed(Reported(walker.done(merge)))
        assert walker.job.state is JobState.VERIFYING
        older.update({site: left[site]} if site in left else {})
        walker.leave()
        assert walker.job.candidate is not None
        candidate = walker.job.candidate.model.manifest
        while walker.job.state is JobState.VERIFYING:
            walker.step()
        assert walker.job.latest is not None
        assert walker.job.latest.model.manifest == candidate
    for walker in walkers:
        check_lineage(Lineage(job=walker.job.id, entries=tuple(walker.job.lineage)))
        again = replay(walker.facts)
        assert again.lineage == walker.job.lineage
        assert again.outstanding == walker.job.outstanding
        assert again.spent_examples == walker.job.spent_examples
    shown, _ = view_of([walker.job for walker in walkers], 2000.0)
    made = {
        entry.fact.visit: entry.fact.examples
        for walker in walkers
        for entry in walker.job.lineage
        if isinstance(entry.fact, Visit)
    }
    assert shown.examples == sum(made.values()), "of all walkers together, each visit once"


def met() -> tuple[Walker, StartWork]:
    """A model that was at one site, where another finds what it left."""
    left: Left = {}
    first, second = Walker(0, left), Walker(1, left)
    assert first.visit("general") is None
    first.leave()
    merge = second.visit("general")
    assert merge is not None
    return second, merge


def test_the_average_is_measured_and_goes_on() -> None:
    walker, merge = met()
    assert walker.job.state is JobState.MERGING
    walker.feed(Reported(walker.done(merge)))
    candidate = walker.job.candidate
    assert candidate is not None
    assert candidate.merged is not None
    assert candidate.merged.rule == GOSSIP_RULE
    made_by = {e.digest: e.fact for e in walker.job.lineage}
    last = walker.job.lineage[-1]
    assert [left_by(made_by[parent]) for parent in last.previous] == list(candidate.merged.models)


def test_two_visits_of_different_walkers_have_different_names() -> None:
    walker, _ = met()
    visits = [e.fact.visit for e in walker.job.lineage if isinstance(e.fact, Visit)]
    assert len(set(visits)) == len(visits) == 2


def test_a_model_does_not_meet_itself_or_what_it_came_of() -> None:
    left: Left = {}
    first, second = Walker(0, left), Walker(1, left)
    first.visit("general")
    first.leave()
    own = left["general"]
    route = Route(start=None, visits=(stop("general"),), reaches=True)
    assert meeting.unknown(first.job, own, route) is None
    merge = second.visit("general")
    assert merge is not None
    second.feed(Reported(second.done(merge)))
    assert meeting.unknown(second.job, own, route) is None, "it has learned all of that"


def test_what_would_bind_the_model_more_is_left_alone() -> None:
    left: Left = {}
    first, second = Walker(0, left), Walker(1, left)
    first.visit("general")
    first.leave()
    kept = left["general"]
    *before, last = kept.entries
    bound = msgspec.structs.replace(
        last, fact=msgspec.structs.replace(last.fact, release_to=("DE",))
    )
    left["general"] = msgspec.structs.replace(kept, entries=(*before, bound))
    assert second.visit("general") is None
    assert second.job.state is JobState.VERIFYING
    assert not carried(second), "what is of no use is not carried along"


def carried(walker: Walker) -> list[LeftModel]:
    planned = (event for event, _ in walker.facts if isinstance(event, Planned))
    return [event.meets for event in planned if event.meets is not None]


def test_a_lineage_that_is_too_much_to_carry_is_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(meeting, "MOST_LINEAGE_BYTES", 100)
    left: Left = {}
    first, second = Walker(0, left), Walker(1, left)
    first.visit("general")
    first.leave()
    assert second.visit("general") is None
    assert not carried(second)


def signed_by_acme(text: bytes) -> SignedOrder:
    signature = ACME.sign(b"daitn order 1\0" + text)
    return SignedOrder(order=text, public_key=ACME.public, signature=signature)


def test_an_order_from_before_a_field_was_added_is_in_force() -> None:
    plain = msgspec.msgpack.decode(sign_order(INTENT, "net", 2000.0, ACME).order)
    del plain["intent"]["training"]["walkers"]
    text = msgspec.msgpack.encode(plain)
    assert ORDERS.read(signed_by_acme(text)).intent == INTENT
    doubled = bytes([text[0] + 1]) + text[1:] + b"\xa6number\xa1x"
    with pytest.raises(Corrupt, match="canonical"):
        ORDERS.read(signed_by_acme(doubled))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"shares": (100, 101)}, "count for more"),
        ({"rule": MergeRule()}, "way of merging"),
        ({"part": True}, "way of merging"),
    ],
)
def test_a_site_refuses_a_meeting_that_its_owner_did_not_order(
    changes: dict[str, object], why: str
) -> None:
    _, merge = met()
    order, usage = ORDERS.read(ORDER), OrderUsage(order=ORDER.digest, until_s=2000.0)
    check_ordered(merge.work, order, HERE, usage)
    with pytest.raises(Refused, match=why):
        check_ordered(msgspec.structs.replace(merge.work, **changes), order, HERE, usage)
    other = msgspec.structs.replace(order, intent=INTENT)
    with pytest.raises(Refused, match="rule of merging"):
        check_ordered(merge.work, other, HERE, usage)


def test_a_recipe_that_cannot_average_ends_the_job_with_its_reason() -> None:
    walker, merge = met()
    walker.feed(Reported(failed(merge, "InvalidInput", "training.algorithm")))
    assert walker.job.state is JobState.FAILED
    assert walker.job.error is not None
    assert walker.job.error.field == "training.algorithm"


def test_each_has_its_part_of_the_budget_and_all_of_the_time() -> None:
    intent = msgspec.structs.replace(
        GOSSIP, budget=Budget(duration_s=60.0, examples=1000, cost_usd=3.0)
    )
    job = World(intent).job
    assert job.budget == Budget(duration_s=60.0, examples=333, cost_usd=1.0)
    assert route_question(job, NOWHERE, 0.0).intent.budget == job.budget
    least = World(msgspec.structs.replace(GOSSIP, budget=Budget(examples=WALKERS))).job
    assert route_question(least, NOWHERE, 0.0).intent.budget == Budget(examples=1)


def test_facts_of_another_walker_are_not_taken() -> None:
    walker = Walker(1, {})
    agent = walker.agent()
    assert Itinerary.of(agent).job.walker == 1
    for number in (0, 2):
        with pytest.raises(Corrupt):
            Itinerary.of(msgspec.structs.replace(agent, walker=number))
    beyond = Walker(WALKERS, {}).agent()
    with pytest.raises(Corrupt):
        Itinerary.of(beyond)


@given(st.binary(max_size=400))
def test_what_was_left_is_read_or_corrupt(data: bytes) -> None:
    try:
        decode(data, LeftModel)
    except Corrupt as error:
        assert "LeftModel" in error.problem


@settings(deadline=None)
@given(st.data())
def test_a_damaged_agent_is_read_or_corrupt(data: st.DataObject) -> None:
    """One byte of a walker's packet that met another: no other error than `Corrupt`."""
    walker, merge = met()
    walker.feed(Reported(walker.done(merge)))
    sent = bytearray(encode(walker.agent()))
    at = data.draw(st.integers(0, len(sent) - 1))
    sent[at] = data.draw(st.integers(0, 255))
    try:
        Itinerary.of(decode(bytes(sent), Agent))
    except Corrupt as error:
        assert error.problem


def test_the_whole_is_reached_as_soon_as_one_has() -> None:
    one, other = Walker(0, {}), Walker(1, {})
    one.visit("general")
    one.skill = dict.fromkeys(one.skill, 0.95)
    while one.job.state is JobState.VERIFYING:
        one.step()
    other.visit("specialist")
    shown, best = view_of([other.job, one.job], 2000.0)
    assert shown.state is JobState.REACHED
    assert best is one.job
    assert shown.model == one.job.best.model if one.job.best else False
    assert shown.examples == one.job.spent_examples + other.job.spent_examples
    assert JobId(shown.job) == one.job.id

"""What models that travel by themselves used: in the ledger once, however their homes report it."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.center.travels import TravelAccounts
from daitn.control.accounting.checking import Checker
from daitn.control.jobs.commands import StartWork
from daitn.identity.keys import SigningKey
from daitn.identity.orders import OrderBook, sign_order
from daitn.identity.signing import sign_entry
from daitn.objects.accounts import LedgerEntry, LedgerQuestion
from daitn.objects.agents import Agent, DatedFact, TravelReceipt
from daitn.objects.descriptors import Role
from daitn.objects.errors import Corrupt, DaitnError, Refused
from daitn.objects.identifiers import JobId, SiteId
from daitn.objects.jobs import Reported
from daitn.objects.lineage import Merge, Verification, Visit
from daitn.objects.messages import WorkOutcome, WorkState
from daitn.objects.orders import SignedOrder
from daitn.objects.roster import Kind, Member
from daitn.objects.wire import decode, encode
from daitn.tools.fabric.caller import speaking
from daitn.tools.journal.memory import MemoryJournal
from tests.control.jobs.prices import HOURS_USD, is_believed, run
from tests.control.jobs.world import INTENT, KEYS, VERIFIERS, World

ACME, HOME_KEY = SigningKey.generate(), SigningKey.generate()
SITES = {**KEYS, **VERIFIERS, "home": HOME_KEY, "east": SigningKey.generate()}
MEMBERS = {
    ACME.public: Member(name="acme", kind=Kind.OWNER, public_key=ACME.public, until_s=2000.0),
    **{
        key.public: Member(
            name=name, kind=Kind.SITE, public_key=key.public, until_s=2000.0, roles=(Role.DATA,)
        )
        for name, key in SITES.items()
    },
}
ORDERS = OrderBook("net", lambda: MEMBERS, lambda: 5000.0)
"""At a time at which the orders below have ended: a model may come home late."""


def travelled(order: SignedOrder | None = None, home: str = "home", seed: int = 0) -> Agent:
    """A job at its end, whose visits have prices of data and of computing."""
    world = World(job=f"qa-{home}-1", order=order)
    run(world, random.Random(seed))
    facts = tuple(DatedFact(at_s, event) for event, at_s in world.facts)
    return Agent(job=world.job.id, home=SiteId(home), facts=facts)


def ordered(**changes: object) -> SignedOrder:
    return sign_order(msgspec.structs.replace(INTENT, **changes), "net", 2000.0, ACME)


def accounts(
    journal: MemoryJournal,
    orders: OrderBook | None = None,
    known: dict[str, SigningKey] = SITES,
    *,
    is_ordered: bool = False,
) -> TravelAccounts:
    def key_of(site: SiteId) -> str | None:
        return known[site].public if site in known else None

    return TravelAccounts(journal, orders, key_of, lambda order: is_ordered)


async def told(center: TravelAccounts, agent: Agent, by: str = "home") -> int:
    member = Member(name=by, kind=Kind.SITE, public_key="", until_s=2000.0)
    with speaking(member):
        answer = await center.on_travelled("", encode(agent))
    return decode(answer, TravelReceipt).entries


def entries(journal: MemoryJournal) -> list[LedgerEntry]:
    return [line.entry for line in journal.ledger(LedgerQuestion())]


def until(agent: Agent, facts: int) -> Agent:
    return msgspec.structs.replace(agent, facts=agent.facts[:facts])


class Dying(MemoryJournal):
    """A control centre that dies some times, just before a write or just after it."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.fates = [rng.choice(["before", "after", ""]) for _ in range(9)]

    def post(self, *given: object) -> None:
        fate = self.fates.pop() if self.fates else ""
        if fate != "before":
            super().post(*given)  # type: ignore[arg-type]
        if fate:
            raise DaitnError("it died")


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False))
async def test_the_ledger_has_what_travelling_models_used_once(rng: random.Random) -> None:
    """Reports come late, twice, in any order, and the control centre dies: against a recount from
    what sites signed."""
    agent = travelled(seed=rng.randint(0, 99))
    journal = Dying(rng)
    sent = [until(agent, rng.randint(1, len(agent.facts))) for _ in range(rng.randint(0, 6))]
    for one in [*sent, agent]:
        while True:
            try:
                await told(accounts(journal), one)
                break
            except DaitnError as error:
                assert str(error).startswith("it died")
    posted = {entry.cause: entry for entry in entries(journal)}
    outcomes = [f.event.outcome for f in agent.facts if isinstance(f.event, Reported)]
    facts = [o.entry.fact for o in outcomes if o.state is WorkState.DONE and o.entry is not None]
    paid = (fact for fact in facts if isinstance(fact, Visit | Merge | Verification))
    counted = [fact for fact in paid if is_believed(fact)]
    assert len(posted) == len(counted) == len(entries(journal)) > 3
    for fact in counted:
        entry = next(e for e in posted.values() if e.cause.endswith(f"/{fact.visit}"))
        assert {one.account for one in entry.postings} == {"owner/acme", f"site/{fact.site}"}
        assert entry.quantities.bytes_moved == fact.bytes_in
        usd = 0.5 if isinstance(fact, Visit) else 0.0
        if usd and fact.seconds in (0.25, 2.0):
            usd += HOURS_USD[fact.site] * fact.seconds / 3600
            assert abs(entry.on([f"site/{fact.site}"]) - 1e6 * usd) <= 0.5
        assert entry.on([f"site/{fact.site}"]) >= 1e6 * usd - 0.5
    checker = Checker()
    for line in journal.ledger(LedgerQuestion()):
        checker.take(line)
    assert checker.ended(journal.accounts()) == ()
    assert sum(journal.accounts().values()) == 0


async def test_an_owner_pays_what_it_ordered_at_the_home_where_it_did() -> None:
    order, journal = ordered(), MemoryJournal()
    center = accounts(journal, ORDERS)
    agent = travelled(order)
    assert await told(center, until(agent, 1)) == 0  # It sets out.
    copy = travelled(order, home="east")
    with pytest.raises(Refused, match="has started another job"):
        await told(center, copy, "east")
    with pytest.raises(Refused, match="claims to be home"):
        await told(center, agent, "east")
    assert entries(journal) == []
    count = await told(center, agent)
    assert count == len(entries(journal)) > 3
    with pytest.raises(Refused, match="has started another job"):
        await told(accounts(MemoryJournal(), ORDERS, is_ordered=True), agent)
    for refused in (None, ordered(purpose="other"), sign_order(INTENT, "net", 1.0, HOME_KEY)):
        with pytest.raises(Refused):
            await told(accounts(MemoryJournal(), ORDERS), travelled(refused))
    event, at_s = World(job="qa-1", order=order).facts[0]
    of_center = Agent(job=JobId("qa-1"), home=SiteId("home"), facts=(DatedFact(at_s, event),))
    with pytest.raises(Refused, match="not a job of home"):
        await told(center, of_center)
    with pytest.raises(Corrupt):
        await told(center, msgspec.structs.replace(agent, facts=agent.facts[1:]))


class Forging(World):
    """What is told of one site is signed by nobody, or by another."""

    def done(self, start: StartWork) -> WorkOutcome:
        outcome = super().done(start)
        assert outcome.entry is not None
        if start.site != "general":
            return outcome
        other = sign_entry(outcome.entry.fact, outcome.entry.previous, HOME_KEY)
        if len(self.facts) % 2:
            other = msgspec.structs.replace(other, public_key=outcome.entry.public_key)
        return msgspec.structs.replace(outcome, entry=other)


async def test_work_that_no_site_of_the_network_signed_costs_nothing() -> None:
    journal, world = MemoryJournal(), Forging(job="qa-home-1")
    world.run()
    facts = tuple(DatedFact(at_s, event) for event, at_s in world.facts)
    agent = Agent(job=world.job.id, home=SiteId("home"), facts=facts)
    known = {name: key for name, key in SITES.items() if name != "mpvu-broad"}
    await told(accounts(journal, known=known), agent)
    seen = {one.account for entry in entries(journal) for one in entry.postings}
    assert seen == {"owner/acme", "site/specialist", "site/mpvu-expert"}
    assert len(entries(journal)) < len(world.job.entries)
    assert all(entry.cause.startswith("home/") for entry in entries(journal))

"""The ledger: what facts of jobs and statements of gateways cost is there once, however it ends."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import msgspec
import pytest
from blake3 import blake3

from daitn.center.accounts import Accounts
from daitn.center.jobs import JobService
from daitn.center.stored_events import StoredEvent
from daitn.control.jobs.commands import Command
from daitn.control.jobs.job import Job
from daitn.control.jobs.machine import replay
from daitn.identity.keys import SigningKey
from daitn.identity.signing import sign_usage
from daitn.objects.accounts import AccountQuestion, EntryKind, LedgerEntry, LedgerQuestion
from daitn.objects.descriptors import Role
from daitn.objects.errors import Corrupt, StorageFull, Unreachable
from daitn.objects.identifiers import JobId, OwnerId, SiteId
from daitn.objects.intents import Training
from daitn.objects.jobs import Submitted
from daitn.objects.usage import (
    Count,
    UsageCompared,
    UsageKey,
    UsageList,
    UsageReceipt,
    UsageRow,
    UsageSide,
    UsageStatement,
)
from daitn.objects.wire import decode, encode
from daitn.tools.journal.memory import MemoryJournal
from daitn.tools.journal.protocol import Journal
from tests.control.jobs.world import INTENT, World


def world() -> World:
    intent = msgspec.structs.replace(INTENT, training=Training(credits_usd=5.0))
    made = World(intent, at_s=time.time() - 600)
    made.run()
    return made


def entries(journal: MemoryJournal) -> list[LedgerEntry]:
    return [line.entry for line in journal.ledger(LedgerQuestion())]


def untimed(found: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    return [msgspec.structs.replace(one, at_s=0.0) for one in found]


async def acted(job: Job, command: Command) -> None:
    """Nothing is done."""


async def test_facts_of_an_earlier_version_are_posted_at_the_start_and_not_again() -> None:
    made, journal = world(), MemoryJournal()
    stored = [encode(StoredEvent(event, at_s)) for event, at_s in made.facts]
    journal.append(made.job.id, 0, stored, 0.0)
    for _ in range(2):
        service = JobService(journal, acted, lambda view: None)
        service.start()
        assert entries(journal) == replay(made.facts).entries
        await service.close()


class FullNowAndThen(MemoryJournal):
    """A journal whose every third append fails."""

    appends = 0

    def append(
        self,
        job: JobId,
        expected_seq: int,
        events: Sequence[bytes],
        at_s: float,
        entries: Sequence[LedgerEntry] = (),
    ) -> int:
        self.appends += 1
        if self.appends % 3 == 0:
            raise StorageFull("no room")
        return super().append(job, expected_seq, events, at_s, entries)


async def test_an_event_that_is_not_stored_costs_nothing_until_it_is() -> None:
    made, journal = world(), FullNowAndThen()
    service = JobService(journal, acted, lambda view: None)
    service.start()
    failed = 0
    for event, _ in made.facts:
        while True:
            try:
                if isinstance(event, Submitted):
                    service.submit(event)
                else:
                    service.feed(made.job.id, event)
                break
            except StorageFull:
                failed += 1
        assert untimed(entries(journal)) == untimed(service.get(made.job.id).entries)
    await service.close()
    assert failed > 2
    assert untimed(entries(journal)) == untimed(made.job.entries)
    kinds = {entry.kind for entry in entries(journal)}
    assert kinds >= {EntryKind.POOL, EntryKind.CREDITS, EntryKind.VISIT, EntryKind.MEASUREMENT}
    assert sum(journal.accounts().values()) == 0


class Mute(MemoryJournal):
    """A journal that, for a while, writes and does not say so."""

    mute = False

    def post(
        self,
        entries: Sequence[LedgerEntry],
        records: Mapping[tuple[str, str], bytes] | None = None,
    ) -> None:
        super().post(entries, records)
        if self.mute:
            raise Unreachable("the database is away", field="database", fix="start it")


KIND = UsageKey(OwnerId("ann"), OwnerId("bob"), "qa-1", SiteId("mdf"), 1.0, 2.0)


def accounts_of(journal: Journal, gate: SigningKey) -> Accounts:
    """A ledger that one gateway reports to."""
    accounts = Accounts(
        journal,
        SigningKey.generate(),
        lambda site: gate.public,
        lambda site: OwnerId("gate"),
        lambda site: (Role.GATEWAY,),
    )
    accounts.start()
    return accounts


async def test_answers_are_paid_once_though_the_journal_did_not_say_that_it_has_them() -> None:
    """A gateway states all of them again, in a later statement with those that came since."""
    journal, key, gate = Mute(), SigningKey.generate(), SiteId("gate")
    accounts = accounts_of(journal, key)
    counted = Count(2, 200, 300), Count(3, 300, 400), Count(5, 400, 500)
    for number, (count, journal.mute) in enumerate(
        zip(counted, (True, True, False), strict=True), 1
    ):
        statement = UsageStatement(
            site=gate,
            side=UsageSide.GATEWAY,
            series=1,
            number=number,
            at_s=1.0,
            rows=(UsageRow(KIND, count),),
        )
        with nullcontext() if not journal.mute else pytest.raises(Unreachable):
            await accounts.on_usage("", encode(sign_usage(statement, key)))
    paid = [entry.quantities for entry in entries(journal)]
    assert [one.answers for one in paid] == [2, 1, 2]
    (compared,) = decode(
        await accounts.on_metered("", encode(AccountQuestion())), UsageList
    ).compared
    assert compared.by_gateway == counted[-1]


async def test_a_gateway_of_a_later_release_is_answered_what_it_stated() -> None:
    """Else it would take the answer for one about other counts, and begin to count anew."""
    journal, key = MemoryJournal(), SigningKey.generate()
    accounts = accounts_of(journal, key)
    statement = UsageStatement(
        site=SiteId("gate"), side=UsageSide.GATEWAY, series=1, number=1, at_s=1.0,
        rows=(UsageRow(KIND, Count(2, 20, 30)),),
    )  # fmt: skip
    plain = msgspec.msgpack.decode(encode(statement))
    plain["rows"][0]["count"]["images"] = 3
    text = encode(plain)
    signature = key.sign(b"daitn usage 1\0" + text)
    sent = encode({"statement": plain, "signature": signature})
    receipt = decode(await accounts.on_usage("", sent), UsageReceipt)
    assert receipt.digest == blake3(text).hexdigest() != statement.digest
    (entry,) = entries(journal)
    assert entry.quantities.answers == 2
    (kept,) = journal.all("usage-statement").values()
    (signed, _) = msgspec.msgpack.decode(kept)
    assert (encode(signed["statement"]), signed["signature"]) == (text, signature)
    with pytest.raises(Corrupt):
        await accounts.on_usage("", sent.replace(b"images", b"videos"))


async def test_a_gateway_that_charges_more_than_the_price_is_seen_though_its_counts_are_true() -> (
    None
):
    journal, key = MemoryJournal(), SigningKey.generate()

    def opened() -> Accounts:
        accounts = Accounts(
            journal,
            SigningKey.generate(),
            lambda site: key.public,
            lambda site: OwnerId(""),
            lambda site: (Role.GATEWAY, Role.FACILITY),
        )
        accounts.start()
        return accounts

    async def state(side: UsageSide, peer: str, number: int, answers: int, written: float) -> None:
        kind = UsageKey(OwnerId("ann"), OwnerId("bob"), "qa-1", SiteId(peer), 1.0, written)
        statement = UsageStatement(
            site=SiteId("gate" if peer == "mdf" else "mdf"), side=side, series=1, number=number,
            at_s=1.0, rows=(UsageRow(kind, Count(answers, 10, 10)),),
        )  # fmt: skip
        await accounts.on_usage("", encode(sign_usage(statement, key)))

    async def compared() -> UsageCompared:
        asked = encode(AccountQuestion())
        (one,) = decode(await accounts.on_metered("", asked), UsageList).compared
        return one

    accounts = opened()
    await state(UsageSide.GATEWAY, "mdf", 1, 1, 2.0)
    await state(UsageSide.FACILITY, "gate", 1, 1, 2.0)
    assert (await compared()).agrees
    await state(UsageSide.GATEWAY, "mdf", 2, 1, 6.0)
    await state(UsageSide.FACILITY, "gate", 2, 2, 2.0)
    accounts = opened()  # What a restart knows.
    both = await compared()
    assert both.by_facility is not None
    assert both.by_gateway.answers == both.by_facility.answers == 2
    assert both.overcharges
    assert not both.agrees
    assert (both.prices_by_gateway, both.prices_by_facility) == ((1.0, 6.0), (1.0, 2.0))

"""What must hold where members lie: no quorum is misled and no honest verifier named, and whoever
is charged for what it did not ask, or did not agree to, can see that."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING

from daitn.objects.accounts import AccountQuestion, LedgerEntry
from daitn.objects.jobs import JobState, JobView
from daitn.objects.lineage import Entry, Verification
from daitn.objects.usage import UsageList
from daitn.objects.wire import decode, encode
from tests.faults.asking import PRICES_USD_PER_1K
from tests.faults.toy import Learned, accuracy
from tests.faults.world import OWNERS

if TYPE_CHECKING:
    from tests.faults.run import Run
    from tests.faults.world import World

__all__ = ["charged", "two_faced", "untrue"]

_STEP = 0.0051
"""Values leave verifiers rounded down by up to five of a thousand items."""
_APART = 0.08
"""Values of 1,000 items that are further apart than this were not measured of one model: 3.29
standard errors of their difference, where it is largest, and a step."""
_TOLD_WITHIN_S = 10.0
"""Once a verifier says that a facility is two-faced, gateways know it within this."""


def untrue(
    world: World,
    job: JobView,
    known: Learned,
    entries: Iterable[Entry],
    at_least: float,
    quorum: int,
) -> Iterator[str]:
    """What verifiers signed of a job's best model, beside what it learned: the model is as good as
    is said, unless a verifier that lies decided that alone."""
    assert job.model is not None
    facts = [entry.fact for entry in entries if isinstance(entry.fact, Verification)]
    measured = [fact for fact in facts if fact.model == job.model.manifest]
    true, liars = accuracy(known, len(world.data_sites)), world.lab.praises
    honest = [fact for fact in measured if fact.site not in liars]
    lies = [fact for fact in measured if fact.site in liars]
    for fact in honest:
        if not true - _STEP <= fact.value <= true + 1e-9:
            yield f"{fact.site} measured {fact.value:.3f} of a model that is {true:.3f}"
    # Of two that agree, the value in the middle is as far from the truth as half of the lie.
    slack = _APART / 2 if lies else 1e-9
    if job.state is JobState.REACHED and true < at_least - slack and (quorum > 1 or not lies):
        who = f", a quorum of {quorum}" if quorum > 1 else ""
        yield f"it is said to have reached {at_least}{who}, and its model is {true:.3f}"
    named = {one.site for one in job.disagreements}
    if quorum > 1 and (slandered := named - liars.keys()):
        yield f"honest verifiers are said to contradict: {', '.join(sorted(slandered))}"
    if quorum > 1 and len(honest) >= quorum:
        seen_through = {fact.site for fact in lies if fact.value - true > _APART}
        if missed := seen_through - named:
            yield f"nobody says that {', '.join(sorted(missed))} contradicts the others"


async def charged(run: Run) -> AsyncIterator[str]:
    """No more answers are paid than were asked, and at no other price than that of the model,
    unless a gateway lies; then who is charged sees it, and the gateway gains nothing."""
    lines = run.world.database.kept._lines
    answers = [line.entry for line in lines if str(line.entry.kind) == "answers"]
    for entry in answers:
        for posting in entry.postings:
            if posting.account.startswith("gateway/") and posting.micro_usd > 0:
                yield f"{posting.account} gained {posting.micro_usd} micro-USD by {entry.cause}"
    asked, begun = Counter[str](), Counter[str]()
    if (asker := run.asker) is not None:
        asked[asker.client] = sum(
            query.status in (0, 200) or query.broken for query in asker.queries
        )
        # A facility counts what it began for a gateway that then took another one's answer.
        texts = {query.text for query in asker.queries}
        begun[asker.client] = sum(one.text in texts for one in run.world.lab.examined.answered)
    for owner in OWNERS:
        mine = [entry for entry in answers if _asked_by(entry) == owner]
        paid = sum(entry.quantities.answers for entry in mine)
        excess = paid - asked[owner]
        dear = [entry for entry in mine if _paid(entry, owner) > _price(entry)]
        if excess <= 0 and not dear:
            continue
        if run.lies != "gateway":
            yield f"{owner} paid for {excess} answers that it did not ask, {len(dear)} too dearly"
            continue
        given = decode(await run._ask(owner, "metered", encode(AccountQuestion())), UsageList)
        rows = [row for row in given.compared if row.owner == owner]
        unconfirmed = sum(
            row.by_gateway.answers - (row.by_facility.answers if row.by_facility else 0)
            for row in rows
        )
        if unconfirmed < paid - max(asked[owner], begun[owner]):
            yield f"{owner} paid for {excess} answers that it did not ask, and sees {unconfirmed}"
        if dear and all(row.agrees for row in rows):
            yield f"{owner} paid {len(dear)} times more than the price, and does not see it"


def two_faced(run: Run) -> Iterator[str]:
    """Who answers verifiers better than others is named in time, and then asked by no client that
    lets its gateway choose; nobody else is named."""
    examined, asker = run.world.lab.examined, run.asker
    for facility in sorted(run.two_faced_since_s.keys() - examined.two_faced):
        yield f"{facility} answers all alike, and is said to be two-faced"
    if asker is None:
        return
    for facility in sorted(run.to_be_named):
        answered = [one for one in examined.answered if one.facility == facility]
        since_s = run.two_faced_since_s.get(facility)
        if since_s is None:
            alone, together = (
                [one.right for one in answered if one.tests and one.together is whole]
                for whole in (False, True)
            )
            yield (
                f"nobody says that {facility} is two-faced: of {len(alone)} questions alone it "
                f"knew {sum(alone)}, of {len(together)} together {sum(together)}"
            )
            continue
        told_s = since_s + _TOLD_WITHIN_S
        steered = {query.text for query in asker.queries if query.by_packet}
        for one in answered:
            if not one.tests and one.at_s > told_s and one.text not in steered:
                yield f"{facility} is two-faced, and was asked {one.text}"


def _asked_by(entry: LedgerEntry) -> str:
    """An answer's entry is named by gateway/SITE/SERIES/NUMBER/OWNER/...: see `_answers`."""
    return entry.cause.split("/")[4]


def _paid(entry: LedgerEntry, owner: str) -> int:
    """Micro-USD that an owner paid."""
    account = f"owner/{owner}"
    return -sum(min(0, one.micro_usd) for one in entry.postings if one.account == account)


def _price(entry: LedgerEntry) -> float:
    """Micro-USD that the answers of an entry cost at most."""
    used, (read, written) = entry.quantities, PRICES_USD_PER_1K
    return 1000 * (used.tokens_in * read + used.tokens_out * written) + 1.0

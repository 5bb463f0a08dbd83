"""What must hold when a run is over, found without the product's own code where that matters: from
what owners were told, the bytes of the journal, the files of the sites, and the models themselves.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from blake3 import blake3

from daitn.node.audit import verify
from daitn.objects.accounts import LedgerEntry
from daitn.objects.errors import DaitnError
from daitn.objects.identifiers import CENTER_SITE, Digest, SiteId
from daitn.objects.jobs import JobView
from daitn.objects.lineage import Entry, Merge, Origin, Visit
from daitn.objects.requests import JobQuery, TrainedModel
from daitn.objects.wire import canonical, decode, encode
from daitn.tools.mobility.memory import MemoryBlobStore
from daitn.tools.mobility.transport import ChunkTransport
from tests.faults.asking import expected
from tests.faults.summing import SUMMED, Vector, as_summed
from tests.faults.toy import Learned
from tests.faults.travels import travelled
from tests.faults.truth import charged, two_faced, untrue
from tests.faults.weather import ALONE_S

if TYPE_CHECKING:
    from tests.faults.run import Run, Submission

__all__ = ["problems"]

_START = "0" * 64


async def problems(run: Run) -> list[str]:
    """What is wrong, each in a sentence; none: all is well."""
    found = [f"an exception that no code expected: {text}" for text in run.unexpected]
    found += [f"a process does not start: {why}" for why in run.world.failed_starts]
    found += [f"a record left its site: {leak}" for leak in run.world.network.seen.leaks]
    found += run.world.database.wrong
    found += run.world.lab.sums.wrong
    found += two_faced(run)
    found += _jobs(run)
    found += travelled(run)
    found += _ledger(run)
    found += _audits(run)
    found += _privacy(run)
    found += _answers(run)
    found += _dashboard(run)
    found += [problem async for problem in charged(run)]
    found += [problem async for problem in _models(run)]
    return found


def _jobs(run: Run) -> Iterator[str]:
    """No accepted job is lost, none occurs twice, and each has ended and says why."""
    stored = _stored(run)
    for one in run.submissions:
        if one.accepted is None and not one.refused:
            yield f"the order of {one.intent.name} was neither accepted nor refused"
        if one.home:
            continue
        mine = [job for job, events in stored.items() if _order_of(events[0]) == _signature(one)]
        if len(mine) > 1:
            yield f"one order is several jobs: {', '.join(mine)}"
        if one.accepted is None:
            continue
        if mine != [one.accepted]:
            yield f"{one.accepted} was accepted, and the journal has {mine}"
        elif one.accepted not in run.shown:
            yield f"{one.accepted} is in the journal, and the control centre does not know it"
    for job in (*run.shown.values(), *run.travelled.values()):
        if not job.state.final:
            yield f"{job.job} has not ended: it is {job.state}, {job.detail or job.sentence}"
        elif str(job.state) not in ("reached", "cancelled") and not (job.detail or job.error):
            yield f"{job.job} is {job.state} and does not say why"
        yield from _in_time(run, job)
        if not run.outcome.faults and (blamed := _blamed(run, job)):
            yield f"{job.job} goes on without {', '.join(blamed)}, which did nothing wrong"


def _blamed(run: Run, job: JobView) -> list[str]:
    """Honest sites that a job has given up, though nothing went wrong but that others lie. A site
    that may reveal no more is not blamed for that."""
    spent = {
        site for site in job.excluded if f"{site} (the job has spent its epsilon" in job.detail
    }
    return sorted(set(job.excluded) - spent - run.world.liars.keys())


def _in_time(run: Run, job: JobView) -> Iterator[str]:
    """A job ends when its time is up, even in trouble, but for as long as its centre is away."""
    submission = next((one for one in run.submissions if one.accepted == job.job), None)
    limit_s = submission.intent.budget.duration_s if submission else None
    # Where the clock was set forward between two lives, that much time has passed for the centre.
    away_s = ALONE_S if run.alone and not (submission and submission.home) else 0.0
    if limit_s is not None and job.seconds > limit_s + 150.0 + run.world.leapt_s + away_s:
        yield f"{job.job} took {job.seconds:.0f} s of {limit_s:.0f} s"


def _stored(run: Run) -> dict[str, list[dict[str, Any]]]:
    """The journal's events, as plain data."""
    journal = run.world.database.kept
    return {
        job: [msgspec.msgpack.decode(event) for event in journal.events(job)]
        for job in journal.jobs()
    }


def _order_of(stored: dict[str, Any]) -> str:
    return str((stored["event"].get("order") or {}).get("signature", ""))


def _signature(one: Submission) -> str:
    return one.order.signature


def _ledger(run: Run) -> Iterator[str]:
    """Every entry sums to zero and follows the one before it, and no fact is in it twice: each
    visit that a job's lineage has, once."""
    lines = run.world.database.kept._lines
    digest, sums, causes = _START, Counter[str](), Counter[str]()
    for number, line in enumerate(lines, 1):
        entry = line.entry
        if line.number != number:
            yield f"line {line.number} of the ledger is the {number}th"
        if sum(posting.micro_usd for posting in entry.postings):
            yield f"{entry.cause} does not sum to zero"
        causes[entry.cause] += 1
        for posting in entry.postings:
            sums[posting.account] += posting.micro_usd
        digest = _follows(digest, entry)
        if line.digest != digest:
            yield f"line {number} of the ledger does not follow the one before it"
    yield from (f"{cause} is in the ledger {n} times" for cause, n in causes.items() if n > 1)
    if sum(sums.values()):
        yield f"the ledger does not balance: {dict(sums)}"
    done = _done(run)
    visits = Counter(cause.partition("/")[2] for cause in causes if cause.startswith("visit/"))
    for visit in sorted(visits.keys() - done):
        yield f"the visit {visit} was paid and never reported as done"
    # Measuring coalitions goes on for a quarter of an hour after a job's end.
    measured = any(one.intent.training.contributions == "shapley" for one in run.submissions)
    pools = sums["network"]
    if pools and not measured and all(job.state.final for job in run.shown.values()):
        yield f"all jobs have ended, and {pools} micro-USD of their pools are left"


def _follows(before: str, entry: LedgerEntry) -> str:
    """BLAKE3 of the digest before it and of its own, as bytes: see `objects/audit.py`."""
    return blake3(bytes.fromhex(before) + blake3(canonical(entry)).digest()).hexdigest()


def _done(run: Run) -> set[str]:
    """Work that was reported as done, by the journal's events."""
    outcomes = (
        stored["event"]["outcome"]
        for events in _stored(run).values()
        for stored in events
        if stored["event"].get("type") == "reported"
    )
    return {outcome["visit"] for outcome in outcomes if outcome["state"] == "done"}


def _audits(run: Run) -> Iterator[str]:
    """Each site's log is a chain without a break."""
    for site in run.world.nodes:
        folder = run.world.state(site) / "audit"
        if any(folder.glob("*.jsonl")):
            try:
                verify(folder)
            except DaitnError as error:
                yield f"the audit log of {site}: {error}"


def _privacy(run: Run) -> Iterator[str]:
    """What read records privately was charged, once, before it did."""
    from daitn.node.training.privacy_ledger import ledgers

    for site in run.world.data_sites:
        drawn = run.world.lab.draws.get(site, set())
        charges = [charge for ledger in ledgers(run.world.state(site)) for charge in ledger.charges]
        key = run.world.key(site)
        secrets = [key.sign_raw(b"draws of a private visit " + one.nonce) for one in charges]
        if len(set(secrets)) < len(secrets):
            yield f"{site} charged the same draws twice"
        if unpaid := drawn - set(secrets):
            yield f"{site} trained privately {len(unpaid)} times without a charge"
        spare = len(set(secrets) - drawn)
        if spare > run.world.lives[site] + len(run.outcome.faults):
            lives = run.world.lives[site]
            yield f"{site} charged {spare} visits that read nothing, in {lives} lives"


def _answers(run: Run) -> Iterator[str]:
    """No piece of an answer came twice or of another one, and each answer ended once. Once all is
    well, all is answered."""
    asker = run.asker
    if asker is None or not asker.name:
        return
    if not asker.ready_at_end:
        yield f"{asker.name} is not ready everywhere, though all is well"
    for query in asker.queries:
        whole = expected(query)
        if query.status == 200 and not whole.startswith(query.heard):
            yield f"the answer to {query.text} is {query.heard!r}"
        if query.ended > 1:
            yield f"the answer to {query.text} ended {query.ended} times"
        if query.ended and query.heard != whole and not query.broken:
            yield f"the answer to {query.text} ended with {query.heard!r}"
    if asker.ready_at_end and asker.calm_from is not None:
        for query in asker.queries[asker.calm_from : -3]:
            if query.status != 200 or not query.ended:
                yield f"{query.text} was not answered, though all is well: {query}"


def _dashboard(run: Run) -> Iterator[str]:
    """A dashboard that was open all the time shows each job as it is, and no event came twice."""
    if run.dashboard is None:
        return
    yield from (f"a dashboard's events: {wrong}" for wrong in run.dashboard.wrong)
    for job in run.shown.values():
        state = run.dashboard.states.get(job.job)
        if job.state.final and state != str(job.state):
            yield f"a dashboard shows {job.job} as {state}, and it is {job.state}"


async def _models(run: Run) -> Any:
    """Each job's best model is there, whole, and learned what its lineage says, each visit once."""
    for submission in run.submissions:
        shown = run.travelled if submission.home else run.shown
        job = shown.get(submission.accepted) if submission.accepted else None
        if job is None or job.model is None:
            continue
        try:
            asked = encode(JobQuery(job=job.job))
            answer = await run._ask(submission.owner, "lineage", asked, submission.home)
            given = decode(answer, TrainedModel)
        except DaitnError as error:
            yield f"the lineage of {job.job} is not told: {error}"
            continue
        try:
            part, data = await _fetched(run, submission, job)
        except DaitnError as error:
            if not any(one.kind == "rotten chunk" for one in run.outcome.faults):
                yield f"the model of {job.job} is lost: {error}"
            continue
        entries, sums = given.lineage.entries, run.world.lab.sums
        if submission.intent.training.secure_aggregation:
            assert part == SUMMED
            numbers = _numbers(data)
            known = sums.visited(numbers)
            for problem in as_summed(entries, job.model.manifest, sums, numbers):
                yield f"{job.job}: {problem}"
        else:
            known = Counter({tuple(what): times for what, times in json.loads(data)})
        quorum = submission.intent.quorum.quorum
        (objective,) = submission.intent.objectives
        for problem in (
            *_as_told(job, known, entries),
            *untrue(run.world, job, known, entries, objective.at_least, quorum),
        ):
            yield f"{job.job}: {problem}"


async def _fetched(run: Run, submission: Submission, job: JobView) -> tuple[str, bytes]:
    """The one part of a job's best model, as its owner gets it."""
    assert job.model is not None
    store, owner = MemoryBlobStore(), submission.owner
    keeper = SiteId(submission.home or CENTER_SITE)
    transport = ChunkTransport(run.fabrics[owner], keeper, store)
    machine = run.world.machines[owner]

    async def fetch() -> None:
        await transport.fetch(job.model, lambda done, total: None)  # type: ignore[arg-type]

    async with asyncio.timeout(300.0):
        await run.world.run_as(machine, fetch())
    (part,) = store.manifest(job.model.manifest).parts
    data = b"".join(store.read(chunk) for chunk in part.chunks)
    if [blake3(store.read(chunk)).hexdigest() for chunk in part.chunks] != list(part.chunks):
        raise DaitnError("a chunk has another digest")
    return part.name, data


def _numbers(data: bytes) -> Vector:
    """The only tensor of a file of safetensors: a header's length, the header, the numbers."""
    return np.frombuffer(data[8 + int.from_bytes(data[:8], "little") :], "<f8")


def _as_told(job: JobView, known: Learned, entries: Iterable[Entry]) -> Iterator[str]:
    """Compare a model with its lineage: the visits behind it are what it learned, each once."""
    made: dict[str, Any] = {}
    for entry in entries:
        match entry.fact:
            case Origin(model=model):
                made.setdefault(model, entry.fact)
            case Visit(model_out=model) | Merge(model_out=model):
                made.setdefault(model, entry.fact)
    assert job.model is not None
    wanted, behind, seen = [job.model.manifest], list[Visit](), set[str]()
    while wanted:
        model = wanted.pop()
        if model in seen:
            continue
        seen.add(model)
        fact = made.get(model)
        if fact is None:
            yield f"nothing in the lineage made {model[:8]}"
            return
        if isinstance(fact, Visit):
            behind.append(fact)
            wanted.append(fact.model_in)
        elif isinstance(fact, Merge):
            wanted += [fact.base, *_summed(fact, made)]
    told = Counter((fact.site, fact.examples) for fact in behind)
    learned = Counter[tuple[SiteId, int]]()
    for (site, _, examples), times in known.items():
        learned[SiteId(site), examples] += times
        if times > 1:
            yield f"a visit to {site} is in the model {times} times"
    if any(fact.privacy for fact in behind):
        # A private visit takes another number of records, by chance.
        told, learned = (_by_site(one) for one in (told, learned))
    if told != learned:
        yield f"it learned {dict(learned)}, its lineage says {dict(told)}"


def _summed(merge: Merge, made: dict[str, Any]) -> Iterator[Digest]:
    """The models in a merge: of a secure sum, those of sites that were not lost."""
    for model in merge.models:
        if not merge.summed or getattr(made.get(model), "site", None) in merge.summed:
            yield model


def _by_site(visits: Counter[tuple[SiteId, int]]) -> Counter[tuple[SiteId, int]]:
    summed = Counter[tuple[SiteId, int]]()
    for (site, _), times in visits.items():
        summed[site, 0] += times
    return summed

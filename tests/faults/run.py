"""One run: a network, jobs, and what goes wrong, all of it drawn from a seed."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daitn.identity.orders import sign_order
from daitn.objects.errors import DaitnError, Unreachable
from daitn.objects.findings import Attestation
from daitn.objects.identifiers import JobId, SiteId
from daitn.objects.intents import TrainingIntent
from daitn.objects.jobs import JobView
from daitn.objects.orders import SignedOrder
from daitn.objects.requests import JobList, JobQuery, SubmitIntent
from daitn.objects.wire import decode, encode
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric
from tests.faults.asking import Asker
from tests.faults.dashboards import Dashboard
from tests.faults.edges import edges
from tests.faults.injecting import Injector
from tests.faults.intents import drawn_intent, in_secret
from tests.faults.liars import LIARS, corrupt
from tests.faults.planner import hasty
from tests.faults.summing import PHASES
from tests.faults.virtual import VirtualLoop, virtual_time
from tests.faults.weather import ALONE_S, Fault, drawn
from tests.faults.world import CLIENTS, HOME, NETWORK, OWNERS, SENSED_EVERY_S, World

__all__ = ["Outcome", "Submission", "run"]

_TROUBLE_S = 60.0
"""Things go wrong for this long; then all is mended."""
_WELL_PLANNED = 0.2
"""Share of the runs with the real planner, which take twice as long."""
_CALM = 0.3
"""Share of the runs with a liar in which nothing else goes wrong: nobody honest is blamed."""
_SITES = (*(10 * (2, 3, 4)), 7)
"""Of how many a run draws how many it has: `bulyan` takes seven."""
_TRAVELS = 0.2
"""Share of the runs in which models travel by themselves, too."""
_STANDS_BY = 0.15
"""Share of the runs in which a second control centre stands by."""
_ALONE = 0.03
"""Share of the runs in which the control centre is away for minutes after all that."""
_SUMS = 0.15
"""Share of the runs in which jobs are trained by secure sums, too."""
_NAMED_WITHIN_S = 90.0
"""A facility that answers verifiers better than others is named within this, once all is well."""
_GRACE_S = 120.0
"""After the end of its budget and of all trouble, a job has ended within this."""


@dataclass
class Submission:
    """An owner's order, and what the owner was told."""

    owner: str
    intent: TrainingIntent
    order: SignedOrder
    home: str = ""
    """Of a model that travels by itself; empty: it is the control centre's job."""
    accepted: JobId | None = None
    refused: str = ""


@dataclass
class Outcome:
    """What a run came to."""

    seed: int
    faults: tuple[Fault, ...] = ()
    in_vain: list[Fault] = field(default_factory=list)
    """Those that found nothing to harm."""
    problems: list[str] = field(default_factory=list)
    """What must not be, each in a sentence."""
    trace: str = ""
    virtual_s: float = 0.0
    seconds: float = 0.0
    logs: str = ""
    """Of a run of real processes: folder of their logs, if there are problems."""
    steps: int = 0
    messages: int = 0
    jobs: list[str] = field(default_factory=list)
    queries: int = 0
    answered: int = 0
    sums: int = 0
    """Secure sums that were unmasked."""
    two_faced: int = 0
    """Facilities that were found to be."""


class Run:
    """A run under way."""

    def __init__(self, seed: int, folder: Path, loop: VirtualLoop, rng: random.Random) -> None:
        self.rng = rng
        self.loop = loop
        self.lies = rng.choices((*LIARS,), (*LIARS.values(),))[0]
        """What kind of member lies; empty: none."""
        self.sums = rng.random() < _SUMS
        self.world = World(
            folder, loop, rng, sites=rng.choice((2, 4, 4, 5) if self.sums else _SITES),
            verifiers={"verifier": 3, "facility": 1}.get(self.lies) or rng.randint(1, 2),
            facilities=2 if self.lies in ("gateway", "facility") else rng.choice((0, 0, 2)),
            travels=rng.random() < _TRAVELS, stands_by=rng.random() < _STANDS_BY,
        )  # fmt: skip
        self.submissions: list[Submission] = []
        self.outcome = Outcome(seed)
        self.shown: dict[JobId, JobView] = {}
        self.travelled: dict[JobId, JobView] = {}
        """Jobs of models that travel by themselves, as their home shows them."""
        self.fabrics: dict[str, Fabric] = {}
        self.unexpected: list[str] = []
        self.asker: Asker | None = None
        self.dashboard: Dashboard | None = None
        self._mended_at_s = 0.0
        self.to_be_named: Set[str] = frozenset()
        """Two-faced facilities that serve a model for long enough to be found."""
        self.two_faced_since_s: dict[str, float] = {}
        """Facilities of which verifiers say that they are, and since when they do."""
        self.alone = rng.random() < _ALONE
        """Whether there is no control centre for minutes, once all else is well."""
        self.ended_alone: set[JobId] | None = None
        """Models that travel by themselves that had ended before it was back."""
        self.plans_well = rng.random() < _WELL_PLANNED

    async def play(self) -> None:
        """Play it, and look at what came of it."""
        world, rng = self.world, self.rng
        world.private = {site for site in world.data_sites if rng.random() < 0.25}
        world.watched = rng.random() < 0.3
        if self.lies == "facility":
            world.examined_every_s = 8.0
        if self.sums:
            world.network.hide(world.lab.sums.marks)
        world.found()
        injector = Injector(world, self.rng)
        corrupt(world, self.lies, rng)
        for name in (*world.centers, *world.nodes):
            world.start(name)
        steering = asyncio.ensure_future(world.wires.look())
        await asyncio.sleep(rng.uniform(1.0, 4.0))
        for name in (*OWNERS, "ops"):
            _, self.fabrics[name] = world.person(name)
        if world.watched:
            self.dashboard = Dashboard(world.key("ops"))
            world.run_as(world.machines["ops"], self.dashboard.follow())
        began_s = self.loop.time()
        faults = drawn(rng, (*world.centers[1:], *world.nodes), _TROUBLE_S)
        if self.lies and rng.random() < _CALM:
            faults = ()
        if self.sums:
            faults = tuple(sorted((*faults, *self._leaving()), key=lambda fault: fault.at_s))
        self.outcome.faults = faults
        self.outcome.in_vain = injector.in_vain
        homes = [""] * rng.randint(1, 4)
        homes += [HOME] * (rng.randint(1, 2) if world.travels else 0)
        asking = [
            asyncio.ensure_future(self._submit(number, home)) for number, home in enumerate(homes)
        ]
        serving = None
        if world.facilities:
            client = rng.choice(CLIENTS)
            self.asker = Asker(self, OWNERS[0], client, random.Random(rng.random()))
            serving = asyncio.ensure_future(self.asker.go())
        await injector.go_wrong(faults, began_s)
        await asyncio.sleep(max(0.0, began_s + _TROUBLE_S - self.loop.time()))
        await injector.mend()
        self._mended_at_s = self.loop.time()
        await self._until_all_have_ended(asking)
        if self.asker is not None:
            await self._until_it_serves(self.asker)
            await self._until_it_is_named(self.asker)
        if self.alone:
            await self._without_center(len(homes))
        if serving is not None:
            await self._until_all_is_counted(serving)
        steering.cancel()

    async def _without_center(self, number: int) -> None:
        """All is well, but for minutes no control centre is there: what sites have begun, queries
        and models that travel by themselves go on."""
        world = self.world
        jobs = [asyncio.ensure_future(self._submit(number, ""))]
        await asyncio.sleep(self.rng.uniform(5.0, 25.0))
        for center in world.centers:
            world.kill(center, 1.0)
        if world.travels:
            jobs.append(asyncio.ensure_future(self._submit(number + 1, HOME)))
        await asyncio.sleep(ALONE_S)
        if world.travels:
            self.travelled = await self._jobs(HOME)
        self.ended_alone = {job for job, shown in self.travelled.items() if shown.state.final}
        for center in world.centers:
            world.start(center)
        await self._until_all_have_ended(jobs)

    async def _until_it_serves(self, asker: Asker) -> None:
        """All is well: what was deployed answers before long."""
        asker.ready_at_end = not asker.name
        for _ in range(40):
            if not asker.ready_at_end:
                asker.ready_at_end = await asker.ready()
                await asyncio.sleep(3.0)
        if asker.name:
            await asyncio.sleep(self._mended_at_s + SENSED_EVERY_S + 5.0 - self.loop.time())
            asker.calm_from = len(asker.queries)
            await asyncio.sleep(12.0)

    async def _until_it_is_named(self, asker: Asker) -> None:
        """All is well: verifiers find a facility that answers them better than others, and gateways
        take it up."""
        until_s = self.loop.time() + _NAMED_WITHIN_S
        if asker.ready_at_end and asker.name:
            self.to_be_named = self.world.lab.examined.two_faced
        wanted = self.to_be_named
        await self._hear_of_two_faced()
        while not wanted <= self.two_faced_since_s.keys() and self.loop.time() < until_s:
            await asyncio.sleep(3.0)
            await self._hear_of_two_faced()
        if wanted:
            await asyncio.sleep(20.0)

    async def _hear_of_two_faced(self) -> None:
        for unit in self.world.verifiers:
            try:
                asked = self.fabrics["ops"].request(
                    keys.site_do(SiteId(unit), "attested"), b"", timeout_s=5.0
                )
                given = await self.world.run_as(self.world.machines["ops"], asked)
            except DaitnError:
                continue
            for one in decode(given, tuple[Attestation, ...]):
                if one.finding.two_faced is True:
                    self.two_faced_since_s.setdefault(one.finding.site, self.loop.time())

    def _leaving(self) -> Iterator[Fault]:
        """Sites that die in the middle of a sum."""
        for _ in range(self.rng.randint(0, 2)):
            site, phase = self.rng.choice(self.world.data_sites), self.rng.choice(PHASES)
            yield Fault(self.rng.uniform(0.0, _TROUBLE_S / 2), "leave", site, phase)

    async def _until_all_is_counted(self, serving: asyncio.Future[None]) -> None:
        serving.cancel()
        if serving.done() and not serving.cancelled() and (error := serving.exception()):
            self.unexpected.append(f"the asker failed: {error!r}")
        await asyncio.sleep(25.0)

    async def _submit(self, number: int, home: str) -> None:
        rng, world = self.rng, self.world
        owner = rng.choice(OWNERS)
        intent = drawn_intent(rng, owner, number, 0 if home else len(world.verifiers), bool(home))
        if self.sums and not home and rng.random() < 0.7:
            intent = in_secret(intent, rng)
        await asyncio.sleep(rng.uniform(0.0, 20.0))
        order = sign_order(intent, NETWORK, time.time() + 86400.0, world.key(owner))
        submission = Submission(owner, intent, order, home)
        self.submissions.append(submission)
        request = encode(SubmitIntent(intent=intent, insist=rng.random() < 0.5, order=order))
        while True:
            try:
                given = await self._ask(owner, "submit", request, home, timeout_s=40.0)
                submission.accepted = decode(given, JobView).job
                break
            except Unreachable:
                await asyncio.sleep(1.0)
            except DaitnError as error:
                if self.loop.time() > 1000.0 + _TROUBLE_S + 60.0:
                    submission.refused = str(error)
                    return
                await asyncio.sleep(3.0)
        if rng.random() < 0.1:
            await asyncio.sleep(rng.uniform(1.0, 20.0))
            with suppress(DaitnError):
                await self._ask(owner, "cancel", encode(JobQuery(job=submission.accepted)), home)

    async def _ask(
        self, who: str, verb: str, payload: bytes, home: str = "", timeout_s: float = 5.0
    ) -> bytes:
        """Ask the control centre, or a home of models that travel by themselves."""
        machine = self.world.machines[who]
        key = keys.site_do(SiteId(home), verb) if home else keys.center_do(verb)
        asked = self.fabrics[who].request(key, payload, timeout_s=timeout_s)
        given: bytes = await self.world.run_as(machine, asked)
        return given

    async def _until_all_have_ended(self, asking: Sequence[asyncio.Future[None]]) -> None:
        """Wait until all jobs have ended, or should have."""
        limit_s = max((s.intent.budget.duration_s or 0.0 for s in self.submissions), default=0.0)
        until_s = self.loop.time() + limit_s + _GRACE_S
        while self.loop.time() < until_s:
            await asyncio.sleep(3.0)
            try:
                self.shown = await self._jobs("")
                if self.world.travels:
                    self.travelled = await self._jobs(HOME)
            except Unreachable:
                continue
            jobs = (*self.shown.values(), *self.travelled.values())
            if all(one.state.final for one in jobs) and all(task.done() for task in asking):
                break
        for task in asking:
            if task.done() and (error := task.exception()):
                self.unexpected.append(f"an owner failed: {error!r}")
            task.cancel()
        # A home tells the control centre what its models used every half minute.
        await asyncio.sleep(35.0 if self.travelled else 10.0)

    async def _jobs(self, home: str) -> dict[JobId, JobView]:
        given = await self._ask("ops", "jobs", encode(JobQuery(job=JobId(""))), home)
        return {one.job: one for one in decode(given, JobList).jobs}


class _Unexpected(logging.Handler):
    """Hears of exceptions that no code expected."""

    def __init__(self, into: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._into = into

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and not isinstance(record.exc_info[1], DaitnError):
            text = logging.Formatter().format(record)
            self._into.append(text)


@contextmanager
def _heard(unexpected: list[str]) -> Iterator[None]:
    handler = _Unexpected(unexpected)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(min(level, logging.ERROR))
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def log_from(level: int) -> None:
    """Print what processes log of this level on. A run hears of errors that are not shown."""
    logging.basicConfig(level=level, format="%(name)s %(message)s", stream=sys.stdout)
    for handler in logging.getLogger().handlers:
        handler.setLevel(level)


def run(seed: int) -> Outcome:
    """Run a seed."""
    sys.unraisablehook = _hushed
    gc.freeze()
    gc.disable()  # A collection in mid-run would look at what was killed, too.
    began_s = time.perf_counter()
    try:
        outcome = _played(seed)
    finally:
        logging.disable()
        gc.collect()  # What was killed has nothing to say as it goes.
        logging.disable(logging.NOTSET)
        gc.unfreeze()
        gc.enable()
    outcome.seconds = time.perf_counter() - began_s
    return outcome


def _played(seed: int) -> Outcome:
    from tests.faults.invariants import problems

    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix=f"daitn-seed-{seed}-", dir=_memory()))
    loop = VirtualLoop(rng)
    try:
        with virtual_time(loop, rng):
            one = Run(seed, folder, loop, rng)
            plans = nullcontext() if one.plans_well else hasty()
            with edges(one.world), plans, _heard(one.unexpected):
                loop.run_until_complete(one.play())
                found = loop.run_until_complete(problems(one))
        outcome = one.outcome
        outcome.problems = found
        outcome.trace = one.world.network.seen.trace.hexdigest()[:16]
        outcome.virtual_s = loop.time() - 1000.0
        outcome.steps = loop.steps
        outcome.messages = one.world.network.seen.messages
        jobs = (*one.shown.values(), *one.travelled.values())
        outcome.jobs = [f"{job.job} {job.state}: {job.detail}" for job in jobs]
        if one.asker is not None:
            outcome.queries = len(one.asker.queries)
            outcome.answered = sum(query.ended > 0 for query in one.asker.queries)
        outcome.sums = len(one.world.lab.sums.sums)
        outcome.two_faced = len(one.two_faced_since_s)
        _bury(one.world, loop)
    finally:
        loop.close()
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _hushed(unraisable: Any) -> None:
    """What was killed is collected without a word."""
    if not asyncio.iscoroutine(unraisable.object):
        sys.__unraisablehook__(unraisable)


def _bury(world: World, loop: VirtualLoop) -> None:
    """Let go of what runs still and of what was killed, without a word."""
    for machine in world.machines.values():
        machine.dead = True
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    world.dead.clear()


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None

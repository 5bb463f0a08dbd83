"""What a journey needs next, from its facts alone."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from daitn.control.jobs.job import Job
from daitn.control.jobs.machine import handle, replay
from daitn.control.route.wayfaring import Prospect, Wayfaring, base_of, decide, examples_for
from daitn.objects.decisions import Decision, PlannedVisit, Route
from daitn.objects.descriptors import ANY, DatasetDescriptor
from daitn.objects.errors import Corrupt
from daitn.objects.identifiers import ObjectiveName, SiteId
from daitn.objects.intents import Quantity
from daitn.objects.jobs import JobEvent, Planned, VerifierAssignment, VerifiersChosen
from daitn.objects.journeys import Dated, Journey
from daitn.objects.messages import VerifyWork
from daitn.objects.models import ModelRef
from daitn.steering.origins import site_of
from daitn.steering.routes import RouteTable
from daitn.steering.wire.want import Capability, Want

__all__ = ["Going", "home_want", "prospects"]


_PAUSE_S, _PAUSE_MOST_S = 0.5, 20.0


@dataclass
class Going:
    """A journey being taken on: its facts, and the job that follows from them."""

    journey: Journey
    job: Job
    refusals: int = 0
    """Since it came to the site where it is."""
    missed: int = 0
    """Fetches of weights that are to be measured in vain, since then."""

    @classmethod
    def of(cls, journey: Journey) -> Going:
        """Raises `Corrupt` for facts that are none of a job."""
        try:
            job = replay((fact.event, fact.at_s) for fact in journey.facts)
        # Facts come from other sites: whatever the state machine makes of them, they are no job's.
        except Exception as error:
            raise Corrupt(
                f"the facts of {journey.job} are none of a job: {error!r}", field="facts"
            ) from None
        if job.id != journey.job:
            raise Corrupt(f"the facts of {journey.job} are of {job.id}", field="facts")
        return cls(journey, job)

    def take(self, event: JobEvent, now_s: float) -> None:
        """One more fact."""
        handle(self.job, event, now_s)
        facts = (*self.journey.facts, Dated(now_s, event))
        self.journey = msgspec.structs.replace(self.journey, facts=facts)

    def open_objectives(self) -> tuple[ObjectiveName, ...]:
        """What is to be measured of the candidate and is not yet."""
        candidate = self.job.candidate
        if candidate is None:
            return ()
        busy = {
            (o.work.topic, o.work.metric)
            for o in self.job.outstanding.values()
            if isinstance(o.work, VerifyWork)
        }
        return tuple(
            ObjectiveName(o.name)
            for o in self.job.intent.objectives
            if o.name not in candidate.measured and (o.topic, o.metric) not in busy
        )

    def pause_s(self) -> float:
        """How long to wait before going on is tried again."""
        self.refusals += 1
        return min(_PAUSE_MOST_S, _PAUSE_S * 2.0 ** min(self.refusals, 10))

    def models(self) -> tuple[ModelRef, ...]:
        """Those that it needs: the one to measure or to go on with, and the best one."""
        job = self.job
        found = [job.candidate.model] if job.candidate else []
        found += self.measured_models()
        return tuple({model.manifest: model for model in found}.values())

    def measured_models(self) -> tuple[ModelRef, ...]:
        """Those with which the job goes on if all others are lost."""
        found = [c.model for c in (base_of(self.job), self.job.best) if c is not None]
        return tuple({model.manifest: model for model in found}.values())

    def decide_here(self, dataset: DatasetDescriptor, topic: str, now_s: float) -> Decision:
        """Whether the data where it has arrived is worth a visit."""
        here = Prospect(
            site=dataset.site,
            topic=topic,
            examples=dataset.samples,
            price_usd_per_1k=dataset.price_usd_per_1k,
            delay_s=0.0,
            jurisdiction=dataset.jurisdiction,
        )
        return decide(Wayfaring(self.job, (here,), now_s, 0))

    def decide(
        self, routes: RouteTable, now_s: float
    ) -> tuple[Decision, Prospect | None, tuple[SiteId, ...]]:
        """Which data to go to, by what is heard here: why, which, and the sites with data of its
        topic that need not be tried."""
        heard = {one.id: one for one in prospects(routes, self.release_to)}
        decision = decide(Wayfaring(self.job, tuple(heard.values()), now_s, routes.version))
        chosen = heard.get(decision.chosen or "")
        ruled_out = [heard[no.candidate] for no in decision.rejections]
        if not self.refusals:
            # Where it was not refused so far, it goes to none that it knows to be worth less.
            worse = decision.ranking[1:]
            ruled_out += [heard[s.candidate] for s in worse if self._knows(heard[s.candidate])]
        spared = {one.site for one in ruled_out if chosen and one.topic == chosen.topic}
        return decision, chosen, tuple(sorted(spared))

    def _knows(self, prospect: Prospect) -> bool:
        return any(made.site == prospect.site for made in self.job.made)

    @property
    def trained_at(self) -> SiteId | None:
        """Where the model that is to be measured was made."""
        candidate = self.job.candidate
        return candidate.visit.site if candidate and candidate.visit else None

    @property
    def release_to(self) -> tuple[str, ...]:
        """Jurisdictions into which the model may travel now."""
        if self.job.candidate is not None:
            return self.job.candidate.release_to
        base = base_of(self.job)
        return base.release_to if base else (ANY,)

    def data_want(self, topic: str) -> Want:
        """The want of a model that looks for data."""
        return Want(
            Capability.DATA,
            topic,
            owner=self.job.intent.owner,
            trust=0,
            jurisdictions=self._data_jurisdictions(),
            examples=examples_for(self.job, 2**31),
        )

    def verify_want(self) -> Want:
        """The want of a model that is to be measured."""
        objective = self.job.intent.objective(self.open_objectives()[0])
        return Want(
            Capability.VERIFY,
            objective.topic,
            owner=self.job.intent.owner,
            trust=0,
            jurisdictions=self._jurisdictions(),
        )

    def _jurisdictions(self) -> tuple[str, ...]:
        return () if ANY in self.release_to else self.release_to

    def _data_jurisdictions(self) -> tuple[str, ...]:
        """Those where the owner lets it learn, and into which it may travel."""
        wanted = [
            requirement.one_of
            for requirement in self.job.intent.requirements
            if requirement.quantity is Quantity.JURISDICTION and requirement.one_of
        ]
        allowed = [*wanted, *([] if ANY in self.release_to else [self.release_to])]
        if not allowed:
            return ()
        return tuple(j for j in allowed[0] if all(j in others for others in allowed))

    def planned(self, site: SiteId, dataset: DatasetDescriptor, decision: Decision) -> Planned:
        """That the model is trained where it has arrived."""
        base = base_of(self.job)
        examples = examples_for(self.job, dataset.samples)
        visit = PlannedVisit(
            site=site,
            dataset=dataset.name,
            examples=examples,
            expected_s=0.0,
            expected_cost_usd=dataset.price_usd_per_1k * examples / 1000,
            expected={},
            release_to=dataset.policy.release_to,
        )
        start = base.model.manifest if base else None
        route = Route(start=start, visits=(visit,), reaches=False)
        return Planned(route=route, decision=decision)

    def verified_by(self, site: SiteId, topics: frozenset[str]) -> VerifiersChosen:
        """That what can be measured where it has arrived is measured there."""
        named = [(name, self.job.intent.objective(name)) for name in self.open_objectives()]
        return VerifiersChosen(
            tuple(
                VerifierAssignment(objective=name, site=site)
                for name, objective in named
                if objective.topic in topics
            )
        )


def home_want(home: SiteId) -> Want:
    """The want of what goes to an owner."""
    return Want(Capability.HOME, home, trust=0)


def prospects(routes: RouteTable, release_to: tuple[str, ...]) -> tuple[Prospect, ...]:
    """Data that was heard of at a site, in jurisdictions into which the model may travel."""
    prefix = f"{Capability.DATA}:"
    found = []
    for origin, offer in routes.offering(prefix):
        vias = routes.routes_to(origin)
        if not vias and origin != routes.site:
            continue
        if ANY in release_to or offer.jurisdiction in release_to:
            found.append(
                Prospect(
                    site=SiteId(site_of(origin)),
                    topic=offer.key.removeprefix(prefix),
                    examples=offer.amount,
                    price_usd_per_1k=offer.price_usd,
                    delay_s=vias[0].distance_s if vias else 0.0,
                    jurisdiction=offer.jurisdiction,
                )
            )
    found.sort(key=lambda one: -one.delay_s)
    # Of several origins that lead to one site, the nearest.
    return tuple({one.id: one for one in found}.values())

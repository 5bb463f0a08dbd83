"""What the network learns about ended jobs' best models."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from daitn.control.agreeing import agreed
from daitn.control.jobs.job import Job
from daitn.objects.descriptors import ModelDescriptor
from daitn.objects.identifiers import JobId
from daitn.objects.jobs import Checkpoint
from daitn.objects.lineage import Entry, Verification
from daitn.objects.requests import ModelList
from daitn.objects.wire import decode, encode
from daitn.tools import clock
from daitn.tools.fabric.caller import visible
from daitn.tools.journal.protocol import Journal

__all__ = ["PublishedModels", "published"]

_KIND: Final = "model"


class PublishedModels:
    """The models of a network's jobs, in a control centre's store."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def of(self, job: JobId) -> ModelDescriptor | None:
        """The model that a job published; none if it has not yet."""
        stored = self._journal.get(_KIND, job)
        return None if stored is None else decode(stored, ModelDescriptor)

    def publish(self, job: Job) -> None:
        """Store the best model of an ended job. Raises `StorageFull`."""
        if (model := published(job, clock.now_s())) is not None:
            self._journal.put(_KIND, job.id, encode(model))

    def has(self, job: Job) -> bool:
        """Whether a job's result is published: for a resumed job, not its earlier one."""
        known = self.of(job.id)
        if job.best is None or known is None:
            return job.best is None
        return known.manifest == job.best.model.manifest

    async def on_models(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `ModelList`: models that jobs published."""
        models = (decode(model, ModelDescriptor) for model in self._journal.all(_KIND).values())
        own = sorted((m for m in models if visible(m.owner)), key=lambda m: m.created_at_s)
        return encode(ModelList(models=tuple(own)))


def published(job: Job, now_s: float) -> ModelDescriptor | None:
    """The model that a job leaves; none if nothing was measured."""
    best = job.best
    if best is None:
        return None
    return ModelDescriptor(
        name=job.id,
        owner=job.intent.owner,
        recipe=job.intent.model.recipe,
        manifest=best.model.manifest,
        size_bytes=best.model.size_bytes,
        measured={str(name): value for name, value in best.values.items()},
        holders=best.model.holders,
        created_at_s=job.ended_at_s or now_s,
        config=job.intent.model.config,
        untrained=not job.learned,
        release_to=best.release_to,
        evidence=_evidence(job, best),
    )


def _evidence(job: Job, best: Checkpoint) -> tuple[Entry, ...]:
    """Verifiers' signed measurements of it, except those contradicted by a quorum: gateways average
    them."""
    entries = [entry for entry in job.lineage if entry.digest in best.entries]
    measurements: dict[tuple[str, str], list[Verification]] = defaultdict(list)
    for entry in entries:
        if isinstance(entry.fact, Verification):
            measurements[entry.fact.topic, entry.fact.metric].append(entry.fact)
    others = {fact.visit for facts in measurements.values() for fact in agreed(facts).others}
    return tuple(entry for entry in entries if entry.fact.visit not in others)

"""What owners and operators ask a control centre, and what it answers."""

from __future__ import annotations

import msgspec

from daitn.objects.descriptors import ModelDescriptor
from daitn.objects.identifiers import JobId, SiteId
from daitn.objects.intents import TrainingIntent
from daitn.objects.jobs import JobView
from daitn.objects.lineage import Lineage
from daitn.objects.models import ModelRef

__all__ = ["AssessIntent", "JobList", "JobQuery", "ModelList", "SubmitIntent", "Trained"]


class SubmitIntent(msgspec.Struct, frozen=True, kw_only=True):
    """Start a training job."""

    intent: TrainingIntent
    start: ModelRef | None = None
    """Weights to start from, held by the control centre."""
    insist: bool = False
    """Start it even if the feasibility module expects the targets to be missed."""


class AssessIntent(msgspec.Struct, frozen=True, kw_only=True):
    """Say whether an intent is feasible, and start nothing."""

    intent: TrainingIntent


class JobQuery(msgspec.Struct, frozen=True, kw_only=True):
    """One job by its id; an empty id means all of them."""

    job: JobId


class JobList(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs, oldest first."""

    jobs: tuple[JobView, ...]


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """Models that jobs left in the network, oldest first."""

    models: tuple[ModelDescriptor, ...]


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a job's best model."""

    job: JobView
    lineage: Lineage
    keys: dict[SiteId, str]
    """Public keys of the sites in the lineage, as the control centre first heard them."""

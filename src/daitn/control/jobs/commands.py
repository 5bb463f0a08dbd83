"""Commands of a job. The control centre's shell turns them into traffic."""

from __future__ import annotations

import msgspec

from daitn.objects.identifiers import ObjectiveName, SiteId, VisitId
from daitn.objects.messages import Work

__all__ = [
    "Assess",
    "ChooseVerifiers",
    "Command",
    "Commands",
    "ComputeRoute",
    "Settle",
    "StartWork",
    "StopWork",
]


class Assess(msgspec.Struct, frozen=True):
    """Ask T-FAM; answer with `Assessed`."""


class ComputeRoute(msgspec.Struct, frozen=True):
    """Ask MTRCE; answer with `Planned`."""


class ChooseVerifiers(msgspec.Struct, frozen=True):
    """Find a verification unit for each objective; answer with `VerifiersChosen`."""

    objectives: tuple[ObjectiveName, ...]


class StartWork(msgspec.Struct, frozen=True):
    """Give a piece of work to a site. Starting the same visit twice starts it once."""

    site: SiteId
    work: Work


class StopWork(msgspec.Struct, frozen=True):
    """Stop a piece of work whose report is no longer needed."""

    site: SiteId
    visit: VisitId


class Settle(msgspec.Struct, frozen=True):
    """The job has ended: publish its best model, and let sites delete the others."""


Command = Assess | ComputeRoute | ChooseVerifiers | StartWork | StopWork | Settle
Commands = tuple[Command, ...]

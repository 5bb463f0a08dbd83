"""Immutable, versioned views of the Data, Resource and Reachability Topology (DRRT)."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
from immutables import Map

from daitn.objects.decisions import Rejection
from daitn.objects.descriptors import (
    ComputeDescriptor,
    DatasetDescriptor,
    NodeDescriptor,
    TestSetDescriptor,
)
from daitn.objects.identifiers import ObjectiveName, OwnerId, SiteId
from daitn.objects.readings import LinkReading, LoadReading

__all__ = ["DataOption", "Drrt", "MsDrrt", "NodeList", "SitePage", "SiteState", "VerifierOption"]


class SiteState(msgspec.Struct, frozen=True, kw_only=True):
    """The known state of one site."""

    descriptor: NodeDescriptor
    alive: bool
    changed_at_s: float
    """When its descriptor, or whether it is alive, last changed."""
    since_s: float | None = None
    """When it came or was lost. Absent means unknown: it was there when the control centre started,
    for however long."""
    load: LoadReading | None = None


class NodeList(msgspec.Struct, frozen=True, kw_only=True):
    """Sites by name."""

    nodes: tuple[SiteState, ...]


class SitePage(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the sites, by name."""

    nodes: tuple[SiteState, ...]
    more: bool
    """Whether more follow."""


@dataclass(frozen=True)
class Drrt:
    """One version of the training topology. Cheap to make: versions share unchanged parts."""

    version: int
    at_s: float
    sites: Map[SiteId, SiteState] = field(default_factory=Map)
    links: Map[SiteId, Map[SiteId, LinkReading]] = field(default_factory=Map)
    """Source to target to the source's measurement."""
    lines_bps: Map[SiteId, float] = field(default_factory=Map)
    """Estimated bytes per second of sites' own lines."""

    def link(self, source: SiteId, target: SiteId) -> LinkReading | None:
        """What is known about the link from `source` to `target`."""
        known = self.links.get(source)
        return known.get(target) if known is not None else None

    def alive(self) -> tuple[SiteId, ...]:
        """Live sites, by name."""
        return tuple(sorted(site for site, state in self.sites.items() if state.alive))


class DataOption(msgspec.Struct, frozen=True, kw_only=True):
    """A data set that can train this model, with the compute beside it."""

    site: SiteId
    dataset: DatasetDescriptor
    compute: ComputeDescriptor
    fit: dict[ObjectiveName, float]
    """How well its topics match each objective's topic, in [0, 1]: 1 identical, 0 unrelated."""
    coverage: dict[ObjectiveName, float]
    """Share of the test set's labels that the data set has examples of, in [0, 1]."""
    queue: int = 0
    """Visits waiting at the site."""
    owner: str = ""

    @property
    def id(self) -> str:
        return f"{self.site}/{self.dataset.name}"


class VerifierOption(msgspec.Struct, frozen=True, kw_only=True):
    """A test set on which an objective can be measured."""

    site: SiteId
    test: TestSetDescriptor


@dataclass(frozen=True)
class MsDrrt:
    """The part of a DRRT that matters to one model (paper, section III-B).

    Filtered by the intent's hard constraints, annotated with fit and reachability.
    """

    snapshot: Drrt
    options: tuple[DataOption, ...]
    """By id."""
    verifiers: dict[ObjectiveName, tuple[VerifierOption, ...]]
    """Per objective, by site; empty if nobody can measure it."""
    rejections: tuple[Rejection, ...]
    """Every (data set, filter) and (verifier, filter) pair that failed: all filters run."""

    def verifier_sites(self, objective: ObjectiveName) -> tuple[SiteId, ...]:
        """The sites that can measure an objective."""
        return tuple(dict.fromkeys(one.site for one in self.verifiers.get(objective, ())))

    def verifier_owners(self, objective: ObjectiveName) -> tuple[OwnerId, ...]:
        """The owners of those sites. Each has one voice in a quorum."""
        sites = self.snapshot.sites
        owners = (sites[site].descriptor.owner for site in self.verifier_sites(objective))
        return tuple(dict.fromkeys(owners))

"""Networks around recorded splits: how fast, distant, expensive and reliable their sites are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from daitn.objects.descriptors import DataPolicy
from daitn.objects.identifiers import SiteId
from daitn.sim.learning.families.draft import log_uniform
from daitn.sim.learning.families.nodes import data_node, verifier_node
from daitn.sim.learning.families.targets import Terms
from daitn.sim.learning.learner import Examined
from daitn.sim.learning.recordings import Split
from daitn.sim.learning.world import GroundSite, GroundVerifier

__all__ = ["Conditions", "plain", "stressed"]

_UNIT = SiteId("unit0")
_HOME = "US"


@dataclass(frozen=True)
class Conditions:
    """A network for the sites of a split, in their order."""

    sites: tuple[GroundSite, ...]
    size_bytes: int
    item_s: float
    terms: Terms

    def verifier(
        self, tests: Sequence[Examined], labels: Sequence[Mapping[str, int]]
    ) -> GroundVerifier:
        """The unit that measures everything."""
        node = verifier_node(_UNIT, _HOME, tests, labels)
        return GroundVerifier(_UNIT, node, item_s=self.item_s, access_bps=3e7, at=(0.5, 0.5))


def plain(rng: np.random.Generator, split: Split) -> Conditions:
    """Links that hardly matter; in three of ten networks some data has a price."""
    return _drawn(rng, split, priced=rng.random() < 0.3)


def stressed(rng: np.random.Generator, split: Split) -> Conditions:
    """A stressed network, with one kind of stress.

    Large models on slow lines, little time, sites that leave, release rules, or little money; with
    probability one fifth also a site at which visits never end.
    """
    kind = str(rng.choice(["links", "time", "leaving", "rules", "money"]))
    network = _drawn(rng, split, priced=kind == "money")
    sites = list(network.sites)
    if kind == "links":
        sites = [replace(site, access_bps=log_uniform(rng, 1e5, 2e7)) for site in sites]
        network = replace(network, size_bytes=int(log_uniform(rng, 3e7, 5e8)))
    elif kind == "time":
        network = replace(network, terms=replace(network.terms, slack=(1.02, 1.5)))
    elif kind == "leaving":
        sites = [sites[0], *(_leaving(rng, site, network) for site in sites[1:])]
    elif kind == "rules":
        sites = [sites[0], *(_ruled(rng, site) for site in sites[1:])]
    else:
        network = replace(network, terms=replace(network.terms, usd_slack=(1.05, 1.6)))
    if len(sites) > 3 and rng.random() < 0.2:
        number = int(rng.integers(1, len(sites)))
        sites[number] = replace(sites[number], hangs=True)
    return replace(network, sites=tuple(sites))


def _drawn(rng: np.random.Generator, split: Split, priced: bool) -> Conditions:
    example_s = log_uniform(rng, 5.0, 300.0) / sum(site.samples for site in split.sites)
    overhead_s = log_uniform(rng, 0.2, 5.0)
    access_bps = log_uniform(rng, 2e6, 1e8)
    sites = []
    for site in split.sites:
        own_s = example_s * float(rng.lognormal(0.0, 0.5))
        paid = priced and rng.random() < 0.7
        sites.append(
            GroundSite(
                name=SiteId(site.site),
                node=data_node(
                    SiteId(site.site),
                    topics=site.topics,
                    labels=site.labels,
                    speed_flops=split.flops_per_example / own_s * float(rng.lognormal(0.0, 0.25)),
                    quality=site.quality,
                    price_usd_per_1k=round(log_uniform(rng, 0.05, 2.0), 3) if paid else 0.0,
                ),
                example_s=own_s,
                overhead_s=overhead_s * float(rng.lognormal(0.0, 0.3)),
                access_bps=access_bps * float(rng.lognormal(0.0, 0.5)),
                at=(float(rng.random()), float(rng.random())),
            )
        )
    return Conditions(
        sites=tuple(sites),
        size_bytes=int(log_uniform(rng, 1e5, 1e8)),
        item_s=0.3 * example_s,
        terms=Terms(usd_slack=(1.2, 2.5) if priced else None, reference_examples=(150, 500)),
    )


def _leaving(rng: np.random.Generator, site: GroundSite, network: Conditions) -> GroundSite:
    """Away once, with probability 0.6; three in ten of those never come back."""
    if rng.random() > 0.6:
        return site
    epoch_s = sum(s.node.datasets[0].samples * s.example_s + s.overhead_s for s in network.sites)
    left_s = float(rng.uniform(0.02, 1.0)) * 2.0 * epoch_s
    back_s = np.inf if rng.random() < 0.3 else left_s + float(rng.exponential(0.8 * epoch_s))
    return replace(site, away=((left_s, float(back_s)),))


def _ruled(rng: np.random.Generator, site: GroundSite) -> GroundSite:
    """In one of three jurisdictions; half of the sites release models only home."""
    place = str(rng.choice(["CA", "DE", _HOME]))
    node = site.node
    dataset = msgspec.structs.replace(node.datasets[0], jurisdiction=place)
    if rng.random() < 0.5:
        release_to = tuple(sorted({place, _HOME}))
        policy = DataPolicy(recipes=dataset.policy.recipes, release_to=release_to)
        dataset = msgspec.structs.replace(dataset, policy=policy)
    node = msgspec.structs.replace(node, jurisdiction=place, datasets=(dataset,))
    return replace(site, node=node)

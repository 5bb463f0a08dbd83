"""A synthetic world under construction: random constants for a family to change."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np

from daitn.objects.descriptors import ANY, NodeDescriptor
from daitn.objects.identifiers import SiteId
from daitn.sim.learning.families.nodes import data_node, verifier_node
from daitn.sim.learning.families.targets import Terms
from daitn.sim.learning.learner import Examined
from daitn.sim.learning.power_law import Growth, PowerLaw
from daitn.sim.learning.world import GroundSite, GroundVerifier
from daitn.topology.arrays import Floats

__all__ = ["FLOPS_PER_EXAMPLE", "Draft", "SiteDraft", "drafted", "log_uniform"]

FLOPS_PER_EXAMPLE = 1e9
ROOT = "medicine"
FIELDS = ("cardiology", "neurology", "oncology", "nephrology", "genetics", "dermatology")
LABELS = ("information", "treatment", "symptoms", "outlook", "research", "inheritance")


@dataclass
class SiteDraft:
    """One site. Its descriptor is true unless a family makes it lie."""

    topic: int
    records: int
    shares: Floats
    example_s: float
    overhead_s: float
    access_bps: float
    at: tuple[float, float]
    claimed_speed: float
    """Advertised speed over true speed."""
    pool: int
    worth: float = 1.0
    price_usd_per_1k: float = 0.0
    place: str = "US"
    release_to: tuple[str, ...] = (ANY,)
    away: tuple[tuple[float, float], ...] = ()
    hangs: bool = False
    claimed_topic: int | None = None
    claimed_records: int | None = None
    claimed_shares: Floats | None = None
    grows: tuple[tuple[float, int], ...] = ()
    """Seconds after the beginning, and the number of records from then on."""

    @property
    def lies(self) -> bool:
        claims = (self.claimed_topic, self.claimed_records, self.claimed_shares)
        return self.worth < 0.5 or self.hangs or any(lie is not None for lie in claims)


@dataclass
class Draft:
    """A world before targets and budgets are set."""

    family: str
    seed: int
    rng: np.random.Generator
    sites: list[SiteDraft]
    topics: tuple[str, ...]
    labels: tuple[str, ...]
    objectives: tuple[int, ...]
    """Topics of the tests."""
    test_items: list[tuple[int, ...]]
    chance: float
    transfer: Floats
    alike: Floats
    ceiling: Floats
    scale: Floats
    constants: dict[str, float]
    size_bytes: int
    item_s: float
    verifier_places: tuple[str, ...] = ("US",)
    verifier_access_bps: float = 3e7
    link_factor: float = 1.0
    terms: Terms = field(default_factory=Terms)

    def pools(self) -> list[SiteDraft]:
        """The first site of each pool of records, ordered by pool."""
        first: dict[int, SiteDraft] = {}
        for site in self.sites:
            first.setdefault(site.pool, site)
        return [first[pool] for pool in sorted(first)]

    def learner(self) -> PowerLaw:
        pools = self.pools()
        numbers = {site.pool: number for number, site in enumerate(pools)}
        growths = tuple(
            Growth(at_s=at_s, pool=numbers[site.pool], records=float(records))
            for site in pools
            for at_s, records in site.grows
        )
        return PowerLaw(
            pool_of=np.array([numbers[site.pool] for site in self.sites]),
            records=np.array([float(site.records) for site in pools]),
            shares=np.array([site.shares for site in pools]),
            topic=np.array([site.topic for site in pools]),
            worth=np.array([site.worth for site in pools]),
            transfer=self.transfer,
            alike=self.alike,
            chance=np.full(len(self.objectives), self.chance),
            ceiling=self.ceiling,
            scale=self.scale,
            growths=growths,
            **self.constants,
        )

    def ground(self) -> tuple[GroundSite, ...]:
        width = len(str(len(self.sites)))
        return tuple(
            self._site(SiteId(f"s{number:0{width}d}"), site)
            for number, site in enumerate(self.sites)
        )

    def tests(self) -> tuple[Examined, ...]:
        return tuple(
            Examined(
                objective="broad" if topic == 0 else self.topics[topic].split("/")[-1],
                topic=self.topics[topic],
                chance=self.chance,
                labels=self.labels,
                items=items,
            )
            for topic, items in zip(self.objectives, self.test_items, strict=True)
        )

    def verifiers(self) -> tuple[GroundVerifier, ...]:
        tests = self.tests()
        labels = [dict(zip(test.labels, test.items, strict=True)) for test in tests]
        units = (SiteId(f"unit{number}") for number in range(len(self.verifier_places)))
        return tuple(
            GroundVerifier(
                name=name,
                node=verifier_node(name, place, tests, labels),
                item_s=self.item_s,
                access_bps=self.verifier_access_bps,
                at=(0.5, 0.5),
            )
            for name, place in zip(units, self.verifier_places, strict=True)
        )

    def _site(self, name: SiteId, site: SiteDraft) -> GroundSite:
        return GroundSite(
            name=name,
            node=self._described(name, site, site.records, 1),
            example_s=site.example_s,
            overhead_s=site.overhead_s,
            access_bps=site.access_bps,
            at=site.at,
            away=site.away,
            hangs=site.hangs,
            revisions=tuple(
                (at_s, self._described(name, site, records, k + 2))
                for k, (at_s, records) in enumerate(site.grows)
            ),
        )

    def _described(
        self, name: SiteId, site: SiteDraft, records: int, version: int
    ) -> NodeDescriptor:
        topic = site.topic if site.claimed_topic is None else site.claimed_topic
        shares = site.shares if site.claimed_shares is None else site.claimed_shares
        claimed = records if site.claimed_records is None else site.claimed_records
        counts = np.floor(shares * claimed + 0.5).astype(int)
        return data_node(
            name,
            topics=(self.topics[topic],),
            labels={
                label: int(count) for label, count in zip(self.labels, counts, strict=True) if count
            },
            speed_flops=site.claimed_speed * FLOPS_PER_EXAMPLE / site.example_s,
            price_usd_per_1k=site.price_usd_per_1k,
            place=site.place,
            release_to=site.release_to,
            version=version,
        )


def log_uniform(rng: np.random.Generator, least: float, most: float) -> float:
    """Draw a value whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(least), np.log(most))))


def drafted(family: str, seed: int, *, sites: tuple[int, int] = (4, 14)) -> Draft:
    """A plain network: honest sites, free data, links that hardly matter.

    Ranges are wide on purpose; none was chosen by the results of any policy.
    """
    rng = np.random.default_rng((seed, zlib.crc32(family.encode())))
    fields = int(rng.integers(2, len(FIELDS) + 1))
    topics = (ROOT, *(f"{ROOT}/{name}" for name in FIELDS[:fields]))
    labels = LABELS[: int(rng.integers(2, len(LABELS) + 1))]
    experts = int(rng.integers(0, 3)) if fields > 1 else 1
    broad = experts == 0 or rng.random() < 0.8
    chosen = sorted(int(t) for t in 1 + rng.permutation(fields)[: min(experts, fields)])
    objectives = (*((0,) if broad else ()), *chosen)
    speed = log_uniform(rng, 30.0, 900.0)
    shape = (len(objectives), len(labels))
    example_s = log_uniform(rng, 4e-4, 1e-2)
    overhead_s = log_uniform(rng, 0.3, 8.0)
    access_bps = log_uniform(rng, 2e6, 1e8)
    typical = log_uniform(rng, 200.0, 3000.0)
    count = int(rng.integers(sites[0], sites[1] + 1))
    drafts = []
    for number in range(count):
        topic = int(rng.integers(1, len(topics))) if rng.random() < 0.6 else 0
        if number < len(objectives):
            topic = objectives[number]
        drafts.append(
            SiteDraft(
                topic=topic,
                records=int(np.clip(typical * rng.lognormal(0.0, 0.9), 40, 50_000)),
                shares=rng.dirichlet(np.full(len(labels), 1.5)),
                example_s=example_s * float(rng.lognormal(0.0, 0.5)),
                overhead_s=overhead_s * float(rng.lognormal(0.0, 0.3)),
                access_bps=access_bps * float(rng.lognormal(0.0, 0.5)),
                at=(float(rng.random()), float(rng.random())),
                claimed_speed=float(rng.lognormal(0.0, 0.25)),
                pool=number,
            )
        )
    order = rng.permutation(count)
    drafts = [drafts[k] for k in order]
    for number, site in enumerate(drafts):
        site.pool = number
    return Draft(
        family=family,
        seed=seed,
        rng=rng,
        sites=drafts,
        topics=topics,
        labels=labels,
        objectives=objectives,
        test_items=[_items(rng, len(labels)) for _ in objectives],
        chance=float(rng.choice([0.1, 0.25, 0.5])),
        transfer=_transfer(rng, len(topics), objectives),
        alike=_alike(rng, len(topics)),
        ceiling=np.clip(rng.uniform(0.8, 1.0, shape), 0.0, 1.0),
        scale=speed * rng.lognormal(0.0, 0.4, shape),
        constants={
            "alpha": float(rng.uniform(0.6, 1.6)),
            "beta": float(rng.uniform(1.0, 2.0)),
            "spill": float(rng.uniform(0.0, 0.6)),
            "passes": float(rng.uniform(2.0, 12.0)),
            "warm_up": float(rng.uniform(0.0, 150.0)),
            "forget": float(rng.uniform(0.02, 0.35)),
            "forget_examples": log_uniform(rng, 300.0, 3000.0),
            "recent_examples": log_uniform(rng, 200.0, 1500.0),
            "starve": float(rng.uniform(0.0, 0.3)),
            "luck": 0.1,
        },
        size_bytes=int(log_uniform(rng, 2e6, 2e8)),
        item_s=0.3 * example_s,
    )


def _items(rng: np.random.Generator, labels: int) -> tuple[int, ...]:
    total = int(rng.integers(150, 601))
    return tuple(max(4, int(share * total)) for share in rng.dirichlet(np.full(labels, 2.0)))


def _transfer(rng: np.random.Generator, topics: int, objectives: tuple[int, ...]) -> Floats:
    """Topic similarity explains part of the transfer, but not all."""
    transfer = np.zeros((topics, len(objectives)))
    for column, tested in enumerate(objectives):
        if tested == 0:
            transfer[:, column] = rng.uniform(0.15, 0.8, topics)
        else:
            transfer[:, column] = rng.uniform(0.0, 0.35, topics)
            transfer[0, column] = rng.uniform(0.05, 0.6)
            if rng.random() < 0.3:
                transfer[int(rng.integers(1, topics)), column] = rng.uniform(0.5, 0.9)
        transfer[tested, column] = 1.0
    return transfer


def _alike(rng: np.random.Generator, topics: int) -> Floats:
    alike = rng.uniform(0.1, 0.8, (topics, topics))
    alike = (alike + alike.T) / 2.0
    np.fill_diagonal(alike, 1.0)
    return np.asarray(alike)

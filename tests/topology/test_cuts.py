"""A cut that goes on from earlier ones is the cut made anew, whatever happened in between."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.objects.descriptors import DataPolicy, NodeDescriptor
from daitn.objects.identifiers import SiteId
from daitn.objects.intents import Budget, Objective, PinnedVisit, Quantity, Requirement
from daitn.objects.model_needs import ColumnsNeeded
from daitn.objects.readings import LoadReading, Reading
from daitn.topology.cuts import STALE_AFTER_S, Cuts
from daitn.topology.inbound import Inbound, InboundLinks
from daitn.topology.snapshot import Drrt, MsDrrt
from daitn.topology.state import DrrtState

from .medicine import LABELS, NOW_S, data_site, dataset, exam, intent, link, needs, verifier_site

SITES = ("a", "b", "c", "d", "u", "v")
EVERYTHING = (
    Requirement(quantity=Quantity.RTT_S, at_most=0.05),
    Requirement(quantity=Quantity.AGE_S, at_most=3_700.0),
    Requirement(quantity=Quantity.PRICE_USD_PER_1K, at_most=2.0),
    Requirement(quantity=Quantity.THROUGHPUT_BPS, at_least=1e6),
)
INTENTS = (
    intent(),
    intent(*EVERYTHING),
    intent(topics=("medicine/neurology",), route=(PinnedVisit(site=SiteId("a"), examples=1),)),
    intent(
        EVERYTHING[0],
        objectives=(Objective(name="broad", topic="medicine", metric="accuracy", at_least=0.5),),
        owner="friends",
    ),
    msgspec.structs.replace(intent(), budget=Budget(cost_usd=0.0)),
    msgspec.structs.replace(intent(), budget=Budget(cost_usd=5.0)),
)
HOURS = ("Mon-Sun 14:00-15:00", "Mon-Sun 16:00-17:00", "Mon-Sun 18:00-19:00")


class Network:
    """Random changes, one after the other, as time passes."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.state = DrrtState()
        self.now_s = NOW_S
        self.version = 1
        for site in SITES:
            self.state.absorb(self.node(site), self.now_s)

    def change(self) -> None:
        rng, site = self.rng, self.rng.choice(SITES)
        other = rng.choice([one for one in SITES if one != site])
        change: Callable[[], object] = rng.choice([
            lambda: self.state.absorb(self.node(site), self.now_s),
            lambda: self.state.lost(SiteId(site), self.now_s),
            lambda: self.state.appeared(SiteId(site), self.now_s),
            lambda: self.state.removed(SiteId(site), self.now_s),
            lambda: self.state.absorb(self.load(site), self.now_s),
            *[lambda: self.measure(site, other)] * 10,
        ])  # fmt: skip
        change()
        self.now_s += rng.choice([0.0, 0.0, 1.0, 60.0, 600.0, 3_600.0])

    def measure(self, site: str, other: str) -> None:
        """From both sides, at times of none to the other."""
        rng = self.rng
        at_s = self.now_s - rng.choice([0.0, 1.0, 500.0, 1_000.0])
        told = rng.choice([
            {"rtt_s": rng.choice([0.01, 0.05, 0.2])},
            {"rtt_s": 0.02, "throughput_bps": rng.choice([1e5, 1e6, 1e7])},
            {"loss": rng.choice([0.5, 1.0])},
        ])  # fmt: skip
        for one, another in ((site, other), (other, site))[: rng.choice([1, 2])]:
            self.state.absorb(link(one, another, at_s=at_s, **told), self.now_s)

    def load(self, site: str) -> LoadReading:
        def reading(value: float) -> Reading:
            return Reading(value, self.now_s - self.rng.choice([0.0, 800.0]), SiteId(site))

        queue, share = reading(float(self.rng.randrange(3))), reading(0.5)
        return LoadReading(
            site=SiteId(site), queue=queue, cpu_share=share, disk_free_bytes=reading(1e9)
        )

    def node(self, site: str) -> NodeDescriptor:
        """Of data, or of a verifier; a new version each time."""
        rng, self.version = self.rng, self.version + 1
        policy = DataPolicy(
            recipes=rng.choice([("*",), ("*",), ("other",)]),
            owners=rng.choice([("*",), ("friends",)]),
            hours=rng.choice([("*",), HOURS]),
            release_to=rng.choice([("*",), ("US",), ("CA",)]),
        )
        told = {"version": self.version, "jurisdiction": rng.choice(["US", "CA"])}
        if site in "uv":
            columns = rng.choice([2, 3, msgspec.UNSET])
            tests = (exam("medicine", policy=policy, columns=columns), exam("medicine/neurology"))
            described = verifier_site(site, *tests[: rng.choice([0, 1, 2])], **told)
            assert described.verifier is not None
            price = rng.choice([0.0, 2.0])
            priced = msgspec.structs.replace(described.verifier, price_usd_per_hour=price)
            return msgspec.structs.replace(described, verifier=priced)
        sets = [
            dataset(
                site,
                rng.choice(["medicine", "medicine/neurology", "law"]),
                name=name,
                price_usd_per_1k=rng.choice([1.0, 3.0]),
                labels=rng.choice([{}, LABELS]),
                columns=rng.choice([2, 3, msgspec.UNSET]),
                policy=policy,
            )
            for name in ("two", "one")[: rng.choice([1, 2])]
        ]
        return data_site(site, *sets, **told, cordon=rng.choice(["", "", "is cordoned"]))


def cut(cuts: Cuts, snapshot: Drrt, which: int, now_s: float, memory_bytes: int = 10**9) -> MsDrrt:
    wanted = needs(memory_bytes, columns=ColumnsNeeded(most=5))
    return cuts.relevant_to(snapshot, INTENTS[which], wanted, now_s=now_s)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 1_000_000))
def test_a_cut_that_goes_on_is_the_cut_made_anew(seed: int) -> None:
    network, kept = Network(seed), Cuts()
    for _ in range(40):
        network.change()
        which, memory = network.rng.randrange(len(INTENTS)), network.rng.choice([10**9, 10**11])
        snapshot, now_s = network.state.snapshot(network.now_s), network.now_s
        assert cut(kept, snapshot, which, now_s, memory) == cut(
            Cuts(), snapshot, which, now_s, memory
        )


def test_what_a_job_has_left_and_what_it_is_called_cut_nothing() -> None:
    network, cuts = Network(3), Cuts()
    snapshot = network.state.snapshot(NOW_S)
    first = cut(cuts, snapshot, 0, NOW_S)
    spent = msgspec.structs.replace(INTENTS[0], name="other", budget=Budget(examples=7))
    again = cuts.relevant_to(
        snapshot, spent, needs(10**9, columns=ColumnsNeeded(most=5)), now_s=NOW_S
    )
    assert again == first
    assert all(one is other for one, other in zip(first.options, again.options, strict=True))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 1_000_000))
def test_links_are_the_best_of_live_sites_at_any_time(seed: int) -> None:
    network, links = Network(seed), InboundLinks()
    for _ in range(40):
        network.change()
        # Two threads may ask with snapshots and times in any order.
        now_s = network.now_s - network.rng.choice([0.0, 0.0, 700.0])
        snapshot = network.state.snapshot(network.now_s)
        found = links.at(snapshot, now_s, STALE_AFTER_S)
        for site in SITES:
            best = found.get(SiteId(site), Inbound())
            for name in ("rtt_s", "throughput_bps"):
                readings = [
                    reading
                    for source in snapshot.alive()
                    if (known := snapshot.link(source, SiteId(site))) is not None
                    and (reading := getattr(known, name)) is not None
                ]
                fresh = [one.value for one in readings if one.at_s >= now_s - STALE_AFTER_S]
                least = (min if name == "rtt_s" else max)(fresh, default=None)
                told = getattr(best, name)
                assert (told.value if told is not None else None) == least
                if readings and not fresh:
                    stale = getattr(best, f"stale_{name}")
                    assert stale.at_s == max(one.at_s for one in readings)

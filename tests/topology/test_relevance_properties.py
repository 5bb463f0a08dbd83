"""What holds of every MS-DRRT, whatever the network and the intent.

Worlds have a few sites with values on a small grid, so that bounds are often just met.
"""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from daitn.objects.decisions import Rejection
from daitn.objects.descriptors import ComputeDescriptor, DataPolicy
from daitn.objects.identifiers import SiteId
from daitn.objects.intents import Objective, PinnedVisit, Quantity, Requirement, TrainingIntent
from daitn.topology.relaxation import DROPPED, relaxed
from daitn.topology.snapshot import Drrt

from .medicine import (
    LABELS,
    NOW_S,
    RECIPE,
    cut,
    data_site,
    dataset,
    drrt,
    exam,
    intent,
    link,
    verifier_site,
)

names = st.sampled_from(["US", "CA", "DE"])
topics = st.sampled_from(["medicine", "medicine/general", "medicine/neurology", "law"])
shares = st.sampled_from([0.0, 0.1234567, 0.5, 0.9])
amounts = st.sampled_from([0.0, 1.0, 449.0, 450.0, 12345.678, 3e9])


@st.composite
def requirements(draw: st.DrawFn) -> Requirement:
    quantity = draw(st.sampled_from(Quantity))
    if quantity.is_name:
        values = draw(st.lists(names | st.sampled_from(["a", "nih"]), min_size=1, unique=True))
        side = draw(st.sampled_from(["one_of", "none_of"]))
        return msgspec.convert({"quantity": quantity, side: values}, Requirement)
    side = draw(st.sampled_from(["at_least", "at_most"]))
    bound = draw(amounts | shares)
    return msgspec.convert({"quantity": quantity, side: bound}, Requirement)


@st.composite
def worlds(draw: st.DrawFn) -> Drrt:
    described = []
    for site in "abcd"[: draw(st.integers(1, 4))]:
        policy = DataPolicy(
            recipes=draw(st.sampled_from([("*",), (RECIPE,), ("other",)])),
            owners=draw(st.sampled_from([("*",), ("friends",)])),
            release_to=tuple(draw(st.lists(names | st.just("*"), max_size=2))),
        )
        sets = [
            dataset(
                site,
                draw(topics),
                name=name,
                samples=draw(st.integers(0, 2000)),
                quality=draw(shares),
                fresh_at_s=NOW_S - draw(amounts),
                price_usd_per_1k=draw(amounts),
                jurisdiction=draw(names),
                policy=policy,
                labels=draw(st.sampled_from([{}, LABELS])),
            )
            for name in ("one", "two")[: draw(st.integers(1, 2))]
        ]
        compute = ComputeDescriptor(
            device="cpu",
            memory_bytes=draw(st.sampled_from([0, 2_000_000_000])),
            speed_flops=draw(amounts),
            recipes=draw(st.sampled_from([(), (RECIPE,)])),
        )
        described.append(
            data_site(
                site,
                *sets,
                jurisdiction=draw(names),
                compute=draw(st.sampled_from([None, compute])),
            )
        )
    tests = [
        exam(draw(topics), metrics=tuple(draw(st.lists(st.sampled_from(["accuracy", "f1"])))))
        for _ in range(draw(st.integers(0, 2)))
    ]
    described.append(verifier_site("v", *tests, jurisdiction=draw(names)))
    ends = st.sampled_from([d.site for d in described])
    links = [
        link(draw(ends), draw(ends), at_s=NOW_S - draw(st.sampled_from([0, 5000])), **measured)
        for measured in draw(
            st.lists(
                st.fixed_dictionaries({}, optional={"rtt_s": amounts, "throughput_bps": amounts}),
                max_size=4,
            )
        )
    ]
    return drrt(described, links, draw(st.lists(ends, max_size=2)))


@st.composite
def intents(draw: st.DrawFn) -> TrainingIntent:
    tested = draw(st.lists(topics, min_size=1, max_size=2, unique=True))
    objectives = tuple(
        Objective(name=name, topic=topic, metric="accuracy", at_least=0.5)
        for name, topic in zip(("broad", "expert"), tested, strict=False)
    )
    return intent(
        *draw(st.lists(requirements(), max_size=4)),
        topics=tuple(draw(st.lists(topics, min_size=1, max_size=2, unique=True))),
        objectives=objectives,
        route=tuple(
            PinnedVisit(site=SiteId(site), examples=1)
            for site in draw(st.lists(st.sampled_from(["a", "aa", "v", "z"]), max_size=2))
        ),
    )


@given(worlds(), intents())
def test_every_data_set_is_an_option_or_is_told_why_not(
    snapshot: Drrt, wanted: TrainingIntent
) -> None:
    relevant = cut(snapshot, wanted)
    kept = {option.id for option in relevant.options}
    refused = {r.candidate for r in relevant.rejections if "/" in r.candidate}
    everything = {
        f"{site}/{found.name}"
        for site, state in snapshot.sites.items()
        for found in state.descriptor.datasets
    }
    assert kept | refused == everything
    assert not kept & refused


@given(worlds(), intents())
def test_the_relaxation_of_a_rejection_makes_its_filter_pass(
    snapshot: Drrt, wanted: TrainingIntent
) -> None:
    for refused in cut(snapshot, wanted).rejections:
        if not refused.relax_to:
            continue
        again = cut(snapshot, relaxed(wanted, refused)).rejections
        place = refused.field.split("].")[0].rstrip("]")
        # A dropped requirement moves the later ones up: there is one fewer that refuses.
        if refused.relax_to == DROPPED:
            before = cut(snapshot, wanted).rejections
            assert _count(again, refused) == _count(before, refused) - 1
            continue
        assert not any(
            r.candidate == refused.candidate
            and r.filter == refused.filter
            and r.field.startswith(place)
            for r in again
        )


def _count(rejections: tuple[Rejection, ...], like: Rejection) -> int:
    return sum((r.candidate, r.filter) == (like.candidate, like.filter) for r in rejections)


@given(worlds(), intents(), st.data())
def test_dropping_a_requirement_never_loses_an_option(
    snapshot: Drrt, wanted: TrainingIntent, data: st.DataObject
) -> None:
    if not wanted.requirements:
        return
    index = data.draw(st.integers(0, len(wanted.requirements) - 1))
    left = wanted.requirements[:index] + wanted.requirements[index + 1 :]
    fewer = msgspec.structs.replace(wanted, requirements=left)
    assert {o.id for o in cut(snapshot, wanted).options} <= {
        o.id for o in cut(snapshot, fewer).options
    }

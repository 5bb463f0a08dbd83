"""Networks of forwarders: what sets out is answered once, or its owner is told, whatever fails."""

from __future__ import annotations

from collections import Counter
from functools import partial
from random import Random

import msgspec
import pytest

from daitn.sim.forwarders import ForwarderNetwork
from daitn.steering.commands import Deliver, Drop, DropCause, Send
from daitn.steering.forwarder import Forwarder, ForwarderSettings
from daitn.steering.wire.intent import Capability, PacketIntent, encode_intent
from daitn.steering.wire.offers import Offer
from daitn.steering.wire.packet import Action, Packet, PacketKind
from daitn.steering.wire.replies import Reason, Refusal, read_refusal, refusal_to
from tests.scenes.searches import cases

from .routes.harness import random_links

TOPIC = "medicine/neurology"
KEY = f"{Capability.ANSWER}:{TOPIC}"
WANT = encode_intent(PacketIntent(Capability.ANSWER, TOPIC, owner="ana", tokens_out=100))


def able(fit: float = 0.9, serve_s: float = 0.05) -> Offer:
    return Offer(key=KEY, fit=fit, trust=2, serve_s=serve_s, amount=8)


def query(number: int, **changes: object) -> Packet:
    return Packet(PacketKind.QUERY, number.to_bytes(16, "big"), WANT, b"what?", **changes)  # type: ignore[arg-type]


def built(
    links: list[tuple[str, str]], able_sites: dict[str, Offer], **settings: float
) -> ForwarderNetwork:
    network = ForwarderNetwork(settings=ForwarderSettings(**settings))  # type: ignore[arg-type]
    for site in sorted({site for link in links for site in link}):
        offers = (able_sites[site],) if site in able_sites else ()
        network.add(site, offers, serve_s=lambda packet: 0.05)
    for a, b in links:
        network.connect(a, b, 0.01)
    network.run(5.0)
    return network


def break_site(network: ForwarderNetwork, broken: str) -> None:
    """From now on the site fails at all that it is to serve, and says so."""
    serve = network._serve

    def fails(site: str, packet: Packet) -> None:
        if site == broken:
            refusal = refusal_to(packet, Refusal(Reason.FAILED, "out of memory"))
            network._do(site, network.sites[site].forwarder.packet("", refusal, network.now_s))
        else:
            serve(site, packet)

    network._serve = fails  # type: ignore[method-assign]


def answers(network: ForwarderNetwork) -> dict[int, str]:
    """Object to the site that answered it; fails where one was told twice."""
    found: dict[int, str] = {}
    for returned in network.returned:
        number = int.from_bytes(returned.packet.object_id, "big")
        assert number not in found, "the owner was told twice"
        refused = returned.packet.kind is PacketKind.REFUSAL
        found[number] = (
            read_refusal(returned.packet).reason.name
            if refused
            else returned.packet.payload.decode()
        )
    return found


LINE = [("a", "b"), ("b", "c"), ("c", "d")]


def test_a_site_that_withdraws_passes_nothing_on_and_others_find_another_way() -> None:
    around = [("a", "b"), ("b", "d"), ("a", "x"), ("x", "y"), ("y", "d")]
    network = built(around, {"d": able()})
    b = network.sites["b"].forwarder
    b.routes.withdraw(True)
    b.custody.closed = "is cordoned by ops"
    # Before anybody has heard of it: it says why, and the sender tries another hop.
    network.send("a", query(1))
    network.run(5.0)
    assert answers(network) == {1: "d"}
    a = network.sites["a"].forwarder
    assert {route.neighbour for route in a.routes.routes_to("d")} == {"x"}
    network.send("a", query(2))
    network.run(5.0)
    assert answers(network) == {1: "d", 2: "d"}
    assert b.custody.pending.get((query(2).object_id, 0)) is None
    b.routes.withdraw(False)
    b.custody.closed = ""
    network.run(5.0)
    assert b.routes.routes_to("d")


def test_a_query_finds_its_model_and_its_answer_the_way_back() -> None:
    network = built(LINE, {"d": able()})
    network.send("a", query(1))
    network.run(1.0)
    assert answers(network) == {1: "d"}
    ((_, delivered),) = network.delivered
    assert [hop.site for hop in delivered.hops()] == ["a", "b", "c", "d"]
    assert network.returned[0].taken_s == pytest.approx(0.11, abs=0.001)
    assert not [name for name in network.counts if name.startswith("dropped")]


def test_the_one_that_is_near_is_preferred_and_the_other_taken_when_it_fails() -> None:
    network = built([*LINE, ("d", "e"), ("e", "a")], {"b": able(), "e": able(0.85)})
    network.send("a", query(1))
    network.run(1.0)
    network.crash("b")
    network.send("a", query(2))
    network.run(1.0)
    assert answers(network) == {1: "b", 2: "e"}


def test_what_is_under_way_through_a_site_that_fails_goes_another_way() -> None:
    network = built([("a", "b"), ("b", "d"), ("a", "c"), ("c", "d")], {"d": able(serve_s=1.0)})
    network.sites["d"].serve_s = lambda packet: 1.0
    network.send("a", query(1))
    network.run(0.5)
    first = next(hop.site for hop in network.delivered[0][1].hops() if hop.site in "bc")
    network.crash(first)
    network.run(2.0)
    assert answers(network) == {1: "d"}
    assert len(network.delivered) == 1, "served once, though asked for twice"


def test_an_answer_whose_path_back_is_gone_steers_itself_home() -> None:
    ring = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "a")]
    network = built(ring, {"c": able()}, overdue_s=100.0)
    network.sites["c"].serve_s = lambda packet: 1.0
    network.detect_s = 0.05
    network.send("a", query(1))
    network.run(0.5)
    # The forwarder at a never hears that b lost its neighbour.
    network.disconnect("b", "c")
    network.sites["b"].forwarder.custody.pending.forget((query(1).object_id, 0))
    network.run(2.0)
    assert answers(network) == {1: "c"}
    assert len(network.delivered) == 1


def test_who_asks_for_what_nobody_has_is_told() -> None:
    network = built(LINE, {})
    network.send("a", query(1))
    network.run(1.0)
    assert answers(network) == {1: Reason.NO_WAY.name}


def test_a_query_waits_a_moment_for_a_way() -> None:
    network = built(LINE, {})
    network.send("a", query(1))
    network.run(0.05)
    network.offer("d", (able(),))
    network.run(2.0)
    assert answers(network) == {1: "d"}


def test_a_query_goes_no_further_than_its_hop_limit_and_ends_by_its_deadline() -> None:
    network = built(LINE, {"d": able()})
    network.sites["d"].serve_s = lambda packet: 100.0
    network.send("a", query(1, hop_limit=2))
    network.send("a", query(2, hop_limit=3, deadline_ms=int(1000 * network.now_s) + 500))
    network.run(5.0)
    assert answers(network) == {1: Reason.HOPS.name, 2: Reason.DEADLINE.name}
    assert max(network.returned, key=lambda r: r.at_s).taken_s == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("ahead_s", [-3600.0, -1.0, 0.0, 60.0, 110.0])
def test_an_object_has_its_time_though_its_source_has_another_clock(ahead_s: float) -> None:
    """As long as signed messages allow for the difference, too."""
    source_s, here_s = 1e9, 1e9 + ahead_s
    there = Forwarder("b", here_s)
    there.routes.offer((able(),), here_s)
    there.link_up("a", 0.001, here_s)
    packet = query(1, deadline_ms=int(1000 * source_s) + 500)
    sent = packet.stepped("a", int(1000 * source_s), Action.FORWARDED, 0)
    assert sent.budget_s(here_s) == 0.5
    far = query(2, deadline_ms=int(1000 * source_s) + 10**10)
    assert far.stepped("a", int(1000 * source_s), Action.FORWARDED, 0).budget_s(here_s) == 1e7

    (delivered,) = there.packet("a", sent, here_s + 0.01)

    assert isinstance(delivered, Deliver)
    assert not [one for one in there.tick(here_s + 0.5) if isinstance(one, Drop)]
    assert [one.cause for one in there.tick(here_s + 0.52) if isinstance(one, Drop)] == [
        DropCause.EXPIRED
    ]


@pytest.mark.parametrize(("sent_s", "ahead_s"), [(0.0, 121.0), (0.0, 3600.0), (0.6, 0.0)])
def test_an_object_whose_deadline_has_passed_is_not_served(sent_s: float, ahead_s: float) -> None:
    """By a clock that is far from its source's, or since it set out after it."""
    source_s, here_s = 1e9, 1e9 + ahead_s
    there = Forwarder("b", here_s)
    there.routes.offer((able(),), here_s)
    there.link_up("a", 0.001, here_s)
    packet = query(1, deadline_ms=int(1000 * source_s) + 500)
    sent = packet.stepped("a", int(1000 * (source_s + sent_s)), Action.FORWARDED, 0)

    (refused,) = there.packet("a", sent, here_s + 0.7)

    assert isinstance(refused, Send)
    assert read_refusal(refused.packet).reason is Reason.DEADLINE


def test_an_object_that_is_sent_again_has_the_time_that_is_left_of_it() -> None:
    """Not from when it came first; and what its source tried before says nothing of its clock."""
    start_s = 1e9
    there = Forwarder("b", start_s)
    there.routes.offer((able(),), start_s)
    there.link_up("a", 0.001, start_s)
    first = query(1, deadline_ms=int(1000 * start_s) + 30_000)
    there.packet("a", first.stepped("a", int(1000 * start_s), Action.FORWARDED, 0), start_s)
    later_s = start_s + 22.0
    again = msgspec.structs.replace(first, attempt=1).stepped("c", 0, Action.TRIED, 0)
    again = again.stepped("a", int(1000 * later_s), Action.FORWARDED, 0)

    there.packet("a", again, later_s)

    assert not [one for one in there.tick(start_s + 29.9) if isinstance(one, Drop)]
    assert [one for one in there.tick(start_s + 30.1) if isinstance(one, Drop)]


@pytest.mark.parametrize("trace", [b"\x01", b"\x05ab", bytes(7)])
def test_a_malformed_path_is_told_of_an_object_with_a_deadline_too(trace: bytes) -> None:
    there = Forwarder("b", 1e9)
    there.link_up("a", 0.001, 1e9)
    for deadline_ms in (0, int(1e12) + 500):
        packet = query(1 + bool(deadline_ms), deadline_ms=deadline_ms)
        (dropped,) = there.packet("a", msgspec.structs.replace(packet, trace=trace), 1e9)
        assert isinstance(dropped, Drop)
        assert dropped.cause is DropCause.MALFORMED


def test_an_overdue_query_is_sent_again_to_another() -> None:
    network = built([("a", "b"), ("b", "c"), ("b", "d")], {"c": able(0.9), "d": able(0.8)})
    network.sites["c"].serve_s = lambda packet: 1e6
    network.send("a", query(1))
    network.run(10.0)
    assert answers(network) == {1: "d"}


def test_an_overdue_query_that_nobody_else_can_serve_is_waited_for() -> None:
    """As where a site is about to stop: it offers nothing, and answers what it has."""
    network = built([("a", "b"), ("b", "c")], {"c": able()})
    network.sites["c"].serve_s = lambda packet: 30.0
    network.send("a", query(1))
    network.run(0.5)
    network.offer("c", ())
    network.run(20.0)
    assert answers(network) == {}
    network.run(20.0)
    assert answers(network) == {1: "c"}
    assert len(network.delivered) == 1


def test_a_site_that_cannot_do_what_it_offers_is_passed_over() -> None:
    network = built([("a", "b"), ("b", "c"), ("b", "d")], {"c": able(0.9), "d": able(0.8)})
    break_site(network, "c")
    for number in range(20):
        network.send("a", query(number))
        network.run(0.5)
    assert answers(network) == dict.fromkeys(range(20), "d")
    tried = sum(site == "c" for site, _ in network.delivered)
    assert 1 <= tried < 10, "the forwarders learn of it"


def test_probes_come_back_with_the_path() -> None:
    network = built(LINE, {"d": able()})
    network.send("b", Packet(PacketKind.PROBE, bytes(16), WANT))
    network.run(1.0)
    (returned,) = network.returned
    path = Packet(PacketKind.PROBE, bytes(16), b"", trace=returned.packet.payload).hops()
    assert [(hop.site, hop.action) for hop in path] == [
        ("b", Action.FORWARDED), ("c", Action.FORWARDED), ("d", Action.DELIVERED)
    ]  # fmt: skip
    assert network.delivered == []


def test_an_owner_who_floods_takes_nothing_from_another() -> None:
    network = built(LINE, {"d": able()}, owner_per_s=10.0, owner_burst=20.0)
    other = encode_intent(PacketIntent(Capability.ANSWER, TOPIC, owner="ben"))
    for number in range(500):
        network.send("a", query(number))
    for number in range(500, 510):
        network.send("a", Packet(PacketKind.QUERY, number.to_bytes(16, "big"), other))
    network.run(20.0)
    told = answers(network)
    assert {told[number] for number in range(500, 510)} == {"d"}
    ana = Counter(told[number] for number in range(500))
    assert set(ana) == {"d", Reason.RATE.name}
    # The burst, and what may come while those that were turned away are sent again.
    assert 20 <= ana["d"] <= 60


def test_replies_that_are_kept_make_room_for_what_is_new() -> None:
    network = built(LINE, {"d": able()}, most_objects=5)
    for number in range(40):
        network.send("a", query(number))
        network.run(0.5)
    assert answers(network) == dict.fromkeys(range(40), "d")
    assert len(network.sites["b"].forwarder.custody.pending) == 5
    network.sites["d"].serve_s = lambda packet: 1000.0
    for number in range(40, 50):
        network.send("a", query(number))
    network.run(5.0)
    told = answers(network)
    assert {told[number] for number in told if number >= 40} == {Reason.FULL.name}
    assert sum(number >= 40 for number in told) == 5


@pytest.mark.parametrize("seed", range(cases(20)))
def test_in_a_network_at_rest_all_arrive_and_none_circles(seed: int) -> None:
    rng = Random(seed)
    sites = [f"s{number:02}" for number in range(rng.randrange(3, 25))]
    links = random_links(rng, sites, rng.uniform(2.0, 5.0))
    capable = {s: able(rng.uniform(0.6, 0.99)) for s in rng.sample(sites, rng.randint(1, 3))}
    network = built(links, capable)
    for number in range(30):
        network.send(rng.choice(sites), query(number))
    network.run(20.0)
    assert set(answers(network).values()) <= set(capable)
    assert len(network.returned) == len(network.delivered) == 30
    for _, packet in network.delivered:
        path = [hop.site for hop in packet.hops()]
        assert len(path) == len(set(path))


@pytest.mark.parametrize("seed", range(cases(30)))
def test_what_can_be_delivered_is_and_every_owner_is_told_once(seed: int) -> None:
    """Links and sites fail and come back at random. Some links of a tree never fail; what sets out
    from a site of that tree is answered."""
    rng = Random(seed)
    sites = [f"s{number:02}" for number in range(rng.randrange(4, 20))]
    links = random_links(rng, sites, rng.uniform(2.5, 5.0))
    capable = {s: able(rng.uniform(0.6, 0.99)) for s in rng.sample(sites, rng.randint(1, 3))}
    network = built(links, capable)
    lasting = _tree(next(iter(capable)), links, rng)
    steady = {site for link in lasting for site in link} | {next(iter(capable))}
    sent: dict[int, str] = {}
    for number in range(60):
        source = rng.choice(sites)
        sent[number] = source
        network.send(source, query(number))
        if rng.random() < 0.5:
            _fail(network, rng, links, lasting, steady)
        network.run(rng.uniform(0.0, 0.3))
    network.run(60.0)
    told = answers(network)
    for number, source in sent.items():
        if source in steady:
            assert told.get(number) in capable, f"{number} from {source}: {told.get(number)}"
    for _, packet in network.delivered:
        path = [hop.site for hop in packet.hops()]
        assert len(path) == len(set(path))


def _tree(root: str, links: list[tuple[str, str]], rng: Random) -> set[frozenset[str]]:
    """About half of the sites, joined to `root` by links that last."""
    reached, lasting = {root}, set[frozenset[str]]()
    for a, b in rng.sample(links, len(links)) * 3:
        if (a in reached) != (b in reached) and rng.random() < 0.6:
            reached |= {a, b}
            lasting.add(frozenset((a, b)))
    return lasting


def _fail(
    network: ForwarderNetwork,
    rng: Random,
    links: list[tuple[str, str]],
    lasting: set[frozenset[str]],
    steady: set[str],
) -> None:
    passing = [link for link in links if frozenset(link) not in lasting]
    loose = sorted({site for link in links for site in link} - steady)
    if loose and rng.random() < 0.3:
        site = rng.choice(loose)
        lost = network.crash(site)
        for neighbour, delay_s in lost:
            after_s = rng.uniform(0.2, 2.0)
            network.clock.after(after_s, partial(network.connect, site, neighbour, delay_s))
    elif passing:
        a, b = rng.choice(passing)
        if frozenset((a, b)) in network.links:
            network.disconnect(a, b)
            network.clock.after(rng.uniform(0.2, 2.0), lambda: network.connect(a, b, 0.01))

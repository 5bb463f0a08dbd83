"""Objects that pass borders between domains, whatever fails, and whoever changes his domain."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest

from daitn.sim.forwarders import ForwarderNetwork
from daitn.steering.forwarder import ForwarderSettings
from daitn.steering.next_hops import LOCAL
from daitn.steering.wire.intent import Capability, PacketIntent, encode_intent
from daitn.steering.wire.offers import Offer
from daitn.steering.wire.packet import Packet, PacketKind
from daitn.steering.wire.replies import Reason, Refusal, read_refusal, refusal_to
from tests.scenes.searches import cases

from ..routes.harness import random_links
from ..test_forwarder import KEY, TOPIC, able, answers, query


def domain(site: str) -> str:
    """Sites are named after their domains."""
    return {"w": "west", "m": "mid", "e": "east", "n": "north"}[site[0]]


def built(links: str, able_sites: dict[str, Offer], **settings: float) -> ForwarderNetwork:
    network = ForwarderNetwork(settings=ForwarderSettings(**settings))  # type: ignore[arg-type]
    pairs = [link.split("-") for link in links.split()]
    for site in sorted({site for pair in pairs for site in pair}):
        offers = (able_sites[site],) if site in able_sites else ()
        network.add(site, offers, serve_s=lambda packet: 0.05, domain=domain(site))
    for a, b in pairs:
        network.connect(a, b, 0.01)
    network.run(8.0)
    return network


def fails(network: ForwarderNetwork, broken: str) -> None:
    """A site refuses what is delivered to it."""
    serve = network._serve

    def served(site: str, packet: Packet) -> None:
        if site == broken:
            refusal = refusal_to(packet, Refusal(Reason.FAILED, "out of memory"))
            network._do(site, network.sites[site].forwarder.packet(LOCAL, refusal, network.now_s))
        else:
            serve(site, packet)

    network._serve = served  # type: ignore[method-assign]


def path(packet: Packet) -> list[str]:
    return [hop.site for hop in packet.hops()]


ACROSS = "w1-w2 w2-m1 m1-m2 m2-m3 m3-e1 e1-e2"


def test_a_query_crosses_three_domains_and_its_answer_comes_back() -> None:
    network = built(ACROSS, {"e2": able()})
    table = network.sites["w1"].forwarder.routes
    assert set(table.origins()) == {"w2", "domain:east@e1/1"}
    network.send("w1", query(1))
    network.run(1.0)
    assert answers(network) == {1: "e2"}
    ((_, delivered),) = network.delivered
    assert path(delivered) == ["w1", "w2", "m1", "m2", "m3", "e1", "e2"]
    pending = [network.sites[s].forwarder.custody.pending.get((query(1).object_id, 0))
              for s in path(delivered)]  # fmt: skip
    choices = [entry.steps[-1].choice for entry in pending if entry is not None]
    assert [choice.origin for choice in choices if choice] == ["domain:east@e1/1"] * 5 + ["e2"] * 2
    advertised_scores = [choice.advertised_score for choice in choices[:-1] if choice]
    assert advertised_scores == sorted(set(advertised_scores)), "it grows at every hop"
    assert choices[0] is not None
    # Each hop counts a millisecond more than it takes.
    assert network.returned[0].taken_s == pytest.approx(choices[0].expected_s, abs=0.02)
    assert not [name for name in network.counts if name.startswith("dropped")]


def test_a_domain_on_the_way_that_can_do_it_does_it() -> None:
    network = built(ACROSS, {"e2": able(), "m2": able()})
    network.send("w1", query(1))
    network.send("e1", query(2))
    network.run(1.0)
    assert answers(network) == {1: "m2", 2: "e2"}


def test_terms_hold_beyond_a_border() -> None:
    def of(where: str, fit: float) -> Offer:
        return Offer(KEY, fit=fit, trust=2, serve_s=0.05, amount=8, jurisdiction=where, owner=where)

    network = built("w1-w2 w2-e1 e1-e2 e1-e3 e1-e4", {"e2": of("ca", 0.9), "e3": of("us", 0.5)})
    for number, (where, owner) in enumerate((("ca", ""), ("us", ""), ("", "us"), ("de", ""))):
        intent = PacketIntent(
            Capability.ANSWER,
            TOPIC,
            jurisdictions=(where,) if where else (),
            owners=(owner,) if owner else (),
        )
        network.send(
            "w1", Packet(PacketKind.QUERY, number.to_bytes(16, "big"), encode_intent(intent))
        )
    network.run(2.0)
    assert answers(network) == {0: "e2", 1: "e3", 2: "e3", 3: Reason.NO_WAY.name}


def test_who_is_refused_at_one_border_tries_the_next() -> None:
    # The domain is in two pieces, and what fails is the better one.
    network = built("w1-w2 w2-e1 e1-e2 w2-e3 e3-e4", {"e2": able(0.9), "e4": able(0.8)})
    fails(network, "e2")
    network.send("w1", query(1))
    network.run(2.0)
    assert answers(network) == {1: "e4"}


def test_a_border_finds_another_inside_where_one_fails() -> None:
    network = built("w1-w2 w2-e1 e1-e2 e1-e4", {"e2": able(0.9), "e4": able(0.8)})
    fails(network, "e2")
    network.send("w1", query(1))
    network.run(2.0)
    assert answers(network) == {1: "e4"}
    refused = network.counts["REFUSAL"]
    assert refused == 1, "only its neighbour heard of it"


def test_a_border_fails_and_another_takes_over() -> None:
    network = built("w1-w2 w1-w3 w2-e1 w3-e3 e1-e2 e2-e3", {"e2": able(serve_s=1.0)})
    network.sites["e2"].serve_s = lambda packet: 1.0
    network.send("w1", query(1))
    network.run(0.5)
    (through,) = {"e1", "e3"} & set(path(network.delivered[0][1]))
    lost = network.crash(through)
    network.run(2.0)
    network.send("w1", query(2))
    network.run(2.0)
    assert answers(network) == {1: "e2", 2: "e2"}
    origins = {o for o in network.sites["w1"].forwarder.routes.origins() if ":" in o}
    assert origins == {f"domain:east@{'e3' if through == 'e1' else 'e1'}/1"}
    for neighbour, delay_s in lost:
        network.connect(through, neighbour, delay_s)
    network.run(20.0)
    origins = {o for o in network.sites["w1"].forwarder.routes.origins() if ":" in o}
    assert origins == {"domain:east@e1/1", "domain:east@e3/1"}


def test_an_answer_that_finds_no_way_home_is_dropped_and_the_source_sends_again() -> None:
    ring = "w1-w2 w2-m1 m1-m2 m2-m3 m3-e1 e1-e2 m1-m4 m4-m3"
    network = built(ring, {"e2": able()}, overdue_s=1.0)
    network.sites["e2"].serve_s = lambda packet: 0.5
    network.send("w1", query(1))
    network.run(0.3)
    middle = next(site for site in path(network.delivered[0][1]) if site in ("m2", "m4"))
    # The forwarder at m1 never hears that this one lost its neighbour and what it knew.
    network.disconnect("m1", middle)
    network.sites["m1"].forwarder.custody.pending.forget((query(1).object_id, 0))
    network.run(10.0)
    assert answers(network) == {1: "e2"}
    assert any("no other route home" in name for name in network.counts)


def test_an_overdue_query_is_sent_again_to_another_domain_or_within_the_same() -> None:
    network = built("w1-w2 w2-e1 e1-e2 w2-n1 n1-n2", {"e2": able(0.9), "n2": able(0.8)})
    network.sites["e2"].serve_s = lambda packet: 1e6
    network.send("w1", query(1))
    network.run(10.0)
    assert answers(network) == {1: "n2"}
    alone = built("w1-w2 w2-e1 e1-e2 e1-e3", {"e2": able(0.9), "e3": able(0.85)})
    alone.sites["e2"].serve_s = lambda packet: 1e6
    alone.send("w1", query(1))
    alone.run(20.0)
    assert answers(alone) == {1: "e3"}


def random_domains(rng: Random) -> tuple[list[tuple[str, str]], list[str]]:
    """Domains of one piece, joined at random: links and sites."""
    pieces = [[f"{name}{number}" for number in range(rng.randint(2, 5))]
              for name in "wmen"[: rng.randint(2, 4)]]  # fmt: skip
    links = [link for piece in pieces for link in random_links(rng, piece, rng.uniform(2.0, 3.0))]
    for at in range(1, len(pieces)):
        for _ in range(rng.randint(1, 3)):
            links.append((rng.choice(pieces[rng.randrange(at)]), rng.choice(pieces[at])))
    return sorted({*links}), [site for piece in pieces for site in piece]


@pytest.mark.parametrize("seed", range(cases(12)))
def test_in_a_network_at_rest_all_arrive_and_none_circles(seed: int) -> None:
    rng = Random(seed)
    links, sites = random_domains(rng)
    capable = {s: able(rng.uniform(0.6, 0.99)) for s in rng.sample(sites, rng.randint(1, 3))}
    network = built(" ".join(f"{a}-{b}" for a, b in links), capable)
    for number in range(30):
        network.send(rng.choice(sites), query(number))
    network.run(20.0)
    assert set(answers(network).values()) <= set(capable)
    assert len(network.returned) == len(network.delivered) == 30
    for _, packet in network.delivered:
        assert len(path(packet)) == len(set(path(packet)))


@pytest.mark.parametrize("seed", range(cases(5)))
def test_from_domains_to_none_and_back_while_queries_flow_nothing_is_lost(seed: int) -> None:
    rng = Random(seed)
    links, sites = random_domains(rng)
    capable = {s: able(rng.uniform(0.6, 0.99)) for s in rng.sample(sites, rng.randint(1, 3))}
    network = built(" ".join(f"{a}-{b}" for a, b in links), capable)
    for round_ in range(4):
        for site in sites:
            name = "" if round_ % 2 == 0 else domain(site)
            after_s = 5.0 * round_ + rng.uniform(0.0, 1.0)
            network.clock.after(after_s, partial(network.switch, site, name))
    for number in range(500):
        network.send(rng.choice(sites), query(number))
        network.run(0.05)
    network.run(30.0)
    told = answers(network)
    assert len(told) == 500
    assert set(told.values()) <= set(capable)
    for site in sites:
        reached = network.sites[site].forwarder.routes.origins()
        plain = {other for other in sites if domain(other) == domain(site)} - {site}
        assert {origin for origin in reached if ":" not in origin} == plain


def test_copies_that_go_into_one_domain_are_kept_apart_there() -> None:
    network = built("w1-w2 w2-m1 m1-m2 m1-m3", {"m2": able(0.9), "m3": able(0.8)})
    for branch in range(3):
        network.send("w1", query(1, branch=branch))
    network.run(2.0)
    told = {
        returned.packet.branch: returned.packet.payload.decode()
        for returned in network.returned
        if returned.packet.kind is PacketKind.ANSWER
    }
    assert told == {0: "m2", 1: "m3"}
    refused = next(r.packet for r in network.returned if r.packet.kind is PacketKind.REFUSAL)
    assert (refused.branch, read_refusal(refused).reason) == (2, Reason.NO_WAY)

"""Copies of one object: each finds an origin of its own, or its owner hears at once that it does
not."""

from __future__ import annotations

from collections import defaultdict
from random import Random

import msgspec
import pytest

from daitn.sim.forwarders import ForwarderNetwork
from daitn.steering.wire.packet import Action, PacketKind
from daitn.steering.wire.replies import Reason, read_refusal
from tests.scenes.searches import cases

from .routes.harness import random_links
from .test_forwarder import able, break_site, built, query


def send_copies(network: ForwarderNetwork, source: str, number: int, copies: int) -> None:
    for branch in range(copies):
        network.send(source, msgspec.structs.replace(query(number), branch=branch))


def told(network: ForwarderNetwork) -> dict[int, dict[int, str]]:
    """Object to branch to the site that answered, or to the reason; fails where one came twice."""
    found: defaultdict[int, dict[int, str]] = defaultdict(dict)
    for returned in network.returned:
        packet = returned.packet
        branches = found[int.from_bytes(packet.object_id, "big")]
        assert packet.branch not in branches, "the owner was told twice"
        refused = packet.kind is PacketKind.REFUSAL
        branches[packet.branch] = (
            read_refusal(packet).reason.name if refused else packet.payload.decode()
        )
    return found


FORK = [("a", "b"), ("b", "c"), ("b", "d")]


def test_two_copies_are_answered_by_two() -> None:
    network = built(FORK, {"c": able(0.9), "d": able(0.7)})
    send_copies(network, "a", 1, 2)
    network.run(1.0)
    assert told(network) == {1: {0: "c", 1: "d"}}
    (second,) = [packet for _, packet in network.delivered if packet.branch]
    assert second.source() == "a"
    hops = [(hop.site, hop.action) for hop in second.hops()]
    assert [site for site, action in hops if action is not Action.TRIED] == ["a", "b", "d"]
    assert ("c", Action.TRIED) in hops


def test_a_copy_says_where_those_went_that_left_by_another_neighbour() -> None:
    ring = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")]
    network = built(ring, {"b": able(0.9), "d": able(0.7)})
    send_copies(network, "a", 1, 2)
    network.run(1.0)
    assert told(network) == {1: {0: "b", 1: "d"}}
    (second,) = [packet for _, packet in network.delivered if packet.branch]
    assert second.source() == "a"
    hops = second.hops()
    assert (hops[0].site, hops[0].action) == ("b", Action.TRIED)
    assert [hop.site for hop in hops[1:]] == ["a", "d"]


def test_a_copy_may_pass_the_site_that_serves_another() -> None:
    network = built([("a", "b"), ("b", "c")], {"b": able(0.9), "c": able(0.8)})
    send_copies(network, "a", 1, 3)
    network.run(1.0)
    assert told(network) == {1: {0: "b", 1: "c", 2: Reason.NO_WAY.name}}


def test_a_copy_too_many_is_refused_before_the_others_are_answered() -> None:
    network = built(FORK, {"c": able(0.9), "d": able(0.7)})
    send_copies(network, "a", 1, 3)
    network.run(1.0)
    assert told(network) == {1: {0: "c", 1: "d", 2: Reason.NO_WAY.name}}
    assert network.returned[0].packet.branch == 2
    assert network.returned[0].taken_s == 0.0


def test_the_site_where_copies_set_out_answers_one_of_them() -> None:
    network = built(FORK, {"a": able(0.9), "d": able(0.7)})
    send_copies(network, "a", 1, 3)
    network.run(1.0)
    assert told(network) == {1: {0: "a", 1: "d", 2: Reason.NO_WAY.name}}


def test_a_site_on_the_way_of_two_copies_answers_one_of_them() -> None:
    """What the source believes of origins may be old: copies part where it is known better."""
    network = built(FORK, {"b": able(0.7), "c": able(0.9)})
    send_copies(network, "a", 1, 1)
    second = query(1, branch=1).stepped("a", 0, Action.FORWARDED, 0)
    network.run(0.02)
    network._do("b", network.sites["b"].forwarder.packet("a", second, network.now_s))
    network.run(1.0)
    assert sorted(site for site, _ in network.delivered) == ["b", "c"]


def test_copies_that_wait_for_a_way_part_when_there_are_two() -> None:
    network = built(FORK, {})
    send_copies(network, "a", 1, 2)
    network.run(0.05)
    network.offer("c", (able(0.9),))
    network.offer("d", (able(0.7),))
    network.run(2.0)
    assert told(network) == {1: {0: "c", 1: "d"}}


def test_a_copy_whose_origin_fails_does_not_go_where_another_one_went() -> None:
    network = built(FORK, {"c": able(0.9), "d": able(0.7)})
    break_site(network, "d")
    send_copies(network, "a", 1, 2)
    network.run(5.0)
    assert told(network) == {1: {0: "c", 1: Reason.FAILED.name}}


def test_a_stranger_may_say_any_branch() -> None:
    network = built(FORK, {"c": able(0.9)})
    network.send("a", query(1, branch=65_535))
    network.run(1.0)
    assert told(network) == {1: {65_535: "c"}}


@pytest.mark.parametrize("seed", range(cases(20)))
def test_in_a_network_at_rest_no_two_copies_share_an_origin(seed: int) -> None:
    rng = Random(seed)
    sites = [f"s{number:02}" for number in range(rng.randrange(3, 25))]
    links = random_links(rng, sites, rng.uniform(2.0, 5.0))
    capable = rng.sample(sites, rng.randint(1, min(5, len(sites))))
    network = built(links, {site: able(rng.uniform(0.6, 0.99)) for site in capable})
    copies = {number: rng.randint(2, 7) for number in range(10)}
    for number, count in copies.items():
        send_copies(network, rng.choice(sites), number, count)
        network.run(5.0)
    reasons = {reason.name for reason in Reason}
    for number, branches in told(network).items():
        assert len(branches) == copies[number]
        answered = [site for site in branches.values() if site not in reasons]
        assert answered
        assert len(answered) == len({*answered})
        assert {*branches.values()} <= {*capable, Reason.NO_WAY.name}

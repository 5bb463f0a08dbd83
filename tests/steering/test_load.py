"""What a forwarder counts of the load of others: what answers say, and what it sent itself."""

from __future__ import annotations

from collections import Counter

import pytest

from daitn.sim.forwarders import ForwarderNetwork
from daitn.steering.paths import answered_by
from daitn.steering.statistics import OriginLoad, Statistics
from daitn.steering.wire.intent import Capability, PacketIntent, encode_intent
from daitn.steering.wire.offers import Offer
from daitn.steering.wire.packet import Action, Packet, PacketKind
from daitn.steering.wire.replies import Reason, read_refusal

KEY = f"{Capability.ANSWER}:law"
WANT = encode_intent(PacketIntent(Capability.ANSWER, "law", trust=0))


def query(number: int) -> Packet:
    return Packet(PacketKind.QUERY, number.to_bytes(16, "big"), WANT)


def network(*links: tuple[str, str], able: tuple[str, ...], slots: int = 2) -> ForwarderNetwork:
    made = ForwarderNetwork()
    offer = Offer(key=KEY, fit=0.9, serve_s=0.2, amount=slots)
    for site in sorted({site for link in links for site in link}):
        offers = (offer,) if site in able else ()
        made.add(site, offers, slots=slots, serve_s=lambda packet: 0.2)
    for a, b in links:
        made.connect(a, b, 0.01)
    made.run(3.0)
    return made


def test_packets_sent_after_a_load_report_are_added_to_it() -> None:
    load = OriginLoad()
    load.advertised(0.0, 0.0, distance_s=0.1, now_s=0.0)
    load.waiting = {b"a": 1.0, b"b": 2.0, b"c": 3.0}
    assert load.ahead() == 3
    # What was told at 2.1 left at 2.0, and what left here at 1.9 had come there by then.
    load.reported(7, now_s=2.1)
    assert load.ahead() == 7 + 2
    load.advertised(0.0, 0.0, distance_s=0.1, now_s=4.0)
    assert load.ahead() == 9, "a summary that says the same is no newer"


def test_own_queries_in_the_advertised_load_are_not_counted_twice() -> None:
    load = OriginLoad()
    load.waiting = {b"a": 1.0}
    load.advertised(0.5, 5.0, distance_s=0.0, now_s=2.0)
    load.waiting = {}
    assert load.ahead() == 4


def test_load_reports_of_unranked_sites_are_not_stored() -> None:
    statistics = Statistics()
    statistics.load_reported("anybody", 3, 0.0)
    assert statistics.version == 0


def test_an_answer_says_who_gave_it_and_how_much_else_was_there() -> None:
    made = network(("a", "b"), ("b", "c"), able=("c",))
    for number in range(3):
        made.send("a", query(number))
    made.run(1.0)
    answers = [returned.packet for returned in made.returned]
    assert {answered_by(answer) for answer in answers} == {"c"}
    assert sorted(answer.advertised_score for answer in answers) == [0, 1, 2]
    assert [hop.action for hop in answers[0].hops()] == [Action.DELIVERED]


def test_a_burst_from_one_site_is_shared_out_at_once() -> None:
    made = network(("a", "b"), ("a", "c"), able=("b", "c"))
    for number in range(8):
        made.send("a", query(number))
        made.run(0.005)
    made.run(2.0)
    assert Counter(site for site, _ in made.delivered) == {"b": 4, "c": 4}


@pytest.mark.parametrize("asker", ["dead", "a"])
def test_who_has_ways_only_back_says_so_at_once(asker: str) -> None:
    """`dead` reaches `able` by `a` alone. A query that came from there does not rest in it."""
    made = network(("dead", "a"), ("a", "able"), able=("able",))
    packet = query(0).stepped("a", 0, Action.FORWARDED, 0)
    dead = made.sites["dead"].forwarder
    (command,) = dead.packet("a", packet, made.now_s)
    refusal = getattr(command, "packet", None)
    assert isinstance(refusal, Packet)
    assert read_refusal(refusal).reason is Reason.NO_WAY
    made.send(asker, query(1))
    made.run(1.0)
    assert [returned.packet.kind for returned in made.returned] == [PacketKind.ANSWER]

"""What a forwarder remembers: little of most objects, and alarms in the order of their times."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.objects.decisions import Decision
from daitn.steering.commands import Send
from daitn.steering.forwarder import Forwarder, ForwarderSettings
from daitn.steering.ranking import Outline
from daitn.steering.reports import pending_reports
from daitn.steering.timers import Timers
from daitn.steering.wire.intent import Capability, PacketIntent, encode_intent
from daitn.steering.wire.offers import Offer, RouteEntry, Update
from daitn.steering.wire.packet import Action, Packet, PacketKind, encode_packet
from daitn.steering.wire.replies import Reason, answer_to, read_refusal

TOPIC = "medicine/neurology"


def forwarder(origins: int, settings: ForwarderSettings | None = None) -> Forwarder:
    core = Forwarder("here", 0.0, settings or ForwarderSettings())
    core.link_up("next", 0.01, 0.0)
    entries = tuple(
        RouteEntry(f"o{i:03}", 0, 0.01, 1, (Offer(f"answer:{TOPIC}", 0.5 + i / 1000, 2, 0.1),))
        for i in range(origins)
    )
    core.receive_summary("next", Update(entries, whole=True), 0.0)
    return core


def packet(number: int, kind: PacketKind = PacketKind.QUERY, **changes: object) -> Packet:
    intent = encode_intent(PacketIntent(Capability.ANSWER, TOPIC, tokens_out=number))
    made = Packet(kind, number.to_bytes(16, "big"), intent, b"?", **changes)  # type: ignore[arg-type]
    return made.stepped("gate", 0, Action.FORWARDED, 0)


@pytest.mark.parametrize(
    ("kind", "all_of_it"), [(PacketKind.QUERY, False), (PacketKind.PROBE, True)]
)
def test_all_that_was_known_is_remembered_of_what_is_to_be_traced(
    kind: PacketKind, all_of_it: bool
) -> None:
    core = forwarder(100)
    core.link_up("gate", 0.01, 0.0)
    core.packet("gate", packet(1, kind), 1.0)
    entry = core.custody.pending.get((packet(1).object_id, 0))
    assert entry is not None
    (step,) = entry.steps
    assert isinstance(step.known, Decision if all_of_it else Outline)
    (report,) = pending_reports(core.custody, packet(1).object_id)
    decision = report.steps[0].decision
    assert decision.chosen == "o099 via next"
    assert len(decision.ranking) == (20 if all_of_it else 4)
    assert all(bool(scored.terms) == all_of_it for scored in decision.ranking)


def test_why_there_was_no_way_is_remembered_of_every_object() -> None:
    core = forwarder(1)
    core.link_up("gate", 0.01, 0.0)
    careful = encode_intent(PacketIntent(Capability.ANSWER, TOPIC, min_fit=0.9))
    core.packet("gate", Packet(PacketKind.QUERY, bytes(16), careful), 1.0)
    (report,) = pending_reports(core.custody, bytes(16))
    assert [no.field for no in report.steps[0].decision.rejections] == ["min_fit"]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.sampled_from((0.5, 3.0, 3.0, 60.0))),
            st.tuples(st.just("put"), st.floats(0.0, 100.0)),
            st.tuples(st.just("due"), st.floats(0.0, 20.0)),
            st.tuples(st.just("cancel"), st.integers(0, 200)),
        ),
        max_size=200,
    )
)
def test_alarms_are_told_once_when_they_are_due(happens: list[tuple[str, float]]) -> None:
    at_s: dict[int, float] = {}
    alarms = Timers[int](lambda when_s, key: at_s.get(key) == when_s)
    now_s = 0.0
    for number, (kind, value) in enumerate(happens):
        if kind == "put":
            at_s[number] = now_s + value
            alarms.put(now_s + value, number)
        elif kind == "cancel":
            at_s.pop(int(value), None)
        else:
            now_s += value
            told = [*alarms.due(now_s)]
            assert sorted(told) == sorted(key for key, when_s in at_s.items() if when_s <= now_s)
            for key in told:
                del at_s[key]
        assert alarms.next_s() <= min(at_s.values(), default=float("inf"))


def test_alarms_that_do_not_count_any_more_take_little_room() -> None:
    standing: set[int] = set()
    alarms = Timers[int](lambda when_s, key: key in standing)
    for number in range(100_000):
        standing = {number}
        alarms.put(600.0 + number if number % 2 else 30.0 + number, number)
    assert alarms.kept < 5000
    assert [*alarms.due(1e9)] == [99_999]


BOUND = 1 << 20
"""Of memory, in the tests below."""


def heavy(part: str, number: int) -> Packet:
    """A packet with some kilobytes in one of its parts."""
    places = tuple(f"{'j' * 100}{i:05}" for i in range(64)) if part == "intent" else ()
    intent = encode_intent(
        PacketIntent(Capability.ANSWER, TOPIC, jurisdictions=places, tokens_out=number)
    )
    made = Packet(
        PacketKind.PROBE if part == "decisions" else PacketKind.QUERY,
        number.to_bytes(16, "big"),
        intent,
        bytes(7000) if part == "payload" else b"?",
        hop_limit=64,
    )
    for step in range(60 if part == "trace" else 0):
        made = made.stepped(f"{'s' * 50}-{step}", 0, Action.TRIED, 0)
    return made


@pytest.mark.parametrize("part", ["intent", "trace", "payload", "decisions", "nothing"])
@pytest.mark.parametrize("answer_bytes", [1, 20_000])
def test_a_forwarder_keeps_within_its_bound_whatever_packets_are_heavy_with(
    part: str, answer_bytes: int
) -> None:
    core = forwarder(50, ForwarderSettings(most_bytes=BOUND, owner_per_s=1e9, owner_burst=1e9))
    core.link_up("gate", 0.01, 0.0)
    pending = core.custody.pending
    packets = [heavy(part, number) for number in range(3000)]
    said = [command for each in packets for command in core.packet("gate", each, 1.0)]
    under_way = [each for each in packets if pending.get((each.object_id, 0)) is not None]
    assert pending.held_bytes <= BOUND
    assert sum(len(encode_packet(each)) for each in under_way) <= BOUND
    refused = [
        c.packet for c in said if isinstance(c, Send) and c.packet.kind is PacketKind.REFUSAL
    ]
    assert {read_refusal(no).reason for no in refused} == {Reason.FULL}
    assert len(under_way) + len(refused) == len(packets)
    for each in under_way:
        sent = each.stepped("here", 0, Action.FORWARDED, 0)
        core.packet("next", answer_to(sent, bytes(answer_bytes)), 1.0)
        assert pending.held_bytes <= BOUND
    core.tick(1e6)
    assert (len(pending), pending.held_bytes) == (0, 0)


def test_wants_that_are_ranked_once_are_not_kept_without_end() -> None:
    core = forwarder(1, ForwarderSettings(owner_per_s=1e9, owner_burst=1e9))
    core.link_up("gate", 0.01, 0.0)
    tracemalloc.start()
    for number in range(4200):
        core.packet("gate", heavy("intent", number), float(number))
        core.tick(number + 1e-3)
        for known in [*core.custody.pending.through("next")]:
            core.packet("next", answer_to(heavy("intent", number), b""), float(number))
            core.custody.pending.forget(known)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 64 << 20

"""Two ends of a link, between which everything may be lost, and each of which may restart."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.tools.adjacency.framing import Frame, Nonces
from daitn.tools.adjacency.link import LEAST_COST_S, Link

_nonces = itertools.count(1)


def fresh() -> Link:
    return Link(lambda: next(_nonces))


def exchange(a: Link, b: Link, now_s: float = 0.0) -> None:
    """A hello each way, at no delay."""
    b.hear(a.hello(now_s), now_s)
    a.hear(b.hello(now_s), now_s)


def linked() -> tuple[Link, Link]:
    a, b = fresh(), fresh()
    exchange(a, b)
    exchange(a, b)
    assert a.up
    assert b.up
    return a, b


def test_an_end_is_up_once_it_is_heard_and_not_before() -> None:
    a, b = fresh(), fresh()
    for _ in range(3):
        b.hear(a.hello(0.0), 0.0)
    assert not b.up, "nobody said that b is heard"
    a.hear(b.hello(0.0), 0.0)
    assert a.up
    b.hear(a.hello(0.0), 0.0)
    assert b.up


def test_when_one_end_loses_the_link_the_other_does_too_and_both_come_back() -> None:
    a, b = linked()
    a.lose()
    b.hear(a.hello(0.0), 0.0)
    assert not b.up
    exchange(a, b)
    exchange(a, b)
    assert a.up
    assert b.up
    assert (a.downs, b.downs) == (1, 1)


def test_a_restarted_end_is_noticed_by_its_nonce() -> None:
    _, b = linked()
    again = fresh()
    b.hear(again.hello(0.0), 0.0)
    assert not b.up
    exchange(again, b)
    exchange(again, b)
    assert again.up
    assert b.up


def test_frames_of_a_time_before_are_not_taken() -> None:
    a, b = linked()
    late = Frame(a.nonces, 0, [b"late"])
    a.lose()
    exchange(a, b)
    exchange(a, b)
    assert not b.accept(late)
    assert b.up


def test_a_frame_says_as_well_as_a_hello_that_its_receiver_is_heard() -> None:
    a, b = fresh(), fresh()
    exchange(a, b)
    assert a.up
    assert not b.up
    assert b.accept(Frame(a.nonces, 0, [b"first"]))
    assert b.up


def test_a_gap_takes_the_link_down_unless_it_was_made_here() -> None:
    a, b = linked()
    assert b.accept(Frame(a.nonces, 0, [b""]))
    b.skip()
    assert b.accept(Frame(a.nonces, 5, [b""]))
    assert not b.accept(Frame(a.nonces, 7, [b""]))
    assert not b.up


def test_numbers_begin_again_after_the_largest() -> None:
    a, b = linked()
    b.skip()
    assert b.accept(Frame(a.nonces, 2**32 - 1, [b""]))
    assert b.accept(Frame(a.nonces, 0, [b""]))


def test_the_cost_is_the_one_way_delay_without_the_time_that_hellos_were_held() -> None:
    a, b = linked()
    now_s = 1.0
    for _ in range(100):
        b.hear(a.hello(now_s), now_s + 0.02)
        a.hear(b.hello(now_s + 0.05), now_s + 0.07)
        now_s += 0.1
    assert a.cost_s == pytest.approx(0.02, rel=0.01)
    assert b.cost_s == pytest.approx(0.02, rel=0.01)


def test_the_cost_has_a_floor() -> None:
    a, _ = linked()
    assert a.cost_s == LEAST_COST_S


def test_a_restarted_end_is_not_measured_by_the_clock_of_its_predecessor() -> None:
    a, b = linked()
    exchange(a, b, 1.0)
    again = fresh()
    again.hear(b.hello(2.0), 900.0)
    b.hear(again.hello(900.0), 2.0)
    again.hear(b.hello(2.0), 900.0)
    assert again.cost_s == LEAST_COST_S


@given(st.lists(st.sampled_from(["a says", "b says", "a loses", "b loses", "a restarts"])))
def test_whatever_happened_both_come_up_again_and_agree(happenings: list[str]) -> None:
    a, b = fresh(), fresh()
    for happening in happenings:
        match happening:
            case "a says":
                b.hear(a.hello(0.0), 0.0)
            case "b says":
                a.hear(b.hello(0.0), 0.0)
            case "a loses":
                a.lose()
            case "b loses":
                b.lose()
            case _:
                a = fresh()
    for _ in range(4):
        exchange(a, b)
    assert a.up
    assert b.up
    assert a.nonces == Nonces(b.nonces.receiver, b.nonces.sender)

"""When a worker counts as one that does not get on."""

from __future__ import annotations

from daitn.learning.pulse import MOST_SILENT_S, Pulse


def looked(pulse: Pulse, seconds: int, busy: float, began_s: int = 0) -> str:
    """Look each second at a worker that uses this share of a processor; the first verdict."""
    for second in range(began_s + 1, began_s + seconds + 1):
        if why := pulse.check(float(second), busy * second):
            return why
    return ""


def test_a_worker_that_neither_tells_nor_computes_is_ended_after_the_stated_time() -> None:
    assert looked(Pulse(0.0, 0.0, stall_s=10.0), 9, busy=0.0) == ""
    assert "used no processor for 10 s" in looked(Pulse(0.0, 0.0, stall_s=10.0), 10, busy=0.0)


def test_a_worker_that_computes_in_silence_gets_an_hour() -> None:
    assert looked(Pulse(0.0, 0.0, stall_s=10.0), int(MOST_SILENT_S) - 1, busy=0.5) == ""
    why = looked(Pulse(0.0, 0.0, stall_s=10.0), int(MOST_SILENT_S), busy=0.5)
    assert "reported no progress for 3600 s" in why


def test_progress_is_a_sign_of_life() -> None:
    pulse = Pulse(0.0, 0.0, stall_s=10.0)
    for minute in range(100):
        assert looked(pulse, 9, busy=0.0, began_s=9 * minute) == ""
        pulse.progressed()


def test_time_in_which_the_node_itself_was_held_up_does_not_count() -> None:
    pulse = Pulse(0.0, 0.0, stall_s=10.0)
    assert pulse.check(600.0, 0.0) == ""
    assert looked(pulse, 4, busy=0.0, began_s=600) == ""

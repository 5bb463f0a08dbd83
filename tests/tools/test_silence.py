"""Who waits for a database is told in time, and goes on as long as something is heard."""

from __future__ import annotations

import time
from collections.abc import Generator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.tools.journal.silence import heard_within

SILENT_S = 3.0


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 4.0)), max_size=20))
def test_it_ends_once_nothing_was_heard_for_so_long_and_not_before(
    told: list[tuple[bool, float]],
) -> None:
    """Each step: whether the socket is ready, and how long after the one before."""
    now_s = 0.0
    heard: list[bool] = []

    def query() -> Generator[int, bool, str]:
        for number in range(len(told)):
            heard.append((yield number))
        return "done"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now_s)
        waiting = heard_within(query(), SILENT_S, lambda: TimeoutError("silent"))
        last_s, ended = 0.0, ""
        try:
            wanted = next(waiting)
            for number, (ready, after_s) in enumerate(told):
                assert wanted == number
                now_s += after_s
                late = not ready and now_s - last_s >= SILENT_S
                last_s = now_s if ready else last_s
                try:
                    wanted = waiting.send(ready)
                except TimeoutError:
                    assert late
                    ended = "late"
                    break
                assert not late
        except StopIteration as stop:
            ended = stop.value
    assert ended == "late" or (ended == "done" and heard == [ready for ready, _ in told])

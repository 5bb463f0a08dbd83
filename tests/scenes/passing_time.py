"""An event loop with others at work, whose clock a test puts forward: a limit passes as soon as it
has to and no sooner, however slow the machine is."""

from __future__ import annotations

import asyncio

__all__ = ["PassingTime"]


class PassingTime:
    """The time of the running loop, up to the loop's end: its timers must not see it go back."""

    def __init__(self) -> None:
        loop, self._passed_s = asyncio.get_running_loop(), 0.0
        true_s = loop.time
        loop.time = lambda: true_s() + self._passed_s  # type: ignore[method-assign]

    def passes(self, seconds: float) -> None:
        """Everybody's timers see so much later a time from the loop's next turn on."""
        self._passed_s += seconds

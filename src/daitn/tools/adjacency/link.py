"""One end's view of a link: whether both ends receive each other, and the delay between them.

No I/O and no clock. Each end has a nonce, draws a new one whenever it loses the link, and includes
in every message the nonce it received from the other. An end is up once it receives its own nonce.
So when one end restarts or loses the link, the other receives an unknown nonce and loses it too,
and earlier frames no longer match either end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from daitn.tools.adjacency.framing import Frame, Hello, Nonces

__all__ = ["LEAST_COST_S", "SMOOTHING", "Link"]

LEAST_COST_S: Final = 1e-4
_BEHIND: Final = 1 << 31
"""Numbers count modulo 2^32: a number further behind counts as ahead."""
SMOOTHING: Final = 1 / 8
"""Weight of the newest round trip, as in TCP (RFC 6298)."""


class Link:
    """One end. `nonces` is replaced as a whole, because another thread sends hellos from it."""

    def __init__(self, draw: Callable[[], int]) -> None:
        self.up = False
        self.cost_s = LEAST_COST_S
        self.downs = 0
        self._draw = draw
        self.nonces = Nonces(draw(), 0)
        self._measured = False
        self._expected: int | None = None
        self._echo: tuple[int, float] = (0, 0.0)

    def hello(self, now_s: float) -> Hello:
        """The hello to send now."""
        nonces = self.nonces
        echo_us, arrived_s = self._echo
        held_us = max(0, round((now_s - arrived_s) * 1e6)) if echo_us else 0
        return Hello(nonces, round(now_s * 1e6), echo_us, held_us)

    def hear(self, hello: Hello, arrived_s: float) -> None:
        """Process a hello. It may change `up`, `cost_s` and `nonces`."""
        sender, receiver = hello.nonces
        if self.up and (sender != self.nonces.receiver or receiver != self.nonces.sender):
            self.lose()
        # In this order: a message to a new nonce must not echo the clock of an older one.
        self._echo = (hello.sent_us, arrived_s)
        self.nonces = Nonces(self.nonces.sender, sender)
        if receiver != self.nonces.sender:
            return
        if hello.echo_us:
            self._measure(arrived_s - (hello.echo_us + hello.held_us) / 1e6)
        if not self.up:
            self._rise()

    def accept(self, frame: Frame) -> bool:
        """Whether the frame is current. Loses the link if earlier frames are missing."""
        sender, receiver = frame.nonces
        if receiver != self.nonces.sender or (self.up and sender != self.nonces.receiver):
            return False
        if not self.up:
            # Its sender is up, so it receives us; the hello that would have shown that was dropped.
            self.nonces = Nonces(self.nonces.sender, sender)
            self._rise()
        if self._expected is not None and frame.number != self._expected:
            if (self._expected - frame.number) & 0xFFFFFFFF > _BEHIND:
                self.lose()
            return False  # One that was there before is no loss.
        self._expected = (frame.number + 1) & 0xFFFFFFFF
        return True

    def skip(self) -> None:
        """Frames were dropped at this end, so the next one may have a later number."""
        self._expected = None

    def lose(self) -> None:
        """Go down, with a new nonce. Harmless if already down."""
        if self.up:
            self.up = False
            self.downs += 1
            self.nonces = Nonces(self._draw(), 0)
            self._measured = False

    def _rise(self) -> None:
        self.up = True
        self._expected = 0

    def _measure(self, round_trip_s: float) -> None:
        sample_s = max(round_trip_s / 2, LEAST_COST_S)
        weight = SMOOTHING if self._measured else 1.0
        self.cost_s += weight * (sample_s - self.cost_s)
        self._measured = True

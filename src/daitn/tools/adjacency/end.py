"""One end of a link: processes what arrives, and reports events."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from daitn.identity.links import PROOF_KIND, LinkKeys
from daitn.objects.errors import DaitnError
from daitn.objects.identifiers import SiteId
from daitn.tools.adjacency.framing import FRAME_BYTES, Frame, Hello, decode
from daitn.tools.adjacency.link import Link
from daitn.tools.adjacency.protocol import LinkStats, Neighbours
from daitn.tools.adjacency.queues import Queue
from daitn.tools.adjacency.sending import FrameSender, Outbox

__all__ = ["End"]

_LOG = logging.getLogger(__name__)

_PROVE_S: Final = 1.0
"""Interval of proofs while a link is up: its other end may have restarted unnoticed."""


class End:
    """State of the link to one neighbour. Runs on the event loop, except `arrive` and
    `say_hello`."""

    def __init__(
        self,
        neighbour: SiteId,
        neighbours: Neighbours,
        sender: FrameSender,
        keys: LinkKeys | None = None,
    ) -> None:
        """`keys` prove both ends to each other; `None` means a neighbour's claim is believed."""
        self._keys = keys
        self._proved_s = float("-inf")
        """When the proof was last sent."""
        self._hello_us = -1
        """When the neighbour's latest hello was sent, by its clock."""
        self.neighbour: Final = neighbour
        self.link: Final = Link(lambda: 1 + secrets.randbelow(2**64 - 1))
        self.outbox: Outbox | None = None
        """None while the link is down."""
        self.sender: Final = sender
        self._saying = threading.Lock()
        self.heard_s = time.monotonic()
        """When anything last arrived, whether or not the loop has processed it."""
        self._neighbours = neighbours
        self._inbox: Queue[tuple[float, bytes]] = Queue()
        self._skipped = 0
        self._malformed = 0
        self._messages_in = 0
        self._sent = 0
        self._dropped_out = 0

    def arrive(self, payload: bytes) -> None:
        """Process a payload, on one of Zenoh's threads."""
        self.heard_s = time.monotonic()
        self._inbox.put((self.heard_s, payload), len(payload))

    def work(self) -> bool:
        """Process about a frame of what arrived. Returns whether more is waiting."""
        taken = self._inbox.take(FRAME_BYTES)
        if self._inbox.dropped != self._skipped:
            self._skipped = self._inbox.dropped
            self.link.skip()
        for arrived_s, payload in taken:
            try:
                message = self._opened(payload)
                if message is not None:
                    received = decode(message)
                    if not self._repeated(received):
                        self._take(received, arrived_s)
            except DaitnError as error:
                self._malformed += 1
                if self._malformed == 1:
                    _LOG.warning("%s: %s", self.neighbour, error.problem)
        return bool(self._inbox)

    def lose(self, why: str) -> None:
        """Take the link down."""
        if self.link.up:
            self.link.lose()
            self._fell(why)

    def check_proof(self) -> None:
        """Take the link down if its other end is no longer a member."""
        if self._keys is not None and not self._keys.holds():
            self.lose("it is no longer a forwarder of this network")

    def say_hello(self) -> None:
        """Send a hello now, preceded by the proof while the other end may need one.

        Thread-safe: hellos go in the order of what they say. One that is overtaken by news, like
        that the link is up, would take the link down at the other end.
        """
        with self._saying:
            now_s = time.monotonic()
            if self._keys is not None and not (self.link.up and now_s < self._proved_s + _PROVE_S):
                self._proved_s = now_s
                self.sender.prove(self._keys.proof)
            self.sender.hello(self.link.hello(time.monotonic()))

    def close(self) -> None:
        """Stop sending."""
        self._drop_outbox()
        self.sender.close()

    def stats(self) -> LinkStats:
        outbox = self.outbox
        return LinkStats(
            up=self.link.up,
            cost_s=self.link.cost_s,
            downs=self.link.downs,
            messages_in=self._messages_in,
            messages_out=self._sent + (outbox.sent if outbox is not None else 0),
            dropped_in=self._inbox.dropped,
            dropped_out=self._dropped_out + (outbox.dropped if outbox is not None else 0),
            malformed=self._malformed,
        )

    def _opened(self, payload: bytes) -> bytes | None:
        """The message in a payload; none if it was a proof. Raises `DaitnError`."""
        if self._keys is None:
            return payload
        if payload[:1] != bytes((PROOF_KIND,)):
            return self._keys.open(payload)
        if self._keys.hear(payload):
            self.lose("its other end restarted")
            self._hello_us = -1
            self._proved_s = float("-inf")
            self.say_hello()
        return None

    def _repeated(self, received: Hello | Frame) -> bool:
        """Whether somebody repeats an old hello, which would take the link down."""
        if self._keys is None or not isinstance(received, Hello):
            return False
        old = received.sent_us <= self._hello_us
        self._hello_us = max(self._hello_us, received.sent_us)
        return old

    def _take(self, received: Hello | Frame, arrived_s: float) -> None:
        link = self.link
        was_up, nonces, cost_s = link.up, link.nonces, link.cost_s
        accepted = False
        if isinstance(received, Hello):
            link.hear(received, arrived_s)
        else:
            accepted = link.accept(received)
        if was_up and not link.up:
            hello = isinstance(received, Hello)
            self._fell("its other end lost it or restarted" if hello else "frames are missing")
        elif link.up and not was_up:
            self.outbox = Outbox(link.nonces)
            self._tell(self._neighbours.up, link.cost_s)
        elif was_up and link.cost_s != cost_s:
            self._tell(self._neighbours.cost, link.cost_s)
        if link.nonces != nonces or link.up != was_up:
            # Waiting for the next round of hellos would double the time until the link is up.
            self.say_hello()
        if accepted and isinstance(received, Frame):
            self._messages_in += len(received.messages)
            self._tell(self._neighbours.frames, received.messages)

    def _fell(self, why: str) -> None:
        _LOG.info("the link to %s is down: %s", self.neighbour, why)
        self._drop_outbox()
        self._tell(self._neighbours.down)

    def _drop_outbox(self) -> None:
        outbox, self.outbox = self.outbox, None
        if outbox is not None:
            outbox.clear()
            self._sent += outbox.sent
            self._dropped_out += outbox.dropped

    def _tell(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(self.neighbour, *arguments)
        except Exception:
            _LOG.exception("handling an event on the link to %s failed", self.neighbour)

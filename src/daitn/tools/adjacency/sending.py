"""The sending half of a link: a thread that may wait for the network, so that the loop need not."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Final

import zenoh

from daitn.tools.adjacency.framing import (
    FRAME_BYTES,
    Hello,
    Nonces,
    encode_frame,
    encode_hello,
)
from daitn.tools.adjacency.queues import Queue

__all__ = ["FrameSender", "Outbox"]


_JOIN_S: Final = 2.0


class Outbox(Queue[bytes]):
    """Messages to send while the link is up; each time it comes up it gets a new outbox.

    So a message sent before the link went down never arrives after it is up again.
    """

    def __init__(self, nonces: Nonces) -> None:
        super().__init__()
        self.nonces = nonces
        self.awake = False
        """Whether the thread will check it without being woken."""
        self.pending = False
        """Whether the thread will be woken at the end of this iteration of the event loop."""
        self.sent = 0
        self._number = 0

    def frame(self) -> bytes | None:
        """The next frame; None if nothing waits, and the outbox is then asleep."""
        while not (messages := self.take(FRAME_BYTES)):
            self.awake = False
            if not self:
                return None
            self.awake = True  # An item arrived in between, while it was awake.
        frame = encode_frame(self.nonces, self._number, messages)
        self._number += 1
        self.sent += len(messages)
        return frame


class FrameSender:
    """Sends to one neighbour.

    Frames wait for room on the link (BLOCK): under DROP, Zenoh silently loses what does not fit at
    once. Measured on loopback, 256-byte messages put one by one: 116,000/s arrive of 116,000/s with
    BLOCK, 90,000/s of 838,000/s with DROP. A put that waits can take seconds on a stalled link,
    hence the thread. Hellos do not wait: the next one is as good.
    """

    def __init__(
        self,
        session: zenoh.Session,
        key: str,
        seal: Callable[[bytes], bytes | None] = lambda message: message,
    ) -> None:
        """`seal` returns a message in the form to send, or none if it may not be sent."""
        self._session = session
        self._seal = seal
        self._key: Final = key
        self._hellos: zenoh.Publisher | None = None
        self._wakes: queue.SimpleQueue[Outbox | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"to {key}", daemon=True)
        self._thread.start()

    def hello(self, hello: Hello) -> None:
        """Send a hello, ahead of all frames. Thread-safe; waits 1 ms at most."""
        self.prove(self._seal(encode_hello(hello)))

    def prove(self, proof: bytes | None) -> None:
        """Send a proof unchanged, likewise."""
        publisher = self._hellos
        if publisher is not None and proof is not None:
            with contextlib.suppress(zenoh.ZError):  # The session is closed.
                publisher.put(proof)

    def wake(self, outbox: Outbox) -> None:
        """Wake the thread, because there may be something to send."""
        outbox.pending = False
        if not outbox.awake:
            outbox.awake = True
            self._wakes.put(outbox)

    def close(self) -> None:
        """Let the thread end, once its current send is done or the session is closed."""
        self._wakes.put(None)

    def join(self) -> None:
        """Wait for the thread, because exiting Python while a thread is inside Zenoh aborts it."""
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        with contextlib.suppress(zenoh.ZError):  # The session is closed.
            frames = self._publisher(zenoh.CongestionControl.BLOCK, zenoh.Priority.DATA)
            self._hellos = self._publisher(zenoh.CongestionControl.DROP, zenoh.Priority.REAL_TIME)
            while (outbox := self._wakes.get()) is not None:
                while (frame := outbox.frame()) is not None:
                    sealed = self._seal(frame)
                    if sealed is not None:
                        frames.put(sealed)
        # Zenoh undeclares dropped objects; undeclaring explicitly fails while another thread says
        # hello.
        self._hellos = None

    def _publisher(
        self, congestion: zenoh.CongestionControl, priority: zenoh.Priority
    ) -> zenoh.Publisher:
        return self._session.declare_publisher(
            self._key,
            congestion_control=congestion,
            priority=priority,
            express=True,
            reliability=zenoh.Reliability.RELIABLE,
        )

"""The signed fabric: every message proves its sender, and unauthorised messages are ignored.

It wraps a carrier. A receiver takes a message whose sender is a member of the network now, may send
it by the table (`authority.py`), and signed it for this network, key and purpose, recently, and not
before. An answer must come from the process that the key names; answers from any other are ignored.

A process that has just started does not know what was sent to an earlier run. So while requests to
that one may still be fresh, it accepts only requests that name its session, a random number, and
returns that number to members whose requests lack it.

Control centres that share a key say in each message by which leadership they speak. A receiver
that knows a newer leadership rejects older ones, so messages of a former leader have no effect.
"""

from __future__ import annotations

import hmac
import logging
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NoReturn, TypeVar

from cachetools import LRUCache

from daitn.identity.envelopes import Envelope, Purpose, check_envelope, enclose, read_envelope
from daitn.identity.keys import SigningKey
from daitn.objects.errors import (
    ClocksDiffer,
    Corrupt,
    DaitnError,
    ErrorReport,
    Refused,
    Unreachable,
)
from daitn.objects.roster import ADMISSION_FIX, Member
from daitn.objects.wire import decode, encode
from daitn.tools import clock
from daitn.tools.fabric.authority import allowed
from daitn.tools.fabric.caller import speaking
from daitn.tools.fabric.delivery import answer
from daitn.tools.fabric.protocol import Alive, Carrier, Give, Handler, Message, Registration
from daitn.tools.throttled import ThrottledLog

__all__ = ["FRESH_S", "Allowed", "Members", "SignedFabric"]

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

Members = Callable[[], Mapping[str, Member]]
"""The current members, by public key. It may be called on any thread."""
Allowed = Callable[[Member, Purpose, str], bool]
"""Whether a member may send such a message at a key."""

FRESH_S: Final = 120.0
"""A message is accepted this long before and after its time: clocks may differ, as for passes."""
_MOST_SEEN: Final = 4096
"""Limit on remembered messages of one sender at a registration, to detect repetitions. If a sender
sends more within `FRESH_S`, older ones are refused: far fewer are ever in transit."""
_SESSION: Final = 16
_MOST_SESSIONS: Final = 4096
_NUMBER: Final = re.compile(r" -?\d+\b")


class SignedFabric:
    """One process's session; see `Fabric`."""

    def __init__(
        self,
        carrier: Carrier,
        key: SigningKey,
        network: str,
        members: Members,
        *,
        wall_s: Callable[[], float] = clock.wall_s,
        allowed: Allowed = allowed,
        epoch: Callable[[], int] | None = None,
    ) -> None:
        """`wall_s` gives the time shared by all machines. `epoch`: of its leadership, if others
        share the key; raises `Unreachable` when that is over, and nothing is sent then."""
        self._carrier = carrier
        self._key = key
        self._network = network
        self._members = members
        self._wall_s = wall_s
        self._allowed = allowed
        self._epoch = epoch or (lambda: 0)
        self._epochs: dict[bytes, int] = {}
        """The newest leadership received, by key."""
        self._hearing = threading.Lock()
        self._session = os.urandom(_SESSION)
        self._began_ms = int(1000 * wall_s())
        self._sessions: LRUCache[str, bytes] = LRUCache(_MOST_SESSIONS)
        """Sessions of the processes that were asked, as they reported them."""
        self._refused = ThrottledLog(_LOG)

    async def publish(self, key: str, payload: bytes) -> None:
        sent = self._enclosed(key, Purpose.PUBLICATION, payload)
        await self._carrier.publish(key, encode(sent))

    async def subscribe(self, pattern: str, message: Message) -> Registration:
        seen: dict[bytes, _Seen] = {}

        async def take(key: str, data: bytes) -> None:
            try:
                envelope = read_envelope(data)
                sender = self._checked(envelope, key, Purpose.PUBLICATION)
                self._check_new(envelope, seen)
            except DaitnError as error:
                self._note("a publication", key, error)
                return
            with speaking(sender):
                await message(key, envelope.payload)

        return await self._carrier.subscribe(pattern, take)

    async def request(self, key: str, payload: bytes, *, timeout_s: float) -> bytes:
        given = await self._requested(key, payload, timeout_s)
        if self._is_session(key, given):
            given = await self._requested(key, payload, timeout_s)
        return _given(given)

    async def _requested(self, key: str, payload: bytes, timeout_s: float) -> Envelope:
        """The answer to one request."""
        sent = self._asking(key, payload)
        given: list[Envelope] = []
        errors: list[DaitnError] = []

        def accepts(data: bytes) -> bool:
            try:
                envelope = read_envelope(data)
                self._check_answer(envelope, key, sent)
            except DaitnError as error:
                self._note("an answer", key, error)
                errors.append(error)
                return False
            given.append(envelope)
            return True

        try:
            await self._carrier.request(key, encode(sent), timeout_s=timeout_s, accepts=accepts)
        except Unreachable as error:
            raise _impostor(key, errors[-1]) if errors else self._unheard(error) from None
        (envelope,) = given
        return envelope

    def _unheard(self, error: Unreachable) -> Unreachable:
        """Why nobody answered: a process that is not in the roster is cut off, and gets no
        message."""
        if self._key.public in self._members():
            return error
        return Unreachable(
            f"the roster of {self._network} does not have this key, or has expired: "
            f"{error.problem}",
            field="sender",
            fix=ADMISSION_FIX,
        )

    def _asking(self, key: str, payload: bytes) -> Envelope:
        about = self._sessions.get(_server(key), b"")
        return self._enclosed(key, Purpose.REQUEST, payload, about)

    def _is_session(self, key: str, answer: Envelope) -> bool:
        """Whether an answer requests a repetition; stores the session in it."""
        if answer.purpose is not Purpose.SESSION:
            return False
        self._sessions[_server(key)] = answer.payload[:_SESSION]
        return True

    async def relay(self, key: str, data: bytes, sender: str, *, timeout_s: float) -> bytes:
        """Relay a request as signed by another member. Returns the answer as bytes: that member
        checks it. `sender`: its public key.

        The receiver sees the member as the sender, not this process. Raises `Refused` for what that
        member did not sign as a request, and what `Carrier.request` raises.
        """
        sent = _read_signed(data)
        if sent.purpose is not Purpose.REQUEST or sent.public_key != sender:
            raise Refused(
                "it is not a request of the signed-in member",
                field="sender",
                fix="sign in and ask with the same key",
            )

        def accepts(answer: bytes) -> bool:
            try:
                self._check_answer(read_envelope(answer), key, sent)
            except DaitnError as error:
                self._note("an answer", key, error)
                return False
            return True

        return await self._carrier.request(key, data, timeout_s=timeout_s, accepts=accepts)

    async def request_bulk(
        self, key: str, payload: bytes, *, timeout_s: float, take: Callable[[bytes], T]
    ) -> T:
        try:
            return await self._requested_bulk(key, payload, timeout_s, take)
        except _OtherSession:
            return await self._requested_bulk(key, payload, timeout_s, take)

    async def _requested_bulk(
        self, key: str, payload: bytes, timeout_s: float, take: Callable[[bytes], T]
    ) -> T:
        """The outcome of one request. Raises `_OtherSession` if it must be sent again."""
        sent = self._asking(key, payload)

        def checked(data: bytes) -> Callable[[], T]:
            """The outcome of an answer. Nothing is raised here, where errors may be anybody's."""
            try:
                envelope = read_envelope(data)
                self._check_answer(envelope, key, sent)
            except DaitnError as error:
                self._note("an answer", key, error)
                return partial(_raise, _impostor(key, error))
            if envelope.purpose is Purpose.SESSION:
                return partial(self._again, key, envelope)
            try:
                return partial(_same, take(_given(envelope)))
            except DaitnError as error:
                return partial(_raise, error)

        try:
            outcome = await self._carrier.request_bulk(
                key, encode(sent), timeout_s=timeout_s, take=checked
            )
        except Unreachable as error:
            raise self._unheard(error) from None
        except DaitnError as error:
            raise _impostor(key, error) from None
        return outcome()

    def _again(self, key: str, answer: Envelope) -> NoReturn:
        self._is_session(key, answer)
        raise _OtherSession

    async def serve_bulk(self, key: str, give: Give) -> Registration:
        seen: dict[bytes, _Seen] = {}
        one_at_a_time = threading.Lock()

        def answered(key: str, data: bytes) -> bytes:
            envelope = self._received(data)
            try:
                with one_at_a_time:
                    sender = self._check_request(envelope, key, seen)
                with speaking(sender):
                    given = give(key, envelope.payload)
            except _OtherSession:
                return self._session_to(envelope, key)
            except DaitnError as error:
                return self._error_to(envelope, key, error)
            return self._answer_to(envelope, key, given)

        return await self._carrier.serve_bulk(key, answered)

    async def serve(self, key: str, handler: Handler) -> Registration:
        seen: dict[bytes, _Seen] = {}
        return await self._carrier.serve(key, partial(self._serve, handler, seen))

    async def _serve(
        self, handler: Handler, seen: dict[bytes, _Seen], key: str, data: bytes
    ) -> bytes:
        envelope = self._received(data)
        try:
            with speaking(self._check_request(envelope, key, seen)):
                given = await answer(handler, key, envelope.payload)
        except _OtherSession:
            return self._session_to(envelope, key)
        except DaitnError as error:
            return self._error_to(envelope, key, error)
        return self._answer_to(envelope, key, given)

    async def announce(self, key: str) -> Registration:
        return await self._carrier.announce(key)

    async def watch(self, pattern: str, alive: Alive) -> Registration:
        """Tokens are unsigned: their content is checked against the roster."""
        return await self._carrier.watch(pattern, alive)

    async def close(self) -> None:
        await self._carrier.close()

    def _enclosed(self, key: str, purpose: Purpose, payload: bytes, about: bytes = b"") -> Envelope:
        now_s, epoch = self._wall_s(), self._epoch()
        return enclose(self._key, self._network, key, purpose, payload, now_s, about, epoch)

    def _answer_to(self, request: Envelope, key: str, payload: bytes) -> bytes:
        return encode(self._enclosed(key, Purpose.ANSWER, payload, request.signature))

    def _session_to(self, request: Envelope, key: str) -> bytes:
        return encode(self._enclosed(key, Purpose.SESSION, self._session, request.signature))

    def _error_to(self, request: Envelope, key: str, error: DaitnError) -> bytes:
        report = encode(ErrorReport.of(error))
        return encode(self._enclosed(key, Purpose.ERROR, report, request.signature))

    def _received(self, data: bytes) -> Envelope:
        """A request. Raises `Unreachable` before anything else if this process leads no more: a
        refusal would keep the requester from the leader."""
        self._epoch()
        return _read_signed(data)

    def _check_request(
        self,
        envelope: Envelope,
        key: str,
        seen: dict[bytes, _Seen],
    ) -> Member:
        """The sender of a request that was not accepted before. Logs and raises like `_checked`,
        and raises `_OtherSession` for one that an earlier run may have accepted."""
        try:
            sender = self._checked(envelope, key, Purpose.REQUEST)
            early = envelope.at_ms <= self._began_ms + 1000 * FRESH_S
            if early and not hmac.compare_digest(envelope.about, self._session):
                raise _OtherSession
            self._check_new(envelope, seen)
        except DaitnError as error:
            self._note("a request", key, error)
            raise
        return sender

    def _check_answer(
        self,
        envelope: Envelope,
        key: str,
        sent: Envelope,
    ) -> None:
        self._checked(envelope, key, Purpose.ANSWER, Purpose.ERROR, Purpose.SESSION)
        if envelope.about != sent.signature:
            raise Refused("it answers another request", field="about")

    def _checked(
        self,
        envelope: Envelope,
        key: str,
        *purposes: Purpose,
    ) -> Member:
        """The sender.

        Raises the `DaitnError` that says why its message does not count. What is cheap to check
        comes first, so that strangers cost little.
        """
        if envelope.purpose not in purposes:
            raise Refused(f"its purpose is {envelope.purpose.name.lower()}", field="purpose")
        sender = self._members().get(envelope.public_key)
        if sender is None:
            raise Refused(
                "its sender is not a member of the network",
                field="sender",
                fix="join the network; see `daitn network`",
            )
        who = f"{sender.kind} {sender.name}"
        if not self._allowed(sender, envelope.purpose, key):
            raise Refused(
                f"{who} may not do this: {envelope.purpose.name.lower()} at {key}",
                field="sender",
                fix="use the key of a member that may",
            )
        late_s = self._wall_s() - envelope.at_ms / 1000
        if abs(late_s) > FRESH_S:
            # Not a refusal: it may be sent again once the clock is right.
            raise ClocksDiffer(
                f"the clock of {who} is {abs(late_s):.0f} s {'behind' if late_s > 0 else 'ahead'}, "
                "or its message was delayed",
                fix="set the clocks of both machines",
            )
        check_envelope(envelope, self._network, key)
        self._check_epoch(envelope, who)
        return sender

    def _check_epoch(self, envelope: Envelope, who: str) -> None:
        """Raise `Refused` for messages of an earlier leader. Call it for members' messages only."""
        if envelope.epoch:
            with self._hearing:
                newest = self._epochs.get(envelope.sender, 0)
                self._epochs[envelope.sender] = max(newest, envelope.epoch)
            if envelope.epoch < newest:
                raise Refused(
                    f"{who} sent it as leader of epoch {envelope.epoch}, but the current epoch is "
                    f"{newest}",
                    field="epoch",
                    fix="nothing, if another control centre took over",
                )

    def _check_new(self, envelope: Envelope, seen: dict[bytes, _Seen]) -> None:
        """Raise `Refused` for a repeated message. Call it for members' messages only."""
        oldest_ms = int(1000 * (self._wall_s() - FRESH_S))
        if not seen.setdefault(envelope.sender, _Seen()).take(envelope, oldest_ms):
            raise Refused("it is a replay", field="nonce", fix="send it again")

    def _note(self, what: str, key: str, error: DaitnError) -> None:
        # The sender chooses the key and the time, and could use up all kinds.
        kind = _NUMBER.sub("", f"{what} {error.problem}".replace(key, ""))
        self._refused.warning(kind, "%s at %s is not taken: %s", what, key, error.problem)


class _OtherSession(Exception):
    """A request must be sent again, with the answerer's session."""


def _server(key: str) -> str:
    """The server of a key, `daitn/center` or `daitn/site/{site}`."""
    parts = key.split("/")
    return "/".join(parts[: 2 if parts[1:2] == ["center"] else 3])


@dataclass(eq=False)
class _Seen:
    """The accepted messages of one sender, so that none is accepted twice."""

    times_ms: OrderedDict[bytes, int] = field(default_factory=OrderedDict)
    """By nonce, in order of arrival. A plain dict scans all places freed at its front before it
    finds its first key."""
    floor_ms: int = -1
    """Messages of this time and before are too old to check."""

    def take(self, envelope: Envelope, oldest_ms: int) -> bool:
        if envelope.at_ms <= self.floor_ms or envelope.nonce in self.times_ms:
            return False
        self.times_ms[envelope.nonce] = envelope.at_ms
        while len(self.times_ms) > 1:
            first = next(iter(self.times_ms))
            if len(self.times_ms) <= _MOST_SEEN and self.times_ms[first] >= oldest_ms:
                break
            self.floor_ms = max(self.floor_ms, self.times_ms.pop(first))
        return True


def _given(envelope: Envelope) -> bytes:
    """The answer. Raises the error in it."""
    if envelope.purpose is Purpose.SESSION:
        raise Unreachable("the answering process keeps restarting", fix="ask again")
    if envelope.purpose is Purpose.ERROR:
        raise decode(envelope.payload, ErrorReport).error()
    return envelope.payload


def _same(value: T) -> T:
    return value


def _raise(error: DaitnError) -> NoReturn:
    raise error


def _read_signed(data: bytes) -> Envelope:
    try:
        return read_envelope(data)
    except Corrupt:
        raise Refused(
            "this network accepts only signed messages",
            field="sender",
            fix="join it; `DAITN_NETWORK` names the folder of a network",
        ) from None


def _impostor(key: str, error: DaitnError) -> Unreachable:
    kind = ClocksDiffer if isinstance(error, ClocksDiffer) else Unreachable
    return kind(
        f"no authorised process answered {key}; a rejected answer: {error.problem}",
        fix=error.fix or "check who is connected to the network",
    )

"""Queries that arrive as packets, asked of the site's own facility."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import aiohttp
import msgspec

from daitn.identity.keys import SigningKey
from daitn.identity.passes import sign_pass
from daitn.identity.sealing import ReceiverKey, class_id, class_of
from daitn.identity.tls import trusting
from daitn.node.forwarder.protection import check_packet, open_payload, seal_payload
from daitn.node.forwarder.runtime import NotServed
from daitn.objects.deployments import Api
from daitn.objects.errors import Corrupt, DaitnError
from daitn.objects.identifiers import SiteId
from daitn.openai.errors import OURS, ApiError
from daitn.openai.http import JSON
from daitn.openai.requests import raw_fields, rewritten
from daitn.steering.wire.intent import PacketIntent
from daitn.steering.wire.packet import Action, Flag, Packet
from daitn.steering.wire.replies import Reason, Refusal, answer_to
from daitn.steering.wire.summaries import Offer
from daitn.tools import clock

__all__ = ["PacketQuestion", "PacketReply", "QueryService", "read_answered"]

CONNECT_TIMEOUT_S = 3.0
SILENT_TIMEOUT_S = 600.0
_PASSING = frozenset({429, 503})


class PacketQuestion(msgspec.Struct, frozen=True, array_like=True):
    """The payload of a query: a MessagePack array."""

    api: Api
    """What of OpenAI's API is asked."""
    body: bytes
    """The request as OpenAI's API has it, in JSON. Its `model` and `stream` count for nothing."""
    id: str = ""
    """By which gateway and facility know the query; at most 200 characters count."""
    asked_at_s: float = 0.0
    """Seconds since the Unix epoch."""
    reply_to: str = ""
    """Of a sealed question: the X25519 public key, base64, to which its answer is sealed. It is
    made for this question alone."""


class PacketReply(msgspec.Struct, frozen=True, array_like=True):
    """The payload of its answer: a MessagePack array."""

    site: str
    """Where it was answered."""
    deployment: str
    """By which deployment."""
    body: bytes
    """The response as OpenAI's API has it, in JSON."""
    path: tuple[str, ...] = ()
    """Sites by which the query came, the first where it set out."""


_QUESTION = msgspec.msgpack.Decoder(PacketQuestion)
_ANSWERED = msgspec.msgpack.Decoder(PacketReply)


def read_answered(payload: bytes) -> PacketReply:
    """Raises `Corrupt`."""
    try:
        return _ANSWERED.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Corrupt(f"the answer is malformed: {error}", field="payload") from None


class QueryService:
    """Asks the site's facility through its door, as a gateway would."""

    def __init__(
        self,
        site: SiteId,
        key: SigningKey,
        server: Callable[[], str],
        offers: Callable[[], tuple[tuple[str, Offer], ...]],
        key_of: Callable[[SiteId], str | None],
        receives: Iterable[ReceiverKey] = (),
        tls: str = "",
    ) -> None:
        """`server`: its base address; `offers`: what is served now, with the deployments' names;
        `key_of`: a site's public key, where it is known; `receives`: the keys of the classes of
        receivers of which the site is; `tls`: the folder of its certificate, if it has one."""
        self._site = site
        self._key = key
        self._key_of = key_of
        self._receives = {class_id(receiver.public): receiver for receiver in receives}
        self._door = server
        self._offers = offers
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def serve(self, packet: Packet, intent: PacketIntent) -> bytes:
        """See `Service`."""
        self._check_signer(packet)
        sealed = Flag.SEALED in packet.flags
        payload = self._opened(packet) if sealed else packet.payload
        name = self._deployment(intent)
        try:
            question = _QUESTION.decode(payload)
            body = rewritten(raw_fields(question.body), {"model": name, "stream": False})
            if sealed:
                class_id(question.reply_to)
        except (DaitnError, ApiError, msgspec.DecodeError, RecursionError) as error:
            # What was sealed is not told to those by whom the refusal goes back.
            raise _denied("no query can be read" + ("" if sealed else f": {error}")) from None
        status, answer = await self._ask(question, intent.owner, body)
        if status != 200:
            raise NotServed(_refusal(status, b"" if sealed else answer))
        path = tuple(hop.site for hop in packet.hops() if hop.action is not Action.TRIED)
        told = msgspec.msgpack.encode(PacketReply(self._site, name, answer, path))
        return seal_payload(answer_to(packet, told), question.reply_to).payload if sealed else told

    def _check_signer(self, packet: Packet) -> None:
        """A packet that is signed must be as it was signed, and by the site that it names as its
        source, where this site knows that one's key."""
        if Flag.SIGNED not in packet.flags:
            return
        try:
            signer = check_packet(packet)
        except Corrupt as error:
            raise _denied(str(error)) from None
        source = SiteId(packet.source())
        if self._key_of(source) not in (None, signer):
            raise _denied(f"the packet is not signed with the key of {source}")

    def _opened(self, packet: Packet) -> bytes:
        receiver = self._receives.get(class_of(packet.payload))
        if receiver is None:
            raise NotServed(Refusal(Reason.FAILED, "sealed to a class whose key is not here"))
        try:
            return open_payload(packet, receiver)
        except Corrupt as error:
            raise _denied(str(error)) from None

    def _deployment(self, intent: PacketIntent) -> str:
        """The best that is served here and that the want admits."""
        wanted = f"{intent.capability}:{intent.subject}"
        found = [
            (offer.fit, -offer.price_usd, name)
            for name, offer in self._offers()
            if (offer.key == wanted or (wanted.endswith(":") and offer.key.startswith(wanted)))
            and (offer.fit if offer.trust >= intent.trust else 0.0) >= intent.min_fit
        ]
        if not found:
            raise NotServed(Refusal(Reason.FAILED, f"{wanted} is not served here any more"))
        return max(found)[2]

    async def _ask(self, question: PacketQuestion, owner: str, body: bytes) -> tuple[int, bytes]:
        asked_at_s = question.asked_at_s if math.isfinite(question.asked_at_s) else 0.0
        headers = {
            "content-type": JSON,
            "daitn-pass": sign_pass(self._site, self._site, clock.wall_s(), self._key),
            "daitn-query": question.id[:200],
            "daitn-asked-at": str(int(asked_at_s)),
            "daitn-owner": owner,
        }
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=trusting(self._tls, own=True)),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENT_TIMEOUT_S
        )
        url = f"{self._door()}/v1{question.api.path}"
        try:
            async with self._session.post(
                url, data=body, headers=headers, timeout=timeout
            ) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise NotServed(Refusal(Reason.FAILED, f"the facility: {error}"[:500])) from None


def _denied(why: str) -> NotServed:
    return NotServed(Refusal(Reason.DENIED, why[:500]))


def _refusal(status: int, body: bytes) -> Refusal:
    said = body[:300].decode("utf-8", "replace")
    detail = f"the facility said {status}: {said}".rstrip(": ")
    if status in OURS:
        return Refusal(Reason.DENIED, detail)
    return Refusal(Reason.FULL if status in _PASSING else Reason.FAILED, detail, 1.0)

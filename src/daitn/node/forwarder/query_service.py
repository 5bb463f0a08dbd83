"""Passes queries that arrive as packets to the site's own facility."""

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
from daitn.node.forwarder.tracing import traced
from daitn.node.mandates import Mandates
from daitn.objects.deployments import Api
from daitn.objects.errors import Corrupt, DaitnError, Refused
from daitn.objects.header_names import PeerHeader
from daitn.objects.identifiers import SiteId
from daitn.openai.errors import ApiError, Error, read_error
from daitn.openai.failures import FULL, Cause, of_facility
from daitn.openai.http import JSON
from daitn.openai.requests import raw_fields, rewritten
from daitn.openai.retry_after import retry_after_s
from daitn.steering.next_hops import is_suited
from daitn.steering.wire.intent import UNMEASURED, Capability, PacketIntent
from daitn.steering.wire.offers import Offer
from daitn.steering.wire.packet import Action, Flag, Packet
from daitn.steering.wire.replies import Reason, Refusal, answer_to
from daitn.tools import clock
from daitn.tools.monitoring.tracing import OFF, TRACEPARENT, Span, Tracer, passed_on

__all__ = ["PacketQuestion", "PacketReply", "QueryService", "read_reply"]

CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 600.0
RETRY_AFTER_S = 1.0
"""Assumed for a facility that does not state when a retry may succeed."""


class PacketQuestion(msgspec.Struct, frozen=True, array_like=True):
    """The payload of a query: a MessagePack array."""

    api: Api
    """The endpoint of OpenAI's API."""
    body: bytes
    """The request of OpenAI's API, in JSON. `model` and `stream` in it are ignored."""
    id: str = ""
    """The query's id at gateway and facility; only the first 200 characters count."""
    asked_at_s: float = 0.0
    """Seconds since the Unix epoch."""
    reply_to: str = ""
    """For a sealed question: the X25519 public key, base64, to which its answer is sealed. It
    serves this question alone."""
    mandate: str = ""
    """Proves that the query's owner lets the gateway act in its name."""
    traceparent: str = ""
    """W3C Trace Context: the span that the query belongs to."""


class PacketReply(msgspec.Struct, frozen=True, array_like=True):
    """The payload of its answer: a MessagePack array."""

    site: str
    """The site that answered."""
    deployment: str
    """The deployment that answered."""
    body: bytes
    """The response of OpenAI's API, in JSON."""
    path: tuple[str, ...] = ()
    """The query's path of sites, from its origin."""


_QUESTION = msgspec.msgpack.Decoder(PacketQuestion)
_REPLY = msgspec.msgpack.Decoder(PacketReply)


def read_reply(payload: bytes) -> PacketReply:
    """Decode a reply. Raises `Corrupt`."""
    try:
        return _REPLY.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Corrupt(f"the answer is malformed: {error}", field="payload") from None


class QueryService:
    """Queries the site's facility at its server, as a gateway would."""

    def __init__(
        self,
        site: SiteId,
        key: SigningKey,
        server: Callable[[], str],
        offers: Callable[[], tuple[tuple[str, Offer], ...]],
        key_of: Callable[[SiteId], str | None],
        receives: Iterable[ReceiverKey] = (),
        tls: str = "",
        mandates: Mandates | None = None,
        gateway_of: Callable[[str], SiteId | None] | None = None,
        tracer: Tracer = OFF,
    ) -> None:
        """`server`: the facility's base URL; `offers`: its current offers, with the deployments'
        names; `key_of`: a site's public key, if known; `receives`: keys of the receiver classes to
        which the site belongs; `tls`: the folder of its certificate, if it has one; `mandates`:
        checks on whose behalf the query is; `gateway_of`: the gateway with a public key in the
        roster. Without a roster there are neither, and queries need no signature."""
        self._gateway_of = gateway_of
        self._tracer = tracer
        self._site = site
        self._key = key
        self._key_of = key_of
        self._receives = {class_id(receiver.public): receiver for receiver in receives}
        self._server = server
        self._offers = offers
        self._tls = tls
        self._mandates = mandates
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def serve(self, packet: Packet, intent: PacketIntent) -> bytes:
        """See `Service`."""
        signer = self._signer(packet)
        sealed = Flag.SEALED in packet.flags
        payload = self._open(packet) if sealed else packet.payload
        name = self._deployment(intent)
        try:
            question = _QUESTION.decode(payload)
            whole = {"stream": False} if question.api.writes else {}
            body = rewritten(raw_fields(question.body), {**whole, "model": name})
            if sealed:
                class_id(question.reply_to)
        except (DaitnError, ApiError, msgspec.DecodeError, RecursionError) as error:
            # The refusal travels in the clear, so it must not quote sealed content.
            raise _denied("the query cannot be read" + ("" if sealed else f": {error}")) from None
        self._check_owner(signer, intent.owner, question.mandate)
        span = traced(self._tracer, question.traceparent, packet)
        try:
            status, answer, headers = await self._ask(question, intent.owner, body, span)
        finally:
            if span is not None:
                span.end()
        if status != 200:
            raise NotServed(_refusal(status, answer, headers, tells=not sealed))
        path = tuple(hop.site for hop in packet.hops() if hop.action is not Action.TRIED)
        reply = msgspec.msgpack.encode(PacketReply(self._site, name, answer, path))
        if not sealed:
            return reply
        return seal_payload(answer_to(packet, reply), question.reply_to).payload

    def _signer(self, packet: Packet) -> SiteId | None:
        """The source, if it signed and this site knows its key; a signature must be valid.

        With a roster it must be there, and a gateway's.
        """
        if Flag.SIGNED not in packet.flags and self._gateway_of is None:
            return None
        try:
            signer = check_packet(packet)
        except Corrupt as error:
            raise _denied(str(error)) from None
        if self._gateway_of is not None and self._gateway_of(signer) is None:
            raise _denied("the signer of the packet is not a gateway of this network")
        source = SiteId(packet.source())
        if self._key_of(source) not in (None, signer):
            raise _denied(f"the packet is not signed with the key of {source}")
        return source if self._key_of(source) == signer else None

    def _check_owner(self, signer: SiteId | None, owner: str, mandate: str) -> None:
        """Only a source that signed may query in an owner's name."""
        if self._mandates is None or not owner:
            return
        if signer is None:
            raise _denied(f"nobody known here signed that {owner} asks")
        try:
            self._mandates.check(signer, owner, mandate, clock.wall_s())
        except Refused as error:
            raise _denied(error.problem) from None

    def _open(self, packet: Packet) -> bytes:
        receiver = self._receives.get(class_of(packet.payload))
        if receiver is None:
            raise NotServed(
                Refusal(Reason.FAILED, "sealed to a class whose key this site does not have")
            )
        try:
            return open_payload(packet, receiver)
        except Corrupt as error:
            raise _denied(str(error)) from None

    def _deployment(self, intent: PacketIntent) -> str:
        """The best deployment here that the intent admits."""
        wanted = f"{intent.capability}:{intent.subject}"
        found = [
            (offer.fit, -offer.price_usd, name)
            for name, offer in self._offers()
            if _is_of(offer.key, wanted)
            and (offer.fit if offer.trust >= intent.trust else 0.0) >= intent.min_fit
            and is_suited(offer, intent)
        ]
        if not found:
            raise NotServed(Refusal(Reason.FAILED, f"{wanted} is no longer served here"))
        return max(found)[2]

    async def _ask(
        self, question: PacketQuestion, owner: str, body: bytes, span: Span | None
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers, by names in lower case. Raises `NotServed`."""
        asked_at_s = question.asked_at_s if math.isfinite(question.asked_at_s) else 0.0
        headers = {
            "content-type": JSON,
            PeerHeader.PASS: sign_pass(self._site, self._site, clock.wall_s(), self._key),
            PeerHeader.QUERY: question.id[:200],
            PeerHeader.ASKED_AT: str(int(asked_at_s)),
            PeerHeader.OWNER: owner,
        }
        if span is not None:
            headers[TRACEPARENT] = span.context.traceparent
        elif passed := passed_on(question.traceparent):
            headers[TRACEPARENT] = passed
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=trusting(self._tls, own=True)),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S
        )
        url = f"{self._server()}/v1{question.api.path}"
        try:
            async with self._session.post(
                url, data=body, headers=headers, timeout=timeout
            ) as response:
                answered = {name.lower(): value for name, value in response.headers.items()}
                return response.status, await response.read(), answered
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise NotServed(
                Refusal(Reason.FAILED, f"the facility did not answer: {error}"[:500])
            ) from None


def _is_of(key: str, wanted: str) -> bool:
    """Whether an offer is one of those wanted, or belongs to a deployment that was never
    measured."""
    if wanted.startswith(f"{Capability.ANSWER}:") and key == f"{Capability.ANSWER}:{UNMEASURED}":
        return True
    return key == wanted or (wanted.endswith(":") and key.startswith(wanted))


def _denied(why: str) -> NotServed:
    return NotServed(Refusal(Reason.DENIED, why[:500]))


def _refusal(status: int, body: bytes, headers: dict[str, str], *, tells: bool) -> Refusal:
    """The refusal for an error of the facility. `tells`: whether everybody may read its text."""
    error = read_error(body) or Error()
    hint_s = retry_after_s(headers, "", clock.wall_s())
    failure = of_facility(status, error, hint_s)
    text = (error.message or body.decode("utf-8", "replace"))[:300] if tells else ""
    detail = f"the facility answered {status}: {text}".rstrip(": ")
    if not failure.asks_other:
        return Refusal(Reason.DENIED, detail)
    if failure.cause is Cause.UNSUITED:
        return Refusal(Reason.UNSUITED, detail)
    if failure.permanent:
        return Refusal(Reason.MISCONFIGURED, detail)
    reason = Reason.FULL if failure is FULL else Reason.FAILED
    return Refusal(reason, detail, RETRY_AFTER_S if hint_s is None else hint_s)

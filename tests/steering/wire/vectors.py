"""Test vectors of the wire format, for other implementations and for this one.

`python -m tests.steering.wire.vectors` writes `vectors.json` anew. Keys and random numbers are
fixed, so the file changes only when the format does.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from daitn.identity.keys import SigningKey
from daitn.identity.sealing import INFO, ReceiverKey, class_id
from daitn.node.forwarder.protection import sealing_context, sign_packet
from daitn.objects.abilities import Need, mask_of
from daitn.steering.wire.intent import Capability, PacketIntent, decode_intent, encode_intent
from daitn.steering.wire.offers import (
    INFINITE,
    Greeting,
    Offer,
    RouteEntry,
    SeqnoRequest,
    Summary,
    Update,
    decode_advertised,
    encode_summary,
)
from daitn.steering.wire.packet import (
    Action,
    Flag,
    Packet,
    PacketKind,
    decode_packet,
    encode_packet,
)
from daitn.steering.wire.replies import Reason, Refusal, answer_to, refusal_to
from tests.steering.wire.hpke_oracle import hpke_seal

FILE = Path(__file__).with_name("vectors.json")

SIGNING, RECEIVER, EPHEMERAL = bytes(range(32)), bytes(range(32, 64)), bytes(range(64, 96))
SIGNER = SigningKey(Ed25519PrivateKey.from_private_bytes(SIGNING))
READER = ReceiverKey(X25519PrivateKey.from_private_bytes(RECEIVER))

DECODERS: dict[str, Callable[[bytes], object]] = {
    "packet": decode_packet,
    "intent": decode_intent,
    "summary": decode_advertised,
}

WANTS = {
    "least": PacketIntent("answer", ""),
    "answer": PacketIntent(
        Capability.ANSWER,
        "medicine/neurology",
        "klinikum",
        min_fit=0.8,
        trust=2,
        max_cost_usd=0.01,
        jurisdictions=("DE", "CH"),
        owners=("charite",),
        unkept=True,
        tokens_in=120,
        tokens_out=400,
        prefer={"price": 0.5, "delay": 1.0},
        needs=mask_of((Need.CHAT, Need.TEXT, Need.TALK)),
        language="de",
    ),
    "ranking": PacketIntent(
        Capability.ANSWER,
        "",
        "klinikum",
        tokens_in=9_000,
        needs=mask_of((Need.RERANK, Need.TEXT)),
        tokens_at_once=240,
    ),
    "data": PacketIntent(Capability.DATA, "medicine/gard", "nih", examples=20_000),
    "home": PacketIntent(Capability.HOME, "ninds"),
}
ID = bytes.fromhex("000102030405060708090a0b0c0d0e0f")
INTENT = encode_intent(WANTS["answer"])
QUESTION = "What causes Ménière's disease?".encode()
QUERY = Packet(PacketKind.QUERY, ID, INTENT, QUESTION, deadline_ms=1_767_225_600_000, priority=200)
DIGEST = blake3(b"weights").digest()

NAN = float("nan")


def sealed(packet: Packet) -> Packet:
    """As `seal_payload` does it, with fixed randomness."""
    ephemeral = X25519PrivateKey.from_private_bytes(EPHEMERAL)
    receiver = base64.b64decode(READER.public)
    payload = hpke_seal(packet.payload, receiver, ephemeral, INFO + sealing_context(packet))
    return msgspec.structs.replace(
        packet, flags=packet.flags | Flag.SEALED, payload=class_id(READER.public) + payload
    )


def traced(packet: Packet) -> Packet:
    """Three hops on, at the second of which it had to turn back."""
    once = packet.stepped("gateway-1", 1_767_225_590_000, Action.FORWARDED, 3_000_000_000)
    twice = once.stepped("edge.west", 1_767_225_590_020, Action.TRIED, 3_100_000_000)
    return twice.stepped("ninds", 1_767_225_590_045, Action.DELIVERED, 4_294_967_295)


PACKETS = {
    "least": Packet(PacketKind.PROBE, ID, b""),
    "query": QUERY,
    "query, signed": sign_packet(QUERY, SIGNER),
    "query, sealed": sealed(QUERY),
    "query, sealed, signed, traced": traced(sign_packet(sealed(QUERY), SIGNER)),
    "model, by digest, signed": sign_packet(
        Packet(
            PacketKind.MODEL, ID, encode_intent(WANTS["data"]), DIGEST, Flag.DIGEST, 64, branch=3
        ),
        SIGNER,
    ),
    "query, signed, sent again": sign_packet(msgspec.structs.replace(QUERY, attempt=2), SIGNER),
    "answer": Packet(PacketKind.ANSWER, ID, b"", b"An excess of endolymph.", branch=1, attempt=2),
    "answer, sealed": sealed(Packet(PacketKind.ANSWER, ID, b"", b"An excess of endolymph.")),
    "answer to a query": answer_to(traced(QUERY), b"An excess of endolymph."),
    "refusal of a query": refusal_to(traced(QUERY), Refusal(Reason.FAILED, "out of memory", 1.5)),
    "probe, traced": traced(
        Packet(PacketKind.PROBE, ID, INTENT, advertised_score=0xFFFFFFFF, attempt=0xFFFF)
    ),
}
OFFERS = (
    Offer(
        "answer:medicine/neurology",
        fit=0.875,
        trust=2,
        serve_s=1.5,
        wait_s=0.25,
        price_usd=0.002,
        jurisdiction="DE",
        owner="charite",
        keeps=True,
        at_s=1_767_225_580.0,
        abilities=(mask_of((Need.CHAT, Need.TEXT, Need.TALK)), mask_of((Need.CHAT, Need.RECORD))),
        context_tokens=8192,
        languages=("de", "en"),
    ),
    Offer("data:medicine/gard", fit=0.5, amount=20_000, jurisdiction="US", owner="nih"),
)
SUMMARIES: dict[str, Summary | Greeting] = {
    "nothing new": Update(()),
    "update": Update(
        (
            RouteEntry("ninds", 7, 0.03125, 2, OFFERS),
            RouteEntry("domain:edge@ghr/1", 65_535, 0.5, 1, ()),
            RouteEntry("ghr", 12, 0.25, 4),
            RouteEntry("gone", 3, INFINITE),
        ),
        whole=True,
    ),
    "seqno request": SeqnoRequest("ninds", 8, 16),
    "greeting": Greeting("west"),
}


def written(packet: Packet) -> dict[str, Any]:
    """A packet's fields as the file shows them."""
    fields = msgspec.structs.asdict(packet)
    for name in ("object_id", "intent", "payload", "trace", "seal"):
        fields[name] = fields[name].hex()
    return {
        **fields,
        "kind": packet.kind.name,
        "flags": [flag.name for flag in Flag if flag in packet.flags],
        "hops": [[hop.site, hop.at_ms, hop.action.name] for hop in packet.hops()],
    }


def plain(value: object) -> Any:
    """A struct as lists; JSON has no infinity."""
    match msgspec.to_builtins(value):
        case list() | tuple() as items:
            return [plain(item) for item in items]
        case float() as number if number == INFINITE:
            return "infinite"
        case other:
            return other


def malformed() -> list[tuple[str, str, bytes, str]]:
    """What no reader may accept: decoder, what is wrong, bytes, the field that is to be named."""
    good, signed = encode_packet(QUERY), encode_packet(PACKETS["query, signed"])
    digest = encode_packet(PACKETS["model, by digest, signed"])
    short = encode_packet(PACKETS["answer"])

    def put(at: int, value: str, wire: bytes = good) -> bytes:
        new = bytes.fromhex(value)
        return wire[:at] + new + wire[at + len(new) :]

    pack = msgspec.msgpack.encode
    offer = ["answer:a", 0.5, 1, 1.0, 1.0]
    return [
        ("packet", "nothing", b"", "packet"),
        ("packet", "a cut header", good[:47], "packet"),
        ("packet", "a cut payload", good[:-1], "packet"),
        ("packet", "a byte too many", good + b"\0", "packet"),
        ("packet", "another magic", put(0, "da18"), "magic"),
        ("packet", "a version from the future", put(2, "02"), "version"),
        ("packet", "kind 0", put(3, "00"), "kind"),
        ("packet", "kind 6", put(3, "06"), "kind"),
        ("packet", "an unknown flag", put(4, "0008"), "flags"),
        ("packet", "hop limit 65", put(6, "41"), "hop_limit"),
        ("packet", "an intent that is too long", put(40, "2001"), "intent"),
        ("packet", "a trace that is too long", put(42, "1401"), "trace"),
        ("packet", "a payload that is too long", put(44, "00400001"), "payload"),
        ("packet", "a digest of other length", put(4, "0004", short), "payload"),
        ("packet", "a digest that is cut", put(44, "0000001f", digest), "payload"),
        ("packet", "a seal that is missing", put(4, "0002"), "packet"),
        ("packet", "a seal without the flag", put(4, "0000", signed), "packet"),
        ("intent", "nothing", b"", "intent"),
        ("intent", "no array", pack({"capability": "answer"}), "intent"),
        ("intent", "no subject", pack(["answer"]), "intent"),
        ("intent", "bytes after it", pack(["answer", ""]) + b"\0", "intent"),
        ("intent", "a number for a name", pack([1, ""]), "intent[0]"),
        ("intent", "a name that is too long", pack(["answer", "a" * 201]), "intent[1]"),
        ("intent", "text that is no UTF-8", bytes.fromhex("92a1ffa0"), "intent"),
        ("intent", "a share above 1", pack(["answer", "", "", 1.5]), "intent[3]"),
        ("intent", "a share that is NaN", pack(["answer", "", "", NAN]), "intent[3]"),
        ("intent", "trust 3", pack(["answer", "", "", 0.5, 3]), "intent[4]"),
        ("intent", "an infinite price", pack(["answer", "", "", 0.5, 1, INFINITE]), "intent[5]"),
        ("summary", "nothing", b"", "summary"),
        ("summary", "tag 4", pack([4, []]), "summary[0]"),
        ("summary", "a sequence number beyond 16 bits", pack([2, "a", 65536]), "summary[2]"),
        ("summary", "hop limit 65", pack([2, "a", 1, 65]), "summary[3]"),
        ("summary", "a negative distance", pack([1, [["a", 1, -1.0]]]), "summary[1][0][2]"),
        ("summary", "no distance", pack([1, [["a", 1, float("nan")]]]), "summary[1][0][2]"),
        ("summary", "a fit above 1", pack([1, [["a", 1, 1.0, 0, [["k", 2.0]]]]]),
         "summary[1][0][4][0][1]"),
        ("summary", "an infinite wait", pack([1, [["a", 1, 1.0, 0, [[*offer[:4], INFINITE]]]]]),
         "summary[1][0][4][0][4]"),
        ("summary", "a count without entries", bytes.fromhex("9201ddffffffff"), "summary"),
    ]  # fmt: skip


def vectors() -> dict[str, Any]:
    return {
        "about": "test vectors of docs/reference/aats-wire.md; bytes are hexadecimal",
        "keys": {
            "signing_private": SIGNING.hex(),
            "receiver_private": RECEIVER.hex(),
            "ephemeral_private": EPHEMERAL.hex(),
            "signing_public": SIGNER.public,
            "receiver_public": READER.public,
        },
        "packets": [
            {"name": name, "wire": encode_packet(packet).hex(), "fields": written(packet)}
            for name, packet in PACKETS.items()
        ],
        "intents": [
            {"name": name, "wire": encode_intent(intent).hex(), "fields": plain(intent)}
            for name, intent in WANTS.items()
        ],
        "summaries": [
            {"name": name, "wire": encode_summary(summary).hex(), "fields": plain(summary)}
            for name, summary in SUMMARIES.items()
        ],
        "malformed": [
            {"decoder": decoder, "name": name, "wire": wire.hex(), "field": field}
            for decoder, name, wire, field in malformed()
        ],
    }


def text() -> str:
    return json.dumps(vectors(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())

"""Hypothesis strategies for what travels between forwarders."""

from __future__ import annotations

import re

from hypothesis import strategies as st

from daitn.objects.text import LINE_PATTERN
from daitn.steering.wire.intent import PacketIntent
from daitn.steering.wire.offers import Offer, RouteEntry, SeqnoRequest, Update
from daitn.steering.wire.packet import Action, Flag, Packet, PacketKind

SITES = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", fullmatch=True)
HOPS = st.lists(
    st.tuples(SITES, st.integers(0, 2**48), st.sampled_from(Action), st.integers(0, 2**32 - 1)),
    max_size=8,
)


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    """Packets that a forwarder accepts, on which some forwarders stepped before."""
    flags = Flag(draw(st.integers(0, 7)))
    exact = 32 if Flag.DIGEST in flags else None
    seal = 96 if Flag.SIGNED in flags else 0
    packet = Packet(
        kind=draw(st.sampled_from(PacketKind)),
        object_id=draw(st.binary(min_size=16, max_size=16)),
        intent=draw(st.binary(max_size=64)),
        payload=draw(st.binary(min_size=exact or 0, max_size=exact or 64)),
        flags=flags,
        hop_limit=draw(st.integers(8, 64)),
        priority=draw(st.integers(0, 255)),
        deadline_ms=draw(st.integers(0, 2**64 - 1)),
        branch=draw(st.integers(0, 2**16 - 1)),
        attempt=draw(st.integers(0, 2**16 - 1)),
        advertised_score=draw(st.integers(0, 2**32 - 1)),
        seal=draw(st.binary(min_size=seal, max_size=seal)),
    )
    for hop in draw(HOPS):
        packet = packet.stepped(*hop)
    return packet


_NAMES = st.text(max_size=20).filter(lambda name: re.search(LINE_PATTERN, name))
_SHARES = st.floats(0, 1)
_AMOUNTS = st.floats(0, 1e12)
_SEQNOS = st.integers(0, 2**16 - 1)

WANTS = st.builds(
    PacketIntent,
    capability=_NAMES,
    subject=_NAMES,
    owner=_NAMES,
    min_fit=_SHARES,
    trust=st.integers(0, 2),
    max_cost_usd=st.none() | _AMOUNTS,
    jurisdictions=st.lists(_NAMES, max_size=3).map(tuple),
    owners=st.lists(_NAMES, max_size=3).map(tuple),
    unkept=st.booleans(),
    tokens_in=st.integers(0, 2**31),
    tokens_out=st.integers(0, 2**31),
    examples=st.integers(0, 2**53),
    prefer=st.dictionaries(_NAMES, _AMOUNTS, max_size=4),
    needs=st.integers(0, 2**32 - 1),
    language=_NAMES,
    tokens_at_once=st.integers(0, 2**31),
)

_OFFERS = st.builds(
    Offer,
    key=_NAMES,
    fit=_SHARES,
    trust=st.integers(0, 2),
    serve_s=_AMOUNTS,
    wait_s=_AMOUNTS,
    price_usd=_AMOUNTS,
    amount=st.integers(0, 2**53),
    jurisdiction=_NAMES,
    owner=_NAMES,
    keeps=st.booleans(),
    at_s=_AMOUNTS,
    abilities=st.lists(st.integers(0, 2**32 - 1), max_size=8).map(tuple),
    context_tokens=st.integers(0, 2**53),
    languages=st.lists(_NAMES, max_size=3).map(tuple),
)
_ROUTES = st.builds(
    RouteEntry,
    origin=_NAMES,
    seqno=_SEQNOS,
    distance_s=st.floats(0, allow_nan=False),
    edition=st.integers(0, 2**53),
    offers=st.none() | st.lists(_OFFERS, max_size=3).map(tuple),
)
SUMMARIES = st.builds(
    Update, routes=st.lists(_ROUTES, max_size=4).map(tuple), whole=st.booleans()
) | st.builds(SeqnoRequest, origin=_NAMES, seqno=_SEQNOS, hop_limit=st.integers(0, 64))

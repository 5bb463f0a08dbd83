"""Signed messages and facts in which a later release says more than this one knows: they are
verified, what is kept is passed on whole, and nothing else is let in."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.identity.grants import GrantBook
from daitn.identity.invitations import Claim, Invitation
from daitn.identity.keys import SigningKey
from daitn.identity.orders import OrderBook, sign_order
from daitn.identity.passes import PassBook, sign_pass
from daitn.identity.roster import RosterFile, open_roster, sign_roster
from daitn.identity.signing import (
    check_attestation,
    check_report,
    check_usage,
    read_advert,
    sign_advert,
    sign_attestation,
    sign_entry,
    sign_report,
    sign_usage,
)
from daitn.objects.descriptors import Role
from daitn.objects.digests import digest_of
from daitn.objects.errors import DaitnError, Refused
from daitn.objects.findings import Attestation, Finding
from daitn.objects.grants import Mandate, Signed
from daitn.objects.identifiers import Digest, JobId, OwnerId, SiteId, VisitId
from daitn.objects.lineage import Origin
from daitn.objects.messages import WorkOutcome, WorkReport, WorkState
from daitn.objects.orders import SignedOrder
from daitn.objects.roster import Kind, Member, Roster, SignedRoster
from daitn.objects.usage import (
    Count,
    SignedUsage,
    UsageKey,
    UsageRow,
    UsageSide,
    UsageStatement,
)
from daitn.objects.wire import canonical, decode
from tests.control.jobs.world import INTENT
from tests.identity.test_identity import GHR

KEY = SigningKey.of(bytes(range(32)))
NOW_S, ENDS_S = 1000.0, 1100.0
HERE = SiteId("here")

Plain = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A signed message."""

    value: msgspec.Struct
    """What is signed."""
    domain: bytes
    sent: Callable[[bytes, str], bytes]
    """The message with a signed text and its signature."""
    read: Callable[[bytes], object]
    """What a receiver reads in a message; raises `DaitnError`."""

    def said(self, value: object) -> bytes:
        """A message with this content."""
        text = msgspec.msgpack.encode(value)
        return self.sent(text, KEY.sign(self.domain + text))


def inside(field: str) -> Callable[[bytes, str], bytes]:
    """Messages that hold what is signed in a field."""

    def sent(text: bytes, signature: str) -> bytes:
        return msgspec.msgpack.encode({field: msgspec.Raw(text), "signature": signature})

    return sent


def report_of(data: bytes) -> WorkOutcome:
    report = decode(data, WorkReport)
    check_report(report, KEY.public, data)
    return report.outcome


def finding_of(data: bytes) -> Finding:
    attestation = decode(data, Attestation)
    check_attestation(attestation, KEY.public, data)
    return attestation.finding


def statement_of(data: bytes) -> UsageStatement:
    signed = decode(data, SignedUsage)
    check_usage(signed, KEY.public, data)
    return signed.statement


def holder_of(data: bytes) -> str:
    return PassBook(HERE, lambda _: KEY.public).holder(data.decode(), NOW_S)


def roster_of(data: bytes) -> Roster:
    return open_roster(decode(data, SignedRoster), KEY.public, NOW_S)


def mandate_of(data: bytes) -> Mandate:
    return GrantBook("net", lambda: {KEY.public: OWNER}, lambda: NOW_S).read(
        decode(data, Signed), Mandate
    )


def claim_of(data: bytes) -> Claim:
    return msgspec.convert(msgspec.msgpack.decode(data), Invitation).read()


def as_pass(text: bytes, signature: str) -> bytes:
    return base64.urlsafe_b64encode(inside("claim")(text, signature))


def in_bytes(field: str, **others: object) -> Callable[[bytes, str], bytes]:
    def sent(text: bytes, signature: str) -> bytes:
        return msgspec.msgpack.encode({field: text, "signature": signature, **others})

    return sent


OWNER = Member(name="ann", kind=Kind.OWNER, public_key=KEY.public, until_s=ENDS_S)
ROSTER = Roster(network="net", version=3, issued_at_s=1.0, until_s=ENDS_S, members=(OWNER,))
OUTCOME = WorkOutcome(
    visit=VisitId("v-1"), job=JobId("j-1"), site=HERE, state=WorkState.CANCELLED
)  # fmt: skip
FINDING = Finding(
    verifier=SiteId("exam"), site=SiteId("mdf"), deployment="qa-1", manifest=Digest("5" * 64),
    topic="colds", metric="accuracy", value=0.75, standard_error=0.05, items=40, at_s=900.0,
)  # fmt: skip
ROW = UsageKey(OwnerId("ann"), OwnerId("bob"), "qa-1", SiteId("mdf"), 1.0, 2.0)
STATEMENT = UsageStatement(
    site=SiteId("gate"), side=UsageSide.GATEWAY, series=1, number=2, at_s=900.0,
    rows=(UsageRow(ROW, Count(3, 40, 50)),),
)  # fmt: skip
MANDATE = Mandate(
    network="net", owner=OwnerId("ann"), gateways=(SiteId("gate"),), secret="0" * 64,
    until_s=ENDS_S,
)  # fmt: skip
CLAIM = Claim(
    network="net", id="1", until_s=ENDS_S, once=KEY.public, kind=Kind.SITE, name="ghr",
    roles=(Role.DATA,), member_days=30.0,
)  # fmt: skip
PASS = {"holder": "gate", "audience": HERE, "until_s": ENDS_S}
INVITED = {
    "daitn": "invitation",
    "once": bytes(32),
    "roster": msgspec.to_builtins(
        RosterFile(root=KEY.public, signed=sign_roster(ROSTER, KEY)), builtin_types=(bytes,)
    ),
}

CASES = {
    "advert": Case(
        msgspec.structs.replace(GHR, public_key=KEY.public), b"", inside("descriptor"), read_advert
    ),
    "report": Case(OUTCOME, b"", inside("outcome"), report_of),
    "attestation": Case(FINDING, b"", inside("finding"), finding_of),
    "usage": Case(STATEMENT, b"daitn usage 1\0", inside("statement"), statement_of),
    "roster": Case(ROSTER, b"daitn roster 1\0", in_bytes("roster"), roster_of),
    "mandate": Case(
        MANDATE, b"daitn mandate 1\0", in_bytes("statement", public_key=KEY.public), mandate_of
    ),
    "invitation": Case(CLAIM, b"daitn invitation 1\0", in_bytes("claim", **INVITED), claim_of),
}
"""Passes, which name their holder only, have tests of their own below."""

json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)
added = st.dictionaries(
    st.from_regex(r"of_tomorrow_[a-z]{0,5}", fullmatch=True), json_like, min_size=1, max_size=4
)
"""What later releases add: with names that no release has."""


def structs_in(value: object) -> list[Plain]:
    """The mapping of a struct, and those of structs in it, here without those of free names."""
    found: list[Plain] = []
    if isinstance(value, dict):
        found.append(value)
        for name, inner in value.items():
            if name not in ("labels", "limits"):
                found += structs_in(inner)
    elif isinstance(value, list):
        for inner in value:
            found += structs_in(inner)
    return found


def said_more(case: Case, more: Plain, place: random.Random) -> Plain:
    """What is signed, with further fields anywhere in it."""
    value: Plain = msgspec.msgpack.decode(canonical(case.value))
    for name, one in more.items():
        into = place.choice(structs_in(value))
        fields = list(into.items())
        fields.insert(place.randint(0, len(fields)), (name, one))
        into.clear()
        into.update(fields)
    return value


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=30)
@given(more=added, place=st.randoms(use_true_random=False))
def test_what_a_later_release_adds_to_a_message_is_ignored_by_its_reader(
    name: str, more: Plain, place: random.Random
) -> None:
    case = CASES[name]
    assert case.read(case.said(said_more(case, more, place))) == case.value


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=30)
@given(data=st.data())
def test_a_message_of_a_later_release_is_refused_if_a_byte_of_it_is_another(
    name: str, data: st.DataObject
) -> None:
    case = CASES[name]
    value = said_more(case, data.draw(added), random.Random(0))
    text = msgspec.msgpack.encode(value)
    signature = KEY.sign(case.domain + text)
    changed = bytearray(text)
    at = data.draw(st.integers(0, len(text) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DaitnError):
        case.read(case.sent(bytes(changed), signature))


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=30)
@given(more=added, other=json_like)
def test_what_a_later_release_added_is_neither_changed_nor_removed_unseen(
    name: str, more: Plain, other: object
) -> None:
    case = CASES[name]
    value = said_more(case, more, random.Random(0))
    text = msgspec.msgpack.encode(value)
    signature = KEY.sign(case.domain + text)
    for changed in (
        case.value,
        {**value, "of_tomorrow": other},
        dict(reversed(value.items())),
        {**value, **{field: [one] for field, one in more.items() if field in value}},
    ):
        written = msgspec.msgpack.encode(changed)
        if written != text:
            with pytest.raises(DaitnError):
                case.read(case.sent(written, signature))


RECEIVED = ["advert", "report", "attestation", "usage", "roster"]


@pytest.mark.parametrize("name", RECEIVED)
def test_a_message_has_one_meaning_and_bounds(name: str) -> None:
    """Whoever signs it writes no name twice, nothing longer than necessary, and not without end."""
    case = CASES[name]
    plain = msgspec.msgpack.decode(canonical(case.value))
    assert len(plain) < 15
    fields = [msgspec.msgpack.encode(name) + msgspec.msgpack.encode(plain[name]) for name in plain]
    pack = msgspec.msgpack.encode

    def text(*more: bytes) -> bytes:
        count = len(fields) + len(more)
        head = bytes([0x80 | count]) if count < 16 else b"\xde" + count.to_bytes(2, "big")
        return head + b"".join((*fields, *more))

    def refused(written: bytes) -> None:
        with pytest.raises(DaitnError):
            case.read(case.sent(written, KEY.sign(case.domain + written)))

    def taken(written: bytes) -> None:
        assert case.read(case.sent(written, KEY.sign(case.domain + written))) == case.value

    small = text(pack("tomorrow") + pack(1))
    taken(small)
    assert small[0] == 0x80 | len(fields) + 1
    taken(b"\xde\0" + bytes([len(fields) + 1]) + small[1:])  # One of 16 fields or more is unset.
    refused(b"\xdf\0\0\0" + bytes([len(fields) + 1]) + small[1:])
    refused(text(fields[0]))
    refused(text(pack("tomorrow") + pack(1), pack("tomorrow") + pack(2)))
    refused(text(pack("") + pack(None), pack("") + pack(None)))
    refused(text(pack("tomorrow") + b"\xd2\0\0\0\1"))  # 1 as a number of 32 bits.
    refused(text(pack("tomorrow") + pack("x" * (1 << 17))))
    refused(small + b"\0")


def test_a_receiver_of_usage_names_it_by_what_its_site_signed() -> None:
    """The site compares this with its own, and would start its counts anew."""
    case = CASES["usage"]
    value = said_more(case, {"of_tomorrow": 1}, random.Random(0))
    sent = case.said(value)
    signed = check_usage(decode(sent, SignedUsage), KEY.public, sent)
    assert digest_of(signed) == digest_of(msgspec.msgpack.encode(value))
    now = msgspec.msgpack.encode(sign_usage(STATEMENT, KEY))
    assert digest_of(check_usage(decode(now, SignedUsage), KEY.public, now)) == (STATEMENT.digest)


@settings(max_examples=30)
@given(more=added)
def test_a_pass_of_a_later_release_admits_its_holder(more: Plain) -> None:
    text = msgspec.msgpack.encode({**PASS, **more})
    assert holder_of(as_pass(text, KEY.sign(text))) == "gate"
    for changed in ({**PASS, **more, "holder": "mdf"}, PASS, {**PASS, **more, "of": 1}):
        with pytest.raises(Refused):
            holder_of(as_pass(msgspec.msgpack.encode(changed), KEY.sign(text)))


@pytest.mark.parametrize("missing", ["hosts", "jurisdiction"])
def test_a_roster_from_before_a_field_was_added_holds(missing: str) -> None:
    value = msgspec.msgpack.decode(canonical(ROSTER))
    del value["members"][0][missing]
    assert CASES["roster"].read(CASES["roster"].said(value)) == ROSTER


def test_an_order_with_terms_unknown_here_is_refused() -> None:
    """They may forbid what this release would do."""
    book = OrderBook("net", lambda: {KEY.public: owner}, lambda: NOW_S)
    owner = msgspec.structs.replace(OWNER, name="acme")
    signed = sign_order(INTENT, "net", ENDS_S, KEY)
    assert book.read(signed).intent == INTENT
    value = msgspec.msgpack.decode(signed.order)
    later = [{**value, "no_sooner_than_s": 5.0}]
    later.append({**value, "intent": {**value["intent"], "only_by_night": True}})
    for one in later:
        text = msgspec.msgpack.encode(one)
        signature = KEY.sign(b"daitn order 1\0" + text)
        with pytest.raises(DaitnError, match=r"canonical form|unknown field"):
            book.read(SignedOrder(order=text, public_key=KEY.public, signature=signature))


def test_messages_of_this_release_are_as_they_were() -> None:
    """The beginnings of what the release before this test signed."""
    signed = {
        "advert": sign_advert(msgspec.structs.replace(GHR, public_key=KEY.public), KEY).signature,
        "report": sign_report(OUTCOME, KEY).signature,
        "attestation": sign_attestation(FINDING, KEY).signature,
        "usage": sign_usage(STATEMENT, KEY).signature,
        "roster": sign_roster(ROSTER, KEY).signature,
        "pass": sign_pass(SiteId("gate"), HERE, NOW_S, KEY)[-40:],
    }
    assert {name: signature[:40] for name, signature in signed.items()} == {
        "advert": "TmfgPe+tNyJXDhsM0QjrMbVeIDlx1nkU0EP5oTvF",
        "report": "Nej32t/sl6vQf2gtnzy374nczLp6lZ8M2gev7oJ6",
        "attestation": "kxqYTDnSYvhPIupqqGqG09mJdNs1gpFTnLtlaBIa",
        "usage": "Lje9zVxQP8qS00XbZu5Q3Ffzf/VURVZzE02sntW9",
        "roster": "rduuI6prcW7N/wYppZ4/zuf3DbhdmP87q+K8gSXD",
        "pass": "dlRKYWFzOGFQRDdhTmlWRWVNS0ZobmRXQ1E9PQ==",
    }


def nested(levels: int) -> bytes:
    """A list in a list in a list, and in the last a mapping of which only a reader of each value
    knows that it is as short as a release writes it."""
    return b"\x91" * levels + b"\xde\0\1" + msgspec.msgpack.encode("tomorrow") + b"\1"


@pytest.mark.parametrize("name", RECEIVED)
def test_a_message_takes_no_more_of_its_reader_the_deeper_it_is(name: str) -> None:
    """A member who signs what it likes must not have a control centre read it once per level."""
    case = CASES[name]
    value = msgspec.msgpack.decode(canonical(case.value))

    def said(inner: bytes) -> bytes:
        text = msgspec.msgpack.encode({**value, "tomorrow": msgspec.Raw(inner)})
        return case.sent(text, KEY.sign(case.domain + text))

    assert case.read(said(nested(20))) == case.value
    assert case.read(said(b"\x91" * 500 + b"\1")) == case.value
    with pytest.raises(DaitnError):
        case.read(said(nested(500)))


def test_unknown_fields_of_a_large_message_are_bounded_too() -> None:
    fact = Origin(
        job=OUTCOME.job, visit=OUTCOME.visit, site=HERE, at_s=1.0, recipe="toy", seed=1,
        model=Digest("5" * 64),
    )  # fmt: skip
    entry = sign_entry(fact, tuple(Digest(f"{n:064x}") for n in range(20_000)), KEY)
    large = msgspec.structs.replace(OUTCOME, entry=entry)
    assert len(canonical(large)) > 1 << 20
    case = replace(CASES["report"], value=large)
    value = msgspec.msgpack.decode(canonical(large))

    def said(size: int) -> bytes:
        return case.said({**value, "tomorrow": "x" * size})

    assert case.read(said(1_000_000)) == large
    with pytest.raises(DaitnError):
        case.read(said(1_050_000))


def test_a_large_roster_may_say_more_of_each_member() -> None:
    """Else those that it revokes would stay members wherever this release runs."""
    members = [
        msgspec.structs.replace(
            OWNER, name=f"m{n}", public_key=base64.b64encode(n.to_bytes(32, "big")).decode()
        )
        for n in range(10_000)
    ]
    large = msgspec.structs.replace(ROSTER, members=tuple(members))
    case = replace(CASES["roster"], value=large)
    value = msgspec.msgpack.decode(canonical(large))
    for member in value["members"]:
        member["tomorrow"] = "x" * 110
    assert len(msgspec.msgpack.encode(value)) > len(canonical(large)) + (1 << 20)
    assert case.read(case.said(value)) == large

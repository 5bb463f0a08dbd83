from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.objects.errors import Corrupt
from daitn.steering.wire.intent import PacketIntent, decode_intent, encode_intent
from daitn.steering.wire.offers import (
    MOST_UPDATE_BYTES,
    Summary,
    Update,
    decode_summary,
    encode_summary,
)
from daitn.steering.wire.packet import MOST_INTENT_BYTES
from tests.steering.wire.oracle import examine
from tests.steering.wire.shapes import SUMMARIES, WANTS


@given(WANTS)
def test_an_intent_comes_back_as_it_was(intent: PacketIntent) -> None:
    assert decode_intent(encode_intent(intent)) == intent


@given(SUMMARIES)
def test_a_summary_comes_back_as_it_was(summary: Summary) -> None:
    assert decode_summary(encode_summary(summary)) == summary


@given(WANTS.map(encode_intent), SUMMARIES.map(encode_summary), st.data())
def test_changed_bytes_are_read_or_refused(
    intent: bytes, summary: bytes, data: st.DataObject
) -> None:
    for form, wire in (("intent", bytearray(intent)), ("summary", bytearray(summary))):
        for at in data.draw(st.lists(st.integers(0, len(wire) - 1), min_size=1, max_size=4)):
            wire[at] = data.draw(st.integers(0, 255))
        examine(form, bytes(wire))
        examine(form, bytes(wire[: data.draw(st.integers(0, len(wire)))]))


def test_equal_intents_have_equal_bytes() -> None:
    one = PacketIntent("answer", "a", min_fit=1, max_cost_usd=2, prefer={"price": 1, "delay": 2})
    two = PacketIntent(
        "answer", "a", min_fit=1.0, max_cost_usd=2.0, prefer={"delay": 2.0, "price": 1.0}
    )
    assert one == two
    assert encode_intent(one) == encode_intent(two)


def test_an_intent_that_no_reader_accepts_is_not_written() -> None:
    with pytest.raises(Corrupt) as raised:
        encode_intent(PacketIntent("answer", "a", min_fit=1.5))
    assert raised.value.field == "intent[3]"


def test_later_versions_can_append() -> None:
    longer = [*msgspec.to_builtins(PacketIntent("answer", "a")), "new", [1, {"b": 2}]]
    assert decode_intent(msgspec.msgpack.encode(longer)) == PacketIntent("answer", "a")
    assert decode_summary(msgspec.msgpack.encode([1, [], False, "new"])) == Update(())


@pytest.mark.parametrize(
    ("decoder", "most"), [(decode_intent, MOST_INTENT_BYTES), (decode_summary, MOST_UPDATE_BYTES)]
)
def test_too_many_bytes_are_not_even_read(decoder: Callable[[bytes], object], most: int) -> None:
    with pytest.raises(Corrupt, match=f"at most {most} bytes"):
        decoder(b"\x90" * (most + 1))


def test_nesting_is_bounded() -> None:
    deep = b"\xdc\x00\x11" + msgspec.msgpack.encode(PacketIntent("answer", ""))[3:] + b"\x91" * 8000
    with pytest.raises(Corrupt, match="recursion"):
        decode_intent(deep)

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.objects.errors import Corrupt
from daitn.tools.adjacency.framing import (
    Frame,
    Hello,
    Nonces,
    decode,
    encode_frame,
    encode_hello,
)

word = st.integers(0, 2**64 - 1)
small = st.integers(0, 2**32 - 1)
nonces = st.builds(Nonces, word, word)


@given(nonces, small, st.lists(st.binary(max_size=300), max_size=20))
def test_a_frame_comes_out_as_it_went_in(who: Nonces, number: int, messages: list[bytes]) -> None:
    assert decode(encode_frame(who, number, messages)) == Frame(who, number, messages)


@given(st.builds(Hello, nonces, word, word, small))
def test_a_hello_comes_out_as_it_went_in(hello: Hello) -> None:
    assert decode(encode_hello(hello)) == hello


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda rest: b"\x02" + rest))
def test_any_bytes_are_read_or_refused(wire: bytes) -> None:
    try:
        said = decode(wire)
    except Corrupt:
        return
    if isinstance(said, Frame):
        assert encode_frame(said.nonces, said.number, said.messages) == wire
    else:
        assert encode_hello(said) == wire


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5), st.data())
def test_a_cut_or_longer_frame_is_refused(messages: list[bytes], data: st.DataObject) -> None:
    wire = encode_frame(Nonces(1, 2), 3, messages)
    cut = data.draw(st.integers(0, len(wire) - 1))
    for changed in (wire[:cut], wire + b"\0"):
        with pytest.raises(Corrupt, match="malformed"):
            decode(changed)


def test_a_count_of_messages_that_cannot_be_is_refused() -> None:
    with pytest.raises(Corrupt, match="too short"):
        decode(encode_frame(Nonces(1, 2), 3, [])[:-4] + b"\xff\xff\xff\xff")

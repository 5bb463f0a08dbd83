"""Answers end before a text that their asker names."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daitn.learning.answering.protocol import Piece
from daitn.node.serving.backends.stop_sequences import stop_before

TEXTS = st.text("ab\n", min_size=1, max_size=4)


class Told:
    """An answer in pieces, which knows whether it was closed."""

    def __init__(self, texts: list[str]) -> None:
        self.closed = False
        self._texts = texts

    async def pieces(self) -> AsyncIterator[Piece]:
        try:
            for text in self._texts:
                yield Piece(text, -0.5)
        finally:
            self.closed = True


@given(st.lists(TEXTS, max_size=8), st.lists(TEXTS, min_size=1, max_size=3))
@example(["ab", "a"], ["aba"])
async def test_what_comes_before_is_given_and_nothing_after(
    texts: list[str], stops: list[str]
) -> None:
    told = Told(texts)
    given_ = [piece async for piece in stop_before(told.pieces(), tuple(stops))]
    whole = "".join(texts)
    ends = [at for stop in stops if (at := whole.find(stop)) >= 0]
    said = "".join(piece.text for piece in given_)
    if not ends:
        assert said == whole
        assert sum(piece.tokens for piece in given_) == len(texts)
    else:
        assert whole.startswith(said)
        assert not any(stop in said for stop in stops)
        assert any(whole[len(said) :].startswith(stop) for stop in stops)
        assert sum(piece.tokens for piece in given_) <= len(texts)
    assert told.closed or not texts


async def test_nothing_is_held_back_that_begins_no_stop() -> None:
    told = Told(["one ", "two", "#", "#!", " three"])
    given_ = [piece.text async for piece in stop_before(told.pieces(), ("###",))]
    assert given_ == ["one ", "two", "##!", " three"]
    assert told.closed


@pytest.mark.parametrize("stop", ["heard", ["!", " heard"]])
async def test_pieces_know_their_tokens(stop: str | list[str]) -> None:
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    told = Told(["alto", " hea", "rd", " hi"])
    given_ = [piece async for piece in stop_before(told.pieces(), stops)]
    assert "".join(piece.text for piece in given_).strip() == "alto"
    assert sum(piece.tokens for piece in given_) == 3

"""Ends an answer before the first stop sequence."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from daitn.learning.answering.protocol import Piece, Token
from daitn.objects.text import ends_in_start

__all__ = ["stop_before"]


async def stop_before(
    pieces: AsyncIterator[Piece], stops: tuple[str, ...]
) -> AsyncGenerator[Piece, None]:
    """The pieces up to the first stop sequence, which is left out. Text that may begin one is held
    back until that is clear. Closes the source at the end."""
    held: list[Piece] = []
    try:
        async for piece in pieces:
            held.append(piece)
            text = "".join(one.text for one in held)
            ends = [at for stop in stops if (at := text.find(stop)) >= 0]
            if ends:
                yield _join(held, text[: min(ends)])
                return
            if not ends_in_start(text, stops):
                yield held[0] if len(held) == 1 else _join(held, text)
                held = []
        if held:
            yield _join(held, "".join(one.text for one in held))
    finally:
        await pieces.aclose()  # type: ignore[attr-defined]


def _join(pieces: list[Piece], text: str) -> Piece:
    each, length = list[Token](), 0
    for token in (token for piece in pieces for token in piece.each):
        if length >= len(text):
            break
        each.append(token)
        length += len(token.text)
    return Piece(
        text,
        sum(piece.logprob for piece in pieces),
        sum(piece.tokens for piece in pieces),
        tuple(each),
        tuple(call for piece in pieces for call in piece.calls),
    )

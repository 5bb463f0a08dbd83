"""Ends an answer before a text that its asker names."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from daitn.learning.answering.protocol import Piece

__all__ = ["until"]


async def until(
    pieces: AsyncIterator[Piece], stops: tuple[str, ...]
) -> AsyncGenerator[Piece, None]:
    """The pieces up to the first of the texts, which is left out. What may be the begin of one is
    held back until it is known. Closes the source when it ends."""
    held: list[Piece] = []
    try:
        async for piece in pieces:
            held.append(piece)
            text = "".join(one.text for one in held)
            ends = [at for stop in stops if (at := text.find(stop)) >= 0]
            if ends:
                yield _joined(held, text[: min(ends)])
                return
            if not _may_begin(text, stops):
                yield held[0] if len(held) == 1 else _joined(held, text)
                held = []
        if held:
            yield _joined(held, "".join(one.text for one in held))
    finally:
        await pieces.aclose()  # type: ignore[attr-defined]


def _may_begin(text: str, stops: tuple[str, ...]) -> bool:
    """Whether the text ends in what one of them begins with."""
    return any(
        text.endswith(stop[:size])
        for stop in stops
        for size in range(1, min(len(stop), len(text) + 1))
    )


def _joined(pieces: list[Piece], text: str) -> Piece:
    return Piece(
        text, sum(piece.logprob for piece in pieces), sum(piece.tokens for piece in pieces)
    )

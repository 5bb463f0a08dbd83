"""Queries that only the answering facility can read, and answers that only the client can.

The asker seals the request to the facility's key, with a key of its own for the answer; gateways
see the model's name and the constraints. HPKE as in `sealing.py`.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import msgspec
from blake3 import blake3

from daitn.identity.keys import raw_of
from daitn.identity.sealing import ReceiverKey, class_id, open_sealed, seal
from daitn.objects.errors import Corrupt
from daitn.objects.grants import SealingKey
from daitn.objects.wire import canonical, decode

__all__ = ["SealedAnswer", "SealedQuery", "open_query", "seal_answer", "seal_query"]

_QUERY, _ANSWER = b"daitn sealed query 1\0", b"daitn sealed answer 1\0"


class _Question(msgspec.Struct, frozen=True):
    body: bytes
    reply_to: str


class SealedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A facility's answer to a sealed query, in JSON."""

    sealed: str
    """The answer of OpenAI's API, sealed; base64."""
    object: str = "daitn.sealed"
    usage: dict[str, int] | None = None
    """Numbers of tokens, in the clear for the gateway's account."""


@dataclass(frozen=True)
class SealedQuery:
    """A sealed query, and the key to its answer."""

    text: str
    """The field `sealed` of the request, base64."""
    _reply: ReceiverKey

    def open(self, answer: bytes) -> bytes:
        """The answer of OpenAI's API in a facility's JSON. Raises `Corrupt` or `Refused`."""
        try:
            sealed = raw_of(msgspec.json.decode(answer, type=SealedAnswer).sealed)
        except (msgspec.DecodeError, ValueError):
            raise Corrupt("the answer is not sealed", field="sealed") from None
        return open_sealed(sealed, self._reply, _answers(self.text))


def seal_query(body: bytes, deployment: str, key: SealingKey) -> SealedQuery:
    """Seal a request of OpenAI's API for one deployment (`NAME@SITE`) to its facility.

    Raises `InvalidInput` for an unusable key.
    """
    reply = ReceiverKey.generate()
    question = canonical(_Question(body, reply.public))
    sealed = seal(question, key.public, _QUERY + deployment.encode())
    return SealedQuery(base64.b64encode(sealed).decode(), reply)


def open_query(text: str, deployment: str, key: ReceiverKey) -> tuple[bytes, str]:
    """A sealed request, and the key to seal its answer to. Raises `Corrupt`, `Refused` or
    `InvalidInput`."""
    try:
        sealed = raw_of(text)
    except ValueError:
        raise Corrupt("it is not base64", field="sealed") from None
    question = decode(open_sealed(sealed, key, _QUERY + deployment.encode()), _Question)
    class_id(question.reply_to)
    return question.body, question.reply_to


def seal_answer(
    body: bytes, query: str, reply_to: str, usage: dict[str, int] | None = None
) -> SealedAnswer:
    """Seal an answer to the query with this text. Raises `InvalidInput` for an unusable key."""
    sealed = seal(body, reply_to, _answers(query))
    return SealedAnswer(sealed=base64.b64encode(sealed).decode(), usage=usage)


def _answers(query: str) -> bytes:
    """The context of an answer, unique to its query."""
    return _ANSWER + blake3(query.encode()).digest()

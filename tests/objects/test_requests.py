"""Requests state only what differs from the defaults, so that earlier releases accept them."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, get_type_hints

import msgspec
import pytest

from daitn import objects
from daitn.client.transport import Transport
from daitn.oam.api.reading_requests import _unknown
from daitn.oam.api.routes import ROUTES
from daitn.objects.errors import DaitnError
from daitn.objects.intents import TrainingIntent
from daitn.objects.requests import SubmitIntent
from daitn.objects.wire import decode, encode_checked, json_request
from scripts.reference.fabric import verbs_table

INTENT = {
    "name": "qa",
    "owner": "acme",
    "model": {"recipe": "classifier"},
    "objectives": [{"name": "broad", "topic": "medicine", "at_least": 0.8}],
    "data": {"topics": ["medicine"]},
}
PLAIN: tuple[object, ...] = (b"a", "a", "a" * 32, "a" * 64, "chat", 1, 1.0, True, [], {})
"""Values for fields that have no default; each field gets the first that it accepts."""


def _named() -> dict[str, type[msgspec.Struct]]:
    """Every struct of `daitn.objects`, by name."""
    modules = pkgutil.iter_modules(objects.__path__, f"{objects.__name__}.")
    found = (vars(importlib.import_module(module.name)).values() for module in modules)
    structs = (one for many in found for one in many if isinstance(one, type))
    return {one.__name__: one for one in structs if issubclass(one, msgspec.Struct)}


def _requests() -> list[type[msgspec.Struct]]:
    """The questions of all verbs that people send, and the bodies of all routes."""
    named = _named()
    said = {
        question.strip("`")
        for who in ("center", "node", "home")
        for _, question, _, senders, _ in verbs_table(who)[1:]
        if {"owner", "operator", "any member"} & set(senders.split(", "))
    }
    bodies = {route.body for route in ROUTES if isinstance(route.body, type)}
    found = {named[name] for name in said & named.keys()}
    return sorted(
        found | {one for one in bodies if issubclass(one, msgspec.Struct)},
        key=lambda kind: kind.__name__,
    )


def _sample(kind: Any) -> object:
    """The least that a value of a type may state, as plain data."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if kind is TrainingIntent:
            return INTENT
        hints = get_type_hints(kind, include_extras=True)
        return {
            field.encode_name: _sample(hints[field.name])
            for field in msgspec.structs.fields(kind)
            if field.required
        }
    for plain in PLAIN:
        try:
            msgspec.convert(plain, kind)
        except msgspec.ValidationError:
            continue
        return plain
    raise LookupError(f"nothing in PLAIN is a {kind}")


@pytest.mark.parametrize("kind", _requests(), ids=lambda kind: kind.__name__)
async def test_requests_omit_fields_with_default_values(
    kind: type[msgspec.Struct], monkeypatch: pytest.MonkeyPatch
) -> None:
    least = _sample(kind)
    request = msgspec.convert(least, kind)

    on_the_fabric = encode_checked(request)
    assert msgspec.msgpack.decode(on_the_fabric) == least
    assert decode(on_the_fabric, kind) == request

    async def once(*sent: Any) -> tuple[int, bytes]:
        bodies.append(sent[4])
        return 500, b""

    bodies: list[bytes] = []
    monkeypatch.setattr(Transport, "_once", once)
    with pytest.raises(DaitnError):
        await Transport("http://localhost:1", "", "").post(kind, "/anything", request)
    assert bodies[0] == msgspec.json.encode(msgspec.to_builtins(least))
    assert msgspec.json.decode(bodies[0], type=kind) == request


def test_a_request_of_a_later_release_is_accepted_unless_it_uses_an_added_field() -> None:
    """The API and structs of intents refuse fields that they do not know."""
    later_intent = msgspec.defstruct(
        "LaterIntent", [("added", int, 0)], bases=(TrainingIntent,), kw_only=True, frozen=True
    )
    later_submit = msgspec.defstruct(
        "LaterSubmit",
        [("intent", later_intent), ("added_too", bool, False)],
        bases=(SubmitIntent,),
        kw_only=True,
        frozen=True,
    )
    usual = msgspec.convert({"intent": INTENT, "insist": True}, later_submit)
    sent = json_request(usual)
    read = msgspec.json.decode(sent, type=SubmitIntent)
    assert read.insist
    assert [*_unknown(msgspec.json.decode(sent), read)] == []
    assert decode(encode_checked(usual), SubmitIntent) == read

    using = msgspec.convert({"intent": INTENT | {"added": 1}}, later_submit)
    with pytest.raises(msgspec.ValidationError, match="added"):
        msgspec.json.decode(json_request(using), type=SubmitIntent)

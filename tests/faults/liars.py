"""Members of a run that lie, all the time: one of its sites, verifiers, facilities or gateways."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from daitn.identity.keys import SigningKey
from daitn.identity.signing import sign_entry
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.messages import WorkOutcome
from daitn.objects.usage import UsageSide

if TYPE_CHECKING:
    from daitn.node.node import Node
    from daitn.node.usage.counts import UsageRecord
    from tests.faults.world import World

__all__ = ["CHARGED", "LIARS", "PRAISE", "corrupt"]

LIARS = {"": 0.66, "site": 0.1, "verifier": 0.1, "gateway": 0.07, "facility": 0.07}
"""What lies in a run, with its share of the runs; empty: nobody."""
PRAISE = (0.3, 0.05)
"""A verifier that lies adds so much to what it measures: what others see through, or hardly."""
_ODD_VERIFIERS = 0.3
"""Share of the verifiers that lie that state odd numbers instead."""
CHARGED = OwnerId("cleo")
"""In this owner's name, who asks nothing, a gateway that lies states answers."""
DEAR = 14.0
"""A price that nobody set, in USD of 1,000 tokens written, which a gateway that lies states."""


def corrupt(world: World, kind: str, rng: random.Random) -> None:
    """Have one member of this kind lie from the beginning on."""
    match kind:
        case "site":
            how, own = rng.choice(_LIES), random.Random(rng.random())
            world.liars[rng.choice(world.data_sites)] = lambda node: _misreport(node, how, own)
        case "verifier" if rng.random() < _ODD_VERIFIERS:
            own = random.Random(rng.random())
            world.liars[rng.choice(world.verifiers)] = lambda node: _misreport(
                node, _odd_number, own
            )
        case "verifier":
            world.lab.praises[rng.choice(world.verifiers)] = rng.choice(PRAISE)
        case "facility" if world.facilities:
            world.lab.examined.two_faced.add(rng.choice(world.facilities))
        case "gateway" if world.gateways:
            own, says = random.Random(rng.random()), rng.choice(_CLAIMS)
            world.liars[rng.choice(world.gateways)] = lambda node: _overstate(node, says, own)


def _misreport(node: Node, how: _Lie, rng: random.Random) -> None:
    """Half of its reports are not what it did."""
    work: Any = node._work
    report = work._report

    async def lied(outcome: WorkOutcome) -> None:
        await report(how(outcome, rng, node._key) if rng.random() < 0.5 else outcome)

    work._report = lied


def _overstate(node: Node, says: _Claim, rng: random.Random) -> None:
    """Of half of its answers a gateway states more than there was."""
    roles: Any = node._roles
    (counts,) = (one for one, _ in roles._stating if one._side is UsageSide.GATEWAY)
    count = counts.count

    def overstated(record: UsageRecord) -> None:
        lies = record.key is not None and rng.random() < 0.5
        for one in says(record) if lies else (record,):
            count(one)

    counts.count = overstated


def _twice(record: UsageRecord) -> tuple[UsageRecord, ...]:
    return record, record


def _of_another(record: UsageRecord) -> tuple[UsageRecord, ...]:
    return record, _with(record, owner=CHARGED)


def _dearly(record: UsageRecord) -> tuple[UsageRecord, ...]:
    return (_with(record, price_out=DEAR),)


def _with(record: UsageRecord, **other: object) -> UsageRecord:
    assert record.key is not None
    return msgspec.structs.replace(record, key=msgspec.structs.replace(record.key, **other))


def _other_model(outcome: WorkOutcome, rng: random.Random, key: SigningKey) -> WorkOutcome:
    return _placed(outcome, manifest=f"{rng.getrandbits(256):064x}")


def _nothing(outcome: WorkOutcome, rng: random.Random, key: SigningKey) -> WorkOutcome:
    return msgspec.structs.replace(outcome, entry=None)


def _no_model(outcome: WorkOutcome, rng: random.Random, key: SigningKey) -> WorkOutcome:
    return msgspec.structs.replace(outcome, model=None)


def _other_place(outcome: WorkOutcome, rng: random.Random, key: SigningKey) -> WorkOutcome:
    """A model of another size, or at a site that nobody knows."""
    ghost: dict[str, object] = {"holders": (SiteId("ghost"),)}
    return _placed(outcome, **rng.choice((ghost, {"size_bytes": 2**62}, {"size_bytes": 1})))


def _many_examples(outcome: WorkOutcome, rng: random.Random, key: SigningKey) -> WorkOutcome:
    return _stated(outcome, key, {"examples": 10**6})


def _odd_number(outcome: WorkOutcome, rng: random.Random, key: SigningKey) -> WorkOutcome:
    """Any number of what it signs, as it cannot be."""
    if outcome.entry is None:
        return outcome
    plain = msgspec.to_builtins(outcome.entry.fact)
    numbers = sorted(name for name, value in plain.items() if isinstance(value, int | float))
    name = rng.choice(numbers)
    return _stated(outcome, key, {name: rng.choice(_COUNTS.get(name, _ODD))})


def _placed(outcome: WorkOutcome, **changes: object) -> WorkOutcome:
    if outcome.model is None:
        return outcome
    return msgspec.structs.replace(outcome, model=msgspec.structs.replace(outcome.model, **changes))


def _stated(outcome: WorkOutcome, key: SigningKey, changes: dict[str, object]) -> WorkOutcome:
    """The same with another fact, well signed."""
    entry = outcome.entry
    if entry is None or not all(hasattr(entry.fact, name) for name in changes):
        return outcome
    fact = msgspec.structs.replace(entry.fact, **changes)
    return msgspec.structs.replace(outcome, entry=sign_entry(fact, entry.previous, key))


_COUNTS = {"items": (0, 1, 10**12), **dict.fromkeys(
    ("bytes_in", "examples", "seed", "size_bytes", "stands_for"), (10**15, 2**62)
)}  # fmt: skip
"""A value of few items or many says something; of the others, these cannot be."""
_ODD = (-1.0, 1e15, 1e308, math.inf, -math.inf, math.nan)

_Lie = Callable[[WorkOutcome, random.Random, SigningKey], WorkOutcome]
_LIES: tuple[_Lie, ...] = (
    _other_model, _nothing, _no_model, _other_place, _many_examples, _odd_number, _odd_number
)  # fmt: skip

_Claim = Callable[["UsageRecord"], tuple["UsageRecord", ...]]
_CLAIMS: tuple[_Claim, ...] = (_twice, _of_another, _dearly)

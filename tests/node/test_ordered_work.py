"""A site works within owners' orders: from the model that was ordered, and no more than was."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daitn.control.jobs.commands import Command, StartWork
from daitn.identity.keys import SigningKey
from daitn.identity.orders import OrderBook, sign_order
from daitn.identity.signing import sign_entry
from daitn.node.training.order_ledger import OrderedWork
from daitn.objects.descriptors import Role
from daitn.objects.errors import Corrupt, DaitnError, Refused
from daitn.objects.identifiers import Digest
from daitn.objects.intents import Budget, TrainingIntent
from daitn.objects.lineage import Entry
from daitn.objects.messages import VerifyWork, VisitWork, Work
from daitn.objects.models import ModelRef
from daitn.objects.orders import MOST_FRESH, Order, SignedOrder
from daitn.objects.roster import Kind, Member
from daitn.objects.wire import canonical, encode
from tests.control.jobs.world import INTENT, KEYS, World, is_training, is_verification
from tests.control.test_next_site import node

ACME, STRANGER, VERIFIER = (SigningKey.generate() for _ in range(3))
HERE = node("clinic", "medicine", recipes=("classifier",))
START = ModelRef(manifest=Digest("5" * 64), size_bytes=1, holders=())
OTHER = ModelRef(manifest=Digest("6" * 64), size_bytes=1, holders=())


def member(name: str, kind: Kind, key: SigningKey, *roles: Role) -> Member:
    return Member(name=name, kind=kind, public_key=key.public, until_s=2000.0, roles=roles)


MEMBERS = [
    member("acme", Kind.OWNER, ACME),
    *(member(name, Kind.SITE, key, Role.DATA) for name, key in KEYS.items()),
    member("verifier", Kind.SITE, VERIFIER, Role.VERIFIER),
]
ORDERS = OrderBook("net", lambda: {m.public_key: m for m in MEMBERS}, lambda: 1000.0)


class Trained(World):
    """A job under an order."""

    def __init__(self, intent: TrainingIntent, start: ModelRef | None, order: SignedOrder) -> None:
        super().__init__(intent, start, order=order)

    def work(self, wanted: Callable[[Command], bool], nth: int) -> Any:
        """The nth work of a kind."""
        for _ in range(nth):
            found = self.run_until(wanted)
            self.pending.insert(0, found)
            self.step()
        assert isinstance(found, StartWork)
        return found.work


def ordered(intent: TrainingIntent = INTENT, **terms: Any) -> SignedOrder:
    return sign_order(intent, "net", 2000.0, ACME, **terms)


def altered(work: Work, *places: int, key: SigningKey | None = None, **changes: Any) -> Work:
    """The work, with facts of its lineage changed and signed anew."""
    entries = list(work.lineage)
    for place in places:
        fact = msgspec.structs.replace(entries[place].fact, **changes)
        own = key or KEYS[entries[place].fact.site]
        entries[place] = sign_entry(fact, entries[place].previous, own)
    return msgspec.structs.replace(work, lineage=tuple(entries))


@pytest.mark.parametrize("time_s", [math.nan, math.inf, -math.inf, -1.0])
def test_no_order_is_endless(time_s: float) -> None:
    """One whose end was no number held for ever."""
    order = Order(network="net", intent=INTENT, until_s=time_s, number="1")
    text = canonical(order)
    signature = ACME.sign(b"daitn order 1\0" + text)
    with pytest.raises(Corrupt):
        ORDERS.read(SignedOrder(order=text, public_key=ACME.public, signature=signature))


@pytest.mark.parametrize("start", [None, START])
@pytest.mark.parametrize("wanted", [is_training, is_verification])
def test_every_step_of_an_honest_job_is_within_its_order(
    tmp_path: Path, start: ModelRef | None, wanted: Callable[[Command], bool]
) -> None:
    order = ordered(start=start.manifest if start else None)
    desk = OrderedWork(ORDERS, tmp_path)
    for nth in range(1, 5):
        desk.begin(Trained(INTENT, start, order).work(wanted, nth), HERE)


def test_no_other_model_is_trained_or_measured(tmp_path: Path) -> None:
    """A lying control centre handed any weights to a site that trained them as the owner's."""
    desk = OrderedWork(ORDERS, tmp_path)
    fresh, given = ordered(), ordered(start=START.manifest)
    visit = Trained(INTENT, None, fresh).work(is_training, 3)
    measure = Trained(INTENT, None, fresh).work(is_verification, 3)
    started = Trained(INTENT, START, given).work(is_training, 3)
    another = Trained(INTENT, None, ordered()).work(is_training, 3)
    tried: list[tuple[str, Work]] = [
        ("another model", msgspec.structs.replace(visit, model=OTHER)),
        ("another model", msgspec.structs.replace(measure, model=OTHER)),
        ("another model", msgspec.structs.replace(started, model=OTHER)),
        ("without lineage", msgspec.structs.replace(visit, lineage=())),
        ("without lineage", msgspec.structs.replace(measure, lineage=())),
        ("without its first step", msgspec.structs.replace(visit, lineage=visit.lineage[1:])),
        ("without a step", msgspec.structs.replace(visit, lineage=visit.lineage[::2])),
        ("without its last step", msgspec.structs.replace(visit, lineage=visit.lineage[:-1])),
        ("another start", msgspec.structs.replace(started, order=fresh)),
        ("a fresh one", msgspec.structs.replace(started, model=None, lineage=())),
        ("another order's", msgspec.structs.replace(another, order=fresh)),
        ("another job's", altered(visit, 1, job="qa-2")),
        ("a stranger site's", altered(visit, 1, site="another")),
        ("another site's", altered(visit, 1, site="specialist")),
        ("a verifier's", altered(visit, 1, key=VERIFIER, site="verifier")),
        ("a stranger's", altered(visit, 1, key=STRANGER)),
        ("an owner's", altered(visit, 1, key=ACME)),
        ("no site's", altered(visit, 1, key=ACME, site="acme")),
    ]
    for what, work in tried:
        try:
            desk.begin(work, HERE)
        except (Refused, Corrupt):
            continue
        pytest.fail(what)
    desk.begin(visit, HERE)
    desk.begin(started, HERE)


def test_a_restart_forgets_nothing_that_was_done(tmp_path: Path) -> None:
    intent = msgspec.structs.replace(INTENT, budget=Budget(examples=450))
    order = ordered(intent, measurements=3)
    visit = Trained(intent, None, order).work(is_training, 1)
    measure = Trained(intent, None, order).work(is_verification, 1)
    assert isinstance(visit, VisitWork)
    assert isinstance(measure, VerifyWork)
    begun = {"visits": 0, "measurements": 0}
    for _ in range(8):
        desk = OrderedWork(ORDERS, tmp_path)
        for what, work in (("visits", visit), ("measurements", measure)):
            try:
                desk.begin(work, HERE)
            except Refused:
                continue
            begun[what] += 1
    assert begun == {"visits": 4, "measurements": 3}
    fresh = msgspec.structs.replace(visit, model=None, lineage=(), examples=0)
    for _ in range(MOST_FRESH):
        OrderedWork(ORDERS, tmp_path).begin(fresh, HERE)
    with pytest.raises(Refused, match="fresh models"):
        OrderedWork(ORDERS, tmp_path).begin(fresh, HERE)


def test_work_that_goes_on_is_within_its_order_by_what_it_counted(tmp_path: Path) -> None:
    intent = msgspec.structs.replace(INTENT, budget=Budget(examples=100))
    visit = Trained(intent, None, ordered(intent)).work(is_training, 1)
    desk = OrderedWork(ORDERS, tmp_path)
    desk.begin(visit, HERE)
    for _ in range(2):
        desk.check(visit, HERE, counted=True)
        with pytest.raises(Refused):
            desk.check(visit, HERE)
        desk = OrderedWork(ORDERS, tmp_path)
    for changes in ({"examples": 101}, {"model": OTHER}, {"order": None}):
        with pytest.raises((Refused, Corrupt)):
            desk.check(msgspec.structs.replace(visit, **changes), HERE, counted=True)


def test_what_is_over_is_forgotten(tmp_path: Path) -> None:
    order = ordered()
    work = Trained(INTENT, None, order).work(is_training, 1)
    OrderedWork(ORDERS, tmp_path).begin(work, HERE)
    assert list(tmp_path.iterdir())
    later = OrderBook("net", ORDERS.members, lambda: 2000.0 + 100_000.0)
    OrderedWork(later, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_over_is_forgotten_without_a_restart(tmp_path: Path) -> None:
    now_s = [1000.0]
    book = OrderBook("net", ORDERS.members, lambda: now_s[0])
    desk = OrderedWork(book, tmp_path)
    for _ in range(3):
        desk.begin(Trained(INTENT, None, ordered()).work(is_training, 1), HERE)
    assert len(list(tmp_path.iterdir())) == 3
    now_s[0] = 2000.0 + 100_000.0
    later = sign_order(INTENT, "net", now_s[0] + 1000.0, ACME)
    desk.begin(Trained(INTENT, None, later).work(is_training, 1), HERE)
    assert len(list(tmp_path.iterdir())) == 1


def spellings(signature: str) -> list[str]:
    """Other texts that lenient decoders take for the same bytes."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    body = signature.rstrip("=")
    padded = [body[:-1] + digits[digits.index(body[-1]) ^ bit] for bit in (1, 2, 3)]
    return [p + "=" * (len(signature) - len(body)) for p in padded] + [
        signature + "\n",
        signature[:4] + "\n" + signature[4:],
        signature + "=",
        signature.replace("+", "-").replace("/", "_") + "!",
        body,
    ]


def test_a_signature_has_one_spelling(tmp_path: Path) -> None:
    """Two spellings of one order were two jobs."""
    order = ordered()
    assert len(order.signature) == 88
    ORDERS.check(order, INTENT, None)
    for text in spellings(order.signature):
        with pytest.raises(Corrupt):
            ORDERS.check(msgspec.structs.replace(order, signature=text), INTENT, None)
    for text in spellings(order.public_key):
        with pytest.raises(DaitnError):
            ORDERS.check(msgspec.structs.replace(order, public_key=text), INTENT, None)


def test_an_order_has_one_form(tmp_path: Path) -> None:
    order = ordered()
    for text in (order.order + b" ", encode({**msgspec.msgpack.decode(order.order), "more": 1})):
        again = msgspec.structs.replace(
            order, order=text, signature=ACME.sign(b"daitn order 1\0" + text)
        )
        with pytest.raises(Corrupt):
            ORDERS.check(again, INTENT, None)


def test_an_order_names_the_start_model() -> None:
    for order, start in ((ordered(), START), (ordered(start=START.manifest), OTHER)):
        with pytest.raises(Refused, match="another start model"):
            ORDERS.check(order, INTENT, start)
    with pytest.raises(Refused, match="another start model"):
        ORDERS.check(ordered(start=START.manifest), INTENT, None)
    ORDERS.check(ordered(start=START.manifest), INTENT, START)


def test_entries_keep_their_signatures(tmp_path: Path) -> None:
    """Of an entry that was made without an order, nothing changed."""
    entry = Trained(INTENT, None, ordered()).work(is_training, 1).lineage[0]
    assert isinstance(entry, Entry)
    bare = msgspec.structs.replace(entry.fact, order=Digest(""))
    assert b"order" not in encode(bare)

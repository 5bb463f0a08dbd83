"""An owner signs no deployment of a model that did not come of its order."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from daitn.cli.deploy import check_trained
from daitn.control.jobs.view import view
from daitn.identity.keys import SigningKey
from daitn.identity.orders import OrderBook, sign_order
from daitn.identity.signing import sign_entry
from daitn.objects.descriptors import ModelDescriptor
from daitn.objects.errors import DaitnError, Refused
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.lineage import Lineage, Verification, descent, released
from daitn.objects.requests import TrainedModel
from daitn.objects.roster import Kind, Member
from tests.control.jobs.world import INTENT, KEYS, VERIFIERS, World
from tests.scenes.command_line import daitn

ACME, RIVAL = SigningKey.generate(), SigningKey.generate()
MEMBERS = [
    Member(name="acme", kind=Kind.OWNER, public_key=ACME.public, until_s=1e12),
    Member(name="rival", kind=Kind.OWNER, public_key=RIVAL.public, until_s=1e12),
    *(
        Member(name=name, kind=Kind.SITE, public_key=key.public, until_s=1e12)
        for name, key in {**KEYS, **VERIFIERS}.items()
    ),
]
ORDERS = OrderBook("net", lambda: {m.public_key: m for m in MEMBERS}, lambda: 1e9)
"""Long after the order has ended."""


def trained() -> tuple[ModelDescriptor, TrainedModel]:
    """What an honest control centre says of a model."""
    order = sign_order(INTENT, "net", 2000.0, ACME)
    world = World(order=order)
    world.run()
    best = world.job.best
    assert best is not None
    model = ModelDescriptor(
        name="qa-1",
        owner=INTENT.owner,
        recipe=INTENT.model.recipe,
        manifest=best.model.manifest,
        size_bytes=1,
        measured={},
        holders=(),
        created_at_s=0.0,
        config=INTENT.model.config,
        release_to=released(descent(world.job.lineage, best.model.manifest)),
    )
    lineage = Lineage(job=world.job.id, entries=tuple(world.job.lineage))
    return model, TrainedModel(job=view(world.job, world.now_s), lineage=lineage, order=order)


def test_what_came_of_its_owners_order_is_deployed() -> None:
    model, said = trained()
    check_trained(model, said, ORDERS)
    keys = {SiteId(name): key.public for name, key in {**KEYS, **VERIFIERS}.items()}
    check_trained(model, said, ORDERS, keys)


@pytest.mark.parametrize(
    "changed",
    [
        {"config": {"classes": ["malignant", "benign"]}},
        {"recipe": "causal-lm"},
        {"manifest": Digest("f" * 64)},
        {"owner": "rival"},
    ],
)
def test_a_control_centre_says_nothing_else_of_a_model(changed: dict[str, Any]) -> None:
    model, said = trained()
    with pytest.raises(DaitnError):
        check_trained(msgspec.structs.replace(model, **changed), said, ORDERS)


def test_another_order_is_none_of_its_owners() -> None:
    model, said = trained()
    for order in (
        None,
        sign_order(INTENT, "net", 2000.0, ACME),
        sign_order(INTENT, "net", 2000.0, RIVAL),
        sign_order(INTENT, "other", 2000.0, ACME),
    ):
        with pytest.raises(DaitnError):
            check_trained(model, msgspec.structs.replace(said, order=order), ORDERS)


def test_a_lineage_that_no_site_signed_is_refused() -> None:
    model, said = trained()
    stranger = {SiteId(name): ACME.public for name in {**KEYS, **VERIFIERS}}
    with pytest.raises(DaitnError):
        check_trained(model, said, ORDERS, stranger)


def test_a_model_that_its_owner_brought_is_deployed_as_it_is() -> None:
    """Its targets held before the first visit."""
    model, said = trained()
    start = Digest("b" * 64)
    brought = msgspec.structs.replace(model, manifest=start, release_to=("*",))
    measured = next(e.fact for e in said.lineage.entries if isinstance(e.fact, Verification))
    fact = msgspec.structs.replace(measured, model=start)
    entries = (sign_entry(fact, (), VERIFIERS[fact.site]),)

    def ordered(of: Digest | None) -> TrainedModel:
        order = sign_order(INTENT, "net", 2000.0, ACME, start=of)
        lineage = Lineage(job=said.lineage.job, entries=entries)
        return msgspec.structs.replace(said, order=order, lineage=lineage)

    check_trained(brought, ordered(start), ORDERS)
    for other in (None, Digest("c" * 64)):
        with pytest.raises(Refused):
            check_trained(brought, ordered(other), ORDERS)


def test_an_empty_facility_is_not_everywhere() -> None:
    ended = daitn("retire", "doctor-1", "--from", "")
    assert ended.returncode == 2
    assert "--from: it is empty" in ended.stderr.replace("'", "")

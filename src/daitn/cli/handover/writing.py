"""Writes the documents that accompany an exported model, and signs the folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from daitn import __version__
from daitn.cli.card import SignedFacts, Words, model_card
from daitn.cli.handover.bill import bill_of
from daitn.cli.handover.descriptions import description_of, path_of
from daitn.cli.handover.exporter import signature_of, write_exporter
from daitn.cli.handover.folder import (
    BILL,
    CARD,
    DATASETS,
    LINEAGE,
    MANIFEST,
    STATEMENTS,
    files_in,
    hashed,
    read,
)
from daitn.identity.dsse import read_dsse
from daitn.identity.keys import SigningKey
from daitn.identity.model_signing import SIGNATURE
from daitn.identity.statements import check_statement, sign_statement
from daitn.objects.descriptors import DatasetDescriptor
from daitn.objects.errors import Corrupt
from daitn.objects.lineage import Entry, Origin, Visit
from daitn.objects.models import Manifest
from daitn.objects.moments import timestamp
from daitn.objects.requests import TrainedModel
from daitn.objects.roster import Member
from daitn.objects.wire import to_json

__all__ = ["Hand", "write_handover"]


@dataclass(frozen=True)
class Hand:
    """The exporter's identity."""

    key: SigningKey
    member: Member
    network: str


def write_handover(
    folder: Path,
    trained: TrainedModel,
    form: str,
    datasets: Iterable[DatasetDescriptor],
    hand: Hand | None,
    at_s: float,
    usage: str = "",
) -> None:
    """Put a model's lineage and card beside its weights, with everything needed to check it.

    The lineage must hold the model's ancestors only. `datasets`: those that are on offer now.
    `hand` signs; without it nothing is signed, and nothing there says who handed the model over.
    """
    assert trained.job.model is not None
    model, entries = trained.job.model.manifest, trained.lineage.entries
    found = files_in(folder).items()
    weights = {name: hashed(at) for name, at in found if name not in (MANIFEST, CARD)}
    (folder / LINEAGE).write_text(to_json(trained.lineage) + "\n")
    facts = SignedFacts(trained.lineage.job, model, entries)
    words = _words(folder, trained, facts, usage, at_s)
    (folder / CARD).write_text(model_card(facts, words))
    (folder / DATASETS).mkdir(parents=True)
    described = _describe(folder, entries, datasets)
    bill = bill_of(facts, words, weights, described)
    (folder / BILL).write_text(json.dumps(bill, indent=2) + "\n")
    if hand is None:
        return
    stated = {one.entry: one.signed for one in trained.statements}
    lines = [_statement(entry, stated.get(entry.digest), hand) for entry in entries]
    (folder / STATEMENTS).write_bytes(b"".join(line + b"\n" for line in lines))
    write_exporter(folder, hand.key, hand.member, hand.network, (model, form), at_s)
    hashes = {name: weights.get(name) or hashed(at) for name, at in files_in(folder).items()}
    (folder / SIGNATURE).write_bytes(signature_of(trained.job.job, hashes, hand.key))


def _words(
    folder: Path, trained: TrainedModel, facts: SignedFacts, usage: str, at_s: float
) -> Words:
    """What the exporter says, beside what sites signed. A manifest in the folder, which they did,
    has the recipe and the size."""
    job = trained.job
    assert job.model is not None
    made = (fact.recipe for fact in facts.every if isinstance(fact, Origin))
    recipe, size_bytes = next(made, job.recipe), job.model.size_bytes
    if (folder / MANIFEST).is_file():
        manifest = read(folder / MANIFEST, Manifest)
        recipe, size_bytes = manifest.recipe, manifest.size_bytes
    targets = {(o.metric, o.topic): f"{o.target}" for o in job.objectives}
    return Words(
        owner=job.owner,
        parameters=job.needs.parameters,
        recipe=recipe,
        size_bytes=size_bytes,
        state=job.state,
        targets=[targets.get((one.metric, one.topic), "") for one in facts.measured],
        usage=usage,
        at=timestamp(at_s),
        version=__version__,
    )


def _describe(
    folder: Path, entries: Iterable[Entry], datasets: Iterable[DatasetDescriptor]
) -> dict[tuple[str, str], str]:
    """Write the sites' descriptions of visited data sets; returns their paths, by site and name."""
    visited = {(e.fact.site, e.fact.dataset) for e in entries if isinstance(e.fact, Visit)}
    described: dict[tuple[str, str], str] = {}
    for dataset in datasets:
        at = (dataset.site, dataset.name)
        if at not in visited or at in described:
            continue
        path = path_of(*at)
        if path in described.values():
            continue
        (folder / path).write_text(json.dumps(description_of(dataset), indent=2) + "\n")
        described[at] = path
    return described


def _statement(entry: Entry, own: bytes | None, hand: Hand) -> bytes:
    """The statement signed by the entry's site, without what is not signed around it; else one of
    the exporter."""
    if own is not None:
        try:
            check_statement(own, entry, hand.network)
            return msgspec.json.encode(read_dsse(own, STATEMENTS))
        except Corrupt:
            pass
    return sign_statement(entry, hand.network, hand.key)

"""Writes the documents that accompany an exported model, and signs the folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from daitn.cli.card import model_card
from daitn.cli.handover.bill import bill_of
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
)
from daitn.identity.keys import SigningKey
from daitn.identity.model_signing import SIGNATURE
from daitn.identity.statements import check_statement, sign_statement
from daitn.objects.croissant import to_croissant
from daitn.objects.descriptors import DatasetDescriptor
from daitn.objects.errors import Corrupt
from daitn.objects.lineage import Entry, Visit
from daitn.objects.requests import TrainedModel
from daitn.objects.roster import Member
from daitn.objects.wire import to_json

__all__ = ["Hand", "write_handover"]

_WITHIN: Final = ("daitn:policy", "daitn:priceUsdPer1k")
"""Licence of a data set: for members of its network, and for nobody else."""


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
    (folder / CARD).write_text(model_card(trained, usage))
    (folder / DATASETS).mkdir(parents=True)
    described = _describe(folder, entries, datasets)
    bill = bill_of(trained.job, model, entries, weights, described, at_s)
    (folder / BILL).write_text(json.dumps(bill, indent=2) + "\n")
    if hand is None:
        return
    stated = {one.entry: one.signed for one in trained.statements}
    lines = [_statement(entry, stated.get(entry.digest), hand) for entry in entries]
    (folder / STATEMENTS).write_bytes(b"".join(line + b"\n" for line in lines))
    write_exporter(folder, hand.key, hand.member, hand.network, (model, form), at_s)
    hashes = {name: weights.get(name) or hashed(at) for name, at in files_in(folder).items()}
    (folder / SIGNATURE).write_bytes(signature_of(trained.job.job, hashes, hand.key))


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
        named = re.sub(r"[^A-Za-z0-9._-]", "_", f"{dataset.site}.{dataset.name}")
        path = f"{DATASETS}/{named}.json"
        if path in described.values():
            continue
        croissant = {name: of for name, of in to_croissant(dataset).items() if name not in _WITHIN}
        (folder / path).write_text(json.dumps(croissant, indent=2) + "\n")
        described[at] = path
    return described


def _statement(entry: Entry, own: bytes | None, hand: Hand) -> bytes:
    """The statement signed by the entry's site, unchanged; else one of the exporter."""
    if own is not None:
        try:
            check_statement(own, entry, hand.network)
            return own
        except Corrupt:
            pass
    return sign_statement(entry, hand.network, hand.key)

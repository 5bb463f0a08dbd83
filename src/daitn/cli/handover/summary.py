"""The findings about an exported folder, in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from daitn.cli.handover.folder import BESIDE
from daitn.cli.handover.signers import Signers
from daitn.cli.handover.table import By
from daitn.cli.handover.verifying import VerifiedModel
from daitn.cli.times import day
from daitn.objects.lineage import Verification
from daitn.objects.text import counted

__all__ = ["summary"]


def summary(folder: Path, verified: VerifiedModel, signers: Signers) -> Iterator[str]:
    """Lines for people: what is valid, and according to whom."""
    entries, exporter = verified.entries, verified.exporter
    made = "was made from the model" if verified.converted else "is the model"
    yield f"{folder} {made} that its {len(entries)} signed entries made"
    if exporter is None:
        yield from _unsigned(verified)
    else:
        yield (
            f"handed over by {exporter.kind} {exporter.name} of the network {exporter.network} "
            f"on {day(exporter.at_s)}"
        )
        others = (
            "" if verified.own_statements == len(entries) else f"; {exporter.name} signed others"
        )
        yield (
            f"sites signed {verified.own_statements} of {counted(len(entries), 'statement')} "
            f"for people outside the network{others}"
        )
    if exporter is not None and verified.converted:
        yield f"that it was, only {exporter.name} says: sites signed its parts, and not this form"
    elif exporter is not None and (alone := _alone(verified)):
        yield f"only {exporter.name} says what is in {', '.join(alone)}"
    for fact in (entry.fact for entry in entries):
        if isinstance(fact, Verification) and fact.model == verified.model:
            yield (
                f"measured by {fact.site}: {fact.metric} on {fact.topic} {fact.value:.4f} "
                f"(standard error {fact.standard_error:.4f}, {counted(fact.items, 'item')})"
            )
    if signers.roster is not None:
        yield (
            f"by roster {signers.roster.version} of {signers.roster.network}, in force until "
            f"{day(signers.roster.until_s)}"
        )
    elif not signers.keys:
        yield "compare these keys with your network's, or name its roster with --roster:"
        if exporter is not None:
            yield f"  {exporter.name} {exporter.public_key}"
        for site, key in sorted({e.fact.site: e.public_key for e in entries}.items()):
            yield f"  {site} {key}"


def _unsigned(verified: VerifiedModel) -> Iterator[str]:
    """What anybody may have changed in an unsigned folder, file by file."""
    yield (
        "the folder is unsigned: whoever gave it to you may have left something out, and may have "
        "written this, which nobody vouches for:"
    )
    for name, checked in sorted(verified.files.items()):
        if checked.by is By.NOBODY:
            yield f"  {name}, all of it{' (a program)' * name.endswith('.py')}"
        elif checked.words:
            yield f"  {name}: {', '.join(checked.words)}"


def _alone(verified: VerifiedModel) -> list[str]:
    """Files of which nothing but the exporter's signature vouches for the content."""
    return [n for n, one in sorted(verified.files.items()) if one.by is By.EXPORTER and n in BESIDE]

"""A model's bill of materials: CycloneDX 1.6, an ML-BOM.

What is measured there, and what the model learned from, stands in the lineage: the figures are the
verifications of this very model, and the data sets those of the visits behind it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from daitn.cli.card import SignedFacts, Words
from daitn.objects.identifiers import Word
from daitn.objects.lineage import Verification, Visit
from daitn.objects.text import LINE_PATTERN, counted

__all__ = ["TIME", "bill_of", "words_of"]

_MODEL: Final = "model"
_FOR: Final = "Trained by DA-ITN for "
_PARAMETERS: Final = "daitn:parameters"
TIME: Final = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?\+00:00\Z"
"""Pattern of a `timestamp`."""
_WIDE: Final = 1.96
"""Standard errors on either side that contain 95 of 100 measured values."""


class _Tool(msgspec.Struct, frozen=True, rename="camel"):
    version: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z.+!_-]{1,100}\Z")]


class _Tools(msgspec.Struct, frozen=True, rename="camel"):
    components: Annotated[tuple[_Tool, ...], msgspec.Meta(min_length=1, max_length=1)]


class _Parameters(msgspec.Struct, frozen=True, rename="camel"):
    architecture_family: Word


class _Card(msgspec.Struct, frozen=True, rename="camel"):
    model_parameters: _Parameters


class _Property(msgspec.Struct, frozen=True, rename="camel"):
    name: Word
    value: Word


class _Component(msgspec.Struct, frozen=True, rename="camel"):
    description: Annotated[str, msgspec.Meta(pattern=LINE_PATTERN, max_length=300)]
    model_card: _Card
    properties: tuple[_Property, ...]


class _Metadata(msgspec.Struct, frozen=True, rename="camel"):
    timestamp: Annotated[str, msgspec.Meta(pattern=TIME)]
    tools: _Tools
    component: _Component


class _Stated(msgspec.Struct, frozen=True, rename="camel"):
    """The parts of a bill with the exporter's own words."""

    metadata: _Metadata


def bill_of(
    facts: SignedFacts,
    words: Words,
    files: Mapping[str, str],
    described: Mapping[tuple[str, str], str],
) -> dict[str, Any]:
    """The bill of a model with its lineage. `files`: the SHA-256 of each file of the weights, by
    path. `described`: the path of a data set's description, by site and name."""
    visits: dict[tuple[str, str], list[Visit]] = {}
    for visit in facts.visits:
        visits.setdefault((visit.site, visit.dataset), []).append(visit)
    data = [_dataset(at, of, described.get(at)) for at, of in sorted(visits.items())]
    parts = [_file(path, digest) for path, digest in sorted(files.items())]
    named = uuid.uuid5(uuid.NAMESPACE_URL, f"urn:daitn:model:{facts.model}")
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{named}",
        "version": 1,
        "metadata": {
            "timestamp": words.at,
            "tools": {
                "components": [{"type": "application", "name": "daitn", "version": words.version}]
            },
            "component": _model(facts, words, [one["bom-ref"] for one in data]),
        },
        "components": [*data, *parts],
        "dependencies": [
            {"ref": _MODEL, "dependsOn": [one["bom-ref"] for one in (*data, *parts)]},
        ],
    }


def words_of(bill: object) -> Words:
    """What a bill says that does not follow from the lineage. Raises `ValueError`, and
    `msgspec.ValidationError`."""
    stated = msgspec.convert(bill, _Stated).metadata
    component = stated.component
    (parameters,) = (p.value for p in component.properties if p.name == _PARAMETERS)
    return Words(
        owner=component.description.removeprefix(_FOR),
        parameters=int(parameters),
        recipe=component.model_card.model_parameters.architecture_family,
        at=stated.timestamp,
        version=stated.tools.components[0].version,
    )


def _model(facts: SignedFacts, words: Words, data: list[str]) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": str(facts.job),
        "version": facts.model,
        "description": f"{_FOR}{words.owner}",
        "modelCard": {
            "modelParameters": {
                "architectureFamily": words.recipe,
                "datasets": [{"ref": ref} for ref in data],
            },
            "quantitativeAnalysis": {
                "performanceMetrics": [_metric(fact) for fact in facts.measured],
            },
            "considerations": {
                "technicalLimitations": [
                    "The figures are results on the verifiers' private test sets, and nothing more."
                ],
            },
        },
        "properties": [
            {"name": "daitn:job", "value": str(facts.job)},
            {"name": _PARAMETERS, "value": str(words.parameters)},
        ],
    }


def _metric(fact: Verification) -> dict[str, Any]:
    spread = _WIDE * fact.standard_error
    return {
        "type": fact.metric,
        "value": f"{fact.value:.6g}",
        "slice": fact.topic,
        "confidenceInterval": {
            "lowerBound": f"{fact.value - spread:.6g}",
            "upperBound": f"{fact.value + spread:.6g}",
        },
    }


def _dataset(at: tuple[str, str], visits: list[Visit], path: str | None) -> dict[str, Any]:
    site, name = at
    examples = sum(visit.examples for visit in visits)
    described: dict[str, Any] = {
        "type": "dataset",
        "name": name,
        "description": f"{counted(len(visits), 'visit')}, {counted(examples, 'example')}",
        "governance": {"custodians": [{"organization": {"name": site}}]},
    }
    if path is not None:
        described["contents"] = {"url": path}
    return {"type": "data", "bom-ref": f"data/{site}/{name}", "name": name, "data": [described]}


def _file(path: str, digest: str) -> dict[str, Any]:
    return {
        "type": "file",
        "bom-ref": f"file/{path}",
        "name": path,
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }

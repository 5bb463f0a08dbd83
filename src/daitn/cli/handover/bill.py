"""A model's bill of materials: CycloneDX 1.6, an ML-BOM.

What is measured there, and what the model learned from, stands in the lineage: the figures are the
verifications of this very model, and the data sets those of the visits behind it.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

from daitn import __version__
from daitn.objects.identifiers import Digest
from daitn.objects.jobs import JobView
from daitn.objects.lineage import Entry, Verification, Visit
from daitn.objects.text import counted

__all__ = ["bill_of"]

_MODEL: Final = "model"
_WIDE: Final = 1.96
"""Standard errors on either side that contain 95 of 100 measured values."""


def bill_of(
    job: JobView,
    model: Digest,
    entries: Iterable[Entry],
    files: Mapping[str, str],
    described: Mapping[tuple[str, str], str],
    at_s: float,
) -> dict[str, Any]:
    """The bill of a model with its lineage. `files`: the SHA-256 of each file of the weights, by
    path. `described`: the path of a data set's description, by site and name."""
    facts = [entry.fact for entry in entries]
    visits: dict[tuple[str, str], list[Visit]] = {}
    for fact in facts:
        if isinstance(fact, Visit):
            visits.setdefault((fact.site, fact.dataset), []).append(fact)
    measured = [f for f in facts if isinstance(f, Verification) and f.model == model]
    data = [_dataset(at, of, described.get(at)) for at, of in sorted(visits.items())]
    parts = [_file(path, digest) for path, digest in sorted(files.items())]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'urn:daitn:model:{model}')}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(at_s, datetime.UTC).isoformat(),
            "tools": {
                "components": [{"type": "application", "name": "daitn", "version": __version__}]
            },
            "component": _model(job, model, measured, [one["bom-ref"] for one in data]),
        },
        "components": [*data, *parts],
        "dependencies": [
            {"ref": _MODEL, "dependsOn": [one["bom-ref"] for one in (*data, *parts)]},
        ],
    }


def _model(
    job: JobView, model: Digest, measured: Iterable[Verification], data: list[str]
) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": str(job.job),
        "version": model,
        "description": f"Trained by DA-ITN for {job.owner}",
        "modelCard": {
            "modelParameters": {
                "architectureFamily": job.recipe,
                "datasets": [{"ref": ref} for ref in data],
            },
            "quantitativeAnalysis": {
                "performanceMetrics": [_metric(fact) for fact in measured],
            },
            "considerations": {
                "technicalLimitations": [
                    "The figures are results on the verifiers' private test sets, and nothing more."
                ],
            },
        },
        "properties": [
            {"name": "daitn:job", "value": str(job.job)},
            {"name": "daitn:parameters", "value": str(job.needs.parameters)},
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

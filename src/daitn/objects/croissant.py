"""Data set descriptors as Croissant, MLCommons' JSON-LD vocabulary for data sets.

Croissant describes files and the records in them. A DA-ITN data set offers neither: models come to
it, and nothing is downloaded. So `distribution` and `recordSet` are absent, and the facts a model
owner decides on are under `daitn:`. Source: MLCommons, Croissant Format Specification 1.0, 2024.
"""

from __future__ import annotations

from daitn.objects.descriptors import DatasetDescriptor
from daitn.objects.errors import InvalidInput
from daitn.objects.moments import timestamp

__all__ = ["NAMESPACE", "to_croissant"]

NAMESPACE = "urn:daitn:terms:1#"
"""Namespace of terms that Croissant lacks. A name, not an address: nothing is fetched."""

_CR = "http://mlcommons.org/croissant/"
_TERMS = (
    "citeAs",
    "column",
    "equivalentProperty",
    "extract",
    "field",
    "fileObject",
    "fileProperty",
    "fileSet",
    "format",
    "includes",
    "isLiveDataset",
    "jsonPath",
    "key",
    "md5",
    "parentField",
    "path",
    "recordSet",
    "references",
    "regex",
    "repeated",
    "replace",
    "samplingRate",
    "separator",
    "source",
    "subField",
    "transform",
)


def to_croissant(dataset: DatasetDescriptor) -> dict[str, object]:
    """Croissant 1.0 JSON-LD of a data set, ready for `json.dumps`.

    It contains what the descriptor contains: counts and conditions, no records and no addresses. A
    data set without its own licence falls under its policy's conditions, and the output says so.
    Raises `InvalidInput` if `fresh_at_s` is not a valid date.
    """
    return {
        "@context": _context(),
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": dataset.name,
        "description": dataset.description
        or f"{dataset.samples} records on {', '.join(dataset.topics)} at site {dataset.site}",
        "license": dataset.licence or "for visiting models only, under the conditions in policy",
        "keywords": list(dataset.topics),
        "dateModified": _date(dataset.fresh_at_s),
        "isLiveDataset": True,
        "daitn:site": dataset.site,
        "daitn:dataSchema": dataset.data_schema,
        "daitn:modality": dataset.modality,
        "daitn:topics": list(dataset.topics),
        "daitn:samples": dataset.samples,
        "daitn:labels": [
            {"@type": "daitn:Label", "daitn:label": label, "daitn:count": count}
            for label, count in sorted(dataset.labels.items())
        ],
        "daitn:quality": dataset.quality,
        "daitn:priceUsdPer1k": dataset.price_usd_per_1k,
        "daitn:jurisdiction": dataset.jurisdiction,
        "daitn:policy": {
            "@type": "daitn:Policy",
            "daitn:recipes": list(dataset.policy.recipes),
            "daitn:owners": list(dataset.policy.owners),
            "daitn:purposes": list(dataset.policy.purposes),
            "daitn:releaseTo": list(dataset.policy.release_to),
            "daitn:hours": list(dataset.policy.hours),
            "daitn:timeZone": dataset.policy.time_zone,
            "daitn:startModels": dataset.policy.start_models,
        },
    }


def _date(at_s: float) -> str:
    try:
        return timestamp(at_s)
    except (ValueError, OverflowError, OSError):
        raise InvalidInput(
            f"{at_s} is not a valid date",
            field="fresh_at_s",
            fix="give seconds since the Unix epoch",
        ) from None


def _context() -> dict[str, object]:
    """The context that the specification requires, plus DA-ITN's own prefix."""
    return {
        "@language": "en",
        "@vocab": "https://schema.org/",
        "sc": "https://schema.org/",
        "cr": _CR,
        "rai": f"{_CR}RAI/",
        "dct": "http://purl.org/dc/terms/",
        "daitn": NAMESPACE,
        "conformsTo": "dct:conformsTo",
        "data": {"@id": "cr:data", "@type": "@json"},
        "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
        "examples": {"@id": "cr:examples", "@type": "@json"},
        **{term: f"cr:{term}" for term in _TERMS},
    }

"""Descriptions of data sets in an export: Croissant, without what is for members only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from daitn.cli.handover.bill import TIME
from daitn.cli.handover.comparing import difference
from daitn.cli.handover.folder import DATASETS
from daitn.objects.croissant import to_croissant
from daitn.objects.descriptors import ANY, DataPolicy, DatasetDescriptor
from daitn.objects.errors import Corrupt, InvalidInput
from daitn.objects.lineage import Visit

__all__ = ["check_description", "description_of", "path_of"]

_WITHIN: Final = ("daitn:policy", "daitn:priceUsdPer1k")
"""Conditions for members of the network, and for nobody else."""
_FIX: Final = "do not believe it; have another member of the network export the model"


def path_of(site: str, name: str) -> str:
    """The path of a data set's description."""
    named = re.sub(r"[^A-Za-z0-9._-]", "_", f"{site}.{name}")
    return f"{DATASETS}/{named}.json"


def description_of(dataset: DatasetDescriptor) -> dict[str, object]:
    """A data set's description for people outside its network."""
    return {name: of for name, of in to_croissant(dataset).items() if name not in _WITHIN}


def check_description(stated: Any, path: str, visits: Iterable[Visit]) -> tuple[str, str]:
    """The site and the name of the data set that a file describes.

    Raises `Corrupt` if the model did not visit it, and for a file that is anything but a
    description of a data set.
    """
    try:
        described = _read(stated)
        if not re.match(TIME, stated["dateModified"]):
            raise ValueError("its dateModified is no time in UTC")
        expected = description_of(described) | {"dateModified": stated["dateModified"]}
    except (LookupError, TypeError, ValueError, msgspec.ValidationError, InvalidInput) as error:
        problem = f"no {error}" if isinstance(error, KeyError) else f"{error}"
        raise Corrupt(f"no description of a data set: {problem}", field=path, fix=_FIX) from None
    at = (described.site, described.name)
    if found := difference(stated, msgspec.to_builtins(expected)):
        raise Corrupt(
            f"{found.path} is {found.stated or 'missing'} instead of {found.expected or 'nothing'}",
            field=f"{path}:{found.path}",
            fix=_FIX,
        )
    if at not in {(visit.site, visit.dataset) for visit in visits} or path != path_of(*at):
        raise Corrupt(
            f"it describes {at[1]} at {at[0]}, and by the lineage the model did not visit that, or "
            "the file would have another name",
            field=f"{path}:name",
            fix=_FIX,
        )
    return at


def _read(stated: Any) -> DatasetDescriptor:
    """The descriptor of which a description was made, as far as it tells."""
    if not isinstance(stated, dict):
        raise TypeError("no object of JSON")
    fields = {
        "name": stated["name"],
        "description": stated["description"],
        "licence": stated["license"],
        "fresh_at_s": 0.0,
        "labels": {one["daitn:label"]: one["daitn:count"] for one in stated["daitn:labels"]},
        "policy": DataPolicy(recipes=(ANY,)),
        **{field: stated[name] for field, name in _PLAIN.items()},
    }
    return msgspec.convert(fields, DatasetDescriptor)


_PLAIN: Final = {
    "site": "daitn:site",
    "data_schema": "daitn:dataSchema",
    "modality": "daitn:modality",
    "topics": "daitn:topics",
    "samples": "daitn:samples",
    "quality": "daitn:quality",
    "jurisdiction": "daitn:jurisdiction",
}
"""Fields of a descriptor that a description has as they are."""

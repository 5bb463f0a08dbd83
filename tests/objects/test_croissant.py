"""A data set's descriptor as Croissant: valid, complete, and nothing to download."""

from __future__ import annotations

import json

import mlcroissant
import pytest

from daitn.objects.croissant import NAMESPACE, to_croissant
from daitn.objects.descriptors import DataPolicy, DatasetDescriptor
from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import SiteId


def described(**changes: object) -> DatasetDescriptor:
    fields: dict[str, object] = {
        "name": "questions",
        "site": SiteId("ninds"),
        "data_schema": "qa-pairs/1",
        "modality": "text",
        "topics": ("medicine/neurology", "medicine/general"),
        "samples": 450,
        "labels": {"treatment": 150, "information: what is it?": 300},
        "quality": 0.9,
        "fresh_at_s": 1_700_000_000.0,
        "price_usd_per_1k": 2.5,
        "jurisdiction": "US",
        "policy": DataPolicy(recipes=("causal-lm",), owners=("*",), release_to=("US", "CA")),
    }
    return DatasetDescriptor(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "dataset",
    [
        described(),
        described(description='Questions to "neurologists"', licence="CC-BY-4.0"),
        described(labels={}, topics=()),
    ],
)
def test_it_is_valid_croissant(dataset: DatasetDescriptor, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("validation reached for the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    read = mlcroissant.Dataset(jsonld=json.loads(json.dumps(to_croissant(dataset))))
    assert not read.metadata.ctx.issues.errors
    assert read.metadata.name == "questions"
    assert sorted(read.metadata.keywords or ()) == sorted(dataset.topics)


def test_it_gives_no_record_and_no_download() -> None:
    read = mlcroissant.Dataset(jsonld=to_croissant(described()))
    assert not read.metadata.distribution
    assert not read.metadata.record_sets
    assert not {"distribution", "recordSet", "url", "sameAs"} & set(to_croissant(described()))


def test_conditions_stand_in_the_namespace_of_daitn() -> None:
    document = to_croissant(described())
    context = document["@context"]
    assert isinstance(context, dict)
    assert context["daitn"] == NAMESPACE
    assert document["daitn:jurisdiction"] == "US"
    assert document["daitn:priceUsdPer1k"] == 2.5
    assert document["daitn:topics"] == ["medicine/neurology", "medicine/general"]
    assert document["daitn:policy"] == {
        "@type": "daitn:Policy",
        "daitn:recipes": ["causal-lm"],
        "daitn:owners": ["*"],
        "daitn:purposes": ["*"],
        "daitn:releaseTo": ["US", "CA"],
        "daitn:hours": ["*"],
        "daitn:timeZone": "UTC",
        "daitn:startModels": False,
    }
    assert document["daitn:labels"] == [
        {"@type": "daitn:Label", "daitn:label": "information: what is it?", "daitn:count": 300},
        {"@type": "daitn:Label", "daitn:label": "treatment", "daitn:count": 150},
    ]
    assert document["dateModified"] == "2023-11-14T22:13:20+00:00"


def test_a_time_that_is_none_is_told() -> None:
    with pytest.raises(InvalidInput) as told:
        to_croissant(described(fresh_at_s=1e20))
    assert told.value.field == "fresh_at_s"

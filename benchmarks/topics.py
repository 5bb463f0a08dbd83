"""How accurately and how fast the topic of a query is found.

Training questions of every institute make the sketches; questions about diseases that are in no
training file are classified. The baseline is a logistic regression on the pooled raw questions,
which no network of data owners could train.

    python -m benchmarks.topics [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np

from daitn.learning.corpora.clinic import clinic
from daitn.learning.corpora.medquad import read_medquad
from daitn.learning.corpora.records import QaPair
from daitn.learning.corpora.split import choices, is_test_topic
from daitn.objects.choices import as_question
from daitn.objects.descriptors import DataPolicy, DatasetDescriptor, NodeDescriptor, Role
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.topology.topics import TopicModel, sketch

SPECIALITIES = {
    "ninds": "medicine/neurology",
    "nhlbi": "medicine/cardiology",
    "niddk": "medicine/metabolic",
    "cancergov": "medicine/oncology",
}


def dataset(site: str, pairs: list[QaPair]) -> DatasetDescriptor:
    return DatasetDescriptor(
        name="qa",
        site=SiteId(site),
        data_schema="qa-pairs/1",
        modality="text",
        topics=(SPECIALITIES.get(site, "medicine/general"),),
        samples=len(pairs),
        labels={},
        quality=1.0,
        fresh_at_s=0.0,
        jurisdiction="US",
        policy=DataPolicy(recipes=("*",)),
        sketch=sketch(pair.question for pair in pairs),
    )


def node(data: DatasetDescriptor) -> NodeDescriptor:
    return NodeDescriptor(
        site=data.site,
        owner=OwnerId(data.site),
        roles=(Role.DATA,),
        jurisdiction="US",
        public_key="",
        started_at_s=0.0,
        version=1,
        software="",
        datasets=(data,),
    )


def shares(found: list[str], truth: list[str]) -> dict[str, float]:
    """Accuracy over queries, and the mean over topics of their accuracies."""
    right = np.array([f == t for f, t in zip(found, truth, strict=True)])
    names = np.array(truth)
    return {
        "micro": float(right.mean()),
        "macro": float(np.mean([right[names == name].mean() for name in sorted(set(truth))])),
        "queries": len(truth),
    }


def measured(corpus: dict[str, list[QaPair]]) -> dict[str, Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    train = {s: [p for p in pairs if not is_test_topic(p.topic)] for s, pairs in corpus.items()}
    test = [(s, p) for s, pairs in corpus.items() for p in pairs if is_test_topic(p.topic)]
    datasets = [dataset(site, pairs) for site, pairs in train.items()]
    began_s = time.perf_counter()
    model = TopicModel()
    for described in datasets:
        model.described(node(described))
    model.topics()
    build_s = time.perf_counter() - began_s
    truth = [SPECIALITIES.get(site, "medicine/general") for site, _ in test]
    questions = [pair.question for _, pair in test]
    names = [re.sub(r"\W+", " ", pair.topic) for _, pair in test]
    began_s = time.perf_counter()
    found = [model.classify(question) for question in questions]
    each_us = 1e6 * (time.perf_counter() - began_s) / len(questions)
    items = [
        (SPECIALITIES.get(site, "medicine/general"), as_question(item.question, item.options))
        for site, pairs in corpus.items()
        for item in choices((p for p in pairs if is_test_topic(p.topic)), site)
    ]
    asked = [pair.question for pairs in train.values() for pair in pairs]
    about = [SPECIALITIES.get(s, "medicine/general") for s, pairs in train.items() for _ in pairs]
    vectors = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    regression = LogisticRegression(max_iter=300, class_weight="balanced")
    regression.fit(vectors.fit_transform(asked), about)
    centralised = list(regression.predict(vectors.transform(questions)))
    sure = [(t, f) for (f, c), t in zip(found, truth, strict=True) if c >= 0.5]
    return {
        "questions": shares([name for name, _ in found], truth),
        "disease_names_only": shares([model.classify(name)[0] for name in names], truth),
        "with_options": shares(
            [model.classify(text)[0] for _, text in items], [t for t, _ in items]
        ),
        "where_sure": shares([f for _, f in sure], [t for t, _ in sure]) if sure else None,
        "centralised_regression": shares(centralised, truth),
        "us_per_query": each_us,
        "build_ms": 1e3 * build_s,
        "sketch_kb": max(len(d.sketch.buckets) * 6 / 1e3 for d in datasets if d.sketch),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    arguments = parser.parse_args()
    results = {"clinic": measured(clinic())}
    parquet = Path(os.environ.get("DAITN_DATA", "../shared/data")) / "medquad.parquet"
    if parquet.is_file():
        results["medquad"] = measured(read_medquad(parquet))
    print(json.dumps(results, indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()

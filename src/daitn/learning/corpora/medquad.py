"""MedQuAD: question-answer pairs of nine institutes of the US National Institutes of Health.

Asma Ben Abacha and Dina Demner-Fushman, "A question-entailment approach to question answering",
BMC Bioinformatics 20:511, 2019. github.com/abachaa/MedQuAD, CC BY 4.0. None of it is part of this
project; `daitn data fetch medquad` downloads it (`daitn.learning.corpora.fetch`).
"""

from __future__ import annotations

from pathlib import Path

from daitn.learning.corpora.records import QaPair
from daitn.objects.errors import InvalidInput, NotFound

__all__ = ["EXPERT", "GENERAL", "SITES", "read_medquad"]

SITES = {
    "ghr": "GHR_QA",
    "gard": "GARD_QA",
    "mplus": "MPlus_Health_Topics_QA",
    "seniorhealth": "SeniorHealth_QA",
    "cdc": "CDC_QA",
    "ninds": "NINDS_QA",
    "nhlbi": "NHLBI_QA_XML",
    "niddk": "NIDDK_QA",
    "cancergov": "CancerGov_QA",
}
"""Site name to the name of the institute's collection in MedQuAD."""
GENERAL = ("ghr", "gard", "mplus", "seniorhealth", "cdc")
EXPERT = "ninds"
"""The site of the expert objective: neurology."""


def read_medquad(parquet: Path) -> dict[str, list[QaPair]]:
    """Read the pairs of every site from `medquad.parquet`, sorted so that file order has no effect.

    Raises `NotFound` if there is no such file, `InvalidInput` if it is not MedQuAD.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["source", "focus", "qtype", "question", "answer"]
    fix = "fetch the corpus again: daitn data fetch medquad"
    try:
        rows = pq.read_table(parquet, columns=columns).to_pylist()
    except FileNotFoundError as error:
        raise NotFound(f"no file {parquet}", field=str(parquet), fix=fix) from error
    except (pa.ArrowInvalid, KeyError) as error:
        raise InvalidInput(
            f"{parquet} is not MedQuAD: {error}", field=str(parquet), fix=fix
        ) from error
    by_source: dict[str, list[QaPair]] = {source: [] for source in SITES.values()}
    for number, row in enumerate(rows):
        if row["source"] not in by_source:
            raise InvalidInput(
                f"{parquet}, row {number}, field source: unknown institute {row['source']!r}",
                field="source",
                fix=fix,
            )
        pair = QaPair(
            topic=row["focus"], label=row["qtype"], question=row["question"], answer=row["answer"]
        )
        # One document of the CDC names no disease.
        if pair.topic and pair.question and pair.answer:
            by_source[row["source"]].append(pair)
    return {
        site: sorted(set(by_source[source]), key=lambda pair: (pair.topic, pair.label, pair.answer))
        for site, source in SITES.items()
    }

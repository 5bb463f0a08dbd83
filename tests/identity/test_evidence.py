from __future__ import annotations

import msgspec

from daitn.identity.evidence import EvidenceFilter
from tests.topology.qrrt.world import deployment, evidence, facility, unit


def test_evidence_that_was_changed_is_left_out_and_the_rest_stays() -> None:
    good, other = evidence("medicine", 0.8), evidence("law", 0.9)
    forged = msgspec.structs.replace(other, signature=good.signature)
    raised = msgspec.structs.replace(good, fact=msgspec.structs.replace(good.fact, value=0.99))
    node = facility(
        "mdf",
        deployment("doctor", evidence=(forged, good, raised)),
        deployment("lawyer", evidence=(other,)),
        deployment("poet"),
    )
    checks = EvidenceFilter()
    for _ in range(2):  # The second time from the cache.
        shown = checks.well_signed(node).facility
        assert shown is not None
        assert [one.evidence for one in shown.deployments] == [(good,), (other,), ()]


def test_nodes_without_evidence_stay_as_they_are() -> None:
    node = unit()
    assert EvidenceFilter().well_signed(node) is node

"""What a gateway reckons is under way: what facilities said, and what it did itself since."""

from __future__ import annotations

from daitn.objects.identifiers import SiteId
from daitn.objects.messages import Serving
from daitn.objects.readings import ServingReading
from daitn.sim.network import DeploymentSpec, FacilitySpec, Network, described
from daitn.topology.qrrt.load import GatewayLoad
from daitn.topology.qrrt.state import QrrtState

EAST, GATE = SiteId("east"), SiteId("gate")


def topology() -> QrrtState:
    spec = DeploymentSpec("m", 4, 64, 0.1, 0.01, 0.0, 0.0, {})
    state = QrrtState()
    for node in described(Network((FacilitySpec(EAST, (spec,)),), (GATE,), {})):
        state.described(node, 1.0)
    return state


def says(state: QrrtState, in_flight: int, at_s: float) -> None:
    reading = ServingReading(deployment="m", in_flight=in_flight, waiting=0)
    told = Serving(site=EAST, at_s=at_s, memory_free_bytes=0, deployments=(reading,))
    state.absorb_serving(told, at_s)


def test_ones_own_count_at_once_on_top_of_what_was_said_of_others() -> None:
    state, load = topology(), GatewayLoad()
    assert load.of(state.snapshot()).tolist() == [0.0]
    load.begin("m@east")
    load.begin("m@east")
    says(state, 5, 2.0)
    assert load.of(state.snapshot()).tolist() == [5.0]
    load.begin("m@east")
    assert load.of(state.snapshot()).tolist() == [6.0]
    load.end("m@east")
    load.end("m@east")
    assert load.of(state.snapshot()).tolist() == [4.0]


def test_the_same_figure_said_again_is_news() -> None:
    state, load = topology(), GatewayLoad()
    says(state, 3, 2.0)
    load.of(state.snapshot())
    load.begin("m@east")
    assert load.of(state.snapshot()).tolist() == [4.0]
    says(state, 3, 3.0)
    assert load.of(state.snapshot()).tolist() == [3.0]


def test_the_load_of_a_facility_is_at_least_the_gateways_own_queries() -> None:
    state, load = topology(), GatewayLoad()
    load.of(state.snapshot())
    for _ in range(4):
        load.begin("m@east")
    says(state, 1, 2.0)
    assert load.of(state.snapshot()).tolist() == [4.0]

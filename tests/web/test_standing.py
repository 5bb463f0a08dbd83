"""What is shown as ready, or as taking work, gets it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from msgspec.json import encode
from playwright.sync_api import Browser, Page, expect

from daitn.oam.api.answers import PastEvent
from daitn.objects.cordons import Cordon
from daitn.objects.deployments import DeploymentState, Runtime
from daitn.objects.descriptors import ModelDescriptor
from daitn.objects.identifiers import Digest, OwnerId, SiteId
from daitn.objects.placement import DeploymentView, PlaceView
from daitn.topology.qrrt.served import ServedModel
from daitn.topology.snapshot import SiteState
from tests.web.canned import Canned, canned, facility, page

pytestmark = pytest.mark.slow

SITES = (
    facility("cordoned-site", cordon=Cordon(by="ann", since_s=1.0)),
    facility("drained-site", cordon=Cordon(by="ann", since_s=1.0, draining=True)),
    facility("lost-site", alive=False),
    facility("ready.site"),
)
STANDINGS = {
    "cordoned-site": "cordoned",
    "drained-site": "draining",
    "lost-site": "lost",
    "ready.site": "ready",
}
TAKES = {
    "cordoned-site": "cordoned",
    "drained-site": "draining",
    "lost-site": "no",
    "ready.site": "yes",
}


def served(site: SiteState) -> ServedModel:
    return ServedModel(
        name="doctor",
        site=site.descriptor.site,
        runtime=Runtime.EMBEDDED,
        state=DeploymentState.READY,
        available=site.alive,
        degraded=False,
        accuracy=(),
        in_flight=0,
        slots=1,
        first_token_s=0.1,
        per_token_s=0.1,
        error_share=0.0,
        measured=True,
        price_usd_per_1k_in=0.0,
        price_usd_per_1k_out=0.0,
        standing=STANDINGS[site.descriptor.site],
    )


def place(site: SiteState) -> PlaceView:
    name = site.descriptor.site
    standing = STANDINGS[name]
    return PlaceView(site=name, state=DeploymentState.READY, wanted=True, standing=standing)


def trained(name: str, *, untrained: bool) -> ModelDescriptor:
    return ModelDescriptor(
        name=name,
        owner=OwnerId("acme"),
        recipe="classifier",
        manifest=Digest("f" * 64),
        size_bytes=1,
        measured={},
        holders=(SiteId("ready.site"),),
        created_at_s=1.0,
        untrained=untrained,
    )


@pytest.fixture(scope="module")
def center() -> Iterator[Canned]:
    places = tuple(place(site) for site in SITES)
    answers: dict[str, object] = {
        "/sites": page(*SITES),
        "/served": page(*map(served, SITES)),
        "/deployments": page(deployed(*places)),
        "/models": page(trained("fast-1", untrained=False), trained("slow-1", untrained=True)),
        "/placement": {"changes": []},
    }
    answers |= {f"/sites/{site.descriptor.site}": site for site in SITES}
    with canned(answers) as made:
        yield made


@pytest.fixture
def shown(chromium: Browser) -> Iterator[Page]:
    made = chromium.new_page()
    yield made
    made.close()


@pytest.mark.parametrize(("site", "standing"), STANDINGS.items())
def test_a_deployment_is_ready_only_where_its_site_takes_queries(
    center: Canned, shown: Page, site: str, standing: str
) -> None:
    shown.goto(f"{center.url}/models")
    served_there = shown.get_by_role("table", name="Served models").get_by_role("row")
    expect(served_there.filter(has_text=site).locator(".badge")).to_have_text(standing)
    deployments = shown.get_by_role("table", name="Deployments", exact=True)
    expect(deployments).to_contain_text(f"{site} ({standing})")
    shown.goto(f"{center.url}/sites/{site}")
    there = shown.get_by_role("table", name="Deployments here")
    expect(there.locator(".badge")).to_have_text(standing)


@pytest.mark.parametrize(("site", "takes"), TAKES.items())
def test_a_lost_site_takes_no_work(center: Canned, shown: Page, site: str, takes: str) -> None:
    shown.goto(f"{center.url}/sites")
    row = shown.get_by_role("row").filter(has=shown.get_by_role("link", name=site, exact=True))
    expect(row.get_by_role("cell").nth(2)).to_have_text(takes)


def test_a_model_that_learned_nothing_is_not_offered_for_deployment(
    center: Canned, shown: Page
) -> None:
    shown.goto(f"{center.url}/models")
    rows = shown.get_by_role("table", name="Trained models").get_by_role("row")
    expect(rows.filter(has_text="fast-1")).to_contain_text("daitn deploy fast-1")
    slow = rows.filter(has_text="slow-1")
    expect(slow).to_contain_text("no visit of its job improved it")
    expect(slow).not_to_contain_text("daitn deploy")


def test_events_of_a_deployment_say_where_it_is(center: Canned, shown: Page) -> None:
    starting = msgspec.structs.replace(place(SITES[3]), standing="starting", detail="loads weights")
    events = [
        PastEvent(id=f"00000000-{n}", kind="deployment", at_s=1.0, data=msgspec.Raw(encode(view)))
        for n, view in enumerate((deployed(starting), deployed(place(SITES[3]))))
    ]
    center.answers["/history"] = page(*events)
    shown.goto(f"{center.url}/events")
    rows = shown.get_by_role("table", name="Events").get_by_role("row")
    expect(rows.nth(1)).to_contain_text("ready.site starting (loads weights)")
    expect(rows.nth(2)).to_contain_text("ready.site ready")


def deployed(*places: PlaceView) -> DeploymentView:
    return DeploymentView(name="doctor", model="m-1", replicas=1, places=places, why="asked")

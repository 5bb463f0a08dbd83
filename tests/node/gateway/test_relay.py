"""A facility that a gateway cannot reach is asked through another gateway."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import openai
import pytest

from daitn.identity.keys import SigningKey
from daitn.identity.passes import sign_pass
from daitn.node.config import KeyConfig
from daitn.node.usage.counts import UsageCounts
from daitn.objects.identifiers import SiteId
from daitn.objects.readings import LinkReading, Reading
from daitn.objects.usage import UsageSide
from tests.node.gateway.scene import DIGEST, Network, client, deployment
from tests.scenes.openai_server import OpenAiServer

Servers = tuple[OpenAiServer, ...]
ASK: Any = {"messages": [{"role": "user", "content": "What helps?"}], "max_tokens": 20}
TEXT = "The quick brown fox jumps over the lazy dog."
pytestmark = pytest.mark.processes


def near(network: Network, source: str, target: str) -> None:
    now_s = time.time()
    rtt = Reading(0.001, now_s, SiteId(source))
    link = LinkReading(source=SiteId(source), target=SiteId(target), rtt_s=rtt)
    network.state.absorb_link(link, now_s)


@pytest.fixture
def split(network: Network, servers: Servers) -> Network:
    """`gw` and `hub` reach each other, and `hub` reaches `mdf`."""
    network.facility("mdf", servers[0].url, deployment("doctor"))
    near(network, "gw", "hub")
    near(network, "hub", "mdf")
    return network


async def test_a_query_goes_through_another_gateway(split: Network, servers: Servers) -> None:
    hub = await split.gateway("hub")
    gateway = await split.gateway("gw")
    split.views["gw"].broken = frozenset({SiteId("mdf")})

    raw = await client(gateway).chat.completions.with_raw_response.create(model="doctor", **ASK)
    stream = await client(gateway).chat.completions.create(model="doctor", stream=True, **ASK)
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]

    assert raw.parse().choices[0].message.content == TEXT
    assert "".join(pieces) == TEXT
    assert raw.headers["daitn-path"] == "gw,hub,mdf"
    assert gateway.queries(2)[1].path == ("gw", "hub", "mdf")
    assert hub.queries(2)[1].path == ("hub", "mdf")
    assert servers[0].control()["last"][-1]["headers"]["daitn-query"] == "gw:2"
    # Demand is counted where it arises.
    assert len(gateway.demand(time.time()).rates) == 1
    assert hub.demand(time.time()).rates == ()


async def test_a_path_that_breaks_is_gone_around_at_once(
    network: Network, servers: Servers
) -> None:
    network.facility("mdf", "http://[100::1]:9", deployment("doctor"))
    near(network, "gw", "mdf")
    near(network, "gw", "hub")
    near(network, "hub", "mdf")
    hub = await network.gateway("hub")
    gateway = await network.gateway("gw")
    # The hub knows the facility by an address that it can reach.
    inside = Network()
    inside.facility("mdf", servers[0].url, deployment("doctor"))
    network.views["hub"].state = inside.state

    raw = await client(gateway).chat.completions.with_raw_response.create(model="doctor", **ASK)

    assert raw.headers["daitn-path"] == "gw,hub,mdf"
    assert raw.headers["daitn-attempts"] == "2"
    assert hub.queries(1)[0].http_status == 200


async def test_a_stream_that_breaks_behind_a_relay_goes_on_elsewhere(
    network: Network, servers: Servers
) -> None:
    servers[0].control(cut_after=4)
    replica = {"deterministic": True, "manifest": DIGEST}
    network.facility("mdf", servers[0].url, deployment("doctor", **replica))
    network.facility(
        "dc", servers[1].url, deployment("doctor", price_usd_per_1k_out=10.0, **replica)
    )
    near(network, "gw", "hub")
    near(network, "hub", "mdf")
    await network.gateway("hub")
    gateway = await network.gateway("gw")
    network.views["gw"].broken = frozenset({SiteId("mdf")})

    # A hedge would be one more attempt, on a machine that is slow.
    stream = await client(gateway).chat.completions.create(
        model="doctor", stream=True, temperature=0, extra_body={"daitn": {"hedge": False}}, **ASK
    )
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]

    assert "".join(pieces) == TEXT
    record = gateway.queries(1)[0]
    assert (record.site, record.path, record.attempts) == ("dc", ("gw", "dc"), 2)


async def test_passes_of_strangers_are_refused(network: Network, servers: Servers) -> None:
    network.facility("mdf", servers[0].url, deployment("doctor"))
    gateway = await network.gateway()
    shown = sign_pass(SiteId("stranger"), SiteId("gw"), time.time(), SigningKey.generate())

    with pytest.raises(openai.AuthenticationError) as refused:
        await client(gateway).chat.completions.create(
            model="doctor", extra_headers={"daitn-pass": shown}, **ASK
        )

    assert refused.value.param == "daitn-pass"


async def test_examinations_are_counted_at_no_price_and_relayed_queries_where_they_were_asked(
    split: Network, servers: Servers, tmp_path: Path
) -> None:
    """Facilities count both and cannot tell them from others: a gateway that left examinations out
    would be told to count wrongly."""
    priced = deployment("doctor", price_usd_per_1k_in=1.0, price_usd_per_1k_out=1.0)
    split.facility("mdf", servers[0].url, priced)
    counted = {
        name: UsageCounts(tmp_path / name, SiteId(name), UsageSide.GATEWAY, time.time)
        for name in ("gw", "hub")
    }
    hub = await split.gateway("hub", counts=counted["hub"])
    gateway = await split.gateway("gw", counts=counted["gw"])
    split.views["gw"].broken = frozenset({SiteId("mdf")})
    examiner = split.keys.setdefault(SiteId("mpvu"), SigningKey.generate())
    shown = {"daitn-pass": sign_pass(SiteId("mpvu"), SiteId("hub"), time.time(), examiner)}

    await client(gateway).chat.completions.create(model="doctor", **ASK)
    await client(hub).chat.completions.create(model="doctor", extra_headers=shown, **ASK)

    rows = {name: counts.begin_statement()[0].rows for name, counts in counted.items()}
    assert [(row.key.price_in, row.count.answers) for row in rows["gw"]] == [(1.0, 1)]
    assert [(row.key.price_in, row.count.answers) for row in rows["hub"]] == [(0.0, 1)]


async def test_a_pass_replaces_a_key_and_a_relay_forwards_no_relayed_query(
    split: Network, servers: Servers
) -> None:
    hub = await split.gateway("hub", keys=(KeyConfig(owner="ada", sha256="0" * 64),))
    split.keys[SiteId("gw")] = key = SigningKey.generate()
    split.views["hub"].broken = frozenset({SiteId("mdf")})
    shown = sign_pass(SiteId("gw"), SiteId("hub"), time.time(), key)

    with pytest.raises(openai.InternalServerError) as unreachable:
        await client(hub).chat.completions.create(
            model="doctor@mdf", extra_headers={"daitn-pass": shown}, **ASK
        )

    assert unreachable.value.code == "unavailable"

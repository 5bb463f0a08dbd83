"""How much less there is to know and to say with domains. Shown with `pytest -s`."""

from __future__ import annotations

from random import Random

import pytest
from msgspec.structs import replace

from daitn.steering.wire.offers import Update, encode_summary

from ..routes.harness import Network, random_links
from ..routes.test_routes import offers_of

DOMAINS, SITES, BORDERS = 5, 20, 2


def grown(*, domains: bool) -> Network:
    """Domains of `SITES` sites each, in a ring, with `BORDERS` links between neighbouring ones; or
    the same sites and links without domains."""
    rng = Random(1)
    network = Network(Random(2), most_delay_s=0.02, most_skew_s=0.05)
    pieces = [[f"s{100 * piece + site:03}" for site in range(SITES)] for piece in range(DOMAINS)]
    for number, piece in enumerate(pieces):
        for site in piece:
            network.add(site, offers_of(site, rng), f"d{number}" if domains else "")
        for a, b in random_links(rng, piece, 3.0):
            network.connect(a, b, rng.uniform(0.005, 0.02))
    for number, piece in enumerate(pieces):
        for _ in range(BORDERS):
            there = rng.choice(pieces[(number + 1) % DOMAINS])
            network.connect(rng.choice(piece), there, rng.uniform(0.02, 0.06))
    network.run(60.0)
    return network


def measured(network: Network) -> dict[str, float]:
    """What is known, as means over all tables; and what was sent in the whole network."""
    tables = network.tables.values()
    found = {
        "origins per table": sum(len(table.origins()) for table in tables) / len(tables),
        "offers per table": sum(len(table.offered(o)) for table in tables for o in table.origins())
        / len(tables),
        "kilobytes told to a neighbour": _told_bytes(network) / 1000,
        "messages until at rest": network.messages(),
        "kilobytes until at rest": network.sent["bytes"] / 1000,
    }
    before = network.sent.copy()
    network.run(60.0)
    found["kilobytes of refreshes in 60 s"] = (network.sent - before)["bytes"] / 1000
    before = network.sent.copy()
    network.offer("s007", offers_of("s007", Random(9)))
    network.run(10.0)
    found["messages for one site's new offers"] = (network.sent - before)["changes"]
    before = network.sent.copy()
    for site in sorted(network.tables):
        busy = tuple(replace(o, wait_s=2.0 + network.rng.random()) for o in network.offers[site])
        network.offer(site, busy)
        network.run(0.1)
    network.run(10.0)
    found["messages where all get busy"] = (network.sent - before)["changes"]
    return found


def _told_bytes(network: Network) -> float:
    peers = [peer for table in network.tables.values() for peer in table._peers.values()]
    return sum(len(encode_summary(Update((*peer.sent.values(),)))) for peer in peers) / len(peers)


@pytest.mark.long
def test_with_domains_there_is_less_to_know_and_to_say() -> None:
    flat, hierarchical = measured(grown(domains=False)), measured(grown(domains=True))
    for name in flat:
        print(f"{name:35} {flat[name]:10.1f} flat {hierarchical[name]:10.1f} with domains")
    for name in ("origins per table", "kilobytes told to a neighbour"):
        assert hierarchical[name] < flat[name] / 2

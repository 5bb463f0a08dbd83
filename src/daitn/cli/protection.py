"""One line on what protects a network on this machine, and what does not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from daitn.center.config import CenterConfig
from daitn.identity.roster import read_roster
from daitn.learning.sandbox.policy import Available, Mechanism
from daitn.learning.sandbox.probe import available
from daitn.node.config import NodeConfig
from daitn.objects.addresses import is_encrypted

__all__ = ["protection"]


async def protection(center: CenterConfig, nodes: Sequence[NodeConfig]) -> str:
    """Protections of a running network: roster, capabilities, mTLS and sandbox, each on or off."""
    return _line(center, nodes, await available())


def _line(center: CenterConfig, nodes: Sequence[NodeConfig], sandbox: Available) -> str:
    if center.insecure:
        rights = "NO roster and NO capabilities: anyone who reaches it commands it"
    else:
        members = len(read_roster(Path(center.roster)).opened().members)
        rights = f"roster ({members} members) and capabilities (signed orders) on"
    plain = sorted({one for one in _endpoints(center, nodes) if not is_encrypted(one)})
    links = f"mTLS NOT on at {', '.join(plain)}" if plain else "mTLS on"
    missing = [str(one) for one in Mechanism if one not in sandbox.mechanisms]
    without = f", without {', '.join(missing)}" if missing else ""
    return f"protection: {rights}; {links}; sandbox on ({sandbox}{without})"


def _endpoints(center: CenterConfig, nodes: Sequence[NodeConfig]) -> Iterator[str]:
    yield from center.listen
    for node in nodes:
        yield from node.center
        yield from node.listen
        if node.forwarder is not None:
            yield from node.forwarder.listen

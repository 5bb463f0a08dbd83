"""The origin of a process's roster: its own network's, one that it joined, or none at all."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from daitn.center.config import CenterConfig
from daitn.cli.exposure import (
    LOCAL_HOSTS,
    check_alone,
    check_encrypted,
    reached_at,
    warn_unreachable,
)
from daitn.cli.known_networks import OPERATOR, forget, remember
from daitn.cli.network import own_network
from daitn.files.state_folder import ProcessState
from daitn.identity.certificates import LASTS_S, requested
from daitn.identity.keys import SigningKey
from daitn.identity.network import MEMBER_DAYS, NetworkFolder
from daitn.identity.roster import ROSTER, write_roster
from daitn.node.config import NodeConfig
from daitn.oam.doctor.fixes import kind_and_name
from daitn.objects.addresses import is_url
from daitn.objects.moments import DAY_S
from daitn.objects.roster import Kind, Member
from daitn.tools import clock
from daitn.tools.roster import LiveRoster

__all__ = [
    "admit_local",
    "found_network",
    "live_roster",
    "remember_network",
]

log = logging.getLogger(__name__)

_NETWORK: Final = "local"
"""Name of a network that `daitn up` made."""


def found_network(center: CenterConfig, nodes: Iterable[NodeConfig]) -> None:
    """Make a network file's own network, or bring it up to date.

    Its members are the control centre, the nodes with the roles of their files, and an operator.
    Does nothing for a file that names another roster, or that does without.
    """
    folder = own_network(center)
    if not _founds(center):
        return
    now_s = clock.wall_s()
    if (folder / ROSTER).exists():
        network = NetworkFolder(folder)
    else:
        network = NetworkFolder.found(folder, _NETWORK, OPERATOR, now_s, days=MEMBER_DAYS)
    own = _own(center, nodes)
    network.admit(*(_member(config, now_s) for config in own), now_s=now_s)
    for config in own:
        _equip(config, network, 3600.0 * center.certificate_hours)
    roster = network.roster()
    if roster.until_s - now_s < (roster.until_s - roster.issued_at_s) / 2:
        network.renew(now_s, member=(Kind.OPERATOR, OPERATOR))
    network.equip(Kind.OPERATOR, OPERATOR)


def remember_network(center: CenterConfig, nodes: Iterable[NodeConfig]) -> None:
    """Let commands on this machine find the network that `found_network` made, or none if its file
    does without. To be called once its control centre answers: one that does not start must not
    take the place of another network that runs at the same addresses."""
    if center.insecure:
        forget(_addresses(center))
    if _founds(center):
        for config in _own(center, nodes):
            remember(_addresses(config), own_network(center))


def _founds(center: CenterConfig) -> bool:
    return not center.insecure and center.roster == str(own_network(center) / ROSTER)


def _own(
    center: CenterConfig, nodes: Iterable[NodeConfig]
) -> tuple[CenterConfig | NodeConfig, ...]:
    """The processes that belong to the file's own network."""
    members = (node for node in nodes if node.roster == center.roster and not node.insecure)
    return (center, *members)


def admit_local(
    network: NetworkFolder,
    *configs: CenterConfig | NodeConfig,
    hosts: Iterable[str] = (),
    replace: bool = False,
) -> None:
    """Admit processes of this machine as described by their files: make their keys, and put the
    roster and certificates into their state folders. `hosts`: see `Member`; in addition to those in
    their files. `replace`: as in `NetworkFolder.admit`."""
    now_s = clock.wall_s()
    more = tuple(hosts)
    for config in configs:
        requested(Path(config.tls), more)  # Raises for an invalid host before the roster has it.
    members = (_member(config, now_s, more) for config in configs)
    network.admit(*members, now_s=now_s, replace=replace)
    for config in configs:
        _equip(config, network)
        write_roster(Path(config.state) / ROSTER, network.file())
        remember(_addresses(config), network.path)


def _addresses(config: CenterConfig | NodeConfig) -> tuple[str, ...]:
    """Addresses at which commands can query a process."""
    api = (config.api.advertise, config.api.listen) if isinstance(config, CenterConfig) else ()
    return (*config.listen, *(url for url in api if url and is_url(url)))


def live_roster(config: CenterConfig | NodeConfig) -> LiveRoster | None:
    """The roster of a process; none if its file does without one.

    Raises `InvalidInput` for a process without a roster that others could reach, for one that
    reaches other machines unencrypted, and as `LiveRoster` does.
    """
    if config.insecure:
        check_alone(config)
        log.warning("no roster: everybody who reaches this process may do anything")
        return None
    check_encrypted(config)
    if isinstance(config, NodeConfig):
        warn_unreachable(config)
    state = Path(config.state)
    roster = LiveRoster(state, Path(config.roster) if config.roster else None)
    own, known = _member(config, now_s=0.0), roster.member(*kind_and_name(config))
    if known is None or known.public_key != own.public_key:
        log.warning(
            "the roster of %s does not have the key of the %s %s yet: nobody listens to it until "
            "the operator admits it",
            roster.network,
            own.kind,
            own.name,
        )
    elif not _covers(known, own):
        log.error(
            "the roster grants %s %s, owned by %r, in %r, and its file says more: nobody listens "
            "to it until the operator invites it anew with that, or the file is corrected",
            own.name,
            ", ".join(known.roles) or "no role",
            known.owner,
            known.jurisdiction,
        )
    return roster


def _equip(
    config: CenterConfig | NodeConfig, network: NetworkFolder, lasts_s: float = LASTS_S
) -> None:
    """Give a process of this machine its certificates, unless it has valid ones."""
    network.equip(*kind_and_name(config), Path(config.tls), lasts_s)


def _member(config: CenterConfig | NodeConfig, now_s: float, hosts: tuple[str, ...] = ()) -> Member:
    kind, name = kind_and_name(config)
    key = SigningKey.at(Path(config.state) / ProcessState.KEY)
    until_s = now_s + MEMBER_DAYS * DAY_S
    hosts = tuple(dict.fromkeys((*LOCAL_HOSTS, *reached_at(config), *hosts)))
    if isinstance(config, CenterConfig):
        return Member(name=name, kind=kind, public_key=key.public, until_s=until_s, hosts=hosts)
    return Member(
        name=name,
        kind=kind,
        public_key=key.public,
        until_s=until_s,
        roles=config.roles,
        owner=config.owner,
        jurisdiction=config.jurisdiction,
        hosts=hosts,
    )


def _covers(known: Member, own: Member) -> bool:
    same = (known.owner, known.jurisdiction) == (own.owner, own.jurisdiction)
    return same and set(own.roles) <= set(known.roles)

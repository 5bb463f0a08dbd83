"""Commands with which people mend what is found, so that they run as they are shown.

Words in capitals stand for what only the reader knows, such as FOLDER, the operator's.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from daitn.center.config import CenterConfig
from daitn.identity.network import inviting
from daitn.node.config import NodeConfig
from daitn.objects.roster import Kind

__all__ = ["admit", "invite", "join", "kind_and_name", "member_again", "renew"]


def kind_and_name(config: CenterConfig | NodeConfig) -> tuple[Kind, str]:
    """What the roster calls a process."""
    if isinstance(config, NodeConfig):
        return Kind.SITE, config.site
    return Kind.CENTER, config.name


def invite(config: CenterConfig | NodeConfig) -> str:
    """The operator's invitation of a process, with the rights of its file."""
    command = inviting(*kind_and_name(config))
    if isinstance(config, CenterConfig):
        return f"`{command}`"
    roles = " ".join(f"--role {role}" for role in config.roles)
    owner = shlex.quote(config.owner)
    return f"`{command} {roles} --owner {owner} --jurisdiction {config.jurisdiction}`"


def join(config: CenterConfig | NodeConfig) -> str:
    """How a process answers its invitation."""
    return f"`daitn network join INVITATION --to {shlex.quote(config.state)}`"


def admit(file: str, *, replace: bool = False) -> str:
    """How an operator admits the processes of a file on the operator's own machine, or a request.

    `replace`: also with another key than before.
    """
    return f"`daitn network admit {file}{' --replace' if replace else ''}`"


def member_again(config: CenterConfig | NodeConfig, file: Path, *, replace: bool = False) -> str:
    """How a process becomes a member, or one with other rights. `replace`: see `admit`."""
    return (
        f"on the operator's machine: {admit(shlex.quote(str(file)), replace=replace)}; on another "
        f"one: the operator invites it, {invite(config)}, it answers with {join(config)}, and its "
        f"request is admitted with {admit('REQUEST', replace=replace)}"
    )


def renew(config: CenterConfig | NodeConfig) -> str:
    """The operator's extension of a membership."""
    kind, name = kind_and_name(config)
    return f"`daitn network renew {kind} {name}`"

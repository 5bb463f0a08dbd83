"""The sandbox of a site's recipes: its file's demands, checked against the machine."""

from __future__ import annotations

import logging

from daitn.learning.sandbox.policy import Available, Mechanism
from daitn.learning.sandbox.probe import available
from daitn.node.config import SandboxConfig
from daitn.objects.errors import InvalidInput

__all__ = ["SANDBOX_FIXES", "check_sandbox"]

log = logging.getLogger(__name__)

SANDBOX_FIXES = {
    Mechanism.NAMESPACES: "let its user make user namespaces (`sysctl user.max_user_namespaces`, "
    "`sysctl kernel.apparmor_restrict_unprivileged_userns`, or the container's seccomp profile)",
    Mechanism.LANDLOCK: "use Linux 5.13 or later, with `landlock` among the `lsm=` of its command "
    "line",
    Mechanism.SECCOMP: "use Linux with seccomp filters on x86-64 or 64-bit ARM",
    Mechanism.LIMITS: "use Linux",
}


async def check_sandbox(config: SandboxConfig) -> Available:
    """The sandbox of recipes here. Raises `InvalidInput` if the file demands more."""
    found = await available()
    for position, mechanism in enumerate(config.required):
        if mechanism not in found.mechanisms:
            raise InvalidInput(
                f"{mechanism} does not work on this machine (what works: {found})",
                field=f"sandbox.required[{position}]",
                fix=f"{SANDBOX_FIXES[mechanism]}; or do not require it",
            )
    missing = [str(mechanism) for mechanism in Mechanism if mechanism not in found.mechanisms]
    log.log(
        logging.WARNING if missing else logging.INFO,
        "sandbox: %s%s",
        found,
        f"; missing: {', '.join(missing)}" if missing else "",
    )
    return found

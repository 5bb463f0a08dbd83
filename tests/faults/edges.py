"""What stands in for the world beyond the processes of a run, at their edges."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import random
import shutil
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

from daitn.center import jobs as center_jobs
from daitn.center import service as center_service
from daitn.identity import dsse as dsse_module
from daitn.identity import envelopes as envelopes_module
from daitn.identity import keys as identity_keys
from daitn.identity.keys import SigningKey
from daitn.learning import memory as memory_size_module
from daitn.learning import trainer as trainer_module
from daitn.learning.answering import host as host_module
from daitn.learning.child.outside import ChildProcess
from daitn.node import descriptor as descriptor_module
from daitn.node import node as node_module
from daitn.node import roles as roles_module
from daitn.node.forwarder import protection as protection_module
from daitn.node.forwarder import role as forwarder_module
from daitn.node.serving import facility as facility_module
from daitn.node.training import sums as sums_module
from daitn.node.verifier import probing as probing_module
from daitn.objects.errors import Corrupt
from daitn.tools.fabric import memory as memory_module
from daitn.tools.fabric.patterns import covers
from daitn.tools.http import server as server_module
from daitn.tools.sensing import estimates as estimates_module
from daitn.tools.sensing import sensing as sensing_module
from tests.faults.disks import full_disks
from tests.faults.standing_by import shared
from tests.faults.world import SENSED_EVERY_S, World

__all__ = ["edges"]


def _sign(key: SigningKey, message: bytes) -> bytes:
    return hashlib.blake2b(message, key=key.public_raw).digest()


def _check(public: bytes, signature: bytes, message: bytes) -> None:
    if hashlib.blake2b(message, key=public).digest() != signature:
        raise Corrupt("signature does not match", field="signature")


async def _main_loop(server: Any) -> None:
    """uvicorn's, which looks less often whether it is to end."""
    while not await server.on_tick(0):  # noqa: ASYNC110 - as the real one does.
        await asyncio.sleep(1.0)


@contextlib.contextmanager
def edges(world: World) -> Iterator[None]:
    """What stands in for the world beyond the processes."""
    machine_rng = random.Random(world.rng.random())
    asking = random.Random(world.rng.random())

    async def no_sandbox(*_: object) -> tuple[()]:
        return ()

    machine = SimpleNamespace(
        cpu_percent=lambda: 100.0 * machine_rng.random(),
        disk_usage=lambda folder: SimpleNamespace(free=10**11),
    )
    real_random = SimpleNamespace(Random=lambda *seed: random.Random(*(seed or (asking.random(),))))
    defaults: Any = sensing_module.Sensing.__init__.__kwdefaults__
    with contextlib.ExitStack() as stack:
        for owner, name, value in (
            (center_service, "SqlJournal", world.database.connect),
            (center_jobs, "TICK_S", 0.25),
            (memory_module, "covers", functools.lru_cache(1 << 16)(covers)),
            (ChildProcess, "start", world.lab.start_worker()),
            (trainer_module, "fences", no_sandbox),
            (host_module, "fences", no_sandbox),
            (node_module, "check_sandbox", no_sandbox),
            (descriptor_module, "installed", lambda: ("toy",)),
            (roles_module, "random", real_random),
            (sensing_module, "psutil", machine),
            (facility_module, "POLL_INTERVAL_S", 1.0),
            (forwarder_module, "OFFERED_EVERY_S", 1.0),
            (server_module._Uvicorn, "main_loop", _main_loop),
            (memory_size_module, "free_bytes", lambda: 2**36),
            (sums_module, "_PHASE_WITHIN_S", 8.0),
            (probing_module, "PROBES", 10),
            (sensing_module, "ECHOES", 1),
            (estimates_module, "PROBE_MOST_BYTES", 256 * 1024),
            (sensing_module, "PROBE_MOST_BYTES", 256 * 1024),
            (SigningKey, "sign_raw", _sign),
            (identity_keys, "check_raw_signature", _check),
            (dsse_module, "check_raw_signature", _check),
            (envelopes_module, "check_raw_signature", _check),
            (protection_module, "check_raw_signature", _check),
            (shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**11)),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        faster = {"period_s": SENSED_EVERY_S, "elapsed_s": world.loop.time}
        stack.enter_context(mock.patch.dict(defaults, faster))
        stack.enter_context(full_disks())
        stack.enter_context(shared(world.database))
        stack.enter_context(world.ports.in_use())
        stack.enter_context(world.wires.in_use())
        yield

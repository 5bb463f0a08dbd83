"""Where metrics are, and what Prometheus is told of it."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import aiohttp

from daitn.files.state_folder import ProcessState
from daitn.oam.monitoring.exposition import MetricsServer
from daitn.tools.monitoring.config import MetricsConfig


async def test_metrics_at_all_addresses_are_told_by_the_machine_s_name(tmp_path: Path) -> None:
    """As in a container, whose own loopback address nobody else reaches."""
    config = MetricsConfig(listen="0.0.0.0:0")
    server = MetricsServer(
        config, (), kind="center", site="center", state=tmp_path, tls="", usual="127.0.0.1:0"
    )
    await server.start()
    (told,) = json.loads((tmp_path / ProcessState.TARGETS).read_bytes())
    (target,) = told["targets"]
    host, _, port = target.rpartition(":")
    assert host == socket.gethostname()
    assert server.url == f"http://{target}/metrics"
    url = f"http://127.0.0.1:{port}/metrics"
    async with aiohttp.ClientSession() as http, http.get(url) as reply:
        assert "daitn_build_info" in await reply.text()
    await server.close()

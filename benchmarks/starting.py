"""What starting a network on one machine takes: from templates, and with separate processes.

    python -m benchmarks.starting --sites 12 --rounds 3 --json

Both methods start the same network in turns: a control centre, a verifier, and sites with data. The
time ends when the control centre knows every node. CPU time and memory are those of all processes
together, memory as proportional set size (PSS), which counts shared pages once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import psutil
import yaml
from tests.scenes.breast_cancer import write_network

from daitn.cli import starting
from daitn.cli.embedded import EmbeddedNetwork

WAYS = ("templates", "anew")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sites", type=int, default=12, help="sites with data")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each method")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--once", choices=WAYS, help="start one network this way, print its figures"
    )
    options = parser.parse_args()
    if options.once:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measured(written(Path(folder), options.sites), options.once)))
        return
    seen: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way in WAYS:
            # Templates end with the process that started them: each network has new ones.
            command = (sys.executable, "-m", __spec__.name, "--once", way)
            once = subprocess.run(
                (*command, "--sites", str(options.sites)), check=True, stdout=subprocess.PIPE
            )
            seen[way].append(json.loads(once.stdout))
    result = {
        way: {name: statistics.median(one[name] for one in seen[way]) for name in seen[way][0]}
        for way in WAYS
    }
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for way, medians in result.items():
        print(f"{way:10}", "  ".join(f"{name} {value:.1f}" for name, value in medians.items()))


def written(folder: Path, sites: int) -> Path:
    """A network file: the scene's first site with data, so many times."""
    path = write_network(folder)
    plain = yaml.safe_load(path.read_text())
    first, verifier = plain["nodes"][0], plain["nodes"][-1]
    copies = [
        {**first, "site": f"site-{number}", "state": f"state/site-{number}"}
        for number in range(sites)
    ]
    plain["nodes"] = [*copies, verifier]
    path.write_text(yaml.safe_dump(plain))
    return path


def measured(network_file: Path, way: str) -> dict[str, float]:
    """Start the network, and look at it."""
    network = EmbeddedNetwork(network_file, network_file.parent / "logs")
    began_s = time.monotonic()
    try:
        with patch.object(starting, "SUPPORTED", way == "templates"):
            asyncio.run(network.start(lambda site, done, of: None))
        seconds = time.monotonic() - began_s
        used_s, memory = 0.0, 0
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                used_s += times.user + times.system + times.children_user + times.children_system
                memory += process.memory_full_info().pss
    finally:
        network.stop()
    return {"seconds": seconds, "processor s": used_s, "MB": memory / 1e6}


if __name__ == "__main__":
    main()

"""A holder process for `benchmarks.transfer`: SITE FOLDER SIZE_BYTES.

Prints its endpoint and its model's digest, and serves until its input ends.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
import tempfile
from pathlib import Path

import zenoh

from daitn.objects.identifiers import Digest, SiteId
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.zenoh import open_zenoh
from daitn.tools.mobility.disk import DiskBlobStore
from daitn.tools.mobility.manifests import chunk_sizes
from daitn.tools.mobility.server import ChunkServer

RAW_KEY = "benchmark/raw"


def pack(store: DiskBlobStore, size_bytes: int) -> Digest:
    """A model of random bytes, the same in every holder."""
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "weights.safetensors"
        rng = random.Random(1)
        with part.open("wb") as file:
            for _ in range(size_bytes >> 20):
                file.write(rng.randbytes(1 << 20))
        digest, _ = store.pack("benchmark", Path(folder))
    return digest


def serve_raw(endpoint: str, store: DiskBlobStore, digest: Digest) -> zenoh.Session:
    """Chunks from memory, by a plain Zenoh queryable."""
    chunks = {chunk: store.read(chunk) for chunk in chunk_sizes(store.manifest(digest))}
    config = zenoh.Config()
    config.insert_json5("scouting/multicast/enabled", "false")
    # As on the fabric: sites share no memory.
    config.insert_json5("transport/shared_memory/enabled", "false")
    config.insert_json5("listen/endpoints", json.dumps([endpoint]))
    session = zenoh.open(config)

    def asked(query: zenoh.Query) -> None:
        assert query.payload is not None
        with query:
            query.reply(RAW_KEY, chunks[Digest(query.payload.to_string())])

    session.declare_queryable(RAW_KEY, zenoh.handlers.Callback(asked, indirect=False))
    return session


async def run(site: str, folder: Path, size_bytes: int) -> None:
    store = DiskBlobStore(folder)
    digest = pack(store, size_bytes)
    fabric = await open_zenoh(FabricSettings(listen=("tcp/127.0.0.1:0",)))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        raw_endpoint = f"tcp/127.0.0.1:{probe.getsockname()[1]}"
    raw = serve_raw(raw_endpoint, store, digest)
    server = ChunkServer(fabric, SiteId(site), store)
    await server.start()
    print(fabric.endpoints[0], raw_endpoint, digest, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.close()
    await fabric.close()
    raw.close()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))

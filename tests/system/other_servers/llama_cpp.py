"""llama.cpp's own HTTP server, which the package `xllamacpp` has in it, as a process.

python llama_cpp.py [--embeddings] MODEL PORT
"""

from __future__ import annotations

import signal
import sys

import xllamacpp


def main(*options: str, model: str, port: str) -> None:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = model
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = int(port)
    parameters.cpuparams.n_threads = 1
    if "--embeddings" in options:
        parameters.embedding = True
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(parameters)
    print(f"listens at {server.listening_address}", flush=True)
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:-2], model=sys.argv[-2], port=sys.argv[-1])

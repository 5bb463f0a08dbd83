"""What the tests have templates start: it does what its arguments say."""

import json
import os
import signal
import sys
import time

started_in = os.getpid()
"""The process that imported this module."""


def main() -> None:
    doing, *rest = sys.argv[1:]
    if doing == "tell":
        told = {
            "pid": os.getpid(),
            "imported in": started_in,
            "arguments": rest,
            "environment": dict(os.environ),
            "folder": os.getcwd(),
            "session": os.getsid(0),
            "files": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1],
        }
        print(json.dumps(told))
    elif doing == "echo":
        print(sys.stdin.readline().upper(), end="", flush=True)
        print("some words", file=sys.stderr)
    elif doing == "leave":
        sys.exit(int(rest[0]))
    elif doing == "fail":
        raise RuntimeError("it failed")
    elif doing == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif doing == "stay":
        print(os.getpid(), flush=True)
        time.sleep(600.0)

"""The process that `fuzz.py` starts: libFuzzer, given its own arguments.

It is a process of its own because libFuzzer ends the one that it runs in, and because modules have
to be instrumented as they are imported.
"""

from __future__ import annotations

import importlib
import random
import re
import struct
import sys
from typing import Any
from zlib import crc32

import msgspec

MOST_BYTES = 1024

_SIZES = struct.Struct("!HHI")
_SIZES_AT, _PACKET_HEAD = 40, 48
_ODD: tuple[Any, ...] = (
    None, True, -1, 0, 2, 3, 64, 65, 65_536, 2**53, 2**63, 2**64 - 1, -0.0, 1.5, 1e300,
    float("inf"), float("nan"), "", "a" * 201, "é", b"\xff", [], [[]], {}, {"a": 1.0}, {1: 1},
)  # fmt: skip


atheris: Any = importlib.import_module("atheris")
with atheris.instrument_imports(include=["daitn.steering.wire"]):
    from tests.steering.wire.oracle import examine, split


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Another input, like this one; half of them with its structure kept, to get behind it."""
    if len(data) < 2 or rng.random() < 0.5:
        return bytes(atheris.Mutate(data, MOST_BYTES))
    form, wire = split(data)
    return data[:1] + (_packet if form == "packet" else _array)(wire, rng)


def _packet(wire: bytes, rng: random.Random) -> bytes:
    """One part of a packet changed, and the lengths in the header made right."""
    if len(wire) < _PACKET_HEAD:
        return wire
    intent, trace, _ = _SIZES.unpack_from(wire, _SIZES_AT)
    cuts = (_PACKET_HEAD, _PACKET_HEAD + intent, _PACKET_HEAD + intent + trace)
    seal = 96 if wire[5] & 2 else 0
    body_end = max(cuts[-1], len(wire) - seal)
    parts = [wire[cuts[0] : cuts[1]], wire[cuts[1] : cuts[2]], wire[cuts[2] : body_end]]
    chosen = rng.randrange(5)
    head = bytes(wire[:_SIZES_AT])
    if chosen == 4:
        parts[1] += _hop(rng)
    elif chosen == 3:
        head = bytes(atheris.Mutate(head, _SIZES_AT)).ljust(_SIZES_AT, b"\0")
    else:
        parts[chosen] = bytes(atheris.Mutate(parts[chosen], 300))
    seal = 96 if head[5] & 2 else 0
    sizes = _SIZES.pack(*map(len, parts))
    return head + sizes + b"".join(parts) + wire[body_end:].ljust(seal, b"\0")[:seal]


def _hop(rng: random.Random) -> bytes:
    """An entry of a trace, or nearly."""
    site = rng.choice((b"here", b"here-too", b"not-here", b"a", b"A", b"\xff", b""))
    size = len(site) + (rng.randrange(-1, 2) if site and rng.random() < 0.2 else 0)
    return bytes([size, *rng.randbytes(4), rng.randrange(5)]) + site


def _array(wire: bytes, rng: random.Random) -> bytes:
    """One element of a MessagePack array, at any depth, replaced, repeated or dropped."""
    try:
        root = msgspec.msgpack.decode(wire)
    except (ValueError, RecursionError):
        return bytes(atheris.Mutate(wire, MOST_BYTES))
    at = root
    while isinstance(at, list) and at:
        index = rng.randrange(len(at))
        if not isinstance(at[index], list) or rng.random() < 0.3:
            match rng.randrange(6):
                case 0:
                    del at[index]
                case 1:
                    at.insert(index, at[index])
                case 2:
                    at.append(rng.choice(_ODD))
                case _:
                    at[index] = rng.choice(_ODD)
            break
        at = at[index]
    return msgspec.msgpack.encode(root)[:MOST_BYTES]


def main() -> None:
    # The decoders of MessagePack are C, which is not instrumented. What comes of an input stands
    # for the way that it took through them, as a function of its own.
    ways = [atheris.instrument_func(eval(f"lambda: {number}")) for number in range(4096)]

    def one(data: bytes) -> None:
        if data:
            came = re.sub(r"0x[0-9a-f]+|\d+", "#", examine(*split(data)))
            ways[crc32(came.encode()) % len(ways)]()

    def mutator(data: bytes, most: int, seed: int) -> bytes:
        return mutated(data, random.Random(seed))[:most]

    # libFuzzer starts itself anew to merge, by the name that it is given.
    name = f"{sys.executable} -m tests.steering.wire.fuzz_target"
    atheris.Setup([name, *sys.argv[1:]], one, custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

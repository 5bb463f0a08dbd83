"""`docs/reference/aats-wire.md` says what the code does, beyond the tables made from it."""

from __future__ import annotations

import itertools
import re
import struct
from pathlib import Path

import msgspec

from daitn.identity import sealing
from daitn.steering.wire import packet
from daitn.steering.wire.intent import Capability

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "aats-wire.md"
TEXT = DOCUMENT.read_text()


def _table(after: str, header: str) -> list[list[str]]:
    """Cells of the first table with this header behind a piece of text, backquotes apart."""
    text = TEXT[TEXT.index(after) :]
    lines = text[text.index(header) :].splitlines()[2:]
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines)
    return [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in rows]


def _sizes(layout: struct.Struct) -> list[int]:
    fields = re.findall(r"\d+s|[A-Z]", layout.format)
    return [struct.calcsize("!" + field) for field in fields]


def _offsets(sizes: list[int]) -> list[int]:
    return [sum(sizes[:index]) for index in range(len(sizes))]


def test_the_header_is_laid_out_as_it_is_said() -> None:
    rows = _table("The header has these fields.", "| offset |")
    sizes = _sizes(packet._HEADER)
    assert [int(row[1]) for row in rows] == sizes
    assert [int(row[0]) for row in rows] == _offsets(sizes)
    assert sum(sizes) == packet.HEADER_BYTES
    fields = [*packet.Packet.__struct_fields__, "magic", "version"]
    fields += [f"{part}_size" for part in ("intent", "trace", "payload")]
    apart = {"intent", "trace", "payload", "seal"}
    assert sorted(row[2] for row in rows) == sorted(set(fields) - apart)
    assert rows[0][4] == f"{packet.MAGIC:#x}"
    assert rows[1][4] == str(packet.VERSION)


def test_what_is_mutable_is_what_no_signature_covers() -> None:
    one = packet.Packet(packet.PacketKind.QUERY, bytes(16), b"intent", hop_limit=9)
    signed = one.signed_bytes()
    again = msgspec.structs.replace(one, attempt=1)
    passed = again.stepped("ninds", 1, packet.Action.FORWARDED, 7)
    before, after = packet.encode_packet(one), packet.encode_packet(passed)
    for offset, size, name, mutable, _ in _table("The header has these fields.", "| offset |"):
        place = slice(int(offset), int(offset) + int(size))
        assert (before[place] != after[place]) == (mutable == "yes"), name
        if mutable == "yes":
            assert not any(signed[place]), name


def test_a_trace_is_laid_out_as_it_is_said() -> None:
    rows = _table("### Trace", "| offset |")
    sizes = _sizes(packet._HOP)
    assert [int(row[0]) for row in rows] == [*_offsets(sizes), packet._HOP.size]
    assert [int(row[1]) for row in rows[:-1]] == sizes


def test_the_documented_lengths_of_packet_parts_match_the_code() -> None:
    parts = {row[2]: row[1] for row in _table("## Packet", "| offset |")}
    assert parts["header"] == str(packet.HEADER_BYTES)
    assert parts["seal"] == f"{packet.SEAL_BYTES} if `SIGNED`, else 0"


def test_sealing_is_what_it_is_said_to_be() -> None:
    assert f"is {sealing.SEALING_BYTES} bytes longer" in TEXT
    assert f"`{sealing.INFO.decode()}` (ASCII)" in TEXT
    rows = _table("## Sealing", "| offset |")
    sizes = [sealing._ID, sealing._PUBLIC]
    assert [int(row[1]) for row in rows[:-1]] == sizes
    assert [int(row[0]) for row in rows] == _offsets([*sizes, sealing._TAG])
    assert rows[-1][1] == f"{sealing._TAG} more than was sealed"


def test_capabilities_are_those_of_the_code() -> None:
    said = _table("### Intent", "| | field |")[0][4]
    kinds = {value for name, value in vars(Capability).items() if name.isupper()}
    assert set(re.findall(r"[a-z]+", said.replace("or", ""))) == kinds

from __future__ import annotations

import stat
import tracemalloc
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.identity.keys import SigningKey, check_signature, check_signature_once
from daitn.identity.signing import read_advert, sign_advert
from daitn.objects.cordons import Cordon
from daitn.objects.descriptors import (
    ComputeDescriptor,
    DataPolicy,
    DatasetDescriptor,
    NodeDescriptor,
    Role,
)
from daitn.objects.errors import Corrupt, InvalidInput
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.wire import canonical, encode

KEY = SigningKey.generate()


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_a_signature_holds_for_its_message_alone(message: bytes, other: bytes) -> None:
    signature = KEY.sign(message)
    check_signature(KEY.public, signature, message)
    if other != message:
        with pytest.raises(Corrupt):
            check_signature(KEY.public, signature, other)


@given(st.text(max_size=20), st.text(max_size=20))
def test_garbage_is_no_signature(public: str, signature: str) -> None:
    with pytest.raises(Corrupt):
        check_signature(public, signature, b"x")


def test_what_was_checked_once_is_known_again_and_takes_no_memory() -> None:
    """Anyone who signs an entry decides how long it is, and all sites check it."""
    tracemalloc.start()
    try:
        for number in range(20):
            message = bytes([number]) * (1 << 20)
            signature = KEY.sign(message)
            for _ in range(2):
                check_signature_once(KEY.public, signature, message)
                with pytest.raises(Corrupt):
                    check_signature_once(KEY.public, signature, message[1:])
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 3 << 20


def test_a_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "state" / "key"
    first = SigningKey.at(path)
    assert SigningKey.at(path).public == first.public
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_key_is_told_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"not a key")
    with pytest.raises(InvalidInput, match="no Ed25519 key"):
        SigningKey.at(path)
    assert path.read_bytes() == b"not a key"


NOTES = DatasetDescriptor(
    name="notes", site=SiteId("ghr"), data_schema="qa-pairs/1", modality="text", topics=("a",),
    samples=9, labels={"b": 5, "a": 4}, quality=1.0, fresh_at_s=1.0, jurisdiction="US",
    policy=DataPolicy(recipes=("*",)),
)  # fmt: skip
GHR = NodeDescriptor(
    site=SiteId("ghr"), owner=OwnerId("nih"), roles=(Role.DATA,), jurisdiction="US",
    public_key=KEY.public, started_at_s=1.0, version=1, software="test", datasets=(NOTES,),
)  # fmt: skip


def test_an_advert_of_an_earlier_version_is_read() -> None:
    """It named no cordon, and was sent in another order than it was signed."""
    plain = msgspec.to_builtins(GHR)
    assert "cordon" not in plain
    sent = {"descriptor": GHR, "signature": KEY.sign(canonical(GHR))}
    assert encode(sent) != canonical(sent)
    assert read_advert(encode(sent)) == GHR


def test_an_advert_of_a_later_version_is_read_and_says_more() -> None:
    later = {**msgspec.to_builtins(GHR), "of_tomorrow": {"b": 1, "a": 2}}
    sent = {"descriptor": later, "signature": KEY.sign(canonical(later))}
    assert read_advert(canonical(sent)) == GHR
    other = {**sent, "descriptor": {**later, "of_tomorrow": {}}}
    with pytest.raises(Corrupt):
        read_advert(canonical(other))


def test_an_advert_names_a_price_of_computing_only_where_there_is_one() -> None:
    """Earlier versions sign and check what they know of it."""
    free = ComputeDescriptor(device="cpu", memory_bytes=1, speed_flops=1.0, recipes=("*",))
    for one in (free, msgspec.structs.replace(free, price_usd_per_hour=float("0"))):
        sent = msgspec.msgpack.decode(canonical(one))
        assert set(sent) == {"device", "memory_bytes", "speed_flops", "recipes"}
    for price in (0.0, 1.5):
        compute = msgspec.structs.replace(free, price_usd_per_hour=price)
        descriptor = msgspec.structs.replace(GHR, compute=compute)
        assert read_advert(canonical(sign_advert(descriptor, KEY))) == descriptor


def test_an_advert_cannot_be_changed_on_its_way() -> None:
    cordon = Cordon(by="ops", since_s=1.0, reason="new disks")
    descriptor = msgspec.structs.replace(GHR, cordon=cordon)
    advert = sign_advert(descriptor, KEY)
    assert read_advert(canonical(advert)) == descriptor
    changed = msgspec.structs.replace(descriptor, jurisdiction="EU")
    with pytest.raises(Corrupt):
        read_advert(canonical(msgspec.structs.replace(advert, descriptor=changed)))

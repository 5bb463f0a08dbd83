"""Certificates are renewed, and whoever was away too long enters with its membership."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from daitn.identity.certificates import CERTIFICATE, MEMBERSHIP, fall_back, has_entered
from daitn.objects.errors import Refused
from daitn.tools import clock
from daitn.tools.certificates import CertificateRenewal, is_due
from tests.scenes.certificates import certified_member
from tests.scenes.waiting import until


def test_an_ended_certificate_gives_way_to_the_membership(tmp_path: Path) -> None:
    certified_member(tmp_path / "a", tmp_path / "authority", lasts_s=100.0)
    now_s = clock.wall_s()
    fall_back(tmp_path / "a", now_s + 99)
    assert has_entered(tmp_path / "a")
    assert not is_due(tmp_path / "a")
    fall_back(tmp_path / "a", now_s + 101)
    assert not has_entered(tmp_path / "a")
    assert (tmp_path / "a" / CERTIFICATE).read_bytes() == (tmp_path / "a" / MEMBERSHIP).read_bytes()
    assert is_due(tmp_path / "a")
    fall_back(tmp_path / "nowhere", now_s)


def test_so_does_a_damaged_one(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    certified_member(folder, tmp_path / "authority")
    membership = (folder / MEMBERSHIP).read_bytes()
    for damage in (b"", b"nothing"):
        (folder / CERTIFICATE).write_bytes(damage)
        assert is_due(folder)
        assert (folder / CERTIFICATE).read_bytes() == membership
    for name in (CERTIFICATE, MEMBERSHIP):
        (folder / name).write_bytes(b"nothing")
    assert is_due(folder), "connecting names the file"
    assert (folder / CERTIFICATE).read_bytes() == b"nothing"


async def test_a_renewal_that_brings_nothing_new_pauses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A control centre whose roster has expired certifies nobody, itself included."""
    folder = tmp_path / "a"
    certified_member(folder, tmp_path / "authority", lasts_s=-3600.0)
    renewed: list[float] = []

    async def renew() -> None:
        renewed.append(clock.wall_s())
        if len(renewed) > 1:
            raise asyncio.CancelledError  # It would go on for ever, and nothing else would.

    with caplog.at_level(logging.INFO):
        renewal = CertificateRenewal(folder, renew, lambda: None)
        renewal.start()
        await until(lambda: renewed)
        for _ in range(10):
            await asyncio.sleep(0)
        await renewal.close()
    assert len(renewed) == 1
    assert "nobody renewed" in caplog.text
    assert "the certificate was renewed" not in caplog.text


async def test_who_is_refused_asks_again_and_then_makes_its_links_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "a"
    certified_member(folder, tmp_path / "authority", lasts_s=-3600.0)
    renewed: list[float] = []
    entered: list[float] = []

    async def renew() -> None:
        renewed.append(clock.wall_s())
        if len(renewed) == 1:
            raise Refused("not yet a member")
        certified_member(folder, tmp_path / "authority", lasts_s=3600.0)

    with caplog.at_level(logging.INFO):
        renewal = CertificateRenewal(folder, renew, lambda: entered.append(clock.wall_s()))
        renewal.start()
        await until(lambda: entered)
        await renewal.close()
    assert len(renewed) == 2
    assert not is_due(folder)
    assert caplog.text.count("not yet a member") == 1
    assert caplog.text.count("restart it") == 1, "the membership ends tomorrow"


async def test_who_is_refused_again_and_again_asks_less_and_less_often(
    tmp_path: Path,
) -> None:
    """A revoked member asked each second, for ever."""
    folder = tmp_path / "a"
    certified_member(folder, tmp_path / "authority", lasts_s=-3600.0)
    pauses_s: list[float] = []
    done = asyncio.Event()

    async def renew() -> None:
        raise Refused("no member")

    async def pause(after_s: float) -> None:
        pauses_s.append(after_s)
        if len(pauses_s) == 9:
            done.set()
            await asyncio.Event().wait()

    renewal = CertificateRenewal(folder, renew, lambda: None, pause=pause)
    renewal.start()
    await done.wait()
    await renewal.close()
    assert pauses_s == [1, 2, 4, 8, 16, 30, 30, 30, 30]

"""Guides of networks with several owners, done by a reader."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.reader import ENCRYPTED_WALK, JOINED_WALK, KEPT_WALK, STANDBY_WALK, walk
from tests.scenes.postgres import postgres_server


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_a_reader_encrypts_the_network(tmp_path: Path) -> None:
    told = walk(ENCRYPTED_WALK, tmp_path)
    assert re.search(r"lab +alive", told)
    assert "exit code 2" in told
    assert "not encrypted" in told


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_a_reader_keeps_a_network_running(tmp_path: Path) -> None:
    told = walk(KEPT_WALK, tmp_path)
    assert re.search(r"hub +alive, cordoned", told)
    assert "door is empty and safe to stop" in told
    assert "control centre center is restored" in told
    assert told.count("0 problems") == 3


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_reader_lets_a_control_centre_stand_by(tmp_path: Path) -> None:
    with postgres_server() as server:
        there = {"postgresql+psycopg://daitn@db.example.org/daitn": server.database()}
        told = walk(STANDBY_WALK, tmp_path, there)
    # The first, unless it had no processor for four seconds.
    (leads,) = re.findall(r"(first|second) +leads ", told)
    (stands_by,) = re.findall(r"(first|second) +stands by ", told)
    assert leads != stands_by
    assert "0 problems" in told


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_reader_founds_a_network_and_a_hospital_joins_it(tmp_path: Path) -> None:
    told = walk(JOINED_WALK, tmp_path)
    fingerprints = re.findall(r"fingerprint\s+([0-9a-f]{16})", told)
    assert len(fingerprints) == 2
    assert len(set(fingerprints)) == 1
    assert re.search(r"site +north +data, compute +north-hospital +CA +\S+ +yes", told)
    assert "metals-1  reached" in told
    assert "site north is revoked" in told
    assert not re.search(r"site +north ", told.partition("site north is revoked")[2])

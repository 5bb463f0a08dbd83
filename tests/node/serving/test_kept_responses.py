"""What a facility keeps of responses: whose, how many, how long, and over what."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import aiohttp
import pytest

from daitn.node.serving.kept_responses import StoredResponses
from daitn.openai.conversation import response_id
from daitn.openai.errors import ApiError
from daitn.tools import clock
from daitn.tools.fabric.memory import MemoryNetwork
from tests.node.serving.scene import HEADERS, Site

DAY_S = 86400.0
BODY = json.dumps({"input": [], "response": {"output": []}}).encode()


def kept(folder: Path, most: int = 100, most_bytes: int = 1 << 20) -> StoredResponses:
    return StoredResponses(folder, most, most_bytes, 30 * DAY_S)


def id_of(number: int) -> str:
    return response_id("mdf", number.to_bytes(16, "big"))


async def found(keeper: StoredResponses, owner: str, count: int) -> list[int]:
    numbers = []
    for number in range(count):
        try:
            await keeper.get(owner, id_of(number))
            numbers.append(number)
        except ApiError as error:
            assert error.status == 404
    return numbers


async def test_a_restart_loses_nothing_and_files_tell_nothing(tmp_path: Path) -> None:
    await kept(tmp_path).put("ada", id_of(1), BODY)
    again = kept(tmp_path)
    assert await again.get("ada", id_of(1)) == BODY
    for owner in ("", "eve", "ada "):
        with pytest.raises(ApiError, match="no response"):
            await again.get(owner, id_of(1))
        with pytest.raises(ApiError, match="no response"):
            await again.delete(owner, id_of(1))
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert "ada" not in file.name
    assert id_of(1) not in file.name
    await again.delete("ada", id_of(1))
    assert not [*tmp_path.iterdir()]
    assert await found(kept(tmp_path), "ada", 2) == []


async def test_what_is_kept_never_changes(tmp_path: Path) -> None:
    keeper = kept(tmp_path)
    for _ in range(2):
        await keeper.put("ada", id_of(1), BODY)
    with pytest.raises(ApiError) as refused:
        await keeper.put("ada", id_of(1), BODY + b" ")
    assert refused.value.status == 409
    assert await keeper.get("ada", id_of(1)) == BODY


async def test_the_oldest_go_of_the_owner_who_has_most(tmp_path: Path) -> None:
    keeper = kept(tmp_path, most=4)
    await keeper.put("ada", id_of(0), BODY)
    for number in range(1, 8):
        await keeper.put("eve", id_of(number), BODY)
    assert await found(keeper, "ada", 8) == [0]
    assert await found(keeper, "eve", 8) == [5, 6, 7]
    assert len([*tmp_path.iterdir()]) == 4


async def test_bytes_are_bounded_too_and_after_a_restart(tmp_path: Path) -> None:
    keeper = kept(tmp_path, most_bytes=10_000)
    await keeper.put("ada", id_of(0), BODY)
    for number in range(1, 5):
        await keeper.put("eve", id_of(number), b"x" * 4000)
    assert await found(keeper, "ada", 5) == [0]
    assert await found(keeper, "eve", 5) == [3, 4]
    with pytest.raises(ApiError) as refused:
        await keeper.put("eve", id_of(9), b"x" * 10_001)
    assert refused.value.status == 413
    for at, path in enumerate(sorted(tmp_path.iterdir())):
        os.utime(path, (at, clock.wall_s() - 100 + at))
    fewer = kept(tmp_path, most_bytes=5000)
    assert len([*tmp_path.iterdir()]) == 2
    assert await found(fewer, "ada", 5) == [0]
    kept(tmp_path, most=0)
    assert not [*tmp_path.iterdir()]


async def test_what_is_old_goes_at_a_restart(tmp_path: Path) -> None:
    keeper = kept(tmp_path)
    await keeper.put("ada", id_of(0), BODY)
    await keeper.put("ada", id_of(1), BODY)
    old = next(iter(tmp_path.iterdir()))
    os.utime(old, (0, clock.wall_s() - 31 * DAY_S))
    assert len(await found(kept(tmp_path), "ada", 2)) == 1
    assert not old.exists()


async def test_what_the_disk_changed_is_not_there(tmp_path: Path) -> None:
    keeper = kept(tmp_path)
    await keeper.put("ada", id_of(0), BODY)
    next(iter(tmp_path.iterdir())).write_bytes(b"\xc1")
    assert await found(keeper, "ada", 1) == []
    assert not [*tmp_path.iterdir()]
    await keeper.put("ada", id_of(0), BODY)
    assert await found(keeper, "ada", 1) == [0]


async def test_who_asks_at_once_and_goes_leaves_nothing_uncounted(tmp_path: Path) -> None:
    keeper = kept(tmp_path, most=2)
    puts = [asyncio.create_task(keeper.put("ada", id_of(at), BODY)) for at in range(6)]
    await asyncio.sleep(0)
    for put in puts[::2]:
        put.cancel()
    await asyncio.gather(*puts, return_exceptions=True)
    await keeper.put("ada", id_of(7), BODY)
    assert len([*tmp_path.iterdir()]) == len(keeper._store.names()) <= 2


async def test_no_room_on_the_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = kept(tmp_path / "kept")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("daitn.files.items.replace_file", full)
    with pytest.raises(ApiError) as refused:
        await keeper.put("ada", id_of(0), BODY)
    assert refused.value.status == 503
    assert await found(keeper, "ada", 1) == []


async def test_a_facility_keeps_what_its_file_allows(tmp_path: Path) -> None:
    path = f"/v1/responses/{id_of(1)}"
    for keeps, status in ((True, 200), (True, 0), (False, 413)):
        site = Site(MemoryNetwork(), tmp_path, recipes=(), hosts=False, keeps_queries=keeps)
        await site.start()
        try:
            assert site.facility.descriptor().keeps_responses == keeps
            if status:  # Otherwise it is there from before the restart.
                assert (await asked(site, "PUT", path, BODY))[0] == status
            assert (await asked(site, "GET", path))[0] == (200 if keeps else 404)
            assert (await asked(site, "GET", path, owner="eve"))[0] == 404
            assert (await asked(site, "POST", path, BODY))[0] == 405
            for bad in (b"{}", b"[]", b"", b'{"input": [], "response": {}}'):
                assert (await asked(site, "PUT", f"/v1/responses/{id_of(2)}", bad))[0] == 400
            assert (await asked(site, "PUT", "/v1/responses/resp_1", BODY))[0] == 400
            assert (await asked(site, "GET", path, pass_="no"))[0] == 401
        finally:
            await site.close()


async def asked(
    site: Site, method: str, path: str, body: bytes = b"", owner: str = "ada", pass_: str = ""
) -> tuple[int, bytes]:
    headers = {**HEADERS, "daitn-owner": owner, **({"daitn-pass": pass_} if pass_ else {})}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"{site.url}{path}", data=body, headers=headers) as answer,
    ):
        return answer.status, await answer.read()

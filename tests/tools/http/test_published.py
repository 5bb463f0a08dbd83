"""No server publishes an address that nobody can connect to."""

from __future__ import annotations

import pytest

from daitn.objects.errors import InvalidInput
from daitn.tools.http import HttpServer
from tests.tools.http.scene import exchange
from tests.tools.http.test_server import LAST, echo


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", ":::0", "0:0", "0.0:0"])
async def test_an_address_of_all_interfaces_is_not_published(listen: str) -> None:
    http = HttpServer(listen, "gateway.listen", echo)
    with pytest.raises(InvalidInput, match="others cannot connect") as bad:
        await http.start()
    assert bad.value.field == "gateway.advertise"
    assert "http://" in bad.value.fix
    http = HttpServer(listen, "gateway.listen", echo, advertise="https://ai.example.org/")
    await http.start()
    assert http.published == "https://ai.example.org"
    assert (await exchange(http, LAST)).startswith(b"HTTP/1.1 200 ")
    await http.close()


@pytest.mark.parametrize(
    "advertise",
    [
        "ai.example.org",
        "ai.example.org:80",
        "ftp://ai.example.org",
        "http://",
        "http://:80",
        "http://0.0.0.0:80",
        "http://0:80",
        "https://[::]",
        "http://ai.example.org:0",
        "http://ai.example.org:99999",
        "http://ai.example.org:x",
        "http://u:p@ai.example.org",
        "http://ai.example.org?a",
        "http://ai.example.org#a",
        "http://ai example.org",
        "http://::1:80",
    ],
)
async def test_a_url_that_nobody_can_connect_to_is_told_by_its_field(advertise: str) -> None:
    http = HttpServer("127.0.0.1:0", "facility.listen", echo, advertise=advertise)
    with pytest.raises(InvalidInput) as bad:
        await http.start()
    assert bad.value.field == "facility.advertise"


@pytest.mark.parametrize("advertise", ["http://a:80/", "https://[::1]:80", "http://a/daitn//"])
async def test_a_url_is_published_without_slashes_at_its_end(advertise: str) -> None:
    http = HttpServer("127.0.0.1:0", "facility.listen", echo, advertise=advertise)
    await http.start()
    assert http.published == advertise.rstrip("/")
    await http.close()


@pytest.mark.parametrize("listen", ["[::1]:0", "::1:0"])
async def test_an_address_of_six_has_brackets(listen: str) -> None:
    http = HttpServer(listen, "gateway.listen", echo)
    await http.start()
    assert http.published == http.endpoint
    assert http.published.startswith("http://[::1]:")
    assert (await exchange(http, LAST)).startswith(b"HTTP/1.1 200 ")
    await http.close()

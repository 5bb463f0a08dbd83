"""A client of control centres' HTTP API, for programs and notebooks::

    from daitn.client import Client

    with Client("http://127.0.0.1:7448", token) as center:
        for job in center.jobs().items:
            print(job.job, job.sentence)

`AsyncClient` is the same for `asyncio`. Answers are the structs that the network itself uses, and
errors are its `DaitnError`s. Every change is sent with an `Idempotency-Key`, and again if the
connection breaks: it is made once.
"""

from daitn.client.asynchronous import AsyncClient
from daitn.client.events import NetworkEvent
from daitn.client.synchronous import Client
from daitn.client.transport import NotSignedIn

__all__ = ["AsyncClient", "Client", "NetworkEvent", "NotSignedIn"]

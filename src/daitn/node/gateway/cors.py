"""Which web pages may ask: the CORS protocol of the Fetch standard."""

from __future__ import annotations

from collections.abc import Sequence

from daitn.objects.header_names import AnswerHeader
from daitn.tools.http import Request, Response

__all__ = ["Cors"]

PERMISSION_LASTS_S = 7200
"""How long a browser need not ask again. Chromium keeps no permission for longer."""
_READABLE = (
    *(value for name, value in vars(AnswerHeader).items() if name.isupper()),
    "x-request-id",
    "request-id",
    "retry-after",
    "retry-after-ms",
)
"""Headers of an answer that a page's script may read."""


class Cors:
    """Tells browsers which pages' scripts may ask, and read the answers.

    A gateway knows no cookies, so it lets none be sent.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        """`origins`: of the pages, for instance `https://app.example.org`; `*`: all."""
        self._origins = frozenset(origins)

    def admit(self, request: Request) -> Response | None:
        """Say in the head of the response whether the page that asks may read it.

        A response only if its browser asks first what may be sent, and the page is admitted.
        """
        if not self._origins:
            return None
        everybody, origin = "*" in self._origins, request.headers.get("origin")
        if not everybody:
            request.add_header("vary", "origin")
        if origin is None or not (everybody or origin in self._origins):
            return None
        request.add_header("access-control-allow-origin", "*" if everybody else origin)
        if request.method != "OPTIONS":
            request.add_header("access-control-expose-headers", ", ".join(_READABLE))
            return None
        return Response(
            status=204,
            headers={
                "access-control-allow-methods": "GET, POST, DELETE",
                "access-control-allow-headers": _wanted(request),
                "access-control-max-age": str(PERMISSION_LASTS_S),
            },
        )


def _wanted(request: Request) -> str:
    """Headers that a page's script would send; each is as good as any, as none is a cookie."""
    return request.headers.get("access-control-request-headers", "")

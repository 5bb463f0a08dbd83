"""Which web pages may send queries: the CORS protocol of the Fetch standard."""

from __future__ import annotations

from collections.abc import Sequence

from daitn.objects.header_names import AnswerHeader
from daitn.tools.http import Request, Response

__all__ = ["Cors"]

PERMISSION_LASTS_S = 7200
"""How long a browser may cache a permission. Chromium caches none for longer."""
_READABLE = (
    *(value for name, value in vars(AnswerHeader).items() if name.isupper()),
    "x-request-id",
    "request-id",
    "retry-after",
    "retry-after-ms",
)
"""Headers of an answer that a page's script may read."""


class Cors:
    """Tells browsers which pages' scripts may query, and read the answers.

    A gateway knows no cookies, so it lets none be sent.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        """`origins`: those of the pages, for instance `https://app.example.org`; `*` means all."""
        self._origins = frozenset(origins)

    def admit(self, request: Request) -> Response | None:
        """State in the head of the response whether the requesting page may read it.

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
    """Headers that a page's script would send; all are acceptable, as none is a cookie."""
    return request.headers.get("access-control-request-headers", "")

"""Errors as problem details (RFC 9457), and the status of each kind."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import msgspec

from daitn.oam.api.answers import Problem
from daitn.objects.errors import (
    Corrupt,
    DaitnError,
    ErrorReport,
    IllegalTransition,
    Infeasible,
    InvalidInput,
    NotFound,
    Refused,
    StaleAppend,
    StorageFull,
    Unreachable,
    WorkFailed,
)
from daitn.tools.fabric.turns import TooOften
from daitn.tools.http import Response

__all__ = ["STATUSES", "HttpProblem", "problem_of", "problem_response"]

STATUSES: Final[Mapping[type[DaitnError], int]] = {
    InvalidInput: 422,
    NotFound: 404,
    Infeasible: 409,
    TooOften: 429,
    Refused: 403,
    Unreachable: 503,
    Corrupt: 400,
    StorageFull: 507,
    WorkFailed: 422,
    IllegalTransition: 409,
    StaleAppend: 409,
}
"""Status of each error; any other is an internal one, 500."""


class HttpProblem(Exception):
    """A request is not answered, for a reason without a `DaitnError`."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        field: str = "",
        fix: str,
        cause: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.fix = fix
        self.cause = cause
        self.headers = dict(headers or {})


def problem_of(error: DaitnError) -> HttpProblem:
    """An error as shown to the caller: without folders of this machine."""
    report = ErrorReport.of(error)
    status = next((code for kind, code in STATUSES.items() if isinstance(error, kind)), 500)
    wait = {"retry-after": str(error.wait_s)} if isinstance(error, TooOften) else {}
    return HttpProblem(
        status,
        report.code,
        report.problem,
        field=report.field,
        fix=report.fix,
        cause=report.cause,
        headers=wait,
    )


def problem_response(problem: HttpProblem) -> Response:
    """A problem as `application/problem+json`."""
    body = Problem(
        type=f"urn:daitn:problem:{problem.code}",
        title=HTTPStatus(problem.status).phrase,
        status=problem.status,
        detail=problem.detail,
        field=problem.field,
        fix=problem.fix,
        cause=problem.cause,
    )
    headers = {"content-type": "application/problem+json", "cache-control": "no-store"}
    return Response(msgspec.json.encode(body), problem.status, headers | problem.headers)

"""The format of log records: untrusted text can never look like a separate record."""

from __future__ import annotations

import enum
import json
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from daitn.objects.text import hanging
from daitn.tools.monitoring.log_ids import log_ids

__all__ = ["LOG_FORMAT", "JsonLines", "LogFormat", "LogFormatOption", "LogLines", "start_logging"]

LOG_FORMAT = "DAITN_LOG_FORMAT"
"""Environment variable with the form of logs."""


class LogFormat(enum.StrEnum):
    """How a process writes its log."""

    TEXT = "text"
    """For people."""
    JSON = "json"
    """A JSON object per line, for programs."""


LogFormatOption = Annotated[
    LogFormat, typer.Option("--log-format", envvar=LOG_FORMAT, help="Log format.")
]


class LogLines(logging.Formatter):
    """A record is one line; further lines of its texts and its traceback are indented.

    Names and errors of other sites are part of many messages. Their control characters are
    escaped, and no line of theirs starts where a record does.
    """

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        return hanging(super().format(record))


class JsonLines(logging.Formatter):
    """A record is a JSON object on its own line, in ASCII: all texts are in strings.

    `time` (RFC 3339), `level`, `logger` and `message`; `process` (`center` or `node`) and `site`;
    `job`, `visit`, `query` and `trace_id`, as far as it is about them; `error` and `traceback` of
    an exception.
    """

    def __init__(self, process: Mapping[str, str]) -> None:
        """`process`: fields of every record."""
        super().__init__()
        self._process = dict(process)

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        fields: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._process,
            **log_ids(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            fields["error"] = record.exc_info[0].__name__
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=True, default=str)


def start_logging(form: LogFormat, *, verbose: bool, kind: str, site: str) -> None:
    """Log to standard error from now on. `kind` and `site` identify the process."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonLines({"process": kind, "site": site})
        if form is LogFormat.JSON
        else LogLines("%(asctime)s UTC %(levelname)s %(name)s %(message)s")
    )
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])

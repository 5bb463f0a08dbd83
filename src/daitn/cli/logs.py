"""The form of log records: nothing that comes from outside can look like a record of its own."""

from __future__ import annotations

import logging

from daitn.objects.text import hanging

__all__ = ["LogLines"]


class LogLines(logging.Formatter):
    """A record is a line; the further lines of its texts and its traceback are indented.

    Names and errors of other sites are part of many messages. Their control characters are
    escaped, and no line of theirs starts where a record does.
    """

    def format(self, record: logging.LogRecord) -> str:
        return hanging(super().format(record))

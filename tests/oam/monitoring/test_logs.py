"""Logs for programs: a JSON object per line, with ids, whatever strangers say."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from daitn.cli.logs import JsonLines
from daitn.tools.monitoring.log_ids import identified
from tests.oam.monitoring.scene import QUESTION, Watched


def logged(watched: Watched, site: str) -> list[dict[str, Any]]:
    """All that a process wrote."""
    text = (watched.folder / "logs" / f"{site}.log").read_text()
    assert QUESTION not in text
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.processes
def test_all_that_processes_write_is_json_with_ids(watched: Watched) -> None:
    for site in watched.sites:
        records = logged(watched, site)
        assert {record["site"] for record in records} == {site}
        kind = "center" if site == "center" else "node"
        assert {record["process"] for record in records} == {kind}
        assert any(record["message"].endswith("is ready") for record in records)
        assert all(record.keys() >= {"time", "level", "logger"} for record in records)
    of_job = [record for record in logged(watched, "center") if "job" in record]
    assert {record["job"] for record in of_job} == {"tumour-1"}
    assert any("is reached" in record["message"] for record in of_job)


STRANGE = [
    'a line\n{"level": "error"}',
    "\x1b]0;title\x07",
    "\u202eevil",
    "\u2028separated",
    "lone \ud800 surrogate",
    '"},{"',
]


@pytest.mark.parametrize("said", STRANGE, ids=ascii)
def test_what_strangers_say_stays_in_a_string(said: str) -> None:
    record = logging.LogRecord("daitn.x", logging.WARNING, "x.py", 1, "said %s", (said,), None)
    with identified(job=said, query="q"), identified(visit="v"):
        line = JsonLines({"site": "here"}).format(record)
    assert line.isascii()
    assert line.isprintable()
    told = json.loads(line)
    assert told["message"] == f"said {said}"
    assert (told["job"], told["query"], told["visit"], told["site"]) == (said, "q", "v", "here")


def test_an_exception_is_in_its_record() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
        record = logging.LogRecord("daitn.x", logging.ERROR, "x.py", 1, "failed", (), info)
    line = JsonLines({}).format(record)
    assert "\n" not in line
    told = json.loads(line)
    assert told["error"] == "ValueError"
    assert "two\nlines" in told["traceback"]
    assert "job" not in told

"""What sites report to a control centre about their work."""

from __future__ import annotations

import logging
from collections.abc import Callable

from daitn.center.audit import Witness
from daitn.center.jobs import JobService
from daitn.identity.signing import check_report
from daitn.identity.statements import check_statement
from daitn.objects.errors import Corrupt, Unreachable
from daitn.objects.identifiers import SiteId
from daitn.objects.messages import WorkReceipt, WorkReport
from daitn.objects.wire import decode, encode
from daitn.tools.fabric.caller import check_site

__all__ = ["WorkReports"]

log = logging.getLogger(__name__)


class WorkReports:
    """The handler of signed reports."""

    def __init__(
        self,
        jobs: JobService,
        witness: Witness,
        key_of: Callable[[SiteId], str | None],
        network: str,
    ) -> None:
        """`key_of`: a site's public key; none while its descriptor is unknown. `network`: id of the
        network for which sites sign statements; empty on a fabric without signatures."""
        self._jobs = jobs
        self._witness = witness
        self._key_of = key_of
        self._network = network

    async def on_report(self, key: str, payload: bytes) -> bytes:
        """`WorkReport` -> `WorkReceipt`: a site reports the outcome of a piece of work, in a signed
        `WorkOutcome`, and the state of its audit log; it repeats the report until it is
        acknowledged."""
        report = decode(payload, WorkReport)
        site = report.outcome.site
        check_site(site)
        public_key = self._key_of(site)
        if public_key is None:
            raise Unreachable(
                f"the control centre has no descriptor of {site} yet", fix="report again"
            )
        check_report(report, public_key, payload)
        self._jobs.reported(report.outcome, self._statement(report))
        return encode(WorkReceipt(audit=self._witness.answer(site, report.audit, public_key)))

    def _statement(self, report: WorkReport) -> bytes:
        """The statement that a report's site signed for outsiders, if it matches the report's
        entry."""
        entry = report.outcome.entry
        if entry is None or not report.statement:
            return b""
        try:
            check_statement(report.statement, entry, self._network)
        except Corrupt as error:
            log.warning(
                "%s signed no statement of %s: %s", entry.fact.site, entry.fact.visit, error
            )
            return b""
        return report.statement

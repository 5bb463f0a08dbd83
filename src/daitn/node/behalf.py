"""Requests of people through a control centre that they have authorised to act in their name.

The person's signature is in the question, so a control centre alone learns nothing here that it may
not ask for itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from daitn.identity.grants import GrantBook
from daitn.objects.errors import NotFound, Refused
from daitn.objects.grants import CenterMandate
from daitn.objects.identifiers import SiteId
from daitn.objects.messages import OnBehalf
from daitn.objects.wire import decode
from daitn.tools.fabric import keys
from daitn.tools.fabric.authority import READING, SITE_VERBS
from daitn.tools.fabric.caller import caller, speaking
from daitn.tools.fabric.protocol import Handler

__all__ = ["Behalf"]


class Behalf:
    """Executes requests of control centres in the name of others."""

    def __init__(self, site: SiteId, grants: GrantBook, handlers: Mapping[str, Handler]) -> None:
        """`handlers`: the site's, by verb."""
        self._site = site
        self._grants = grants
        self._handlers = handlers

    async def on_behalf(self, key: str, payload: bytes) -> bytes:
        """`OnBehalf` -> the answer of the verb that it names: a request on behalf of the member
        that signed the mandate."""
        asked, center = decode(payload, OnBehalf), caller()
        mandate = self._grants.read(asked.mandate, CenterMandate)
        if center is None or mandate.center != center.name:
            raise _refused(f"the mandate is for the control centre {mandate.center}")
        member = self._grants.members()[asked.mandate.public_key]
        verb = SITE_VERBS.get(asked.verb)
        if verb is None or member.kind not in verb.senders:
            raise _refused(f"{member.kind} {member.name} may not ask for {asked.verb} here")
        if asked.verb not in self._handlers:
            raise NotFound(
                f"{self._site} has no role that answers {asked.verb}",
                field="site",
                fix="`daitn get nodes` lists each site's roles",
            )
        if mandate.reads_only and asked.verb not in READING:
            raise _refused(f"the mandate is for reading, and {asked.verb} is more than that")
        with speaking(member):
            return await self._handlers[asked.verb](
                keys.site_do(self._site, asked.verb), asked.question
            )


def _refused(why: str) -> Refused:
    return Refused(why, field="mandate", fix="sign in with a token of a member that may")

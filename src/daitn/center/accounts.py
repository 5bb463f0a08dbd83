"""The control centre's accounts: accepts usage statements of gateways and facilities, and serves
the ledger."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

import msgspec

from daitn.center.key_sums import KeySums
from daitn.control.accounting.usage import Stated, applied
from daitn.identity.audit import countersign
from daitn.identity.keys import SigningKey
from daitn.identity.signing import check_usage
from daitn.objects.accounts import (
    MOST_LINES,
    AccountList,
    AccountQuestion,
    AccountStatement,
    AccountView,
    EntryKind,
    LedgerEntry,
    LedgerQuestion,
    Quantities,
    facility_account,
    gateway_account,
    owner_account,
    site_account,
)
from daitn.objects.audit import CountersignedHead
from daitn.objects.descriptors import Role
from daitn.objects.digests import digest_of
from daitn.objects.errors import NotFound, Refused, Unreachable
from daitn.objects.grants import full_name
from daitn.objects.identifiers import CENTER_SITE, OwnerId, SiteId
from daitn.objects.roster import Kind
from daitn.objects.usage import (
    FREE,
    Count,
    Prices,
    SignedUsage,
    UsageCompared,
    UsageList,
    UsageRow,
    UsageSide,
    UsageStatement,
)
from daitn.objects.wire import decode, encode
from daitn.tools import clock
from daitn.tools.fabric.caller import caller, check_site
from daitn.tools.journal.protocol import Journal

__all__ = ["Accounts"]

_STATED = "usage-stated"
_STATEMENT = "usage-statement"
_SUM = "usage-sum"

Pair = tuple[SiteId, SiteId, OwnerId, str]
"""Gateway, facility, owner and `owner/name` of the model."""


class _Sum(msgspec.Struct, frozen=True):
    pair: Pair
    count: Count
    dearest: Prices = FREE

    def plus(self, row: UsageRow) -> _Sum:
        prices = row.key.price_in, row.key.price_out
        dearest = max(self.dearest[0], prices[0]), max(self.dearest[1], prices[1])
        return _Sum(self.pair, self.count + row.count, dearest)


class _StoredUsage(msgspec.Struct, frozen=True, kw_only=True):
    """A `SignedUsage` as it was received, with what this release does not know, without `keys`."""

    statement: msgspec.Raw
    signature: str


class Accounts:
    """Keeps the ledger, except entries of jobs, which are posted with their facts."""

    def __init__(
        self,
        journal: Journal,
        key: SigningKey,
        key_of: Callable[[SiteId], str | None],
        owner_of: Callable[[SiteId], OwnerId | None],
        roles_of: Callable[[SiteId], Iterable[Role]],
    ) -> None:
        """`key_of`, `owner_of` and `roles_of`: of a site, as known to the network."""
        self._journal = journal
        self._key = key
        self._key_of = key_of
        self._owner_of = owner_of
        self._roles_of = roles_of
        self._keys = KeySums(journal)
        self._stated: dict[str, Stated] = {}
        self._sums: dict[UsageSide, dict[Pair, _Sum]] = {side: {} for side in UsageSide}
        self._unsure = False
        """Whether the journal may have more than is known here, because writing failed."""

    def start(self) -> None:
        """Load the reported counts."""
        self._sums = {side: {} for side in UsageSide}
        self._keys.start()
        for name, stored in self._journal.all(_STATED).items():
            self._stated[name] = decode(stored, Stated)
        for name, stored in self._journal.all(_SUM).items():
            one = decode(stored, _Sum)
            self._sums[UsageSide(name.partition("/")[0])][one.pair] = one

    async def on_usage(self, key: str, payload: bytes) -> bytes:
        """`SignedUsage` -> `UsageReceipt`: a gateway or facility reports its usage; it repeats the
        report until it is acknowledged."""
        signed = decode(payload, SignedUsage)
        statement = signed.statement
        check_site(statement.site)
        public_key = self._key_of(statement.site)
        if public_key is None:
            raise Unreachable(
                f"the control centre has no descriptor of {statement.site} yet",
                fix="send the statement again",
            )
        written = check_usage(signed, public_key, payload)
        role = Role.GATEWAY if statement.side is UsageSide.GATEWAY else Role.FACILITY
        if role not in self._roles_of(statement.site):
            raise Refused(
                f"{statement.site} is not a {role}", field="side", fix="grant it that role"
            )
        kept = _StoredUsage(statement=msgspec.Raw(written), signature=signed.signature)
        self._apply(signed.statement, kept)
        receipt = self._stated[_name(statement)].receipt
        if statement.side is UsageSide.GATEWAY and signed.keys:
            others = self._keys.take(statement.site, signed.keys, clock.wall_s())
            receipt = msgspec.structs.replace(receipt, keys=others)
        return encode(receipt)

    def _apply(self, statement: UsageStatement, kept: _StoredUsage) -> None:
        if self._unsure:
            # The journal may hold more than we know; without rereading it, that would be paid
            # again.
            self.start()
            self._unsure = False
        name = _name(statement)
        known = self._stated.get(name, Stated())
        digest = digest_of(bytes(kept.statement))
        now, entries, new = applied(known, statement, digest, clock.now_s())
        if now == known:
            return
        sums = self._summed(statement, new)
        number = f"{name}/{statement.series}/{statement.number}"
        records = {(_STATED, name): encode(now)}
        records[_STATEMENT, number] = encode((kept, clock.now_s()))
        for pair, one in sums.items():
            records[_SUM, "/".join((statement.side, *pair))] = encode(one)
        self._unsure = True
        self._journal.post(entries, records)
        self._unsure = False
        self._stated[name] = now
        self._sums[statement.side].update(sums)

    def _summed(self, statement: UsageStatement, new: Iterable[UsageRow]) -> dict[Pair, _Sum]:
        known, sums = self._sums[statement.side], dict[Pair, _Sum]()
        for row in new:
            key = row.key
            sites = (statement.site, key.peer)
            gateway, facility = sites if statement.side is UsageSide.GATEWAY else sites[::-1]
            pair = (gateway, facility, key.owner, full_name(key.model_owner, key.model))
            before = sums.get(pair) or known.get(pair) or _Sum(pair, Count())
            sums[pair] = before.plus(row)
        return sums

    async def on_accounts(self, key: str, payload: bytes) -> bytes:
        """`AccountQuestion` -> `AccountList`: accounts with what they paid and earned; owners and
        sites see their own."""
        question = decode(payload, AccountQuestion)
        seen = await asyncio.to_thread(self._asked, question.account)
        return encode(await asyncio.to_thread(self._views, question, seen))

    async def on_ledger(self, key: str, payload: bytes) -> bytes:
        """`AccountQuestion` -> `AccountStatement`: the entries of accounts, at most 1,000 at a
        time."""
        question = decode(payload, AccountQuestion)
        seen = await asyncio.to_thread(self._asked, question.account)
        lines = await asyncio.to_thread(self._journal.ledger, _of(question, seen))
        more = len(lines) == question.limit
        return encode(
            AccountStatement(
                accounts=tuple(sorted(seen)) if seen is not None else (),
                lines=lines,
                next=lines[-1].number if more else None,
                head=await asyncio.to_thread(self._head),
            )
        )

    async def on_metered(self, key: str, payload: bytes) -> bytes:
        """`AccountQuestion` -> `UsageList`: what gateways report about answers, beside what
        facilities report about the same ones."""
        account = decode(payload, AccountQuestion).account
        seen = await asyncio.to_thread(self._asked, account)
        by_gateway, by_facility = self._sums[UsageSide.GATEWAY], self._sums[UsageSide.FACILITY]
        stated = {pair[1] for pair in by_facility}
        found = []
        for pair in sorted(by_gateway.keys() | by_facility.keys()):
            gateway, facility, owner, model = pair
            names = {
                owner_account(owner),
                owner_account(model.rpartition("/")[0]),
                facility_account(facility),
                gateway_account(gateway),
            }
            if seen is not None and not names & seen:
                continue
            nothing = _Sum(pair, Count())
            asked, answered = by_gateway.get(pair, nothing), by_facility.get(pair, nothing)
            one = UsageCompared(
                gateway=gateway,
                facility=facility,
                owner=owner,
                model=model,
                by_gateway=asked.count,
                by_facility=answered.count if facility in stated else None,
                prices_by_gateway=asked.dearest,
                prices_by_facility=answered.dearest,
            )
            found.append(one)
        return encode(UsageList(compared=tuple(found)))

    def _head(self) -> CountersignedHead | None:
        line = self._journal.ledger_head()
        if line is None:
            return None
        return countersign(CENTER_SITE, line.number, line.digest, clock.now_s(), self._key)

    def _asked(self, account: str) -> frozenset[str] | None:
        """The accounts of a question that the caller may see; none means all. Raises `Refused`, and
        `NotFound` for one that does not exist."""
        own = self._own()
        if not account:
            return own
        known = self._journal.accounts()
        names = {account, *self._of_owner(account, known), *_of_site(account)}
        if own is not None:
            names &= own
        elif not names & known.keys():
            raise NotFound(
                f"there is no account {account}",
                field="account",
                fix="see `daitn account list`",
            )
        if not names:
            raise Refused(f"account {account} is not yours", field="account", fix="ask its owner")
        return frozenset(names)

    def _own(self) -> frozenset[str] | None:
        """The caller's accounts; none means it may see all."""
        member = caller()
        if member is None or member.kind is Kind.OPERATOR:
            return None
        if member.kind is Kind.SITE:
            return frozenset(_of_site(member.name))
        names = {owner_account(member.name)}
        return frozenset(names | self._of_owner(member.name, self._journal.accounts()))

    def _of_owner(self, owner: str, known: Iterable[str]) -> set[str]:
        """An owner's own account, and those of the sites that it runs."""
        sites = {name.partition("/")[2] for name in known if not name.startswith("owner/")}
        run = {site for site in sites if site and self._owner_of(SiteId(site)) == owner}
        return {owner_account(owner), *(name for site in run for name in _of_site(site))}

    def _views(self, question: AccountQuestion, seen: frozenset[str] | None) -> AccountList:
        paid, earned = defaultdict[str, int](int), defaultdict[str, int](int)
        count, used = defaultdict[str, int](int), dict[str, Quantities]()
        kinds = defaultdict[str, Counter[EntryKind]](Counter)
        for entry in self._entries(question, seen):
            for one in entry.postings:
                if seen is not None and one.account not in seen:
                    continue
                paid[one.account] -= min(0, one.micro_usd)
                earned[one.account] += max(0, one.micro_usd)
                count[one.account] += 1
                kinds[one.account][entry.kind] += one.micro_usd
                used[one.account] = used.get(one.account, Quantities()) + entry.quantities
        views = [
            AccountView(
                account=name,
                owner=self._whose(name),
                entries=count[name],
                paid_micro_usd=paid[name],
                earned_micro_usd=earned[name],
                balance_micro_usd=earned[name] - paid[name],
                quantities=used[name],
                by_kind={kind: sum_ for kind, sum_ in sorted(kinds[name].items()) if sum_},
            )
            for name in sorted(count)
        ]
        return AccountList(accounts=tuple(views))

    def _entries(
        self, question: AccountQuestion, seen: frozenset[str] | None
    ) -> Iterable[LedgerEntry]:
        after = 0
        while True:
            wanted = msgspec.structs.replace(_of(question, seen), after=after, limit=MOST_LINES)
            lines = self._journal.ledger(wanted)
            yield from (line.entry for line in lines)
            if len(lines) < MOST_LINES:
                return
            after = lines[-1].number

    def _whose(self, account: str) -> OwnerId:
        kind, _, name = account.partition("/")
        if kind == "owner":
            return OwnerId(name)
        return (self._owner_of(SiteId(name)) if name else None) or OwnerId("")


def _of(question: AccountQuestion, seen: frozenset[str] | None) -> LedgerQuestion:
    return LedgerQuestion(
        accounts=tuple(sorted(seen)) if seen is not None else None,
        from_s=question.from_s,
        to_s=question.to_s,
        after=question.after,
        limit=question.limit,
    )


def _of_site(site: str) -> set[str]:
    return {site_account(site), facility_account(site), gateway_account(site)}


def _name(statement: UsageStatement) -> str:
    return f"{statement.side}/{statement.site}"

"""Secure sums at a site: stores the results of its visits, and sums them with those of other sites.

A site that merges asks the others, phase by phase, and relays what they seal for one another
(`daitn.learning.secure_sum`). Each checks the owner's order itself: the sites of a sum are those
whose visits are in the order's signed lineage. What a visit made leaves once, masked: it is off the
disk before that. So a sum that fails later costs the round, and nobody sees the difference of two.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from daitn.control.jobs.ordered import check_summed
from daitn.files.atomic import make_folder, sync
from daitn.files.failed_writes import STATE_FIX
from daitn.identity.keys import SigningKey, check_signature
from daitn.identity.orders import OrderBook
from daitn.learning.secure_sum.fixed_point import FixedPoint, Words
from daitn.learning.secure_sum.member import SumMember
from daitn.learning.secure_sum.unmasking import unmasked
from daitn.objects.errors import (
    Corrupt,
    DaitnError,
    InvalidInput,
    NotFound,
    Refused,
    StorageFull,
    Unreachable,
)
from daitn.objects.identifiers import Digest, SiteId, VisitId
from daitn.objects.lineage import Visit
from daitn.objects.messages import MergeWork, VisitWork
from daitn.objects.models import ModelRef
from daitn.objects.moments import DAY_S
from daitn.objects.secure_sum import (
    LEAST_MEMBERS,
    Agreement,
    AgreementWanted,
    Joined,
    KeysWanted,
    MaskedWanted,
    MemberKeys,
    Revealed,
    RevealWanted,
    SharesWanted,
    SumQuestion,
    SumTerms,
    TensorPlace,
)
from daitn.objects.wire import decode, encode
from daitn.tools import clock
from daitn.tools.fabric.keys import site_do
from daitn.tools.fabric.protocol import Fabric, Handler
from daitn.tools.mobility.manifests import part_name_problem

__all__ = ["SecureSums", "summing"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_KEPT_S = DAY_S
"""A round that is not merged within a day is abandoned."""
_PHASE_WITHIN_S = 30.0
"""A member that takes longer is lost to the sum."""
_MOST_SUMS = 64
"""Sums in which a site takes part at a time."""
_MOST_NUMBERS = 1 << 23
"""Maximum numbers of a model: an answer of 64 MiB."""
_MOST_VALUE = 2.0**36
"""Maximum of a weight, and of a column's variance."""
_POINT = FixedPoint(_MOST_VALUE, 1)
"""Fixed-point format of a mean, which never exceeds its inputs, however many members it has. Each
adds less than 10^-8 to its error."""
_TENSORS = ".safetensors"
_FLOATS: dict[str, type[np.floating[Any]]] = {
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
}


class _Sum:
    """A sum in which the site takes part."""

    def __init__(self, work: MergeWork, folders: Mapping[Path, float]) -> None:
        """`folders`: the results of its visits, with their weights."""
        self.work = work
        self.folders = folders
        self.member: SumMember | None = None
        self.turn = threading.Lock()
        """For its phases, since two concurrent ones of the same sum could be confused."""


class SecureSums:
    """A site's part in secure sums, and the sums that it relays."""

    def __init__(
        self, site: SiteId, folder: Path, key: SigningKey, fabric: Fabric, orders: OrderBook
    ) -> None:
        """`folder`: results of visits that were not summed yet."""
        self._site, self._folder = site, folder
        self._key, self._fabric, self._orders = key, fabric, orders
        self._sums: dict[VisitId, _Sum] = {}

    def handlers(self) -> dict[str, Handler]:
        return {"join": self._on_join, "sum": self._on_sum}

    def keep(self, made: Path) -> ModelRef:
        """Store the parts that a visit made, which are never given out. Raises `InvalidInput` for
        what no secure sum can hold, and `StorageFull`."""
        _check_numbers(sum(map(_size, _joined(made).places)))
        digest, size_bytes = _digest_of(made)
        into = self._folder / digest
        try:
            make_folder(self._folder)
            self._folder.chmod(0o700)
            self.forget_old()
            shutil.rmtree(into, ignore_errors=True)
            shutil.copytree(made, into)
        except OSError as error:
            raise StorageFull(
                f"{self._folder} cannot be written: {error.strerror}",
                fix=STATE_FIX,
            ) from None
        return ModelRef(manifest=digest, size_bytes=size_bytes, holders=())

    def forget_old(self) -> None:
        """Delete what was not summed within a day."""
        for old in self._folder.glob("*"):
            with contextlib.suppress(FileNotFoundError):  # It is summed by now.
                if clock.wall_s() - old.stat().st_mtime > _KEPT_S:
                    shutil.rmtree(old, ignore_errors=True)

    async def _on_join(self, key: str, payload: bytes) -> bytes:
        """`MergeWork` -> `Joined`: take part in the secure sum of what visits here made."""
        return encode(await asyncio.to_thread(self.join, decode(payload, MergeWork)))

    async def _on_sum(self, key: str, payload: bytes) -> bytes:
        """`SumQuestion` -> what it wants: the next phase of a secure sum."""
        question = decode(payload, SumQuestion)
        return await asyncio.to_thread(self.answer, question)

    def join(self, work: MergeWork) -> Joined:
        """Take part in a sum that its owner ordered. Raises `Refused` or `Corrupt` for any other,
        and `NotFound` if no results for it are left here."""
        check_summed(work, self._orders.read_work(work))
        folders = {
            self._folder / visit.model_out: share
            for visit, share in _visits(work).items()
            if visit.site == self._site
        }
        if not folders or not all(folder.is_dir() for folder in folders):
            raise NotFound("nothing is left here for this sum", field="sum")
        while len(self._sums) >= _MOST_SUMS:
            del self._sums[next(iter(self._sums))]
        self._sums.pop(work.visit, None)
        self._sums[work.visit] = _Sum(work, folders)
        joined = [_joined(folder) for folder in folders]
        if any(one.places != joined[0].places for one in joined):
            raise Corrupt("the results of visits here do not match", field="sum")
        return joined[0]

    def answer(self, question: SumQuestion) -> bytes:
        """The next phase. Raises like the methods of `SumMember`, and `NotFound` for a sum in which
        the site has no part."""
        one = self._sums.get(question.sum)
        if one is None:
            raise NotFound("this site has no part in this sum", field="sum")
        with one.turn:
            return self._answer(one, question)

    def _answer(self, one: _Sum, question: SumQuestion) -> bytes:
        if isinstance(question, KeysWanted):
            terms = _terms(one.work, question.numbers)
            one.member = SumMember(terms, self._site, self._key.sign, self._verify)
            return encode(one.member.keys())
        if one.member is None:
            raise Refused("it has no keys yet", field="phase")
        match question:
            case SharesWanted(keys=keys):
                return encode(one.member.shares(keys))
            case MaskedWanted(shares=shares):
                words = _POINT.words(self._taken(one))
                return one.member.masked(words, shares).astype("<u8").tobytes()
            case AgreementWanted(shared=shared, summed=summed):
                return encode(one.member.agreement(shared, summed))
            case RevealWanted(signatures=signatures):
                self._sums.pop(question.sum, None)
                return encode(one.member.revealed(signatures))

    def _taken(self, one: _Sum) -> NDArray[np.float64]:
        """The sum of the site's own results, off the disk, so that they are in no other sum. Raises
        `Refused` if they were in one."""
        found = []
        for folder, share in one.folders.items():
            try:
                gone = folder.rename(folder.with_name(f"{folder.name}.gone"))
            except OSError:
                raise Refused("this update is already part of another sum", field="sum") from None
            sync(self._folder)
            try:
                found.append(share * _POINT.within(_numbers(gone)))
            finally:
                shutil.rmtree(gone, ignore_errors=True)
        total: NDArray[np.float64] = np.sum(found, axis=0)
        return total

    def _verify(self, site: SiteId, statement: bytes, signature: str) -> bool:
        public = self._orders.sites().get(site)
        try:
            if public is not None:
                check_signature(public, signature, statement)
        except DaitnError:
            return False
        return public is not None

    async def gather(self, work: MergeWork, base: Path, into: Path) -> tuple[SiteId, ...]:
        """Write the mean of the sites' results from `base` into the folder `into`; returns the
        included sites.

        Raises `Unreachable` if too many sites are lost on the way, and as `unmasked`.
        """
        members = _terms(work, 1).members
        joined = await self._all(members, "join", lambda _: work, Joined)
        layouts = Counter(encode((one.places, one.parts)) for one in joined.values())
        if not layouts:
            raise _too_few(0)
        usual, _ = layouts.most_common(1)[0]
        alike = {s: one for s, one in joined.items() if encode((one.places, one.parts)) == usual}
        like = next(iter(alike.values()))
        numbers = sum(map(_size, like.places))
        terms, name = _terms(work, numbers), work.visit
        keys = await self._all(
            alike, "sum", lambda _: KeysWanted(sum=name, numbers=numbers), MemberKeys
        )
        _check_enough(terms, keys)
        shares = await self._all(
            keys, "sum", lambda _: SharesWanted(sum=name, keys=keys), dict[SiteId, bytes]
        )
        _check_enough(terms, shares)
        masked = await self._all(
            shares,
            "sum",
            lambda site: MaskedWanted(
                sum=name, shares={by: each[site] for by, each in shares.items() if site in each}
            ),
            bytes,
        )
        words = {s: _words(data) for s, data in masked.items() if len(data) == 8 * numbers}
        _check_enough(terms, words)
        wanted = AgreementWanted(
            sum=name, shared=tuple(sorted(shares)), summed=tuple(sorted(words))
        )
        agreed = await self._all(words, "sum", lambda _: wanted, Agreement)
        _check_enough(terms, agreed)
        signatures = {site: one.signature for site, one in agreed.items()}
        revealed = await self._all(
            agreed, "sum", lambda _: RevealWanted(sum=name, signatures=signatures), Revealed
        )
        agreement = Agreement(shared=wanted.shared, summed=wanted.summed, signature="")
        total = await asyncio.to_thread(unmasked, terms, agreement, words, keys, revealed)
        weight = sum(share for visit, share in _visits(work).items() if visit.site in words)
        await asyncio.to_thread(_write, like, _POINT.numbers(total) / weight, base, into)
        return wanted.summed

    async def _all(
        self, sites: Iterable[SiteId], verb: str, ask: Callable[[SiteId], object], kind: type[T]
    ) -> dict[SiteId, T]:
        """The answers of those sites that answer."""

        async def one(site: SiteId) -> T | None:
            try:
                answer = await self._fabric.request(
                    site_do(site, verb), encode(ask(site)), timeout_s=_PHASE_WITHIN_S
                )
                return answer if kind is bytes else decode(answer, kind)  # type: ignore[return-value]
            except DaitnError as error:
                log.warning("%s is lost for a secure sum: %s", site, error)
                return None

        members = list(sites)
        answers = await asyncio.gather(*map(one, members))
        return {site: each for site, each in zip(members, answers, strict=True) if each is not None}


def summing(work: VisitWork | MergeWork, sums: SecureSums | None) -> SecureSums | None:
    """What sums the results of such work, if nobody may see them. Raises `Refused`."""
    if work.secure and sums is None:
        raise Refused(
            "a secure sum needs a roster",
            field="training.secure_aggregation",
            fix="found a network, see `daitn up`",
        )
    return sums if work.secure else None


def _visits(work: MergeWork) -> dict[Visit, float]:
    """The visits whose models are merged, with their weights."""
    found = [entry.fact for entry in work.lineage if isinstance(entry.fact, Visit)]
    made = {visit.model_out: visit for visit in found if visit.model_in == work.base.manifest}
    total = sum(work.shares)
    return {
        made[model.manifest]: share / total
        for model, share in zip(work.trained, work.shares, strict=True)
        if model.manifest in made
    }


def _terms(work: MergeWork, numbers: int) -> SumTerms:
    members = tuple(sorted({visit.site for visit in _visits(work)}))
    if len(members) < LEAST_MEMBERS:
        raise InvalidInput(
            f"there is no secure sum of {len(members)} sites",
            field="training.secure_aggregation",
            fix="train at two or more sites",
        )
    _check_numbers(numbers)
    least = 2 * len(members) // 3 + 1
    return SumTerms(name=work.visit, members=members, least=least, numbers=numbers)


def _check_numbers(numbers: int) -> None:
    if not 1 <= numbers <= _MOST_NUMBERS:
        raise InvalidInput(
            f"there is no secure sum of {numbers} numbers",
            field="training.secure_aggregation",
            fix=f"train at most {_MOST_NUMBERS} weights",
        )


def _check_enough(terms: SumTerms, members: Collection[SiteId]) -> None:
    if len(members) < terms.least:
        raise _too_few(len(members))


def _too_few(left: int) -> Unreachable:
    return Unreachable(
        f"only {left} sites are left for a secure sum, which is too few",
        field="training.secure_aggregation",
        fix="wait until sites are back; none of their models was revealed",
    )


def _words(data: bytes) -> Words:
    return np.frombuffer(data, "<u8").astype(np.uint64)


def _size(place: TensorPlace) -> int:
    return int(np.prod(place.shape, dtype=np.int64))


def _digest_of(folder: Path) -> tuple[Digest, int]:
    """A name for the parts in a folder, including a random number, so that nobody can guess which
    they are."""
    parts = blake3(os.urandom(32))
    size_bytes = 0
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        parts.update(encode((path.name, data)))
        size_bytes += len(data)
    return Digest(parts.hexdigest()), size_bytes


def _joined(folder: Path) -> Joined:
    places, facts, parts = list[TensorPlace](), dict[str, dict[str, str]](), dict[str, bytes]()
    for path in sorted(folder.iterdir()):
        if path.suffix != _TENSORS:
            parts[path.name] = path.read_bytes()
            continue
        with _opened(path) as file:
            facts[path.name] = file.metadata() or {}
            for name in sorted(file.keys()):
                piece = file.get_slice(name)
                kind, shape = piece.get_dtype(), tuple(piece.get_shape())
                if kind not in _FLOATS:
                    raise InvalidInput(
                        f"a secure sum has no numbers of the kind {kind}",
                        field="training.secure_aggregation",
                        fix="configure 32-bit weights, or use a recipe with weights",
                    )
                places.append(TensorPlace(path.name, name, kind, shape))
    return Joined(places=tuple(places), facts=facts, parts=parts)


def _numbers(folder: Path) -> NDArray[np.float64]:
    found = []
    for path in sorted(folder.glob(f"*{_TENSORS}")):
        with _opened(path) as file:
            found += [
                file.get_tensor(name).astype(np.float64).ravel() for name in sorted(file.keys())
            ]
    return np.concatenate(found)


def _write(like: Joined, numbers: NDArray[np.float64], base: Path, into: Path) -> None:
    """The parts of a model with these numbers; parts that no visit changed are the base's."""
    files: dict[str, dict[str, NDArray[Any]]] = {}
    at = 0
    for place in like.places:
        size = _size(place)
        tensor = numbers[at : at + size].astype(_FLOATS[place.kind]).reshape(place.shape)
        files.setdefault(_plain(place.file), {})[place.name] = tensor
        at += size
    for name, tensors in files.items():
        save_file(tensors, into / name, metadata=like.facts.get(name) or None)
    for name, data in like.parts.items():
        (into / _plain(name)).write_bytes(data)
    for path in base.iterdir():
        if not (into / path.name).exists():
            os.link(path, into / path.name)


def _plain(name: str) -> str:
    """A part's name from another site. Raises `Corrupt` if it is not a plain file name."""
    if problem := part_name_problem(name):
        raise Corrupt(f"a part's name {problem}", field="parts")
    return name


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="np")
    except (OSError, SafetensorError) as error:
        raise Corrupt(f"{path.name} cannot be read: {error}", field="sum") from None

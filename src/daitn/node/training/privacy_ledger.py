"""The privacy ledger of a site's data sets: charged before anything is trained.

A charge is on disk before its visit reads a record, so a crash can charge too much, and never too
little. A visit that goes on from its savepoint draws the same noise as before, and is not charged
again; every other attempt draws anew, and is.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from daitn.control.privacy_accounting import (
    NOTHING,
    Curve,
    epsilon,
    fits,
    schedule,
    spent_by,
    stricter,
    visits_left,
)
from daitn.files.atomic import make_folder, replace_file
from daitn.files.state_folder import NodeState
from daitn.identity.keys import SigningKey
from daitn.learning.recipe import DpSgd
from daitn.node.config import DatasetConfig
from daitn.node.disclosure import in_steps
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import Corrupt, Refused, StorageFull
from daitn.objects.messages import VisitWork
from daitn.objects.privacy import NoiseMechanism, PrivacyDemand, PrivacySpent
from daitn.objects.wire import decode, encode
from daitn.tools import clock

__all__ = ["Charge", "Ledger", "PrivacyLedger", "PrivatePlan", "ledgers"]

log = logging.getLogger(__name__)

_SUFFIX = ".ledger"
_NONCE_BYTES = 16


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What a visit may reveal, recorded before it reads the first record."""

    visit: str
    job: str
    owner: str
    order: str
    """Identifies the visits that share an intent's epsilon: the order's digest, or else the job."""
    made_of: str
    """A digest of everything that determines the visit's result except its draws."""
    at_s: float
    mechanism: NoiseMechanism
    nonce: bytes
    """Nonce from which the site's key derives the secret of the draws."""


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """All charges of one data set."""

    dataset: str
    demand: PrivacyDemand | None = None
    """Its owner's demand, as of the latest charge."""
    charges: tuple[Charge, ...] = ()

    def of(self, order: str) -> tuple[NoiseMechanism, ...]:
        """The mechanisms of one order's visits."""
        return tuple(each.mechanism for each in self.charges if each.order == order)


class PrivatePlan(msgspec.Struct, frozen=True, kw_only=True):
    """How to train a visit privately."""

    spent: PrivacySpent
    lot: float

    def dp_sgd(self, secret: bytes) -> DpSgd:
        now = self.spent.mechanism
        return DpSgd(
            secret=secret,
            rate=now.rate,
            steps=now.steps,
            noise=now.noise,
            clip=self.spent.clip,
            lot=self.lot,
        )


class PrivacyLedger:
    """The ledgers of a site's data sets, in `folder`.

    A data set is known by its name: under another, its budget is another. A ledger that cannot be
    read allows nothing.
    """

    def __init__(
        self, folder: Path, key: SigningKey, changed: Callable[[], None] = lambda: None
    ) -> None:
        """`changed` is called after each charge."""
        self._folder = folder
        self._key = key
        self._changed = changed
        self._read: dict[str, tuple[Ledger, Curve]] = {}

    def planned(self, work: VisitWork, dataset: DatasetConfig, samples: int) -> PrivatePlan | None:
        """How to train a visit on `samples` records; `None` means nobody asks for privacy. Raises
        `InvalidInput` if no noise suffices."""
        wish, demand = work.privacy, dataset.terms.privacy
        if (wish is None and demand is None) or work.model is None:
            return None
        samples = in_steps(samples)  # As the site publishes them: one record more shows nowhere.
        rate, steps = schedule(samples, work.examples)
        terms = stricter(wish, demand, rate, steps)
        assert terms is not None
        mechanism = NoiseMechanism(rate=rate, noise=terms.noise, steps=steps)
        spent = epsilon(spent_by([mechanism]), terms.delta)
        return PrivatePlan(
            spent=PrivacySpent(
                epsilon=spent, delta=terms.delta, clip=terms.clip, mechanism=mechanism
            ),
            lot=rate * samples,
        )

    def check(self, work: VisitWork, dataset: DatasetConfig, private: PrivatePlan) -> None:
        """Raise `Refused` if the visit would reveal more than its model's owner wishes, or the
        data's owner allows; and `Corrupt` for an unreadable ledger."""
        ledger, spent = self._ledger(dataset.name)
        more = spent_by([private.spent.mechanism])
        wish, demand = work.privacy, dataset.terms.privacy
        if demand is not None and not fits(spent, more, demand.epsilon_total, demand.delta):
            gone = epsilon(spent, demand.delta)
            raise Refused(
                f"data set {dataset.name} has too little privacy budget left for this visit: "
                f"epsilon "
                f"{gone:.2g} of {demand.epsilon_total:g} is spent",
                field="training.privacy.epsilon",
                fix="train on other data; a spent budget does not come back. If some is left, a "
                "smaller epsilon may fit",
            )
        ours = spent_by(ledger.of(_order(work)))
        if wish is not None and not fits(ours, more, wish.epsilon, wish.delta):
            raise Refused(
                f"the job has spent its epsilon of {wish.epsilon:g} on data set {dataset.name}",
                field="training.privacy.visits",
                fix="spread it over as many visits as the job makes to one data set, or allow "
                "more epsilon",
            )

    def begin(
        self,
        work: VisitWork,
        dataset: DatasetConfig,
        private: PrivatePlan,
        made_of: str,
        *,
        resumes: bool,
    ) -> DpSgd:
        """Charge a visit, unless it resumes from its savepoint; returns how to train it.

        Raises as `check`, and `StorageFull` if the charge cannot be kept."""
        ledger, spent = self._ledger(dataset.name)
        mechanism = private.spent.mechanism
        if resumes:
            for one in reversed(ledger.charges):
                if (one.visit, one.made_of, one.mechanism) == (work.visit, made_of, mechanism):
                    return private.dp_sgd(self._secret(one))
        self.check(work, dataset, private)
        charge = Charge(
            visit=work.visit,
            job=work.job,
            owner=work.owner,
            order=_order(work),
            made_of=made_of,
            at_s=clock.now_s(),
            mechanism=mechanism,
            nonce=secrets.token_bytes(_NONCE_BYTES),
        )
        charged = Ledger(
            dataset=dataset.name,
            demand=dataset.terms.privacy,
            charges=(*ledger.charges, charge),
        )
        self._keep(charged)
        self._read[dataset.name] = charged, spent + spent_by([mechanism])
        self._changed()
        return private.dp_sgd(self._secret(charge))

    def described(self, node: NodeDescriptor, datasets: Iterable[DatasetConfig]) -> NodeDescriptor:
        """The node's descriptor, with the approximate number of private visits that its data sets
        still allow."""
        left = {one.name: self._left(one.name, one.terms.privacy) for one in datasets}
        return msgspec.structs.replace(
            node,
            datasets=tuple(
                msgspec.structs.replace(one, private_visits_left=left.get(one.name))
                for one in node.datasets
            ),
        )

    def _left(self, dataset: str, demand: PrivacyDemand | None) -> int | None:
        if demand is None:
            return None
        try:
            return visits_left(self._ledger(dataset)[1], demand)
        except Corrupt as error:
            log.error("data set %s allows no visit: %s", dataset, error)
            return 0

    def _ledger(self, dataset: str) -> tuple[Ledger, Curve]:
        if dataset not in self._read:
            try:
                data = self._path(dataset).read_bytes()
            except FileNotFoundError:
                return Ledger(dataset=dataset), NOTHING
            except OSError as error:
                raise _unreadable(self._path(dataset), str(error.strerror)) from None
            ledger = _decoded(self._path(dataset), data)
            spent = spent_by(each.mechanism for each in ledger.charges)
            self._read[dataset] = ledger, spent
        return self._read[dataset]

    def _keep(self, ledger: Ledger) -> None:
        try:
            make_folder(self._folder)
            replace_file(self._path(ledger.dataset), encode(ledger), private=True)
        except OSError as error:
            raise StorageFull(
                f"the privacy ledger cannot be written: {error.strerror}",
                fix="free space in the site's state folder, and check that it is writable: what "
                "is not charged is not trained",
            ) from None

    def _path(self, dataset: str) -> Path:
        name = hashlib.blake2b(dataset.encode(), digest_size=16).hexdigest()
        return self._folder / f"{name}{_SUFFIX}"

    def _secret(self, charge: Charge) -> bytes:
        return self._key.sign_raw(b"draws of a private visit " + charge.nonce)


def ledgers(state: Path) -> list[Ledger]:
    """Ledgers of all data sets of a site with this state folder. Raises `Corrupt`."""
    found = sorted((state / NodeState.PRIVACY).glob(f"*{_SUFFIX}"))
    read = [_decoded(path, path.read_bytes()) for path in found]
    return sorted(read, key=lambda ledger: ledger.dataset)


def _decoded(path: Path, data: bytes) -> Ledger:
    try:
        return decode(data, Ledger)
    except Corrupt as error:
        raise _unreadable(path, error.problem) from None


def _unreadable(path: Path, why: str) -> Corrupt:
    log.error("%s cannot be read: %s", path, why)
    return Corrupt(
        "the site's privacy ledger of this data set cannot be read",
        field="dataset",
        fix="have its administrator restore a backup that is not older than the latest visit: "
        "without it, what was revealed is unknown",
    )


def _order(work: VisitWork) -> str:
    return work.order.digest if work.order else work.job

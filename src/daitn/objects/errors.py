"""The exception tree.

::

    DaitnError                a promise was broken; carries problem, field and fix
    ├── InvalidInput          an intent, a node file, a recipe configuration or data is malformed
    │   └── ContextExceeded   a question is longer than a model reads
    ├── NotFound              no such job, site, model, recipe or file
    ├── Infeasible            no route can satisfy an intent as it stands
    ├── Refused               a data owner's policy says no
    ├── Unreachable           a site or the control centre did not answer in time
    │   ├── Unserved          nobody is connected who answers this
    │   └── ClocksDiffer      a message was too old or too new for its receiver's clock
    ├── Corrupt               bytes do not match the digest or signature that names them
    ├── StorageFull           a disk has no room
    ├── WorkFailed            a recipe failed while training or measuring
    │   ├── QuestionFailed    a model failed at one question
    │   └── LimitExceeded     it took more memory, time or disk space than it may
    ├── IllegalTransition     the state machine does not accept this event in this state
    └── StaleAppend           somebody else appended to a job since its events were read

"No" is a value with reasons (see `daitn.policy`); these exceptions are for broken promises. Each
crosses the network as an `ErrorReport` and is raised again on the other side.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from daitn.objects.text import without_folders

__all__ = [
    "KINDS",
    "ClocksDiffer",
    "ContextExceeded",
    "Corrupt",
    "DaitnError",
    "ErrorReport",
    "IllegalTransition",
    "Infeasible",
    "InvalidInput",
    "LimitExceeded",
    "NotFound",
    "QuestionFailed",
    "Refused",
    "StaleAppend",
    "StorageFull",
    "Unreachable",
    "Unserved",
    "WorkFailed",
    "narrowed",
]


class DaitnError(Exception):
    """A broken promise, reported so that the reader can act on it.

    `problem` says what is wrong, `field` names the offending field (a dotted path, or empty), `fix`
    says what to do about it.
    """

    def __init__(self, problem: str, *, field: str = "", fix: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.field = field
        self.fix = fix

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return f"{where}{self.problem}" + (f"\n  fix: {self.fix}" if self.fix else "")


class InvalidInput(DaitnError):
    """An intent, a file, a recipe configuration or data is malformed."""


class ContextExceeded(InvalidInput):
    """A question has more tokens than the model's context."""


class NotFound(DaitnError):
    """No such job, site, model, recipe or file."""


class Infeasible(DaitnError):
    """No route can satisfy an intent as it stands."""


class Refused(DaitnError):
    """A data owner's policy refuses, or a site is not what it claims to be."""


class Unreachable(DaitnError):
    """A site or the control centre did not answer in time."""


class Unserved(Unreachable):
    """Nobody is connected who answers this."""


class ClocksDiffer(Unreachable):
    """A message was too old or too new for its receiver's clock, and was not accepted."""


class Corrupt(DaitnError):
    """Bytes do not match the digest or the signature that names them."""


class StorageFull(DaitnError):
    """A disk has no room."""


class WorkFailed(DaitnError):
    """A recipe failed while training or measuring."""


class QuestionFailed(WorkFailed):
    """A model failed on one question but can answer others."""


class LimitExceeded(WorkFailed):
    """A recipe exceeded a limit, which `field` names."""


class IllegalTransition(DaitnError):
    """The state machine does not accept this event in this state; carries the item's history."""


class StaleAppend(DaitnError):
    """Another writer appended to the job since its events were read."""


class ErrorReport(msgspec.Struct, frozen=True, kw_only=True):
    """A `DaitnError` on the wire. An unknown `code` (from a newer peer) becomes a `DaitnError`."""

    code: str
    """The name of the error; an unknown one is a plain `DaitnError`."""
    problem: str
    """What is wrong."""
    field: str = ""
    """Dotted path of the offending field, or empty."""
    fix: str = ""
    """What to do about it."""
    cause: str = ""
    """A kind of `code`, such as `Unserved` of `Unreachable`; empty or unknown means just `code`."""

    @classmethod
    def of(cls, error: DaitnError) -> ErrorReport:
        """The error as shown to others: without folders of this machine."""
        whole = cls.inside(error)
        return msgspec.structs.replace(
            whole,
            problem=without_folders(whole.problem),
            field=without_folders(whole.field),
            fix=without_folders(whole.fix),
        )

    @classmethod
    def inside(cls, error: DaitnError) -> ErrorReport:
        """The whole error, for another process of the same site."""
        return cls(
            code=_name(error, _CODES) or DaitnError.__name__,
            problem=error.problem,
            field=error.field,
            fix=error.fix,
            cause=_name(error, _CAUSES),
        )

    def error(self) -> DaitnError:
        kind = narrowed(_CODES.get(self.code, DaitnError), self.cause)
        return kind(self.problem, field=self.field, fix=self.fix)


_CODES: dict[str, type[DaitnError]] = {
    kind.__name__: kind
    for kind in (
        *DaitnError.__subclasses__(),
        *InvalidInput.__subclasses__(),
        *WorkFailed.__subclasses__(),
    )
}
_CAUSES: dict[str, type[DaitnError]] = {
    kind.__name__: kind for kind in Unreachable.__subclasses__()
}
"""Receivers take an unknown code for a plain `DaitnError`, and would not ask again. So these travel
beside the code of their base, which every release knows."""
KINDS: tuple[type[DaitnError], ...] = (*_CODES.values(), *_CAUSES.values())
"""All errors that cross the network under their own names."""


def narrowed(kind: type[DaitnError], cause: str) -> type[DaitnError]:
    """The kind of error that a report's `cause` names, if it is one of `kind`; else `kind`."""
    named = _CAUSES.get(cause, kind)
    return named if issubclass(named, kind) else kind


def _name(error: DaitnError, kinds: Mapping[str, type[DaitnError]]) -> str:
    return next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in kinds), "")

"""How a reader of MessagePack says what is wrong, and where."""

from __future__ import annotations

from daitn.objects.errors import Corrupt

__all__ = ["malformed"]


def malformed(what: str, error: Exception) -> Corrupt:
    """The error to raise for bytes that are no `what`.

    Its field is the path by position, as `intent[3]`: structs are arrays on the wire, and
    `aats-wire.md` numbers their elements.
    """
    problem, _, path = str(error).replace("key` in `", "").partition(" - at `")
    return Corrupt(
        f"the {what} is malformed: {problem}",
        field=what + path.rstrip("`").removeprefix("$"),
        fix="see aats-wire.md",
    )

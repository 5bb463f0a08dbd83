"""The process that only answers questions about recipes: `python -m daitn.learning.consulting`.

It is the training process without the engine, so it starts in a fraction of the time and memory.
"""

from __future__ import annotations

from daitn.learning.child.inside import serve
from daitn.learning.service import Service

__all__ = ["main"]


def main() -> None:
    """Serve commands until the node ends."""
    serve(
        "daitn.learning.consulting",
        lambda replies, inbox: Service(replies).run(inbox),
        engine=False,
    )


if __name__ == "__main__":
    main()

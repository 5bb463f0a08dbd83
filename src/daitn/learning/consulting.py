"""The process that only asks recipes: `python -m daitn.learning.consulting --threads 1`.

It is the one that trains, without the engine: it is there in a fraction of the time and memory.
"""

from __future__ import annotations

from daitn.learning.child.inside import serve
from daitn.learning.worker import Service

__all__ = ["main"]


def main() -> None:
    """Serve commands until the node goes away."""
    serve(
        "daitn.learning.consulting",
        lambda replies, inbox: Service(replies).run(inbox),
        engine=False,
    )


if __name__ == "__main__":
    main()

"""`python -m daitn`, and the entry point of the command `daitn`."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line. Ctrl-C ends it as documented already while it is being imported."""
    try:
        from daitn.cli.app import main as command

        command()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()

"""Files that people write."""

from __future__ import annotations

from pathlib import Path

import yaml

from daitn.objects.errors import InvalidInput, NotFound

__all__ = ["read_yaml"]


def read_yaml(path: Path, what: str) -> object:
    """Read a YAML file as plain data; it cannot execute code. Raises `NotFound` and
    `InvalidInput`."""
    try:
        return yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise NotFound(
            f"there is no {what} {path}", field=str(path), fix="check the path"
        ) from None
    except OSError as error:
        raise InvalidInput(
            f"the {what} {path} cannot be read: {error.strerror}", fix="check the path"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"the {what} {path} is not valid YAML: {error}", fix="correct the stated line"
        ) from None

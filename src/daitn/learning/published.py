"""Folders in the format of `transformers`, before anything is read from their weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from daitn.objects.errors import NotFound

__all__ = [
    "DESCRIPTION",
    "MOST_COPIES",
    "TOKENIZER",
    "USUAL_COPIES",
    "WEIGHTS",
    "check_published",
    "stored_bytes",
    "weights_bytes",
]

DESCRIPTION, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "*.safetensors"
MOST_COPIES = 3
"""Maximum number of copies of the weights in memory while they are read and written."""
USUAL_COPIES = 2
"""One as read, and one as written."""


class _Quantisation(msgspec.Struct, frozen=True):
    load_in_4bit: bool = False
    load_in_8bit: bool = False


class _Description(msgspec.Struct, frozen=True):
    quantization_config: _Quantisation | None = None
    dtype: str | None = None
    torch_dtype: str | None = None
    """The name of `dtype` in older folders."""


def check_published(
    folder: Path,
    field: str,
    files: Sequence[str] = (DESCRIPTION, TOKENIZER, WEIGHTS),
    *,
    otherwise: str = "",
) -> None:
    """Raise `NotFound` for a missing folder, or one without some of `files`, which are patterns;
    `None` means its reader reports what is missing.

    `field`: what names the folder. `otherwise`: what else to do, for the end of `fix`.
    """
    if not folder.is_dir():
        raise NotFound(
            f"there is no folder {folder}",
            field=field,
            fix=f"name a folder that holds {DESCRIPTION}, {TOKENIZER} and {WEIGHTS}{otherwise}",
        )
    for name in files:
        if not any(folder.glob(name)):
            raise NotFound(
                f"{folder} holds no {name}",
                field=field,
                fix=f"save the model with `save_pretrained`, and its fast tokenizer beside it"
                f"{otherwise}",
            )


def stored_bytes(folder: Path) -> int:
    """The stored size of the weights."""
    return sum(path.stat().st_size for path in folder.glob(WEIGHTS))


def weights_bytes(folder: Path) -> int:
    """Maximum size of the weights once imported: those published in 4 or 8 bits are converted back
    to the numbers named in the description, by default to 16 bits."""
    stored = stored_bytes(folder)
    try:
        description = msgspec.json.decode((folder / DESCRIPTION).read_bytes(), type=_Description)
    except (OSError, msgspec.DecodeError):  # The import says what is wrong with it.
        return stored
    packed = description.quantization_config
    if packed is None or not (packed.load_in_4bit or packed.load_in_8bit):
        return stored
    bits = 32 if "float32" in (description.dtype, description.torch_dtype) else 16
    return stored * bits // (4 if packed.load_in_4bit else 8)

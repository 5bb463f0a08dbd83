"""What a folder in the format of `transformers` will take, from its files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from daitn.learning.published import check_published, stored_bytes, weights_bytes
from daitn.objects.errors import NotFound


@pytest.mark.parametrize(
    ("described", "times"),
    [
        ({}, 1),
        ({"dtype": "float32"}, 1),
        ({"quantization_config": None}, 1),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, 1),
        ({"quantization_config": {"load_in_8bit": True}}, 2),
        ({"quantization_config": {"load_in_4bit": True}, "dtype": "bfloat16"}, 4),
        ({"quantization_config": {"load_in_4bit": True}, "torch_dtype": "float32"}, 8),
        ({"quantization_config": {"load_in_4bit": "perhaps"}}, 1),
        ([], 1),
    ],
)
def test_packed_weights_count_as_what_they_are_put_back_to(
    tmp_path: Path, described: Any, times: int
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(described))
    for name in ("model-1.safetensors", "model-2.safetensors"):
        (tmp_path / name).write_bytes(bytes(500))
    assert stored_bytes(tmp_path) == 1000
    assert weights_bytes(tmp_path) == times * 1000


def test_what_a_folder_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no folder") as absent:
        check_published(tmp_path / "none", "folder", otherwise="; or state `gguf`")
    assert absent.value.fix.endswith("tokenizer.json and *.safetensors; or state `gguf`")
    for name in ("config.json", "tokenizer.json", "*.safetensors"):
        with pytest.raises(NotFound) as lacking:
            check_published(tmp_path, "folder")
        assert lacking.value.problem == f"{tmp_path} holds no {name}"
        (tmp_path / name.replace("*", "model")).touch()
    check_published(tmp_path, "folder")

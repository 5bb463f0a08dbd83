"""Export of a classifier for use without DA-ITN: a description, and a program that runs it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from daitn.learning.classifier.config import (
    FORMS,
    LEAST_DEVIATION,
    MOST_DEVIATIONS,
    ClassifierConfig,
)
from daitn.learning.classifier.features import FEATURES, WEIGHTS, read_features
from daitn.learning.recipe import Exported, Form
from daitn.objects.errors import InvalidInput
from daitn.objects.text import plain

__all__ = ["export_model", "usage", "write_program"]

_SHOWN_COLUMNS = 4


def export_model(model: Path, config: ClassifierConfig, form: Form, out: Path) -> Exported:
    """See `Exporting.export_model`."""
    if form not in FORMS:
        raise InvalidInput(
            f"a classifier cannot be written as {form}",
            field="--format",
            fix="leave out --format: config.json and predict.py are exported with the parts",
        )
    columns = tuple(map(plain, read_features(model / FEATURES).columns))
    if not columns:
        return Exported(usage="It has seen no data yet, and so answers nothing.")
    described = {
        "model_type": "daitn-classifier",
        "weights": WEIGHTS,
        "columns": columns,
        "classes": config.classes,
        "layers": len(config.hidden) + 1,
        "hidden": config.hidden,
        "activation": "relu",
        "output": "softmax",
        "scaling": {
            "rule": "(value - mean) / max(sqrt(var), least_deviation), clipped at most_deviations",
            "missing": "counts as the mean, as do all values of a column whose count is 0",
            "least_deviation": LEAST_DEVIATION,
            "most_deviations": MOST_DEVIATIONS,
        },
    }
    write_program(described, Path(__file__).with_name("predict.py"), out)
    named = "says which, and how they are scaled"
    return Exported(usage=usage(columns, config.classes, named))


def write_program(described: Mapping[str, object], program: Path, out: Path) -> None:
    """Write a model's description, and the program that reads it."""
    (out / "config.json").write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n")
    shutil.copyfile(program, out / "predict.py")


def usage(columns: tuple[str, ...], classes: tuple[str, ...], named: str) -> str:
    """How to use the program. `named`: what `config.json` says about the columns."""
    record = json.dumps(dict.fromkeys(columns[:_SHOWN_COLUMNS], 1.5), ensure_ascii=False)
    others = len(columns) - _SHOWN_COLUMNS
    left = f"; the other {others} columns are left out here, and count as missing" * (others > 0)
    return f"""\
It tells {len(classes)} classes apart by {len(columns)} columns of numbers. `config.json` \
{named}. `predict.py` needs no more than numpy and safetensors:

```console
$ python predict.py records.csv
```

or, in a program{left}:

```python
from predict import Model

Model(".").probabilities([{record}])
```
"""

"""Export and import of boosted trees for use without DA-ITN."""

from __future__ import annotations

import json
from pathlib import Path

from daitn.learning.boosted_trees.config import FORMS, MOST_TREES, BoostedTreesConfig, parse_config
from daitn.learning.boosted_trees.parts import COLUMNS as COLUMNS_FILE
from daitn.learning.boosted_trees.parts import TREES, TreesState, read, read_columns, write
from daitn.learning.boosted_trees.xgboost_file import MOST_BYTES, read_model, written
from daitn.learning.classifier.export import usage, write_program
from daitn.learning.recipe import Exported, Form, Imported
from daitn.objects.errors import InvalidInput, NotFound

__all__ = ["export_model", "import_model"]

_FILE = "model.json"


def export_model(model: Path, config: BoostedTreesConfig, form: Form, out: Path) -> Exported:
    """See `Exporting.export_model`."""
    if form not in FORMS:
        raise InvalidInput(
            f"boosted trees cannot be written as {form}",
            field="--format",
            fix="use `xgboost`, or leave out --format: predict.py is exported with the parts",
        )
    columns = read_columns(model / COLUMNS_FILE)
    if not columns:
        return Exported(usage="It has seen no data yet, and so answers nothing.")
    if form is Form.XGBOOST:
        trees = read(model, config).trees
        (out / _FILE).write_bytes(written(trees, columns, config.classes))
        return Exported(usage=_usage_of_xgboost(config))
    described = {
        "model_type": "daitn-boosted-trees",
        "weights": TREES,
        "columns": columns,
        "classes": config.classes,
        "depth": config.depth,
        "output": "logit of the second class" if config.groups == 1 else "softmax",
    }
    write_program(described, Path(__file__).with_name("predict.py"), out)
    return Exported(usage=usage(columns, config.classes, "names them"))


def import_model(folder: Path, out: Path) -> Imported:
    """See `Importing.import_model`: the folder contains xgboost's `model.json`."""
    path = folder / _FILE
    if not path.is_file():
        raise NotFound(
            f"{folder} holds no {_FILE}",
            field="folder",
            fix=f"save the model there with `booster.save_model('{_FILE}')`",
        )
    if path.stat().st_size > MOST_BYTES:
        raise InvalidInput(f"{_FILE} is too large", field="folder", fix="use fewer trees")
    found = read_model(path.read_bytes())
    if not found.columns:
        raise InvalidInput(
            "it does not name its columns, which sites need",
            field="feature_names",
            fix="train it with DMatrix(..., feature_names=[...])",
        )
    config: dict[str, object] = {"classes": list(found.classes), "depth": found.trees.depth}
    usual = parse_config(config).most_trees
    if 2 * len(found.trees) > usual:
        config["most_trees"] = min(MOST_TREES, 2 * len(found.trees))
    write(TreesState(columns=found.columns, trees=found.trees, standard=None), out)
    read(out, parse_config(config))
    return Imported(config=config)


def _usage_of_xgboost(config: BoostedTreesConfig) -> str:
    what = (
        "the probability of each class"
        if config.groups > 1
        else (f"the probability of {json.dumps(config.classes[1], ensure_ascii=False)}")
    )
    return f"""\
`{_FILE}` is a model of xgboost. Its attribute `classes` names the classes in their order:

```python
import xgboost

booster = xgboost.Booster(model_file="{_FILE}")
booster.predict(xgboost.DMatrix(records, feature_names=booster.feature_names))
```

gives {what} for each record.
"""

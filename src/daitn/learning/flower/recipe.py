"""The recipe `flower-app`: a Flower `ClientApp` installed by a site's owner trains and measures.

No code comes from the network. A configuration names an app; the owner installed a package whose
entry point of the group `daitn.flower_apps` has this name. The app gets a table as its owner lets
it out (`node_config["data"]`), and arrays; what it returns are the arrays of the next model.
"""

from __future__ import annotations

import csv
import datetime
import importlib
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from daitn.learning.classifier.config import ClassName, name_classes, parse_as
from daitn.learning.classifier.table import LABEL, profile, read_table
from daitn.learning.flower.arrays import Arrays, check_like
from daitn.learning.recipe import (
    Config,
    DataProfile,
    Footprint,
    Measured,
    MergeTask,
    Progress,
    Selection,
    Trained,
)
from daitn.objects.errors import Corrupt, DaitnError, InvalidInput, NotFound
from daitn.objects.models import CONFIG_FIX
from daitn.objects.moments import DAY_S
from daitn.objects.text import plain_fields

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GROUP", "FlowerApp", "FlowerConfig"]

GROUP = "daitn.flower_apps"
WEIGHTS = "arrays.safetensors"
_BYTES = 8
"""Maximum bytes per number."""
_COPIES = 6
_TTL_S = DAY_S
"""Lifetime of a message; the site's limits end a visit earlier."""
_ENGINE_BYTES = 500 << 20
_Setting = bool | int | float | Annotated[str, msgspec.Meta(max_length=1000)]


class FlowerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of the recipe `flower-app`."""

    app: ClassName
    """Name of the app at the sites: an entry point of the group `daitn.flower_apps`."""
    classes: Annotated[tuple[ClassName, ...], msgspec.Meta(min_length=2, max_length=1000)]
    """Labels to distinguish, as for `classifier`."""
    parameters: Annotated[int, msgspec.Meta(ge=1, le=10**10)]
    """Maximum number of parameters in its arrays."""
    label: ClassName = "label"
    """Name of the column with the label, as for `classifier`."""
    learning_rate: Annotated[float, msgspec.Meta(gt=0.0, le=0.1)] = 1e-3
    """Passed to the app; also sets the width of the noise on its weights."""
    run: Annotated[
        dict[Annotated[str, msgspec.Meta(max_length=100)], _Setting], msgspec.Meta(max_length=100)
    ] = {}
    """The app's `run_config`."""

    def __post_init__(self) -> None:
        name_classes(self, self.classes)
        plain_fields(self, "label", "app")


def _parse(config: Config) -> FlowerConfig:
    return parse_as(config, FlowerConfig, "flower-app")


class FlowerApp:
    """The recipe `flower-app`."""

    name = "flower-app"
    data_schema = "table/1"
    test_schema = "table/1"
    metrics: tuple[str, ...] = ("accuracy",)

    def __init__(self, selection: Selection | None = None) -> None:
        self._selection = selection or Selection()

    def selecting(self, selection: Selection) -> FlowerApp:
        """See `Selecting`: the app gets a copy without the rest."""
        return FlowerApp(selection)

    def estimate(self, config: Config) -> Footprint:
        settings = _parse(config)
        size_bytes = _BYTES * settings.parameters
        return Footprint(
            parameters=settings.parameters,
            flops_per_example=6.0 * settings.parameters,
            memory_bytes=_ENGINE_BYTES + _COPIES * size_bytes,
            size_bytes=size_bytes,
            labels=settings.classes,
            labels_field="model.config.classes",
            merges_fresh=True,
            packages=("flwr",),
        )

    def inspect(self, data: Path) -> DataProfile:
        return profile(data, self._selection)

    def inspect_test(self, test: Path) -> DataProfile:
        return profile(test, self._selection)

    def initialise(self, config: Config, seed: int, out: Path) -> None:
        """The app's module makes a fresh model: `initial_arrays(run_config, seed)` returns NumPy
        arrays by name."""
        settings = _parse(config)
        entry = _entry(settings.app)
        make = getattr(importlib.import_module(entry.module), "initial_arrays", None)
        if make is None:
            raise InvalidInput(
                f"the module of the app {settings.app} has no function initial_arrays",
                field="model.start",
                fix="supply a start model, or have the site add the function",
            )
        _write({name: np.asarray(array) for name, array in make(_run(settings), seed).items()}, out)

    def train(
        self,
        model: Path,
        config: Config,
        data: Path,
        examples: int,
        seed: int,
        out: Path,
        watch: Callable[[Progress], None],
    ) -> Trained:
        import torch

        from daitn.learning.weight_noise import blur

        began = time.perf_counter()
        settings = _parse(config)
        before = _read(model, settings)
        asked = {"examples": examples, "seed": seed, "lr": settings.learning_rate}
        content = self._ask("train", settings, before, data, asked)
        arrays = {name: array.numpy() for name, array in _records(content, "arrays").items()}
        check_like(arrays, before)
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        blur(list(tensors.values()), settings.learning_rate, seed)
        _write({name: tensor.numpy() for name, tensor in tensors.items()}, out)
        return Trained(examples=examples, seconds=time.perf_counter() - began)

    def evaluate(self, model: Path, config: Config, test: Path, metric: str) -> Measured:
        """As reported by the app: the metric `accuracy`, over `num-examples`."""
        from daitn.learning.classifier.evaluation import check_metric

        check_metric(metric, self.name)
        settings = _parse(config)
        content = self._ask("evaluate", settings, _read(model, settings), test, {})
        metrics = _records(content, "metrics")
        value, items = metrics.get(metric), metrics.get("num-examples")
        if not isinstance(value, float | int) or not isinstance(items, int) or items < 1:
            raise Corrupt(
                f"the app did not return {metric} and num-examples",
                field="metrics",
                fix="have its evaluate function reply with both",
            )
        share = min(1.0, max(0.0, float(value)))
        error = float(np.sqrt(share * (1.0 - share) / items))
        return Measured(metric=metric, value=share, items=items, standard_error=error)

    def merge(self, task: MergeTask, config: Config, out: Path, moments: Path) -> tuple[str, ...]:
        """See `Merging.merge`."""
        from safetensors.torch import save_file

        from daitn.learning.aggregation.merging import (
            TensorFile,
            check_parts,
            merge_tensors,
            unfit,
        )

        settings = _parse(config)
        base = _tensors(Path(task.base), settings)
        models = []
        for number, model in enumerate(map(Path, task.models)):
            check_parts(number, model, Path(task.base), WEIGHTS)
            try:
                models.append(_tensors(model, settings))
            except DaitnError as error:
                raise unfit(number, error.problem) from None
        tensors, kept = merge_tensors(
            base,
            models,
            task.shares,
            task.rule,
            seed=task.seed,
            moments=TensorFile(Path(task.moments)) if task.moments else {},
            single=task.single,
            alike=task.alike,
        )
        save_file(tensors, out / WEIGHTS)
        if kept:
            save_file(kept, moments)
        return ()

    def _ask(
        self, kind: str, settings: FlowerConfig, arrays: Arrays, data: Path, config: dict[str, Any]
    ) -> Any:
        """The content of the app's reply. It reads a copy of the table, limited to what its owner
        permits; the label is the last column."""
        from flwr.app import Array, ArrayRecord, ConfigRecord, Context, RecordDict

        app = _entry(settings.app).load()
        table = read_table(data, settings.label, self._selection)
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / "data.csv"
            with copy.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow([*table.columns, LABEL])
                for row, label in zip(table.features, table.labels, strict=True):
                    writer.writerow([*("" if np.isnan(v) else repr(float(v)) for v in row), label])
            record = ArrayRecord(OrderedDict((name, Array(a)) for name, a in arrays.items()))
            content = RecordDict({"arrays": record, "config": ConfigRecord(config)})
            context = Context(
                run_id=0,
                node_id=0,
                node_config={"data": str(copy), "classes": ",".join(settings.classes)},
                state=RecordDict(),
                run_config=_run(settings),
            )
            reply = app(_message(kind, content), context)
        if reply.has_error():
            raise InvalidInput("the app replied with an error", field="model.config.app")
        return reply.content


def _message(kind: str, content: Any) -> Any:
    """A message as if from a server."""
    from flwr.app import Message, Metadata

    metadata = Metadata(
        run_id=0,
        message_id="",
        src_node_id=0,
        dst_node_id=0,
        reply_to_message_id="",
        group_id="",
        created_at=datetime.datetime.now(datetime.UTC).timestamp(),
        ttl=_TTL_S,
        message_type=kind,
    )
    return Message(metadata=metadata, content=content)


def _run(settings: FlowerConfig) -> dict[str, Any]:
    return dict(settings.run)


def _entry(name: str) -> EntryPoint:
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        raise NotFound(
            f"no Flower app called {name!r} is installed here",
            field="model.config.app",
            fix=f"name one of {', '.join(sorted(found)) or 'none'}, or have its owner install it",
        )
    return found[name]


def _records(content: Any, name: str) -> Any:
    if name not in content:
        raise Corrupt(
            f"the app's reply has no record {name!r}",
            field="model.config.app",
            fix="have it reply with the records `arrays` and `metrics`",
        )
    return content[name]


def _tensors(model: Path, settings: FlowerConfig) -> dict[str, Tensor]:
    import torch

    return {name: torch.from_numpy(array) for name, array in _read(model, settings).items()}


def _read(model: Path, settings: FlowerConfig) -> Arrays:
    """Raises `Corrupt` for arrays that do not match this configuration."""
    from safetensors.numpy import load_file

    from daitn.learning.weights import read_header

    header = read_header(model / WEIGHTS)
    if header.numbers > settings.parameters:
        raise Corrupt(
            f"the arrays have {header.numbers} numbers",
            field="model.config.parameters",
            fix=CONFIG_FIX,
        )
    arrays: Arrays = load_file(model / WEIGHTS)
    check_like(arrays, arrays)
    return arrays


def _write(arrays: Arrays, out: Path) -> None:
    from safetensors.numpy import save_file

    for name, array in arrays.items():
        if array.dtype.kind != "f":
            raise InvalidInput(f"{name} is of {array.dtype}", field="arrays", fix="use float32")
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, out / WEIGHTS)

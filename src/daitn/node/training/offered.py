"""The data sets and test sets that a site's descriptor lists, as they last passed inspection."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from daitn.learning.trainer import Trainer
from daitn.node.config import DatasetConfig, NodeConfig, TestSetConfig
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import DaitnError, InvalidInput, NotFound

__all__ = ["Offered", "OfferedData"]

log = logging.getLogger(__name__)

_File = tuple[str, str]
"""A data set's or a test set's name, and its path."""


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate must know about a file."""

    items: int = 0
    labels: frozenset[str] = frozenset()
    """Labels whose values may leave."""
    least_examples: int = 0
    """Minimum examples of a visit."""


class OfferedData:
    """Finds the data of work, and inspects changed files again."""

    def __init__(self, config: NodeConfig, trainer: Trainer) -> None:
        self._config = config
        self._trainer = trainer
        self._datasets: tuple[DatasetConfig, ...] = ()
        self._tests: tuple[TestSetConfig, ...] = ()
        self._inspected: dict[_File, tuple[int, int]] = {}
        """Stamps of files when they last passed inspection."""
        self._offered: dict[_File, Offered] = {}

    def offer(self, descriptor: NodeDescriptor) -> None:
        """Learn what the descriptor lists, and nothing else."""
        names = {dataset.name for dataset in descriptor.datasets}
        described_tests = descriptor.verifier.tests if descriptor.verifier else ()
        offered_tests = {(test.topic, test.test_schema) for test in described_tests}
        self._datasets = tuple(d for d in self._config.datasets if d.name in names)
        self._tests = tuple(
            t for t in self._config.tests if (t.topic, t.test_schema) in offered_tests
        )
        self._offered = {
            _file(test): Offered(items=described.items, labels=frozenset(described.labels))
            for described in described_tests
            for test in self._tests
            if (test.topic, test.test_schema) == (described.topic, described.test_schema)
        } | {
            _file(dataset): Offered(
                items=described.samples, least_examples=described.least_examples
            )
            for described in descriptor.datasets
            for dataset in self._datasets
            if dataset.name == described.name
        }
        offered: tuple[DatasetConfig | TestSetConfig, ...] = (*self._datasets, *self._tests)
        self._inspected = {_file(each): _stamp(each.path) for each in offered}

    def reconfigure(self, config: NodeConfig) -> None:
        """Apply changes to the same data sets and test sets."""
        self._config = config
        data = {each.name: each for each in config.datasets}
        tests = {(each.topic, each.test_schema): each for each in config.tests}
        self._datasets = tuple(data[each.name] for each in self._datasets)
        self._tests = tuple(tests[each.topic, each.test_schema] for each in self._tests)

    @property
    def datasets(self) -> tuple[DatasetConfig, ...]:
        """All data sets."""
        return self._datasets

    def dataset(self, name: str) -> DatasetConfig:
        """A data set. Raises `NotFound`."""
        for dataset in self._datasets:
            if dataset.name == name:
                return dataset
        raise NotFound(
            f"{self._config.site} has no data set {name}",
            field="dataset",
            fix="see `daitn get datasets`",
        )

    def test_set(self, topic: str, schema: str) -> TestSetConfig:
        """The test set on a topic. Raises `NotFound`."""
        for test in self._tests:
            if (test.topic, test.test_schema) == (topic, schema):
                return test
        raise NotFound(
            f"{self._config.site} has no test set on {topic}",
            field="topic",
            fix="see `daitn get verifiers`",
        )

    def facts(self, data: DatasetConfig | TestSetConfig) -> Offered:
        """Results of its last inspection."""
        return self._offered[_file(data)]

    async def inspect_changed(self, recipe: str, changed: DatasetConfig | TestSetConfig) -> None:
        """Inspect a file again if it changed since it last passed. Raises `InvalidInput` if it no
        longer passes.

        The details stay in the log: the descriptor does not contain them, and whoever sends work
        here does not own the file.
        """
        stamp, path = _stamp(changed.path), Path(changed.path)
        if stamp == self._inspected.get(_file(changed)):
            return
        of_tests, gate = isinstance(changed, TestSetConfig), changed.disclosure
        inspect = self._trainer.inspect_test if of_tests else self._trainer.inspect
        try:
            profile = await inspect(recipe, path, changed.selection)
            gate.check_profile(profile)
        except DaitnError as error:
            log.error("%s has changed and is not usable: %s", path, error)
            raise InvalidInput(
                f"data of {self._config.site} has changed since the site described it, and is not "
                "usable",
                field="topic" if of_tests else "dataset",
                fix="see the site's log",
            ) from None
        self._inspected[_file(changed)] = stamp
        # No label leaves that is not in the descriptor.
        labels = gate.labels(profile.labels, profile.different).keys()
        self._offered[_file(changed)] = Offered(
            items=profile.samples,
            labels=self.facts(changed).labels & labels,
            least_examples=gate.least_examples(profile),
        )


def _file(data: DatasetConfig | TestSetConfig) -> _File:
    return data.disclosure.name, data.path


def _stamp(path: str) -> tuple[int, int]:
    """A file's modification time and size; (-1, -1) for a missing file."""
    try:
        status = Path(path).stat()
    except OSError:
        return (-1, -1)
    return (status.st_mtime_ns, status.st_size)

"""What queries are about, for one gateway: kept up with what data sites publish."""

from __future__ import annotations

from daitn.objects.descriptors import NodeDescriptor, TopicSketch
from daitn.objects.identifiers import SiteId
from daitn.tools.directory import Directory
from daitn.topology.topics import TopicModel

__all__ = ["Topics"]


class Topics:
    """Builds the classifier anew, when it is next asked, after a sketch has changed."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._known: dict[SiteId, tuple[TopicSketch | None, ...]] = {}
        self._model: TopicModel | None = None

    def classify(self, text: str) -> tuple[str, float]:
        """See `TopicModel.classify`."""
        if self._model is None:
            sites = sorted(self._known)
            nodes = (self._directory.node(site) for site in sites)
            self._model = TopicModel(d for node in nodes if node for d in node.datasets)
        return self._model.classify(text)

    def described(self, node: NodeDescriptor) -> None:
        told = tuple(dataset.sketch for dataset in node.datasets)
        if any(told) and self._known.get(node.site) != told:
            self._known[node.site] = told
            self._model = None

    def came(self, site: SiteId) -> None:
        """What was told holds whether its site is there or not."""

    def lost(self, site: SiteId) -> None:
        """Likewise."""

"""Metrics for Prometheus; needs `prometheus-client`, which the extra `[metrics]` brings."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from iroh_gossip_discovery._errors import NotRunningError
from iroh_gossip_discovery._metrics import About, Metrics, about

PREFIX = "iroh_gossip_discovery_"
"""The prefix of every metric's name."""

_NODE = ("topic", "id")
# The label that distinguishes the members of a mapping.
_LABELS = {"events": "event", "bans": "reason", "dropped": "reason"}


class _Node(Protocol):
    @property
    def topic(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def metrics(self) -> Callable[[], Metrics]: ...


class DiscoveryCollector(Collector):
    """Gives a registry the metrics of one or more nodes of this process, as of each collection.

    Each field of `Metrics` is `iroh_gossip_discovery_` and its name, with `_total` behind a counter
    and `_seconds` behind a time, and has the labels `topic` and `id`; `events` has also `event`,
    `bans` and `dropped` have `reason`. A node that does not run has no samples.

    Args:
        *nodes: The nodes; running, or to be started later.

    Example:
        ```python
        from prometheus_client import REGISTRY

        REGISTRY.register(DiscoveryCollector(discovery))
        ```
    """

    def __init__(self, *nodes: _Node) -> None:
        self._nodes = list(nodes)

    def add(self, node: _Node) -> None:
        """Collect from another node too."""
        self._nodes.append(node)

    def remove(self, node: _Node) -> None:
        """Collect from a node no longer.

        Raises:
            ValueError: It was not among them.
        """
        self._nodes.remove(node)

    def collect(self) -> Iterable[Metric]:
        """Return every metric, with a sample for each node that runs."""
        read = [reading for node in list(self._nodes) if (reading := _read(node)) is not None]
        return [_family(field, described, read) for field, described in about().items()]


def _read(node: _Node) -> tuple[list[str], Metrics] | None:
    try:
        return [node.topic, node.id], node.metrics()
    except NotRunningError:
        return None


def _family(field: str, described: About, read: list[tuple[list[str], Metrics]]) -> Metric:
    unit = "_seconds" if described.unit == "seconds" else ""
    label = _LABELS.get(field)
    labels = _NODE if label is None else (*_NODE, label)
    make = CounterMetricFamily if described.kind == "counter" else GaugeMetricFamily
    text = f"{described.text} ({described.unit})"
    family = make(f"{PREFIX}{field}{unit}", text, labels=labels)
    for node, metrics in read:
        value = getattr(metrics, field)
        if isinstance(value, Mapping):
            for key, count in value.items():
                family.add_metric([*node, key], count)
        elif value is not None:
            family.add_metric(node, value)
    return family

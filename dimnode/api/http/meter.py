"""What Prometheus sees of this node.

Rule: names and labels are documented in docs/http.md and their number is bounded: routes are those of the API, states
those of the engine; no id of a job, key or peer is ever a label.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

_GAUGES: Final[Mapping[str, tuple[str, str]]] = {
    "up_seconds": ("dimnode_up_seconds", "seconds since the node was ready"),
    "peers_linked": ("dimnode_peers_linked", "peers with a standing link"),
    "peers_known": ("dimnode_peers_known", "peers that were heard lately"),
    "dht_peers": ("dimnode_dht_peers", "entries in the DHT's routing table"),
    "jobs_open": ("dimnode_jobs_open", "jobs that this node owns and that have no verdict yet"),
    "tasks_held": ("dimnode_tasks_held", "tasks of any owner that this node executes or keeps the answer of"),
    "tasks_queued": ("dimnode_tasks_queued", "tasks that wait for a worker"),
    "tasks_running": ("dimnode_tasks_running", "tasks in a worker now"),
    "workers": ("dimnode_workers", "worker processes that live"),
    "models": ("dimnode_models", "models that this node offers"),
    "cabinets": ("dimnode_cabinets", "data cabinets that this node offers"),
    "rss_bytes": ("dimnode_resident_bytes", "memory of the node's process, without its workers"),
    "held_bytes": ("dimnode_held_bytes", "bytes of inputs and outputs in memory"),
    "inbox_waiting": ("dimnode_inbox_events", "events that wait for the loop"),
    "loop_late_p99_ms": ("dimnode_loop_late_p99_ms", "how late the loop comes to a timer, 99th percentile, a minute"),
    "commit_p50_ms": ("dimnode_commit_p50_ms", "one transaction with its fsync, median of the latest"),
    "commit_p99_ms": ("dimnode_commit_p99_ms", "one transaction with its fsync, 99th percentile of the latest"),
    "disk_free_bytes": ("dimnode_disk_free_bytes", "free bytes where the home is"),
}
_COUNTERS: Final[Mapping[str, tuple[str, str]]] = {
    "cpu_seconds": ("dimnode_cpu_seconds", "processor time of the node's process"),
    "commits": ("dimnode_commits", "transactions of the journal"),
    "loop_passes": ("dimnode_loop_passes", "passes of the loop"),
    "loop_events": ("dimnode_loop_events", "events that the loop took"),
    "link_bytes_in": ("dimnode_link_bytes_in", "bytes read from task streams of peers that are linked now"),
    "link_bytes_out": ("dimnode_link_bytes_out", "bytes written to task streams of peers that are linked now"),
}
_SECONDS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0)


class Meter:
    """Counts requests itself; everything else is asked of the node when somebody looks."""

    def __init__(self, status: Callable[[], Mapping[str, Any]]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the page and say nothing
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "dimnode_http_requests", "finished requests", ("method", "route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "dimnode_http_seconds",
            "time to the end of an answer",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(_Node(status))

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One finished request; `route` is a path of the API with its placeholders, or `other`."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def page(self) -> bytes:
        """The text format, version 0.0.4."""
        return bytes(generate_latest(self._registry))


class _Node(Collector):
    def __init__(self, status: Callable[[], Mapping[str, Any]]) -> None:
        self._status = status

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """Called by the registry."""
        said = self._status()
        for key, (name, words) in _GAUGES.items():
            if said.get(key) is not None:
                yield GaugeMetricFamily(name, words, value=float(said[key]))
        for key, (name, words) in _COUNTERS.items():
            if said.get(key) is not None:
                yield CounterMetricFamily(name, words, value=float(said[key]))
        refused = CounterMetricFamily("dimnode_tasks_refused", "tasks that were not taken here", labels=("code",))
        for code, count in said.get("tasks_refused", {}).items():
            refused.add_metric((str(code),), float(count))
        yield refused
        finished = CounterMetricFamily("dimnode_tasks_finished", "tasks that ended here", labels=("outcome",))
        for outcome, count in said.get("tasks_finished", {}).items():
            finished.add_metric((str(outcome),), float(count))
        yield finished
        conduct = said.get("conduct", {})
        gossip = CounterMetricFamily(
            "dimnode_gossip_messages", "gossip by what became of it", labels=("topic", "outcome")
        )
        for topic, outcomes in conduct.get("gossip", {}).items():
            for outcome, count in outcomes.items():
                gossip.add_metric((str(topic), str(outcome)), float(count))
        yield gossip
        offences = CounterMetricFamily("dimnode_peer_offences", "what peers did wrong", labels=("offence",))
        for offence, count in conduct.get("offences", {}).items():
            offences.add_metric((str(offence),), float(count))
        yield offences

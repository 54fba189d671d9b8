"""The gateway's metrics in Prometheus' text format, with one registry for each app."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest

from gateway.runs.events import RunResult
from gateway.runs.request import RunRequest

__all__ = ["Metrics"]

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_STATUSES = ("finished", "truncated", "unanswered", "aborted", "failed")
_TOKENS = (0, 64, 256, 1024, 4096, 16384, 65536)


class AliasRoute(Protocol):
    """An alias that a request named, and the model that the request went to."""

    @property
    def alias(self) -> str:
        """The name that the client sent."""
        ...

    @property
    def target(self) -> str:
        """The model that answers."""
        ...


class Metrics:
    """The counters, gauges and histograms of one app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "thinkgate_requests", "Requests by HTTP status.", ["status"], registry=self.registry
        )
        self._running = Gauge("thinkgate_requests_running", "Requests in progress.", registry=self.registry)
        self._seconds = Histogram(
            "thinkgate_request_seconds",
            "Seconds from request to complete answer.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._tokens = Counter(
            "thinkgate_tokens", "Tokens: prompt, thinking, answer, saved.", ["kind"], registry=self.registry
        )
        self._samples = Counter(
            "thinkgate_samples", "Samples by how they ended.", ["status"], registry=self.registry
        )
        self._thinking = Histogram(
            "thinkgate_thinking_tokens",
            "Thinking tokens of the returned answers, by level.",
            ["level"],
            buckets=_TOKENS,
            registry=self.registry,
        )
        by_target = ["alias", "target"]
        self._target_requests = Counter(
            "thinkgate_target_requests",
            "Requests for an alias, by model and HTTP status.",
            [*by_target, "status"],
            registry=self.registry,
        )
        self._target_seconds = Histogram(
            "thinkgate_target_seconds",
            "Seconds from request to complete answer, by alias and model.",
            by_target,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._target_tokens = Counter(
            "thinkgate_target_tokens",
            "Generated tokens, by alias and model.",
            by_target,
            registry=self.registry,
        )
        self._target_shares = Summary(
            "thinkgate_target_agreement",
            "The winner's share of each vote, by alias and model.",
            by_target,
            registry=self.registry,
        )
        self._answered = self._requests.labels("200")
        self._kinds = {kind: self._tokens.labels(kind) for kind in ("prompt", "thinking", "answer", "saved")}
        self._endings = {status: self._samples.labels(status) for status in _STATUSES}

    def count_start(self) -> None:
        """Count a request that has arrived."""
        self._running.inc()

    def count_end(self, status: int, route: AliasRoute | None = None) -> None:
        """Count the end of a request; status 499 means that the client disconnected."""
        self._running.dec()
        if route is not None:
            self.count_alias(route, status)
        (self._answered if status == 200 else self._requests.labels(str(status))).inc()

    def count_alias(self, route: AliasRoute, status: int) -> None:
        """Count the end of a request that named an alias."""
        self._target_requests.labels(route.alias, route.target, str(status)).inc()

    def count_result(self, request: RunRequest, result: RunResult) -> None:
        """Count what a finished request took: seconds, tokens and samples."""
        self._seconds.observe(result.seconds)
        tokens = {
            "prompt": result.upstream_prompt,
            "thinking": result.reasoning,
            "answer": max(0, result.generated - result.reasoning),
            "saved": result.saved,
        }
        for kind, number in tokens.items():
            if number:
                self._kinds[kind].inc(number)
        counts = result.counts
        for status, counter in self._endings.items():
            number = getattr(counts, status)
            if status == "finished":  # the counts include truncated and unanswered samples there
                number -= counts.truncated + counts.unanswered
            if number:
                counter.inc(number)
        if request.requested_budget is not None and result.chosen:
            level = request.sampling.level or "number"
            self._thinking.labels(level).observe(result.chosen[0].usage.reasoning)
        if request.route is not None:
            labels = request.route.alias, request.route.target
            self._target_seconds.labels(*labels).observe(result.seconds)
            self._target_tokens.labels(*labels).inc(result.generated)
            if result.vote is not None:
                self._target_shares.labels(*labels).observe(result.vote.share)

    def add_aliases_gauge(self, bad: Callable[[], bool]) -> None:
        """Add a gauge that says whether the aliases file is unusable."""
        name, description = "thinkgate_aliases_bad", "1 while the aliases file can't be used."
        Gauge(name, description, registry=self.registry).set_function(lambda: float(bad()))

    def add_unrecorded_gauge(self, count: Callable[[], int]) -> None:
        """Add a gauge of the requests that the recorder failed to write; `count` returns their number."""
        name, description = "thinkgate_requests_unrecorded", "Requests that the recorder failed to write."
        Gauge(name, description, registry=self.registry).set_function(count)

    def text(self) -> bytes:
        """Return the metrics as Prometheus scrapes them."""
        return generate_latest(self.registry)

"""What operators can watch, in Prometheus' text format. One registry an app."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest

from gateway.aliases import Route
from gateway.runs.events import RunResult
from gateway.runs.request import RunRequest

__all__ = ["Metrics"]

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_STATUSES = ("finished", "truncated", "unanswered", "aborted", "failed")
_TOKENS = (0, 64, 256, 1024, 4096, 16384, 65536)


class Metrics:
    """The gateway's own counters."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "thinkgate_requests", "Requests by how they ended.", ["status"], registry=self.registry
        )
        self._running = Gauge(
            "thinkgate_requests_running", "Requests being answered now.", registry=self.registry
        )
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
            "Thinking tokens of the answers returned, by level.",
            ["level"],
            buckets=_TOKENS,
            registry=self.registry,
        )
        by_target = ["alias", "target"]
        self._target_requests = Counter(
            "thinkgate_target_requests",
            "Requests for an alias, by the model they went to and how they ended.",
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
            "Tokens generated, by alias and model.",
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
        self._ends = {status: self._samples.labels(status) for status in _STATUSES}

    def begin(self) -> None:
        """A request has come in."""
        self._running.inc()

    def end(self, status: int, route: Route | None = None) -> None:
        """A request has been answered; 499: the client hung up."""
        self._running.dec()
        if route is not None:
            self.routed(route, status)
        (self._answered if status == 200 else self._requests.labels(str(status))).inc()

    def routed(self, route: Route, status: int) -> None:
        """A request for an alias has ended."""
        self._target_requests.labels(route.alias, route.target, str(status)).inc()

    def result(self, request: RunRequest, result: RunResult) -> None:
        """A request has come to its end."""
        self._seconds.observe(result.seconds)
        spent = {
            "prompt": result.upstream_prompt,
            "thinking": result.reasoning,
            "answer": max(0, result.generated - result.reasoning),
            "saved": result.saved,
        }
        for kind, number in spent.items():
            if number:
                self._kinds[kind].inc(number)
        counts = result.counts
        for status, end in self._ends.items():
            number = getattr(counts, status)
            if status == "finished":  # which the counts take for all that came to their own end
                number -= counts.truncated + counts.unanswered
            if number:
                end.inc(number)
        if request.asked is not None and result.chosen:
            level = request.sampling.level or "number"
            self._thinking.labels(level).observe(result.chosen[0].usage.reasoning)

        if request.route is not None:
            labels = request.route.alias, request.route.target
            self._target_seconds.labels(*labels).observe(result.seconds)
            self._target_tokens.labels(*labels).inc(result.generated)
            if result.verdict is not None:
                self._target_shares.labels(*labels).observe(result.verdict.share)

    def aliases(self, bad: Callable[[], bool]) -> None:
        """Has it watched whether the aliases file can be used."""
        name, told = "thinkgate_aliases_bad", "1 where the aliases file can't be used as it is now."
        Gauge(name, told, registry=self.registry).set_function(lambda: float(bad()))

    def unrecorded(self, count: Callable[[], int]) -> None:
        """Has the requests watched that the recorder could not write; `count` tells how many."""
        name, told = "thinkgate_requests_unrecorded", "Requests that were to be recorded and could not be."
        Gauge(name, told, registry=self.registry).set_function(count)

    def text(self) -> bytes:
        """The exposition that Prometheus scrapes."""
        return generate_latest(self.registry)

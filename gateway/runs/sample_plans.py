"""What one request orders of the sampler: one prototype for each level of effort, copied for its samples."""

from __future__ import annotations

from dataclasses import replace

from gateway.upstreams.base import Backend
from gateway.runs.request import Job
from gateway.runs.sampling import Order, Rendering
from policies.types import Budget

__all__ = ["Orders"]


class Orders:
    """One request's orders; samples of one level of effort share their rendered prompt."""

    def __init__(self, backend: Backend, job: Job) -> None:
        self._backend = backend
        self._job = job
        self._known: dict[tuple[str | None, int | None], tuple[Order, tuple[str, ...]]] = {}

    def order(
        self, budget: Budget, indices: tuple[int, ...], seed: int | None = None
    ) -> tuple[Order, tuple[str, ...]]:
        """The order for samples at `budget`, and what has to be told of it."""
        key = (budget.effort, budget.thinking_tokens)
        if key not in self._known:
            self._known[key] = self._prototype(budget)
        prototype, notes = self._known[key]
        return _for_samples(prototype, indices, seed), notes

    def _prototype(self, budget: Budget) -> tuple[Order, tuple[str, ...]]:
        kept = self._job.approach(budget)
        rendering = Rendering(self._backend, kept.body)
        order = Order(kept.body, (), rendering, kept.terms, kept.schema)
        limit = kept.terms.limit
        native = None if limit is None else self._backend.native_limit(kept.body, limit)
        if native is None:
            return order, kept.shaped.notes
        own = self._job.approach(budget, native=native)
        return Order(own.body, (), rendering, own.terms, own.schema, fallback=order), own.shaped.notes


def _for_samples(order: Order, indices: tuple[int, ...], seed: int | None) -> Order:
    body = order.body if seed is None else {**order.body, "seed": seed}
    fallback = None if order.fallback is None else _for_samples(order.fallback, indices, seed)
    return replace(order, body=body, indices=indices, fallback=fallback)

"""What one request orders of the sampler: one prototype for each level of effort, copied for its samples."""

from __future__ import annotations

from dataclasses import replace

from gateway.runs.request import RunRequest
from gateway.runs.sampling import Order, Rendering
from gateway.upstreams.base import Upstream
from policies.types import SamplingRequest

__all__ = ["Orders"]


class Orders:
    """One request's orders; samples of one level of effort share their rendered prompt."""

    def __init__(self, upstream: Upstream, request: RunRequest) -> None:
        self._upstream = upstream
        self._request = request
        self._known: dict[tuple[str | None, int | None], tuple[Order, tuple[str, ...]]] = {}

    def order(
        self, sampling: SamplingRequest, indices: tuple[int, ...], seed: int | None = None
    ) -> tuple[Order, tuple[str, ...]]:
        """The order for samples at `budget`, and what has to be told of it."""
        key = (sampling.level, sampling.thinking_limit)
        if key not in self._known:
            self._known[key] = self._prototype(sampling)
        prototype, notes = self._known[key]
        return _for_samples(prototype, indices, seed), notes

    def _prototype(self, sampling: SamplingRequest) -> tuple[Order, tuple[str, ...]]:
        kept = self._request.approach(sampling)
        rendering = Rendering(self._upstream, kept.body)
        order = Order(kept.body, (), rendering, kept.terms, kept.schema)
        limit = kept.terms.limit
        native = None if limit is None else self._upstream.native_limit(kept.body, limit)
        if native is None:
            return order, kept.shaped.notes
        own = self._request.approach(sampling, native=native)
        return Order(own.body, (), rendering, own.terms, own.schema, fallback=order), own.shaped.notes


def _for_samples(order: Order, indices: tuple[int, ...], seed: int | None) -> Order:
    body = order.body if seed is None else {**order.body, "seed": seed}
    fallback = None if order.fallback is None else _for_samples(order.fallback, indices, seed)
    return replace(order, body=body, indices=indices, fallback=fallback)

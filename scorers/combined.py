"""Combines several scorers into one, each with its weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

from scorers.concurrency import gather_or_cancel
from scorers.types import Sample, Scorer, ScorerModel

__all__ = ["CombinedScorer"]


@dataclass(frozen=True, slots=True)
class CombinedScorer:
    """Weighs a sample by the weighted mean of the `parts` that have an opinion on it.

    The parts run concurrently. If one fails, so does the whole.
    """

    parts: Sequence[tuple[Scorer, float]]

    @property
    def needs_logprobs(self) -> bool:
        """Return whether one of the parts needs them."""
        return any(scorer.needs_logprobs for scorer, _ in self.parts)

    async def score(
        self, messages: Sequence[Mapping[str, Any]], samples: Sequence[Sample], model: ScorerModel
    ) -> list[float | None]:
        """See `Scorer`."""
        columns = await gather_or_cancel(scorer.score(messages, samples, model) for scorer, _ in self.parts)
        weights = [weight for _, weight in self.parts]
        return [_mean(row, weights) for row in zip(*columns, strict=True)]


def _mean(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    known = [(v, w) for v, w in zip(values, weights, strict=True) if v is not None]
    total = fsum(weight for _, weight in known)
    return fsum(value * weight for value, weight in known) / total if total > 0 else None

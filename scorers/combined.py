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
    """Scores a sample by the weighted mean of `parts`, pairs of a scorer and its weight.

    A scorer that returns None for a sample does not count there. The scorers run concurrently. If one fails,
    the combined scorer fails.
    """

    parts: Sequence[tuple[Scorer, float]]

    @property
    def needs_logprobs(self) -> bool:
        """Return whether one of the scorers needs logprobs."""
        return any(scorer.needs_logprobs for scorer, _ in self.parts)

    async def score(
        self, messages: Sequence[Mapping[str, Any]], samples: Sequence[Sample], model: ScorerModel
    ) -> list[float | None]:
        """See `Scorer`."""
        scores_by_scorer = await gather_or_cancel(
            scorer.score(messages, samples, model) for scorer, _ in self.parts
        )
        weights = [weight for _, weight in self.parts]
        return [_weighted_mean(scores, weights) for scores in zip(*scores_by_scorer, strict=True)]


def _weighted_mean(scores: Sequence[float | None], weights: Sequence[float]) -> float | None:
    known = [(score, weight) for score, weight in zip(scores, weights, strict=True) if score is not None]
    total = fsum(weight for _, weight in known)
    return fsum(score * weight for score, weight in known) / total if total > 0 else None

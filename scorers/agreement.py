"""Scores each sample by how much the others agree with it: by answers, or else by words."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import fsum
from typing import Any

from scorers.sample_answers import read_answer
from scorers.types import Sample, ScorerModel
from scorers.votes import similarities

__all__ = ["AgreementScorer"]


@dataclass(frozen=True, slots=True)
class AgreementScorer:
    """Weighs a sample by its mean agreement with the other samples, in [0, 1].

    Two samples that declare an answer agree fully or not at all, by the answers' canonical forms.
    Other samples agree by the overlap of their words (`scorers.votes.overlap`), the utility of
    minimum Bayes risk decoding. So the scorer weighs free text and worked answers alike, and
    combines with scorers that look at one sample alone.
    """

    needs_logprobs: bool = field(default=False, init=False)

    async def score(
        self, messages: Sequence[Mapping[str, Any]], samples: Sequence[Sample], model: ScorerModel
    ) -> list[float | None]:
        """See `Scorer`; asks no model. N samples take N(N-1)/2 comparisons, in a thread."""
        return await asyncio.to_thread(_agreements, samples)


def _agreements(samples: Sequence[Sample]) -> list[float | None]:
    if len(samples) < 2:
        return [None for _ in samples]
    answers = [read_answer(sample) for sample in samples]
    similarity = similarities([sample.content for sample in samples])
    agreements: list[list[float]] = [[] for _ in samples]
    for i, j in combinations(range(len(samples)), 2):
        first, second = answers[i], answers[j]
        value = similarity(i, j) if first is None or second is None else float(first.key == second.key)
        agreements[i].append(value)
        agreements[j].append(value)
    return [fsum(values) / len(values) for values in agreements]

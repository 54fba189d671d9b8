"""Scorers that compare all samples, and scorers that combine others."""

import asyncio
from typing import Any

import pytest

from scorers.agreement import AgreementScorer
from scorers.combined import CombinedScorer
from scorers.confidence import ConfidenceScorer
from scorers.types import Sample, ScorerError
from tests.scorers.models import nobody


class Says:
    """A scorer that gives the same scores every time, or fails."""

    needs_logprobs = False

    def __init__(self, *values: float | Exception | None) -> None:
        self._values = values
        self.cancelled = False

    async def score(self, messages: Any, samples: Any, model: Any) -> list[float | None]:
        """See `Scorer`."""
        if isinstance(self._values[0], Exception):
            raise self._values[0]
        return [value for value in self._values if not isinstance(value, Exception)]


async def test_equal_answers_agree_and_words_count_without_answers() -> None:
    """Answers decide between samples that have one, and the overlap of words otherwise."""
    samples = [Sample(0, "\\boxed{7}"), Sample(1, "So \\boxed{7.0}"), Sample(2, "\\boxed{8}")]
    assert await AgreementScorer().score([], samples, nobody()) == [0.5, 0.5, 0.0]
    talk = [
        Sample(0, "we will see you all there"),
        Sample(1, "we will see you there"),
        Sample(2, "no way at all ever"),
    ]
    first, second, third = await AgreementScorer().score([], talk, nobody())
    assert first is not None
    assert second is not None
    assert third is not None
    assert min(first, second) > third


async def test_a_single_sample_has_no_agreement() -> None:
    """A single sample has no agreement to score."""
    assert await AgreementScorer().score([], [Sample(0, "7")], nobody()) == [None]


async def test_the_parts_are_averaged_by_weight() -> None:
    """The mean is over the scorers with an opinion; without any there is no opinion."""
    mixed = CombinedScorer([(Says(1.0, None, None), 3.0), (Says(0.0, 0.5, None), 1.0)])
    samples = [Sample(i, "") for i in range(3)]
    assert await mixed.score([], samples, nobody()) == [0.75, 0.5, None]


async def test_a_failing_part_fails_the_whole() -> None:
    """If one part fails, the whole fails and the other parts are cancelled."""

    class Waits(Says):
        async def score(self, messages: Any, samples: Any, model: Any) -> list[float | None]:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled = True
            return []

    waits = Waits()
    mixed = CombinedScorer([(waits, 1.0), (Says(ScorerError("broken")), 1.0)])
    with pytest.raises(ScorerError, match="broken"):
        await mixed.score([], [Sample(0, "")], nobody())
    assert waits.cancelled


def test_logprobs_are_needed_where_a_part_needs_them() -> None:
    """A combination needs logprobs if one of its parts does."""
    assert CombinedScorer([(ConfidenceScorer(), 1.0)]).needs_logprobs
    assert not CombinedScorer([(AgreementScorer(), 1.0)]).needs_logprobs

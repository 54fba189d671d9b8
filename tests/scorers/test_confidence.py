"""Confidence scores from log probabilities."""

from math import exp, inf, log
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scorers.confidence import (
    ConfidenceScorer,
    ConfidenceWindow,
    compact_tokens,
    logged_tokens,
    mean_logprob,
    self_certainty,
    token_confidence,
)
from scorers.types import Sample, ScorerModel


def token(*logprobs: float) -> dict[str, Any]:
    """Return a token that is its own first alternative."""
    top = [{"token": str(i), "logprob": value} for i, value in enumerate(logprobs)]
    return {"token": "0", "logprob": logprobs[0], "top_logprobs": top}


def sure(value: float) -> dict[str, Any]:
    """Return a token of this confidence."""
    return token(-value, -value)


def sample(*content: dict[str, Any]) -> Sample:
    """Return a sample with these logged tokens."""
    return Sample(0, "", logprobs={"content": list(content)})


class NoModel:
    """A model that fails if it is asked."""

    async def complete(self, messages: Any, **params: Any) -> Sample:
        """Fail."""
        raise AssertionError("the confidence scorer asked the model")


MODEL: ScorerModel = NoModel()


def test_token_confidence() -> None:
    """Confidence is minus the mean of the top log probabilities: -(-0.1 - 2 - 6) / 3."""
    assert token_confidence(token(-0.1, -2.0, -6.0)) == pytest.approx(2.7)


@pytest.mark.parametrize(
    "entry", [token(-0.1), {"token": "a", "logprob": -0.1}, token(0.0, -9999.0), token(0.0, -inf)]
)
def test_one_alternative_gives_no_confidence(entry: dict[str, Any]) -> None:
    """Fewer than two possible alternatives give no confidence: a single one would reverse its meaning."""
    assert token_confidence(entry) is None


def test_mean_logprob() -> None:
    """The mean is over the sample's tokens, without impossible ones."""
    assert mean_logprob([token(-1.0), token(-3.0), token(-9999.0)]) == -2.0
    assert mean_logprob([]) is None


def test_self_certainty() -> None:
    """Certainty is 0 if all alternatives are equally likely, and grows as one stands out."""
    even, uneven = token(log(0.25), log(0.25)), token(log(0.4), log(0.1))
    assert self_certainty([even]) == pytest.approx(0.0)
    # KL of (1/2, 1/2) from (0.8, 0.2), the two renormalised
    assert self_certainty([uneven]) == pytest.approx(0.5 * log(0.5 / 0.8) + 0.5 * log(0.5 / 0.2))
    assert self_certainty([token(-1.0)]) is None


def test_without_logprobs_there_are_no_tokens() -> None:
    """Absent logprobs and empty ones hold no tokens."""
    assert (logged_tokens(None), logged_tokens({"content": None})) == ((), ())


def test_the_window_waits_until_it_is_full() -> None:
    """A window counts only once it is full; until then the sample's confidence is its mean."""
    window = ConfidenceWindow(3)
    assert window.feed([sure(1), sure(3)]) is None
    assert (window.lowest, window.lowest_or_mean, window.bottom()) == (None, 2.0, 2.0)
    assert window.feed([sure(5), sure(7)]) == 3.0
    assert (window.lowest_or_mean, window.tail, window.full_windows) == (3.0, 5.0, [3.0, 5.0])


def test_bottom_is_the_mean_of_the_lowest_tenth() -> None:
    """Of 20 windows the two lowest count."""
    window = ConfidenceWindow(1)
    window.feed(sure(value) for value in range(20, 0, -1))
    assert window.bottom() == 1.5


def test_an_empty_window_has_no_confidence() -> None:
    """Without tokens there is no confidence of any kind, and a window of size 0 is an error."""
    window = ConfidenceWindow()
    assert (window.lowest, window.mean, window.lowest_or_mean, window.tail, window.bottom()) == (None,) * 5
    with pytest.raises(ValueError, match="at least one"):
        ConfidenceWindow(0)


@settings(deadline=None)
@given(st.lists(st.floats(0, 30), max_size=40), st.integers(1, 8))
def test_streaming_agrees_with_the_definition(values: list[float], size: int) -> None:
    """Fed token by token, the lowest window is the least mean of `size` neighbours."""
    window = ConfidenceWindow(size)
    for value in values:
        window.feed([sure(value)])
    means = [sum(values[i : i + size]) / size for i in range(len(values) - size + 1)]
    assert window.full_windows == pytest.approx(means, abs=1e-9)
    assert window.lowest == (pytest.approx(min(means), abs=1e-9) if means else None)


async def test_scores_keep_their_proportions() -> None:
    """Confidences are divided by the largest; a sample without logprobs gets no score."""
    samples = [sample(sure(4)), sample(sure(8)), Sample(2, ""), sample(token(-1.0))]
    assert await ConfidenceScorer("mean").score([], samples, MODEL) == [0.5, 1.0, None, None]


async def test_probability_is_absolute() -> None:
    """The geometric mean probability does not depend on the other samples."""
    scores = await ConfidenceScorer("probability").score([], [sample(token(-1.0), token(-3.0))], MODEL)
    assert scores == [pytest.approx(exp(-2))]


@pytest.mark.parametrize("measure", ["bottom", "lowest", "mean", "tail", "certainty", "probability"])
async def test_every_measure_prefers_the_sure(measure: str) -> None:
    """A peaked distribution scores higher than a flat one, and both stay in [0, 1]."""
    flat, peaked = token(log(0.3), log(0.3)), token(log(0.98), log(0.01))
    low, high = await ConfidenceScorer(measure).score([], [sample(flat), sample(peaked)], MODEL)
    assert low is not None
    assert high is not None
    assert 0 <= low < high <= 1


def test_unknown_measures_are_refused() -> None:
    """An unknown measure is an error that lists the allowed ones."""
    with pytest.raises(ValueError, match="allowed: bottom, lowest, mean, tail, certainty, probability"):
        ConfidenceScorer("loud")


def test_missing_logprobs_hold_no_tokens() -> None:
    """Absent and empty logprobs hold no tokens."""
    assert (logged_tokens(None), logged_tokens({"content": None})) == ((), ())


@pytest.mark.parametrize("measure", ["bottom", "lowest", "mean", "tail", "certainty", "probability"])
async def test_compact_tokens_give_the_same_scores(measure: str) -> None:
    """The compact tokens that the gateway keeps give the same scores as the whole ones."""
    content = [
        {
            "token": "a",
            "logprob": -0.5 * n,
            "top_logprobs": [{"logprob": -0.25 * n}, {"logprob": -9999.0}, {"logprob": -1.0 * n}],
        }
        for n in range(1, 9)
    ]
    other = content[:3]
    scorer = ConfidenceScorer(measure, window=4)
    whole = scorer.weigh([content, other])
    assert scorer.weigh([compact_tokens(content), compact_tokens(other)]) == pytest.approx(whole, rel=1e-6)

"""What log probabilities say about how sure a model was."""

from math import exp, inf, log
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scorers.confidence import (
    ConfidenceScorer,
    ConfidenceWindow,
    compact,
    content_of,
    mean_logprob,
    self_certainty,
    token_confidence,
)
from scorers.types import Sample, ScorerModel


def token(*logprobs: float) -> dict[str, Any]:
    """A token whose first alternative was drawn."""
    top = [{"token": str(i), "logprob": value} for i, value in enumerate(logprobs)]
    return {"token": "0", "logprob": logprobs[0], "top_logprobs": top}


def sure(value: float) -> dict[str, Any]:
    """A token of this confidence."""
    return token(-value, -value)


def sample(*content: dict[str, Any]) -> Sample:
    """A sample with these logged tokens."""
    return Sample(0, "", logprobs={"content": list(content)})


class NoModel:
    """A model that must not be asked."""

    async def complete(self, messages: Any, **params: Any) -> Sample:
        """Fail."""
        raise AssertionError("the confidence scorer asked the model")


MODEL: ScorerModel = NoModel()


def test_token_confidence() -> None:
    """It is minus the mean of the top log probabilities: -(-0.1 - 2 - 6) / 3."""
    assert token_confidence(token(-0.1, -2.0, -6.0)) == pytest.approx(2.7)


@pytest.mark.parametrize(
    "entry", [token(-0.1), {"token": "a", "logprob": -0.1}, token(0.0, -9999.0), token(0.0, -inf)]
)
def test_one_alternative_tells_nothing(entry: dict[str, Any]) -> None:
    """Fewer than two possible alternatives give no confidence: a lone one would turn its meaning round."""
    assert token_confidence(entry) is None


def test_mean_logprob() -> None:
    """The mean is over drawn tokens; impossible ones are passed over."""
    assert mean_logprob([token(-1.0), token(-3.0), token(-9999.0)]) == -2.0
    assert mean_logprob([]) is None


def test_self_certainty() -> None:
    """It is 0 where all alternatives are equally likely and grows as one stands out."""
    even, uneven = token(log(0.25), log(0.25)), token(log(0.4), log(0.1))
    assert self_certainty([even]) == pytest.approx(0.0)
    # KL of (1/2, 1/2) from (0.8, 0.2), the two renormalised
    assert self_certainty([uneven]) == pytest.approx(0.5 * log(0.5 / 0.8) + 0.5 * log(0.5 / 0.2))
    assert self_certainty([token(-1.0)]) is None


def test_the_window_waits_until_it_is_full() -> None:
    """No group is judged before it is full; the trace then counts as its mean."""
    window = ConfidenceWindow(3)
    assert window.feed([sure(1), sure(3)]) is None
    assert (window.lowest, window.trace, window.bottom()) == (None, 2.0, 2.0)
    assert window.feed([sure(5), sure(7)]) == 3.0
    assert (window.trace, window.tail, window.groups) == (3.0, 5.0, [3.0, 5.0])


def test_bottom_is_the_mean_of_the_lowest_tenth() -> None:
    """Of 20 groups the two lowest count."""
    window = ConfidenceWindow(1)
    window.feed(sure(value) for value in range(20, 0, -1))
    assert window.bottom() == 1.5


def test_an_empty_window_says_nothing() -> None:
    """Without tokens there is no confidence of any kind, and a window of nothing is refused."""
    window = ConfidenceWindow()
    assert (window.lowest, window.mean, window.trace, window.tail, window.bottom()) == (None,) * 5
    with pytest.raises(ValueError, match="at least one"):
        ConfidenceWindow(0)


@settings(deadline=None)
@given(st.lists(st.floats(0, 30), max_size=40), st.integers(1, 8))
def test_streaming_agrees_with_the_definition(values: list[float], size: int) -> None:
    """Fed token by token, the lowest group is the least mean of `size` neighbours."""
    window = ConfidenceWindow(size)
    for value in values:
        window.feed([sure(value)])
    means = [sum(values[i : i + size]) / size for i in range(len(values) - size + 1)]
    assert window.groups == pytest.approx(means, abs=1e-9)
    assert window.lowest == (pytest.approx(min(means), abs=1e-9) if means else None)


async def test_scores_keep_their_proportions() -> None:
    """Confidences are divided by the largest; a sample without logprobs gets no score."""
    samples = [sample(sure(4)), sample(sure(8)), Sample(2, ""), sample(token(-1.0))]
    assert await ConfidenceScorer("mean").score([], samples, MODEL) == [0.5, 1.0, None, None]


async def test_probability_stands_by_itself() -> None:
    """The geometric mean probability needs no other sample to be compared with."""
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
    """An unknown measure is an error that lists what is allowed."""
    with pytest.raises(ValueError, match="allowed: bottom, lowest, mean, tail, certainty, probability"):
        ConfidenceScorer("loud")


def test_content_of_nothing() -> None:
    """Absent and empty logprobs hold no tokens."""
    assert (content_of(None), content_of({"content": None})) == ((), ())


@pytest.mark.parametrize("measure", ["bottom", "lowest", "mean", "tail", "certainty", "probability"])
async def test_compact_logprobs_say_the_same(measure: str) -> None:
    """What the gateway keeps of long traces weighs them as the whole of it would."""
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
    assert scorer.weigh([compact(content), compact(other)]) == pytest.approx(whole, rel=1e-6)

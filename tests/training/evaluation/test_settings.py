"""The grid of settings."""

import pytest

from training.evaluation.settings import EvaluationSetting, setting_grid


def test_every_combination_once() -> None:
    """A single sample has no vote and no rule, so it stands once for each budget."""
    settings = setting_grid(["off", "low"], [1, 8], ["majority", "best"], ["none", "adaptive"])
    assert len(settings) == len({setting.name for setting in settings}) == 2 * (1 + 4)
    assert settings[0] == EvaluationSetting("off")
    assert EvaluationSetting("low", 8, "best", "none") in settings


def test_a_setting_is_asked_by_headers() -> None:
    """The default budget is one that nothing is said of."""
    assert EvaluationSetting("low").headers == {"X-Reasoning-Budget": "low", "X-Samples": "1"}
    voted = EvaluationSetting("default", 8, "majority", "adaptive")
    assert voted.headers == {"X-Samples": "8", "X-Vote": "majority", "X-Stop": "adaptive"}
    assert voted.name == "default@8 adaptive"


def test_a_vote_may_name_its_scorer() -> None:
    """As a client does, in a header; the name tells it from the same vote by another."""
    setting = setting_grid(["high"], [8], ["weighted:checker"], ["none"])[0]
    assert setting.headers["X-Vote"] == "weighted"
    assert setting.headers["X-Scorer"] == "checker"
    assert setting.name == "high@8 weighted:checker"
    assert "X-Scorer" not in setting_grid(["high"], [8], ["weighted"], ["none"])[0].headers


@pytest.mark.parametrize(
    ("samples", "votes", "stops", "told"),
    [
        ([0], ["majority"], ["none"], "at least one sample"),
        ([8], ["lottery"], ["none"], "unknown vote 'lottery'"),
        ([8], ["weighted:"], ["none"], "names no scorer"),
        ([8], ["majority"], ["sometimes"], "allowed: none, adaptive"),
    ],
)
def test_a_mistake_is_told(samples: list[int], votes: list[str], stops: list[str], told: str) -> None:
    """Before anything is asked of anyone."""
    with pytest.raises(ValueError, match=told):
        setting_grid(["off"], samples, votes, stops)

"""The grid of settings that an evaluation compares."""

import pytest

from training.evaluation.settings import EvaluationSetting, setting_grid


def test_every_combination_once() -> None:
    """A single sample has no vote and no stopping rule, so each budget has one such setting."""
    settings = setting_grid(["off", "low"], [1, 8], ["majority", "best"], ["none", "adaptive"])
    assert len(settings) == len({setting.name for setting in settings}) == 2 * (1 + 4)
    assert settings[0] == EvaluationSetting("off")
    assert EvaluationSetting("low", 8, "best", "none") in settings


def test_a_setting_is_sent_as_headers() -> None:
    """The default budget sends no header."""
    assert EvaluationSetting("low").headers == {"X-Reasoning-Budget": "low", "X-Samples": "1"}
    voted = EvaluationSetting("default", 8, "majority", "adaptive")
    assert voted.headers == {"X-Samples": "8", "X-Vote": "majority", "X-Stop": "adaptive"}
    assert voted.name == "default@8 adaptive"


def test_a_vote_may_name_its_scorer() -> None:
    """The scorer goes into a header, as from any client, and into the setting's name."""
    setting = setting_grid(["high"], [8], ["weighted:checker"], ["none"])[0]
    assert setting.headers["X-Vote"] == "weighted"
    assert setting.headers["X-Scorer"] == "checker"
    assert setting.name == "high@8 weighted:checker"
    assert "X-Scorer" not in setting_grid(["high"], [8], ["weighted"], ["none"])[0].headers


@pytest.mark.parametrize(
    ("samples", "votes", "stops", "message"),
    [
        ([0], ["majority"], ["none"], "must be at least 1, not 0"),
        ([8], ["lottery"], ["none"], "unknown vote 'lottery'"),
        ([8], ["weighted:"], ["none"], "names no scorer"),
        ([8], ["majority"], ["sometimes"], "allowed: none, adaptive"),
    ],
)
def test_an_unusable_grid_is_an_error(
    samples: list[int], votes: list[str], stops: list[str], message: str
) -> None:
    """The error names the value, or what is allowed."""
    with pytest.raises(ValueError, match=message):
        setting_grid(["off"], samples, votes, stops)

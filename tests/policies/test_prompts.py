"""The budget levels, their limits for a model's context, and what the model is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.prompts import LEVELS, closing_text, nearest_level, policy_prompt, thinking_limit
from policies.thinking import Markup, split_thinking

ORDER = ["off", "minimal", "low", "medium", "high", "max"]


@pytest.mark.parametrize(
    ("level", "context", "limit"),
    [
        ("off", 131072, 0),
        ("minimal", 131072, 256),
        ("low", 131072, 1024),
        ("medium", 131072, 4096),
        ("high", 131072, 16384),
        ("max", 131072, 98304),
        ("minimal", 2048, 128),
        ("low", 2048, 256),
        ("medium", 2048, 512),
        ("high", 2048, 1024),
        ("max", 2048, 1536),
        ("high", None, 16384),
        ("max", None, None),
    ],
)
def test_a_level_is_capped_by_its_share_of_the_context(level: str, context: int | None, limit: int) -> None:
    """1/16, 1/8, 1/4, 1/2 and 3/4 of the context cap minimal to max."""
    assert thinking_limit(LEVELS[level], context) == limit


@given(st.integers(1, 10**6))
def test_more_effort_never_means_less_thinking(context: int) -> None:
    """In any context the levels' limits rise."""
    limits = [thinking_limit(LEVELS[name], context) or 0 for name in ORDER]
    assert limits == sorted(limits)


@pytest.mark.parametrize(
    ("tokens", "level"),
    [(0, "off"), (1, "minimal"), (256, "minimal"), (257, "low"), (4096, "medium"), (10**6, "high")],
)
def test_a_bare_number_gets_the_nearest_levels_prompt(tokens: int, level: str) -> None:
    """A number of tokens is told in the words of the smallest level that allows as many."""
    assert nearest_level(tokens).name == level


def test_every_level_asks_for_something_else() -> None:
    """No two levels have the same prompt."""
    assert len({level.prompt for level in LEVELS.values()}) == len(ORDER)


def test_a_model_that_knows_no_tags_is_told_of_them() -> None:
    """The tags are named where they have to be taught, but not to a model that shall not think."""
    markup = Markup("<t>", "</t>")
    taught = policy_prompt(LEVELS["low"], markup, teach=True)
    assert "<t>" in taught
    assert "</t>" in taught
    assert "<t>" not in policy_prompt(LEVELS["low"], markup, teach=False)
    assert "<t>" not in policy_prompt(LEVELS["off"], markup, teach=True)


@given(st.text(alphabet="ab \n", min_size=1), st.booleans())
def test_the_closing_ends_the_block(thought: str, reached: bool) -> None:
    """Whatever was thought, what comes after the closing is answer."""
    markup = Markup(opened=True)
    reasoning, content = split_thinking(thought + closing_text(markup, limit_reached=reached) + "7", markup)
    assert content == "7"
    assert reasoning.startswith(thought.strip())

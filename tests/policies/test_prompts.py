"""The levels, their limits in a model's context, and their prompts."""

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
    """1/16, 1/8, 1/4, 1/2 and 3/4 of the context cap the levels minimal, low, medium, high and max."""
    assert thinking_limit(LEVELS[level], context) == limit


@given(st.integers(1, 10**6))
def test_a_higher_level_never_means_less_thinking(context: int) -> None:
    """In any context the limits rise from level to level."""
    limits = [thinking_limit(LEVELS[name], context) or 0 for name in ORDER]
    assert limits == sorted(limits)


@pytest.mark.parametrize(
    ("tokens", "level"),
    [(0, "off"), (1, "minimal"), (256, "minimal"), (257, "low"), (4096, "medium"), (10**6, "high")],
)
def test_a_bare_number_gets_the_nearest_levels_prompt(tokens: int, level: str) -> None:
    """A number of tokens gets the prompt of the smallest level that allows as many."""
    assert nearest_level(tokens).name == level


def test_every_level_has_its_own_prompt() -> None:
    """No two levels have the same prompt."""
    assert len({level.prompt for level in LEVELS.values()}) == len(ORDER)


def test_a_model_that_knows_no_tags_is_taught_them() -> None:
    """The prompt names the tags where the model must be taught them, but not at the level off."""
    markup = Markup("<t>", "</t>")
    taught = policy_prompt(LEVELS["low"], markup, teach=True)
    assert "<t>" in taught
    assert "</t>" in taught
    assert "<t>" not in policy_prompt(LEVELS["low"], markup, teach=False)
    assert "<t>" not in policy_prompt(LEVELS["off"], markup, teach=True)


@given(st.text(alphabet="ab \n", min_size=1), st.booleans())
def test_the_closing_text_ends_the_block(thought: str, reached: bool) -> None:
    """Text after the closing text is answer, whatever the thinking says."""
    markup = Markup(opened=True)
    reasoning, content = split_thinking(thought + closing_text(markup, limit_reached=reached) + "7", markup)
    assert content == "7"
    assert reasoning.startswith(thought.strip())

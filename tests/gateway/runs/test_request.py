"""What a client requests, combined with its model's limits, and planned for the upstream."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.runs.request import RunRequest
from gateway.runs.sample_plan import SamplePlan, plan_samples
from gateway.upstreams.base import ModelTraits
from tests.fakes import request_for

LEVELS = ["off", "minimal", "low", "medium", "high"]


def limit_of(**asked: Any) -> int | None:
    """The hard limit in thinking tokens of one request."""
    return request_for(**asked).sampling.thinking_limit


def plan_of(request: RunRequest) -> SamplePlan:
    """The plan for samples at the request's own level, on an engine that offers nothing special."""
    return plan_samples(request, request.sampling, ModelTraits())


@pytest.mark.parametrize(("level", "limit"), list(zip(LEVELS, [0, 256, 1024, 4096, 16384], strict=True)))
def test_a_level_is_its_number_of_tokens(level: str, limit: int) -> None:
    """Where the context has room for it."""
    assert limit_of(headers={"X-Reasoning-Budget": level}, context=131072) == limit


@given(st.integers(0, 10**6), st.integers(256, 10**5), st.integers(0, 20_000))
def test_prompt_thinking_and_answer_fit_into_the_context(tokens: int, context: int, prompt: int) -> None:
    """However much is asked for: with the answer's reserve kept, the limit never exceeds the rest."""
    messages = [{"role": "user", "content": "x" * prompt}]
    request = request_for(messages=messages, thinking_token_budget=tokens, context=context)
    limit = request.sampling.thinking_limit
    assert limit is not None
    assert 0 <= limit <= tokens
    assert limit == 0 or limit + min(1024, context // 4) + prompt // 3 <= context
    if limit < tokens:
        assert any(str(limit) in note for note in request.notes)


def test_nothing_asked_is_nothing_changed() -> None:
    """No policy, no limit: the body goes upstream as it came."""
    request = request_for(temperature=0.2, tools=[], max_tokens=5)
    plan = plan_of(request)
    assert request.sampling.thinking_limit is None
    assert plan.body == request.body
    assert plan.limit is None


def test_no_limit_may_be_asked_for() -> None:
    """-1 is vLLM's word for it."""
    assert limit_of(thinking_token_budget=-1) is None


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_the_clients_cap_is_kept_in_its_own_field(field: str) -> None:
    """Thinking and answer together stay under it; the thinking limit shrinks."""
    request = request_for(thinking_token_budget=5000, **{field: 300})
    plan = plan_of(request)
    assert plan.body[field] == 300
    assert plan.total == 300
    assert plan.limit == 150


@pytest.mark.parametrize("level", ["off", "low", "high", "max"])
def test_a_budget_limits_thinking_and_not_the_answer(level: str) -> None:
    """Without the client's own cap the engine gets none, however small the budget is."""
    plan = plan_of(request_for(headers={"X-Reasoning-Budget": level}, answer_reserve=100))
    assert plan.total is None
    assert not {"max_tokens", "max_completion_tokens"} & plan.body.keys()


def test_an_operators_cap_on_answers_comes_on_top_of_the_thinking() -> None:
    """The engine gets limit and cap together, and the reply says so; a client's own cap beats it."""
    plan = plan_of(request_for(thinking_token_budget=500, answer_cap=200))
    assert (plan.body["max_tokens"], plan.total) == (700, 700)
    assert any("at most 200 tokens" in note and "answer_cap" in note for note in plan.notes)
    own = plan_of(request_for(thinking_token_budget=500, answer_cap=200, max_tokens=4000))
    assert (own.body["max_tokens"], own.total, own.notes) == (4000, 4000, ())
    assert plan_of(request_for(answer_cap=200)).total is None


@given(st.integers(0, 5000), st.integers(1, 5000), st.integers(256, 9000), st.integers(0, 9000))
def test_a_cap_on_answers_fits_into_the_context(tokens: int, cap: int, context: int, prompt: int) -> None:
    """An engine would refuse a cap beyond its context; some tokens for an answer always stay."""
    messages = [{"role": "user", "content": "x" * prompt}]
    request = request_for(messages=messages, thinking_token_budget=tokens, answer_cap=cap, context=context)
    plan = plan_of(request)
    assert plan.limit is not None
    assert plan.total is not None
    assert plan.limit < plan.total <= max(plan.limit + 1, context - prompt // 3)
    assert plan.total <= plan.limit + cap


def test_more_choices_than_samples_are_refused() -> None:
    """`n` of N: the error names the field and what is allowed."""
    with pytest.raises(BadRequest, match="allowed: 1 to 3") as error:
        request_for(n=4, scaling={"samples": 3})
    assert error.value.param == "n"


def test_planning_changes_nothing_that_it_is_given() -> None:
    """The client's messages are its own."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    before = repr(messages)
    request = request_for(messages=messages, headers={"X-Reasoning-Budget": "high"})
    assert plan_of(request).body["messages"] != messages
    assert repr(messages) == before

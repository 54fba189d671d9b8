"""What a request asks for, in its headers, its body or its model's name."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.runs.budget import ReasoningBudget, read_sampling, split_suffix

LEVELS = ("off", "minimal", "low", "medium", "high", "max")


def refused(headers: dict[str, str], body: dict[str, Any], **more: Any) -> BadRequest:
    """Return the error that these headers and this body give."""
    with pytest.raises(BadRequest) as error:
        read_sampling(headers, body, **more)
    return error.value


@pytest.mark.parametrize(
    ("body", "thinking"),
    [
        ({"reasoning_effort": "high"}, ReasoningBudget("high")),
        ({"reasoning_effort": "none"}, ReasoningBudget("off")),
        ({"reasoning_effort": "xhigh"}, ReasoningBudget("max")),
        ({"reasoning": {"effort": "low"}}, ReasoningBudget("low")),
        ({"reasoning": {"max_tokens": 300}}, ReasoningBudget(tokens=300)),
        ({"reasoning": {"enabled": False}}, ReasoningBudget("off")),
        ({"reasoning": {"enabled": True}}, ReasoningBudget("medium")),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, ReasoningBudget(tokens=2000)),
        ({"thinking": {"type": "disabled"}}, ReasoningBudget("off")),
        ({"thinking_token_budget": 0}, ReasoningBudget(tokens=0)),
        ({"thinking_token_budget": -1}, ReasoningBudget()),
        ({"thinking_budget": 64}, ReasoningBudget(tokens=64)),
        ({"enable_thinking": False}, ReasoningBudget("off")),
        ({"enable_thinking": True, "thinking_budget": 64}, ReasoningBudget(tokens=64)),
        ({"scaling": None}, None),
        ({}, None),
    ],
)
def test_every_body_field_is_understood_and_taken_away(
    body: dict[str, Any], thinking: ReasoningBudget | None
) -> None:
    """Every vendor's fields mean the same, and none of them goes upstream."""
    body["temperature"] = 0.5
    assert read_sampling({}, body).budget == thinking
    assert body == {"temperature": 0.5}


@pytest.mark.parametrize(
    "fields",
    [
        {"thinking": {"type": "adaptive"}},
        {"thinking": {"type": "auto", "keep": "all"}},
        {"thinking": {"clear_thinking": False}},
        {"reasoning": {"exclude": True}},
        {"reasoning": {"summary": "auto", "vendor": 1}},
        {"reasoning_effort": None, "reasoning": None, "thinking": None, "enable_thinking": None},
        {"include_reasoning": False},
        {"preserve_thinking": True, "clear_thinking": False},
    ],
)
def test_a_field_without_a_budget_stays_as_it_came(fields: dict[str, Any]) -> None:
    """The upstream's own options of thinking reach it, unless the gateway limits the thinking itself."""
    body = dict(fields)
    assert read_sampling({}, body).budget is None
    assert body == fields


@pytest.mark.parametrize(
    ("fields", "rest"),
    [
        ({"thinking": {"type": "enabled", "keep": "all"}}, {"thinking": {"type": "enabled", "keep": "all"}}),
        (
            {"thinking": {"type": "disabled", "clear_thinking": False}},
            {"thinking": {"type": "disabled", "clear_thinking": False}},
        ),
        ({"reasoning": {"effort": "low", "exclude": True, "vendor": 1}}, {"reasoning": {"vendor": 1}}),
        ({"thinking_budget": 9, "include_reasoning": False}, {}),
    ],
)
def test_a_vendors_field_beside_a_budget_reaches_the_upstream(
    fields: dict[str, Any], rest: dict[str, Any]
) -> None:
    """The budget itself is taken out, and so is what would hide the thinking from the gateway."""
    body = dict(fields)
    assert read_sampling({}, body).budget is not None
    assert body == rest


def test_a_header_beats_the_type_beside_a_vendors_field() -> None:
    """The upstream isn't told to think by the one and not to by the other."""
    body = {"thinking": {"type": "enabled", "keep": "all"}}
    assert read_sampling({"x-reasoning-budget": "off"}, body).budget == ReasoningBudget("off")
    assert body == {"thinking": {"keep": "all"}}


@pytest.mark.parametrize("level", LEVELS)
def test_the_header_names_a_level(level: str) -> None:
    """A level may stand in any case, with blanks around it."""
    asked = read_sampling({"x-reasoning-budget": f" {level.upper()} "}, {})
    assert asked.budget == ReasoningBudget(level)
    assert asked.sources["budget"] == "header"


@given(st.integers(0, 10**9 - 1))
def test_the_header_takes_any_number(tokens: int) -> None:
    """A bare number is a limit in tokens, from 0."""
    assert read_sampling({"x-reasoning-budget": str(tokens)}, {}).budget == ReasoningBudget(tokens=tokens)


@given(st.text().filter(lambda text: not text.strip().isdigit()))
def test_an_unknown_budget_is_refused(text: str) -> None:
    """A value that is neither a level nor a number is a 400 that names the header and the allowed values."""
    if text.strip().lower() in {*LEVELS, "auto", "none", "xhigh"}:
        return
    error = refused({"x-reasoning-budget": text}, {})
    assert error.status == 400
    assert error.param == "X-Reasoning-Budget"
    assert all(level in error.message for level in (*LEVELS, "<tokens>"))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"reasoning_effort": 5}, "reasoning_effort"),
        ({"reasoning": {"effort": "x"}}, "reasoning.effort"),
        ({"reasoning": {"max_tokens": -1}}, "reasoning.max_tokens"),
        ({"reasoning": "high"}, "reasoning"),
        ({"thinking": {"type": "perhaps"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1.5}}, "thinking.budget_tokens"),
        ({"thinking_token_budget": -2}, "thinking_token_budget"),
        ({"thinking_token_budget": True}, "thinking_token_budget"),
        ({"enable_thinking": "yes"}, "enable_thinking"),
        ({"scaling": {"samples": 0}}, "scaling.samples"),
        ({"scaling": {"samples": "8"}}, "scaling.samples"),
        ({"scaling": {"sampels": 8}}, "scaling.sampels"),
        ({"scaling": {"vote": "loudest"}}, "scaling.vote"),
        ({"scaling": {"scorer": "vibes"}}, "scaling.scorer"),
        ({"scaling": {"stop": "soon"}}, "scaling.stop"),
        ({"scaling": {"stop": "first-0"}}, "scaling.stop"),
        ({"scaling": {"threshold": 0.4}}, "scaling.threshold"),
        ({"scaling": {"stream": "all"}}, "scaling.stream"),
        ({"scaling": []}, "scaling"),
    ],
)
def test_a_wrong_field_is_named(body: dict[str, Any], param: str) -> None:
    """The error names the field."""
    error = refused({}, body)
    assert error.param == param
    assert param in error.message


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"x-samples": "0"}, "X-Samples"),
        ({"x-samples": "65"}, "X-Samples"),
        ({"x-samples": "many"}, "X-Samples"),
        ({"x-samples": "-3"}, "X-Samples"),
        ({"x-samples": "2.0"}, "X-Samples"),
        ({"x-vote": "loudest"}, "X-Vote"),
        ({"x-scorer": "vibes"}, "X-Scorer"),
        ({"x-stop": "soon"}, "X-Stop"),
    ],
)
def test_a_wrong_header_is_named(headers: dict[str, str], param: str) -> None:
    """The error names the header and the allowed values."""
    error = refused(headers, {})
    assert error.param == param
    assert "allowed" in error.message


@pytest.mark.parametrize(
    "body",
    [
        {"reasoning_effort": "low", "thinking_token_budget": 64},
        {"reasoning_effort": "high", "enable_thinking": False},
        {"thinking": {"type": "disabled"}, "reasoning": {"effort": "low"}},
        {"enable_thinking": True, "reasoning_effort": "none"},
        {"include_reasoning": True, "reasoning": {"exclude": True}},
    ],
)
def test_fields_that_contradict_each_other_are_refused(body: dict[str, Any]) -> None:
    """Two body fields that contradict each other are refused."""
    assert refused({}, body).code == "contradiction"


def test_fields_that_agree_are_no_contradiction() -> None:
    """Two fields may say the same."""
    body = {"reasoning_effort": "low", "reasoning": {"effort": "low"}, "enable_thinking": True}
    assert read_sampling({}, body).budget == ReasoningBudget("low")


def test_header_beats_body_beats_suffix() -> None:
    """The header beats the body, the body beats the suffix, and the result lists what lost."""
    headers = {"x-reasoning-budget": "high", "x-samples": "8"}
    body = {"reasoning_effort": "low", "scaling": {"samples": 4}}
    asked = read_sampling(headers, body, level="max", samples=2)
    assert asked.budget == ReasoningBudget("high")
    assert asked.samples == 8
    assert set(asked.overridden) == {
        "reasoning_effort=low", "model=max", "scaling.samples=4", "model=2",
    }  # fmt: skip
    asked = read_sampling({}, {"reasoning_effort": "low"}, level="max", samples=2)
    assert (asked.budget, asked.samples) == (ReasoningBudget("low"), 2)
    assert asked.sources == {"budget": "body", "samples": "model"}
    assert asked.overridden == ("model=max",)


def test_nothing_said_is_one_sample_without_a_limit() -> None:
    """A request that asks for nothing has no limit, one sample, majority and adaptive."""
    asked = read_sampling({}, {})
    assert (asked.budget, asked.samples, asked.vote, asked.stop) == (None, 1, "majority", "adaptive")
    assert asked.sources == {}


def test_thinking_may_be_left_out_of_the_answer() -> None:
    """Two vendors' fields exclude the thinking from the answer."""
    assert read_sampling({}, {"reasoning": {"exclude": True}}).exclude
    assert read_sampling({}, {"include_reasoning": False}).exclude
    assert not read_sampling({}, {"include_reasoning": True}).exclude


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("name", ("name", None, None)),
        ("name:high", ("name", "high", None)),
        ("name@8", ("name", None, 8)),
        ("name:high@8", ("name", "high", 8)),
        ("qwen3:0.6b", ("qwen3:0.6b", None, None)),
        ("qwen3:latest@4", ("qwen3:latest", None, 4)),
        ("qwen3:latest:low", ("qwen3:latest", "low", None)),
        ("org/name:off@2", ("org/name", "off", 2)),
        ("me@home", ("me@home", None, None)),
        ("", ("", None, None)),
        (":high", (":high", None, None)),
    ],
)
def test_only_a_known_level_or_a_number_is_split_off(
    model: str, parts: tuple[str, str | None, int | None]
) -> None:
    """Colons and at signs of the name itself stay."""
    assert split_suffix(model) == parts

"""Requests shaped for a family, and the thinking that clients send back."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.families import FAMILIES, Family, find_family
from policies.shaping import ShapedRequest, shape, strip_thinking
from policies.types import SamplingRequest

QUESTION = "What is 2 + 2?"
CLIENT = "You are terse."
POLICY = "Take your time."
SECTIONS = "Write your thoughts first, between {} and {}, and after them the answer, complete in itself."
LOW, HIGH = (
    SamplingRequest(level="low", thinking_limit=1024),
    SamplingRequest(level="high", thinking_limit=16384),
)
OFF = SamplingRequest(level="off", thinking_limit=0)
QWEN3, GENERIC, GPT_OSS = find_family("qwen3-8b"), find_family("x"), find_family("gpt-oss-20b")


LEVELS = ("minimal", "low", "medium", "high", "max")


def request(*messages: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a chat request; without messages, a plain question."""
    return {"model": "m", "messages": list(messages or [{"role": "user", "content": QUESTION}]), **fields}


def system_text(shaped: ShapedRequest) -> str:
    """Return the text of the first message if it is a system message."""
    first = shaped.body["messages"][0]
    return str(first["content"]) if first["role"] == "system" else ""


class TestSystemPrompt:
    """The policy joins the client's own system text and never replaces it."""

    def test_alone_it_is_a_system_message(self) -> None:
        """Without system text from the client, the policy is the first message."""
        shaped = shape(QWEN3, request(), HIGH, POLICY)
        assert shaped.body["messages"][0] == {"role": "system", "content": POLICY}

    def test_it_follows_the_clients_text(self) -> None:
        """The client's text comes first and stays whole, in its own message."""
        body = request(
            {"role": "system", "content": CLIENT, "name": "boss"}, {"role": "user", "content": "q"}
        )
        first = shape(QWEN3, body, HIGH, POLICY).body["messages"][0]
        assert first == {"role": "system", "content": f"{CLIENT}\n\n{POLICY}", "name": "boss"}

    def test_it_joins_a_list_of_parts(self) -> None:
        """Content in parts gets one more part."""
        part = {"type": "text", "text": CLIENT}
        body = request({"role": "system", "content": [part]}, {"role": "user", "content": "q"})
        content = shape(QWEN3, body, HIGH, POLICY).body["messages"][0]["content"]
        assert content == [part, {"type": "text", "text": POLICY}]

    def test_it_joins_a_developer_message(self) -> None:
        """A developer message is system text and gets no system message beside it."""
        body = request({"role": "developer", "content": CLIENT}, {"role": "user", "content": "q"})
        messages = shape(GPT_OSS, body, HIGH, POLICY).body["messages"]
        assert [m["role"] for m in messages] == ["developer", "user"]
        assert messages[0]["content"] == f"{CLIENT}\n\n{POLICY}"

    def test_switching_words_come_first(self) -> None:
        """Words that switch thinking are the first line, as those models were trained."""
        body = request({"role": "system", "content": CLIENT}, {"role": "user", "content": "q"})
        shaped = shape(find_family("llama-3.1-nemotron-nano-8b-v1"), body, OFF, POLICY)
        assert system_text(shaped) == f"detailed thinking off\n\n{CLIENT}\n\n{POLICY}"

    @pytest.mark.parametrize(
        ("model", "text"),
        [
            ("magistral-small-2509", SECTIONS.format("[THINK]", "[/THINK]")),
            ("magistral-small-2506", SECTIONS.format("<think>", "</think>")),
            ("phi-4-reasoning", SECTIONS.format("<think>", "</think>")),
            ("granite-3.3-8b-instruct", "Write your thoughts between <think></think>"),
            ("granite-3.2-8b-instruct", "Write your thoughts after 'Here is my thought process:'"),
        ],
    )
    def test_a_displaced_system_prompt_is_replaced(self, model: str, text: str) -> None:
        """The text joins other system text beside which a template leaves out its thinking prompt."""
        body = request({"role": "system", "content": CLIENT}, {"role": "user", "content": "q"})
        assert text in system_text(shape(find_family(model), body, HIGH, None))
        assert text in system_text(shape(find_family(model), request(), HIGH, POLICY))
        assert system_text(shape(find_family(model), request(), HIGH, None)) == ""


class TestClientsOwnSwitch:
    """The client's own switch of thinking wins, with a note."""

    def test_template_kwargs_are_kept_and_joined(self) -> None:
        """The client's other kwargs stay beside the switch."""
        shaped = shape(QWEN3, request(chat_template_kwargs={"custom": 1}), HIGH, None)
        assert shaped.body["chat_template_kwargs"] == {"custom": 1, "enable_thinking": True}
        assert shaped.notes == ()

    def test_a_null_kwarg_is_no_switch(self) -> None:
        """The gateway sets a switch that is null; any other null stays."""
        body = request(chat_template_kwargs={"enable_thinking": None, "custom": None})
        shaped = shape(QWEN3, body, OFF, None)
        assert shaped.body["chat_template_kwargs"] == {"enable_thinking": False, "custom": None}

    def test_an_explicit_kwarg_wins(self) -> None:
        """The client's own enable_thinking beats the budget's, in the request and in the markup."""
        shaped = shape(
            find_family("qwen3.5-27b"), request(chat_template_kwargs={"enable_thinking": True}), OFF, None
        )
        assert shaped.body["chat_template_kwargs"] == {"enable_thinking": True}
        assert shaped.off is None
        assert shaped.markup.opened
        assert "thinking stays on" in shaped.notes[0]

    def test_thinking_that_the_client_switched_off_is_known_without_a_budget(self) -> None:
        """The body stays as it is, and thinking counts as off; without a switch it doesn't."""
        body = request(chat_template_kwargs={"enable_thinking": False})
        shaped = shape(QWEN3, body, SamplingRequest(), None)
        assert (shaped.off, shaped.body) == ("native", body)
        assert shape(QWEN3, request(), SamplingRequest(), None).off is None

    @pytest.mark.parametrize(("model", "off"), [("an-unknown-one", "native"), ("qwq-32b", None)])
    def test_a_common_switch_counts_for_an_unknown_model(self, model: str, off: str | None) -> None:
        """Nothing is known of it, so the client's word counts; a model that always thinks ignores it."""
        for name in ("enable_thinking", "thinking"):
            body = request(chat_template_kwargs={name: False})
            assert shape(find_family(model), body, SamplingRequest(), None).off == off

    def test_words_in_the_text_win(self) -> None:
        """A /no_think from the client stays, for a model that obeys it."""
        body = request({"role": "user", "content": f"{QUESTION} /no_think"})
        shaped = shape(find_family("nvidia-nemotron-nano-9b-v2"), body, HIGH, None)
        assert "thinking stays off" in shaped.notes[0]
        assert not shaped.markup.opened

    @pytest.mark.parametrize("text", ["see /no_think/notes.txt", "</think> ends it", "a/think"])
    def test_lookalikes_are_no_switch(self, text: str) -> None:
        """A path or a closing tag that holds the same letters is no switch."""
        shaped = shape(
            find_family("nvidia-nemotron-nano-9b-v2"), request({"role": "user", "content": text}), HIGH, None
        )
        assert shaped.notes == ()
        assert shaped.markup.opened

    @pytest.mark.parametrize(
        ("model", "kwargs", "opened"),
        [
            ("deepseek-v3.1", {}, False),
            ("deepseek-v3.1", {"thinking": True}, True),
            ("qwen3.5-27b", {}, True),
            ("qwen3.5-27b", {"enable_thinking": False}, False),
            ("tencent/Hy3", {"reasoning_effort": "low"}, True),
            ("minimax-m3", {"thinking_mode": "adaptive"}, False),
            ("qwq-32b", {}, True),
        ],
    )
    def test_markup_is_known_without_a_budget(
        self, model: str, kwargs: Mapping[str, Any], opened: bool
    ) -> None:
        """Without a budget the request stays as it is, and its reply has the right markup."""
        body = request(chat_template_kwargs=dict(kwargs))
        shaped = shape(find_family(model), body, SamplingRequest(), POLICY)
        assert (shaped.body, shaped.markup.opened) == (body, opened)

    def test_the_clients_own_limit_is_kept(self) -> None:
        """Seed-OSS: the client's own thinking_budget stays, with a note."""
        body = request(chat_template_kwargs={"thinking_budget": 8192})
        shaped = shape(find_family("seed-oss-36b"), body, LOW, None)
        assert shaped.body["chat_template_kwargs"] == {"thinking_budget": 8192}
        assert "thinking_budget keeps" in shaped.notes[0]


class TestWithoutASwitch:
    """What the gateway does, and notes, for a model that can't switch thinking off."""

    def test_the_gateway_writes_a_finished_block(self) -> None:
        """The chat prefix has the tag that the template would write; the prefill does not."""
        shaped = shape(find_family("qwq-32b"), request(), OFF, None)
        assert shaped.prefix == "<think>\n" + shaped.prefill
        assert "qwq has no switch" in shaped.notes[0]
        own = shape(find_family("minimax-m1-80k"), request(), OFF, None)
        assert own.prefix == own.prefill

    def test_a_continued_turn_gets_no_prefill(self) -> None:
        """A request that ends in an assistant's turn gets no prefill."""
        body = request({"role": "user", "content": "q"}, {"role": "assistant", "content": "The"})
        shaped = shape(find_family("minimax-m1-80k"), body, OFF, None)
        assert (shaped.prefill, shaped.off) == ("", "prompt")
        assert shape(find_family("smollm2"), body, HIGH, None).prefill == ""

    @pytest.mark.parametrize(
        ("begun", "opened"), [("<think>\nHm", True), ("<think>a</think>F", False), ("F", False)]
    )
    def test_a_continued_turn_decides_the_markup(self, begun: str, opened: bool) -> None:
        """A reply to a continued turn starts inside a block if that turn ends inside one."""
        body = request({"role": "assistant", "content": begun}, continue_final_message=True)
        assert shape(find_family("qwq-32b"), body, HIGH, None).markup.opened is opened

    def test_the_lowest_effort_replaces_the_clients(self) -> None:
        """gpt-oss refuses "none" in harmony, so off becomes low, whatever the body had."""
        shaped = shape(GPT_OSS, request(reasoning_effort="none"), OFF, None)
        assert shaped.body["reasoning_effort"] == "low"
        assert "lowest effort" in shaped.notes[0]

    def test_a_custom_level_counts_by_its_tokens(self) -> None:
        """A configured level that no family knows gets the effort for its number of tokens."""
        assert (
            shape(GPT_OSS, request(), SamplingRequest("brief", 700), None).body["reasoning_effort"] == "low"
        )
        assert "reasoning_effort" not in shape(GPT_OSS, request(), SamplingRequest("auto"), None).body

    def test_a_level_prompt_replaces_the_gateways(self) -> None:
        """The gateway's own sentence appears only without a level's prompt."""
        assert system_text(shape(GENERIC, request(), OFF, POLICY)) == POLICY

    def test_a_model_without_thinking_gets_a_note(self) -> None:
        """An instruct model that is asked to think keeps the policy, and a note says that it can't."""
        shaped = shape(find_family("qwen3-4b-instruct-2507"), request(), HIGH, POLICY)
        assert system_text(shaped) == POLICY
        assert "doesn't think" in shaped.notes[0]


contents = st.one_of(
    st.text(max_size=30),
    st.lists(st.builds(lambda t: {"type": "text", "text": t}, st.text(max_size=9)), max_size=3),
)
messages = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["system", "developer", "user", "assistant"]),
        contents,
    ),
    min_size=1,
    max_size=5,
)
bodies = st.builds(
    lambda m, extra, kwargs: {"messages": m, **extra, **kwargs},
    messages,
    st.dictionaries(
        st.sampled_from(["temperature", "tools", "seed", "x"]), st.integers() | st.lists(st.integers())
    ),
    st.just({}) | st.builds(lambda v: {"chat_template_kwargs": {"enable_thinking": v}}, st.booleans()),
)
sampling_requests = st.builds(
    SamplingRequest,
    level=st.none() | st.sampled_from(["off", *LEVELS, "auto"]),
    thinking_limit=st.none() | st.integers(0, 50_000),
)
families = st.sampled_from(FAMILIES)


def flat(content: Any) -> list[str]:
    """Return the texts of a message's content."""
    return [content] if isinstance(content, str) else [part["text"] for part in content]


@given(families, bodies, sampling_requests, st.none() | st.just(POLICY))
def test_shaping_never_changes_its_input(
    family: Family, body: dict[str, Any], sampling: SamplingRequest, policy: str | None
) -> None:
    """Shaping leaves the client's request unchanged, for the next sample."""
    before = copy.deepcopy(body)
    shape(family, body, sampling, policy)
    assert body == before


@given(families, bodies, sampling_requests)
def test_every_other_field_stays(family: Family, body: dict[str, Any], sampling: SamplingRequest) -> None:
    """Shaping writes only messages, template kwargs and an effort."""
    after = shape(family, body, sampling, POLICY).body
    written = {"messages", "chat_template_kwargs", "reasoning_effort"}
    assert {k: v for k, v in after.items() if k not in written} == {
        k: v for k, v in body.items() if k not in written
    }


@given(families, bodies, sampling_requests)
def test_the_clients_text_stays_whole(
    family: Family, body: dict[str, Any], sampling: SamplingRequest
) -> None:
    """Every text from the client stays in its message, and no message is lost."""
    after = shape(family, body, sampling, POLICY).body["messages"]
    added = len(after) - len(body["messages"])
    assert added in (0, 1)
    for old, new in zip(body["messages"], after[added:], strict=True):
        assert old["role"] == new["role"]
        joined = "\n\n".join(flat(new["content"]))
        assert all(text in joined for text in flat(old["content"]))


@given(families, bodies, sampling_requests)
def test_shaping_twice_is_shaping_once(
    family: Family, body: dict[str, Any], sampling: SamplingRequest
) -> None:
    """A request that carries its switch and policy does not get them again."""
    once = shape(family, body, sampling, POLICY).body
    assert shape(family, once, sampling, POLICY).body == once


@given(families, bodies)
def test_no_budget_changes_nothing(family: Family, body: dict[str, Any]) -> None:
    """Without a level or a number the request goes upstream as it came."""
    assert shape(family, body, SamplingRequest(), POLICY).body == body


THOUGHT = {
    "role": "assistant",
    "content": "4",
    "reasoning_content": "two and two",
    "reasoning": "two and two",
}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}], "reasoning_content": "a tool"}
BOTH_NAMES = {**CALL, "reasoning": "a tool"}
TOOL = {"role": "tool", "content": "7", "tool_call_id": "1"}
USER = {"role": "user", "content": "q"}
TALK = [USER, THOUGHT, USER, CALL, TOOL]
BARE_CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
BARE = {"role": "assistant", "content": "4"}


class TestEarlierThinking:
    """The thinking that a client sends back."""

    @pytest.mark.parametrize(
        ("model", "sent"),
        [
            ("deepseek-r1", [USER, BARE, USER, BARE_CALL, TOOL]),
            ("gpt-oss-20b", [USER, BARE, USER, BOTH_NAMES, TOOL]),
            ("kimi-k2-thinking", [USER, BARE, USER, BOTH_NAMES, TOOL]),
            ("minimax-m2", [USER, BARE, USER, BOTH_NAMES, TOOL]),
            ("seed-oss-36b", [USER, THOUGHT, USER, BOTH_NAMES, TOOL]),
        ],
    )
    def test_thinking_goes_or_stays_by_family(self, model: str, sent: list[dict[str, Any]]) -> None:
        """Thinking is dropped, kept within the current tool calls, or kept, under both names."""
        assert strip_thinking(TALK, find_family(model)) == sent

    @pytest.mark.parametrize(
        ("model", "content", "left"),
        [
            ("qwen3-8b", "<think>\nhm\n</think>\n\nFour.", "Four."),
            ("qwq-32b", "hm\n</think>\n\nFour.", "Four."),
            ("qwen3-8b", "The tag `</think>` ends it.", "The tag `</think>` ends it."),
            ("qwq-32b", "The tag `</think>` ends it.", "The tag `</think>` ends it."),
            ("magistral-small", "[THINK]hm[/THINK]Four.", "Four."),
            ("qwen3-8b", "Plain.", "Plain."),
        ],
    )
    def test_tags_in_the_text_are_thinking_too(self, model: str, content: str, left: str) -> None:
        """Inline blocks go; tags that the answer only mentions stay."""
        talk = [USER, {"role": "assistant", "content": content}, USER]
        assert strip_thinking(talk, find_family(model))[1]["content"] == left

    def test_parts_are_cleaned_one_by_one(self) -> None:
        """Content in parts keeps its parts, images among them."""
        image = {"type": "image_url", "image_url": {"url": "data:"}}
        content = [{"type": "text", "text": "<think>a</think>b"}, image]
        talk = [USER, {"role": "assistant", "content": content}, USER]
        assert strip_thinking(talk, QWEN3)[1]["content"] == [{"type": "text", "text": "b"}, image]

    def test_a_continued_turn_keeps_its_thinking(self) -> None:
        """The last message keeps its thinking, because the model continues it."""
        assert strip_thinking([USER, THOUGHT], find_family("deepseek-r1")) == [USER, THOUGHT]

    @given(families, messages)
    def test_nothing_else_is_touched(self, family: Family, talk: list[dict[str, Any]]) -> None:
        """Other messages stay in their places, and the input is unchanged."""
        before = copy.deepcopy(talk)
        after = strip_thinking(talk, family)
        assert talk == before
        for old, new in zip(talk, after, strict=True):
            assert new["role"] == old["role"]
            assert old["role"] == "assistant" or new == old

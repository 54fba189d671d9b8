"""How one sample is drawn: its thinking separated, its limit kept, its tokens counted."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamError
from gateway.runs.events import Delta, RunResult
from gateway.upstreams.base import ModelTraits
from tests.fakes import Script, ScriptedUpstream, Text, request_for, run_to_end, says, thinks

BROKEN = UpstreamError(502, "broke off")
ANSWER = says("The answer is 7.")


async def drawn(upstream: ScriptedUpstream, **asked: Any) -> tuple[RunResult, str, str]:
    """Return a streamed sample's result, and the thinking and answer that its deltas add up to."""
    events, result = await run_to_end(upstream, request_for(stream=True, **asked))
    deltas = [event for event in events if isinstance(event, Delta)]
    reasoning, content = "".join(d.reasoning for d in deltas), "".join(d.content for d in deltas)
    [sample] = result.chosen
    assert (reasoning, content) == (sample.reasoning, sample.content), "streamed and whole differ"
    return result, reasoning, content


@given(
    limit=st.integers(0, 12),
    sizes=st.lists(st.integers(1, 4), max_size=12),
    counts=st.booleans(),
    renders=st.booleans(),
    split=st.booleans(),
)
async def test_no_sample_is_over_its_limit(
    limit: int, sizes: list[int], counts: bool, renders: bool, split: bool
) -> None:
    """A sample passes its limit by one chunk at most and always has an answer, whoever splits the text.

    An engine that tells no counts before the end is held to chunks, so these are of one token.
    """
    sizes = sizes if counts else [1] * len(sizes)
    steps = [
        Text(reasoning=f"s{i} ", tokens=size) if split else Text(f"s{i} ", tokens=size)
        for i, size in enumerate(sizes)
    ]
    script = says(
        *([] if split else ["<think>"]), *steps, *([] if split else ["</think>"]), "The answer is 7."
    )
    upstream = ScriptedUpstream(script, counts=counts, renders=renders)
    result, _, content = await drawn(upstream, thinking_token_budget=limit)
    assert content == "The answer is 7."
    assert result.reasoning < max(limit, 1) + max(sizes, default=1)
    assert len(upstream.resumed) <= 1
    assert upstream.open == 0


async def test_without_a_limit_nothing_is_cut() -> None:
    """Without a budget the model thinks as long as it wants."""
    upstream = ScriptedUpstream(thinks(50))
    result, reasoning, _ = await drawn(upstream)
    assert (len(reasoning.split()), result.enforced, upstream.resumed) == (50, "none", [])


async def test_a_block_that_closes_in_time_is_left_alone() -> None:
    """A chunk that ends the thinking is never cut, however many tokens it has."""
    upstream = ScriptedUpstream(says("<think>", "a ", Text("b </think>Seven.", tokens=4)), counts=False)
    _, reasoning, content = await drawn(upstream, thinking_token_budget=3)
    assert (reasoning, content, upstream.resumed) == ("a b", "Seven.", [])


async def test_thinking_that_the_engine_splits_is_cut_as_well() -> None:
    """The prefix of the continuation holds the tags that the engine has removed."""
    upstream = ScriptedUpstream(says(*(Text(reasoning=f"s{i} ") for i in range(9))))
    result, reasoning, content = await drawn(upstream, thinking_token_budget=3)
    assert (reasoning.split(), content) == (["s0", "s1", "s2"], "The answer is 7.")
    [written] = upstream.resumed
    assert written.startswith("<think>\ns0 s1 s2")
    assert written.count("</think>") == 1
    assert result.reasoning == 3


async def test_an_answer_after_a_split_by_the_engine_is_an_answer() -> None:
    """Content after split thinking is answer, even if the template opens the block."""
    script = says(Text(reasoning="Hm."), "Seven", ".")
    upstream = ScriptedUpstream(script)
    _, reasoning, content = await drawn(upstream, family="deepseek-r1", thinking_token_budget=50)
    assert (reasoning, content) == ("Hm.", "Seven.")
    assert upstream.resumed == []


async def test_a_block_that_the_template_opens_is_thinking_from_the_start() -> None:
    """The model writes only the closing tag; a continuation adds the opening tag only where it needs one."""
    upstream = ScriptedUpstream(says("Hm, ", "four.", "</think>", "Seven."))
    _, reasoning, content = await drawn(upstream, family="deepseek-r1", thinking_token_budget=50)
    assert (reasoning, content) == ("Hm, four.", "Seven.")
    for renders in (True, False):
        upstream = ScriptedUpstream(says(*["a "] * 9), renders=renders)
        _, reasoning, content = await drawn(upstream, family="deepseek-r1", thinking_token_budget=3)
        assert (reasoning.split(), content) == (["a", "a", "a"], "The answer is 7.")
        assert upstream.resumed[0].startswith("<think>\na a a" if not renders else "a a a")


async def test_text_before_the_block_stays_in_the_answer() -> None:
    """Text before the block stays in the answer when the block is cut."""
    upstream = ScriptedUpstream(says("Sure. ", "<think>", *["a "] * 9))
    _, reasoning, content = await drawn(upstream, thinking_token_budget=3)
    assert reasoning.split() == ["a", "a", "a"]
    assert content == "Sure. The answer is 7."
    assert upstream.resumed[0].startswith("Sure. <think>a a a")


@pytest.mark.parametrize(
    "again",
    [
        says("<think>", "more ", "thinking", "</think>", "Seven."),
        says(Text(reasoning="more thinking"), "Seven."),
        says("more thinking", "</think>", "Seven."),
    ],
)
async def test_whatever_follows_a_forced_close_is_answer(again: Any) -> None:
    """After a forced close all text is answer, whatever its field and its tags say."""
    upstream = ScriptedUpstream(thinks(20), continuations=[again])
    result, reasoning, content = await drawn(upstream, thinking_token_budget=4)
    assert len(reasoning.split()) == 4
    assert content.startswith("more thinking")
    assert content.endswith("Seven.")
    assert result.reasoning == 4


async def test_a_model_that_stops_in_its_thinking_is_asked_for_the_answer() -> None:
    """A reply that ends within a block is continued: the block is closed and answered."""
    for finish in ("stop", "length"):
        upstream = ScriptedUpstream(says("<think>", "a ", "b", finish=finish))
        _, reasoning, content = await drawn(upstream, thinking_token_budget=50)
        assert (reasoning, content) == ("a b", "The answer is 7.")


async def test_the_answer_is_left_what_the_total_leaves() -> None:
    """The second request gets what the first left of the total; the prompt counts once."""
    upstream = ScriptedUpstream(thinks(50), prompt_tokens=10)
    result, _, _ = await drawn(upstream, thinking_token_budget=20, max_tokens=30)
    thought = result.reasoning + 1  # and the opening tag
    assert [plan["max_tokens"] for plan in upstream.bodies] == [30, 30 - thought]
    assert (result.prompt, result.upstream_prompt) == (10, 20)
    assert result.generated == thought + 1


async def test_without_counts_tokens_are_estimated_and_said_to_be() -> None:
    """A chunk counts as at least one token; without usage at the end the count is called an estimate."""
    result, _, _ = await drawn(ScriptedUpstream(thinks(6), counts=False, usage=False))
    assert result.estimated
    assert result.generated >= 8
    usage = {"stream_options": {"include_usage": True}}
    result, _, _ = await drawn(ScriptedUpstream(says("Hi ", "there."), counts=False), **usage)
    assert (result.generated, result.estimated) == (2, False)


async def test_a_reply_that_was_complete_survives_the_end_of_the_connection() -> None:
    """A connection that breaks after the last choice has finished costs only the usage."""

    class Breaking(ScriptedUpstream):
        async def _play(self, scripts: Any) -> Any:
            async for chunk in super()._play(scripts):
                if chunk.index is None:
                    raise BROKEN
                yield chunk

    for asked in ({}, {"n": 2}):
        _, result = await run_to_end(Breaking(says("Hi ", "there.")), request_for(stream=True, **asked))
        assert [sample.content for sample in result.chosen] == ["Hi there."] * asked.get("n", 1)


async def test_a_failure_in_the_continuation_is_a_failure() -> None:
    """A sample whose continuation fails has failed; it is not an empty answer."""
    upstream = ScriptedUpstream(thinks(9), continuations=[says(BROKEN)])
    with pytest.raises(UpstreamError, match="broke off"):
        await run_to_end(upstream, request_for(stream=True, thinking_token_budget=3))


async def test_a_schema_waits_for_the_end_of_the_thinking() -> None:
    """A schema would suppress the thinking, so it goes with a second request for the answer alone."""
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    upstream = ScriptedUpstream(thinks(3, "some prose"), continuations=[says('{"a": 1}')])
    _, reasoning, content = await drawn(upstream, thinking_token_budget=50, response_format=schema)
    assert (reasoning, content) == ("step0 step1 step2", '{"a": 1}')
    assert [plan.get("response_format") for plan in upstream.bodies] == [None, schema]


class Native(ScriptedUpstream):
    """An engine that promises to keep thinking limits itself."""

    refuses = False
    whole = 0

    def __init__(self, *scripts: Script) -> None:
        super().__init__(*scripts)
        self.own_traits = ModelTraits(limit_field="own_limit")

    def traits(self, model: str) -> ModelTraits:
        """Offer a field of its own for limits."""
        return self.own_traits

    def refuses_limit(self, model: str, error: UpstreamError) -> bool:
        """Refuse limits if the test says so."""
        if self.refuses:
            self.own_traits.observe_limit(False)
        return self.refuses

    async def complete(self, plan: Any) -> Any:
        """Count plain requests."""
        self.whole += 1
        return await super().complete(plan)

    async def stream(self, plan: Any) -> Any:
        """Refuse a limit that it can't keep."""
        if self.refuses and "own_limit" in plan.body:
            self.plans.append(plan)
            raise UpstreamError(400, "own_limit is not configured")
        async for chunk in super().stream(plan):
            yield chunk


async def test_an_engine_that_keeps_the_limit_is_left_to_do_so() -> None:
    """A native limit takes one request, and the result says who kept it."""
    upstream = Native(thinks(5))
    result, _, content = await drawn(upstream, thinking_token_budget=5)
    assert (result.enforced, content) == ("native", "The answer is 7.")
    assert [plan.get("own_limit") for plan in upstream.bodies] == [5]


async def test_a_limit_once_seen_kept_needs_no_stream() -> None:
    """The first request that reaches its limit proves the engine; the next one is plain."""
    upstream = Native(thinks(5))
    await run_to_end(upstream, request_for(thinking_token_budget=5))
    assert (upstream.own_traits.keeps_limit, upstream.whole) == (True, 0)
    _, result = await run_to_end(upstream, request_for(thinking_token_budget=5))
    assert (upstream.whole, result.enforced) == (1, "native")
    assert (result.chosen[0].reasoning.split()[-1], result.chosen[0].content) == (
        "step4",
        "The answer is 7.",
    )
    assert 0 < result.reasoning <= 5


async def test_a_proven_engine_that_passes_the_limit_is_watched_again() -> None:
    """Too much thinking in a plain reply ends the trust in the engine."""
    upstream = Native(thinks(50))
    upstream.own_traits.keeps_limit = True
    _, result = await run_to_end(upstream, request_for(thinking_token_budget=5))
    assert (upstream.whole, result.reasoning > 5) == (1, True)
    assert upstream.own_traits.keeps_limit is False


async def test_an_engine_that_ignores_the_limit_is_cut_and_not_trusted_again() -> None:
    """The gateway cuts a limit that the engine ignores, and never trusts that engine again."""
    upstream = Native(thinks(50))
    result, reasoning, content = await drawn(upstream, thinking_token_budget=5)
    assert (result.enforced, content) == ("forced", "The answer is 7.")
    assert len(reasoning.split()) <= 6
    assert upstream.own_traits.keeps_limit is False


async def test_an_engine_that_refuses_the_limit_is_asked_without() -> None:
    """After a 400 about the limit the gateway keeps it itself."""
    upstream = Native(thinks(50))
    upstream.refuses = True
    result, _, content = await drawn(upstream, thinking_token_budget=5)
    assert (result.enforced, content) == ("forced", "The answer is 7.")
    assert [plan.get("own_limit") for plan in upstream.bodies] == [5, None, None]


@pytest.mark.parametrize("close", [True, False])
async def test_thinking_that_is_followed_by_silence_is_led_to_an_answer(close: bool) -> None:
    """A model that says nothing after its thinking continues from a beginning that the gateway writes."""
    silence = Script((Text(""),))
    script = thinks(3, answer="", close=close)
    upstream = ScriptedUpstream(script, continuations=[*([] if close else [silence]), says(" 7.")])
    _, reasoning, content = await drawn(upstream, thinking_token_budget=9)
    assert upstream.resumed[-1].endswith("</think>\n\nThe answer is")
    assert (reasoning.split()[-1], content.strip()) == ("step2", "7.")


async def test_silence_is_broken_once() -> None:
    """The gateway writes such a beginning once at most."""
    upstream = ScriptedUpstream(thinks(3, answer=""), continuations=[Script((Text(""),))])
    _, _, content = await drawn(upstream, thinking_token_budget=9)
    assert (content, len(upstream.resumed)) == ("", 1)

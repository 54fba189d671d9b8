"""Text that no end tag has made thinking: it is the answer, unless a token or stop string cut it short."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.runs.events import Delta, RunResult
from gateway.upstreams.base import ModelTraits
from tests.fakes import (
    Script,
    ScriptedUpstream,
    Text,
    groups,
    request_for,
    run_to_end,
    says,
    thinks,
    vote_for,
)

OPENED = "deepseek-r1"
"""A family whose template opens the block."""
OFF = {"chat_template_kwargs": {"enable_thinking": False}}
THOUGHT = Text(reasoning="Let me see.")
SEVEN = says("The answer ", "is \\boxed{7}.")


def shown(events: list[Any]) -> tuple[str, str]:
    """Return the thinking and the answer that a stream's deltas add up to."""
    deltas = [event for event in events if isinstance(event, Delta)]
    return "".join(delta.reasoning for delta in deltas), "".join(delta.content for delta in deltas)


def answers(result: RunResult) -> set[str]:
    """Return the answers that have votes."""
    return {answer for answer, _ in groups(result)}


async def whole_and_streamed(script: Script, **asked: Any) -> tuple[RunResult, RunResult, tuple[str, str]]:
    """Return the result of a whole reply, that of a streamed one, and what the stream has shown."""
    _, whole = await run_to_end(ScriptedUpstream(script), request_for(**asked))
    events, streamed = await run_to_end(ScriptedUpstream(script), request_for(**asked, stream=True))
    [one], [other] = whole.chosen, streamed.chosen
    assert (one.reasoning, one.content) == (other.reasoning, other.content)
    return whole, streamed, shown(events)


@pytest.mark.parametrize("family", [OPENED, "qwen3", "generic"])
@given(parts=st.lists(st.text("ab <>/think\n"), max_size=9))
async def test_a_reply_without_an_end_tag_is_the_answer_to_the_letter(family: str, parts: list[str]) -> None:
    """Whole or streamed, whatever the family: nothing is moved, nothing is lost, not even blank space."""
    text = "".join(parts)
    if "</think>" in text:
        return
    script = says(*parts)
    whole, streamed, (_, content) = await whole_and_streamed(script, family=family)
    assert (whole.chosen[0].content, whole.chosen[0].reasoning) == (text, "")
    assert content.endswith(text)
    assert (whole.reasoning, streamed.reasoning) == (0, 0)


async def test_what_was_shown_as_thinking_is_given_as_the_answer() -> None:
    """A stream can't know better before its end, and then it gives the whole answer."""
    _, _, (reasoning, content) = await whole_and_streamed(SEVEN, family=OPENED)
    assert (reasoning, content) == ("The answer is \\boxed{7}.",) * 2


async def test_thinking_that_a_token_limit_cut_stays_thinking() -> None:
    """Nobody knows what it would have become, so it is no answer of a vote."""
    _, result = await run_to_end(
        ScriptedUpstream(says("Hm, ", "so", finish="length")), vote_for(2, family=OPENED)
    )
    assert (result.chosen[0].reasoning, result.chosen[0].content) == ("Hm, so", "")


async def test_a_cut_text_stays_where_the_engine_put_it() -> None:
    """Where nothing was asked, only an end tag moves text out of the content."""
    whole, _, (_, content) = await whole_and_streamed(says("Hm, ", "so", finish="length"), family=OPENED)
    assert (whole.chosen[0].reasoning, content) == ("", "Hm, so")


async def test_text_before_the_engines_own_split_is_the_answer() -> None:
    """The engine has called it content, and no end tag says otherwise."""
    script = says("Let me see. ", Text(reasoning="hm"), "Done.")
    whole, _, (_, content) = await whole_and_streamed(script, family=OPENED)
    assert (whole.chosen[0].reasoning, whole.chosen[0].content) == ("hm", "Let me see. Done.")
    assert content == "Let me see. Done."


async def test_a_block_that_was_closed_is_thinking() -> None:
    """Text before the end tag is thinking in a family whose template opens the block."""
    whole, _, (reasoning, content) = await whole_and_streamed(
        says("Hm.</thi", "nk>\n\nSeven."), family=OPENED
    )
    assert (reasoning, content) == ("Hm.", "Seven.")
    assert whole.reasoning > 0


@pytest.mark.parametrize("stop", ["none", "adaptive"])
async def test_answers_without_thinking_have_their_votes(stop: str) -> None:
    """A vote over an engine that answers at once is a vote like any other."""
    _, result = await run_to_end(ScriptedUpstream(SEVEN), vote_for(3, stop, family=OPENED))
    assert answers(result) == {"7"}


async def test_an_answer_under_a_limit_is_not_asked_for_again() -> None:
    """The engine ended it well, so the gateway closes nothing."""
    upstream = ScriptedUpstream(SEVEN)
    events, result = await run_to_end(
        upstream, request_for(family=OPENED, thinking_token_budget=50, stream=True)
    )
    assert (result.chosen[0].content, upstream.resumed) == ("The answer is \\boxed{7}.", [])
    assert shown(events)[1] == "The answer is \\boxed{7}."
    assert result.reasoning == 0


async def test_an_answer_that_must_follow_a_schema_is_asked_for_again() -> None:
    """The schema was kept from the request that should think, so only the next one follows it."""
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    upstream = ScriptedUpstream(says("It is 7."), continuations=[says('{"a": 7}')])
    request = request_for(family=OPENED, thinking_token_budget=50, response_format=schema)
    _, result = await run_to_end(upstream, request)
    assert (result.chosen[0].content, len(upstream.resumed)) == ('{"a": 7}', 1)


class Splitting(ScriptedUpstream):
    """An engine that was seen to separate thinking from answer itself."""

    def __init__(self, *scripts: Script) -> None:
        super().__init__(*scripts)
        self.own_traits = ModelTraits(splits_thinking=True)

    def traits(self, model: str) -> ModelTraits:
        """Return the same traits every time."""
        return self.own_traits


async def test_an_engine_that_splits_shows_its_answers_as_answers() -> None:
    """Where it sends no thinking first, its text is answer from the first word."""
    events, result = await run_to_end(Splitting(SEVEN), request_for(family=OPENED, stream=True))
    assert shown(events) == ("", "The answer is \\boxed{7}.")
    assert result.reasoning == 0


async def test_an_engine_that_splits_no_more_is_found_out() -> None:
    """One reply with a bare end tag is enough: its sample is split, and the next stream is read by tags."""
    upstream = Splitting(says("Hm, ", "well.</think>", "Seven."))
    for before, after in (("Hm, well.</think>Seven.", "Hm, well."), ("Seven.", "Hm, well.")):
        events, result = await run_to_end(upstream, request_for(family=OPENED, stream=True))
        [sample] = result.chosen
        assert (sample.reasoning, sample.content) == (after, "Seven.")
        assert shown(events)[1] == before
        assert 0 < result.reasoning < result.generated


async def test_an_answer_about_the_tag_is_left_alone() -> None:
    """In code the end tag is text."""
    text = "Close it with `</think>`."
    _, result = await run_to_end(Splitting(says(text)), request_for(family=OPENED, stream=True))
    assert (result.chosen[0].reasoning, result.chosen[0].content) == ("", text)


async def test_an_answer_filed_as_thinking_is_the_answer() -> None:
    """The client had switched thinking off, so what its engine calls reasoning is the answer."""
    script = says(Text(reasoning="I am "), Text(reasoning="Qwen."))
    whole, streamed, (reasoning, content) = await whole_and_streamed(script, **OFF)
    assert (reasoning, content) == ("", "I am Qwen.")
    for result in (whole, streamed):
        assert (result.chosen[0].content, result.reasoning) == ("I am Qwen.", 0)
        assert [note for note in result.notes if "filed the answer as reasoning" in note]


async def test_an_answer_filed_as_thinking_has_its_vote() -> None:
    """Also where the gateway switched thinking off: by a level, and whole samples."""
    filed = says(Text(reasoning="The answer is \\boxed{7}."))
    for asked in (OFF, {"headers": {"X-Reasoning-Budget": "off"}}):
        upstream = ScriptedUpstream(filed, continuations=[SEVEN])
        _, result = await run_to_end(upstream, vote_for(3, **asked))
        assert answers(result) == {"7"}


async def test_thinking_before_an_answer_is_thinking_even_if_it_was_switched_off() -> None:
    """An engine that files thinking and answer apart has thought all the same."""
    script = says(THOUGHT, "Seven.")
    whole, streamed, _ = await whole_and_streamed(script, **OFF)
    for result in (whole, streamed):
        assert (result.chosen[0].reasoning, result.chosen[0].content) == ("Let me see.", "Seven.")
        assert not result.notes
    assert 0 < streamed.reasoning < streamed.generated


async def test_thinking_alone_is_no_answer_where_it_was_not_switched_off() -> None:
    """A model that thinks and says nothing has said nothing."""
    whole, _, (reasoning, content) = await whole_and_streamed(says(THOUGHT))
    assert (reasoning, content, whole.notes) == ("Let me see.", "", ())


STOPPED: dict[str, Any] = {"body": {"stop": ["Question:"]}}


@pytest.mark.parametrize(
    "cut",
    [
        says(THOUGHT, stop_reason="Question:"),
        says(THOUGHT),
        says("<think>", "Let me see.", stop_reason="Question:"),
        says("<think>", "Let me see."),
    ],
)
@pytest.mark.parametrize("stop", ["none", "adaptive"])
async def test_a_stop_string_in_the_thinking_only_ends_the_thinking(cut: Script, stop: str) -> None:
    """In a vote the sample is asked for its answer, whoever splits its text."""
    upstream = ScriptedUpstream(cut, continuations=[SEVEN])
    _, result = await run_to_end(upstream, vote_for(3, stop, **STOPPED, max_tokens=500))
    assert answers(result) == {"7"}
    assert all(sample.reasoning == "Let me see." for sample in result.samples)
    assert all(turn.endswith("</think>\n\n") for turn in upstream.resumed)
    assert all(body["max_tokens"] < 500 for body in upstream.bodies if "prompt" in body)


async def test_a_stop_string_under_a_limit_only_ends_the_thinking() -> None:
    """The template opens the block, and vLLM says that a stop string ended the reply."""
    upstream = ScriptedUpstream(says("Let me see.", stop_reason="Question:"), continuations=[SEVEN])
    _, result = await run_to_end(upstream, request_for(family=OPENED, thinking_token_budget=50, **STOPPED))
    [sample] = result.chosen
    assert (sample.reasoning, sample.content) == ("Let me see.", "The answer is \\boxed{7}.")


async def test_a_reply_that_ended_by_itself_is_not_repaired() -> None:
    """vLLM says so, or no tag was seen: the text is the answer."""
    for script in (says("It is \\boxed{7}.", stop_reason=None), says("It is \\boxed{7}.")):
        upstream = ScriptedUpstream(script)
        _, result = await run_to_end(upstream, vote_for(3, "adaptive", family=OPENED, **STOPPED))
        assert (answers(result), upstream.resumed) == ({"7"}, [])


async def test_with_nothing_asked_a_stop_string_is_the_engines_word() -> None:
    """The reply comes back as the engine gave it."""
    upstream = ScriptedUpstream(says(THOUGHT, stop_reason="Question:"))
    for stream in (False, True):
        _, result = await run_to_end(upstream, request_for(stream=stream, **STOPPED))
        assert (result.chosen[0].reasoning, result.chosen[0].content) == ("Let me see.", "")
    assert upstream.resumed == []


async def test_what_a_stop_string_ended_in_the_answer_is_complete() -> None:
    """Only thinking is repaired."""
    upstream = ScriptedUpstream(thinks(3, "It is \\boxed{7}."))
    _, result = await run_to_end(upstream, vote_for(3, "adaptive", **STOPPED))
    assert (answers(result), upstream.resumed) == ({"7"}, [])

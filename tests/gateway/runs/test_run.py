"""How a run draws, counts, combines, stops and aborts samples."""

import asyncio
from typing import Any

import pytest

from gateway.errors import UpstreamError
from gateway.runs.events import Delta, Progress
from gateway.runs.run import Runner
from tests.fakes import ScriptedUpstream, Text, groups, request_for, run_to_end, says, thinks, until, vote_for

BROKEN = UpstreamError(502, "out of order")
REFUSED = UpstreamError(400, "too long")
SEVEN = says("The answer is ", "\\boxed{7}.")
EIGHT = says("The answer is ", "\\boxed{8}.")


async def test_the_majority_wins_and_its_sample_comes_back_whole() -> None:
    """The winner is one sample with its own fields, not a mix of samples."""
    other = says("So it is \\boxed{7}.", stop_reason="</s>")
    upstream = ScriptedUpstream(EIGHT, other, SEVEN)
    _, result = await run_to_end(upstream, vote_for(3))
    [winner] = result.chosen
    assert winner.content == "So it is \\boxed{7}."
    assert winner.extra["choice"]["stop_reason"] == "</s>"
    assert groups(result) == [("7", 2), ("8", 1)]
    assert result.vote is not None
    assert result.vote.share == pytest.approx(2 / 3)


async def test_equal_numbers_are_one_group() -> None:
    """19, 19.0 and 38/2 are the same answer."""
    answers = ("\\boxed{19}", "\\boxed{19.0}", "\\boxed{38/2}", "\\boxed{20}")
    upstream = ScriptedUpstream(*(says(answer) for answer in answers))
    _, result = await run_to_end(upstream, vote_for(4))
    assert [count for _, count in groups(result)] == [3, 1]


async def test_a_sample_without_an_answer_has_no_vote() -> None:
    """A reply that declares no answer counts as unanswered and joins no group."""
    prose = says("I could think about this for a long time and never come to any end at all, really")
    _, result = await run_to_end(ScriptedUpstream(prose, prose, SEVEN), vote_for(3))
    assert groups(result) == [("7", 1)]
    assert result.chosen[0].content == "The answer is \\boxed{7}."
    assert (result.counts.finished, result.counts.unanswered) == (3, 2)


async def test_a_truncated_sample_has_no_vote() -> None:
    """A sample that a token limit cut is counted, but has no vote."""
    cut = says("The answer is \\boxed{8}.", finish="length")
    _, result = await run_to_end(ScriptedUpstream(cut, cut, SEVEN), vote_for(3))
    assert groups(result) == [("7", 1)]
    assert result.counts.truncated == 2


async def test_without_any_vote_the_first_complete_sample_comes_back() -> None:
    """Without any answer a complete sample is returned, and a note says so."""
    prose = says("I could think about this for a long time and never come to any end at all, really")
    cut = says("and so on and so", finish="length")
    _, result = await run_to_end(ScriptedUpstream(cut, prose, cut), vote_for(3))
    assert result.chosen[0].content == prose.steps[0].content  # type: ignore[union-attr]
    assert groups(result) == []
    assert any("no sample has an answer" in note for note in result.notes)


async def test_what_failed_does_not_decide() -> None:
    """The other samples decide; the result counts the failures and names one."""
    upstream = ScriptedUpstream(says(BROKEN), SEVEN, says("The answer", BROKEN), says(REFUSED), SEVEN)
    _, result = await run_to_end(upstream, vote_for(4, "first-4", scaling={"vote": "weighted"}))
    assert groups(result) == [("7", 3)]
    assert (result.counts.failed, result.counts.finished) == (3, 3)
    assert any("3 of 6 samples failed (too long)" in note for note in result.notes)


async def test_when_all_fail_the_upstreams_error_is_raised() -> None:
    """If every sample fails, the run raises the error and reports no progress before it."""
    running = Runner(ScriptedUpstream(says(BROKEN))).run(vote_for(3, "adaptive", stream=True))
    with pytest.raises(UpstreamError, match="out of order"):
        await anext(running)


async def test_each_sample_has_its_own_seed() -> None:
    """Single requests use seed + i, from the client's seed or a random one."""
    upstream = ScriptedUpstream(SEVEN)
    await run_to_end(upstream, vote_for(3, "first-3", seed=100))
    assert [body["seed"] for body in upstream.bodies] == [100, 101, 102]
    upstream = ScriptedUpstream(SEVEN, EIGHT, SEVEN)
    await run_to_end(upstream, vote_for(3, "first-3"))
    seeds = [body["seed"] for body in upstream.bodies]
    assert seeds == [seeds[0], seeds[0] + 1, seeds[0] + 2]


async def test_one_upstream_request_where_nothing_can_be_stopped() -> None:
    """Without a stopping rule and a limit, one request with `n` draws all samples."""
    upstream = ScriptedUpstream(SEVEN, EIGHT, SEVEN, prompt_tokens=10)
    _, result = await run_to_end(upstream, vote_for(3, seed=5))
    assert [(body["n"], body["seed"]) for body in upstream.bodies] == [(3, 5)]
    assert (result.prompt, result.upstream_prompt, result.generated) == (10, 10, 6)


@pytest.mark.parametrize("counts", [True, False])
async def test_choices_of_one_request_add_up(counts: bool) -> None:
    """The total is exact, whether the engine counts each chunk or only sums up at the end."""
    scripts = [says(Text("The answer is \\boxed{7}. ", tokens=n), Text("So.", tokens=3)) for n in (5, 20, 40)]
    _, result = await run_to_end(ScriptedUpstream(*scripts, counts=counts), vote_for(3))
    assert result.generated == sum(script.tokens for script in scripts)
    assert result.estimated is not counts


async def test_an_upstream_that_refuses_n_gets_single_requests() -> None:
    """After a 400 about `n` the samples are drawn one by one, each with its own seed."""
    upstream = ScriptedUpstream(SEVEN, refuses_n=True)
    _, result = await run_to_end(upstream, vote_for(3, seed=7))
    assert [(body.get("n"), body["seed"]) for body in upstream.bodies] == [
        (3, 7),
        (None, 7),
        (None, 8),
        (None, 9),
    ]
    assert result.counts.failed == 0
    assert groups(result) == [("7", 3)]


async def test_choices_that_finished_before_a_failure_count() -> None:
    """When a shared request breaks off, the samples that were complete decide; the others have failed."""
    late = says("The ", "answer ", "is ", BROKEN)
    _, result = await run_to_end(ScriptedUpstream(SEVEN, late, late), vote_for(3))
    assert groups(result) == [("7", 1)]
    assert (result.counts.finished, result.counts.failed) == (1, 4)


async def test_samples_that_can_be_stopped_are_single_requests() -> None:
    """With a stopping rule each sample has its own request, so that each can be aborted."""
    upstream = ScriptedUpstream(SEVEN)
    await run_to_end(upstream, vote_for(4, "adaptive"))
    assert all("n" not in body for body in upstream.bodies)


async def test_adaptive_stops_when_the_leader_is_sure() -> None:
    """Four equal answers of sixteen samples are enough, and the result says what that saved."""
    upstream = ScriptedUpstream(SEVEN)
    _, result = await run_to_end(upstream, vote_for(16, "adaptive"))
    assert (result.counts.launched, len(upstream.plans)) == (4, 4)
    assert result.stop == "adaptive"
    assert result.saved == 12 * SEVEN.tokens


async def test_what_is_not_needed_any_more_is_aborted_upstream() -> None:
    """The first two answers end the vote; the third stream is closed upstream and its tokens are counted."""
    never = asyncio.Event()
    endless = says("thinking ", "on ", "and ", "on ", never)
    upstream = ScriptedUpstream(endless, SEVEN, SEVEN)
    _, result = await run_to_end(upstream, vote_for(3, "first-2"))
    assert (upstream.open, upstream.dropped) == (0, 1)
    assert (result.counts.finished, result.counts.aborted) == (2, 1)
    assert result.generated == SEVEN.tokens * 2 + 4
    assert groups(result) == [("7", 2)]


async def test_a_limit_in_tokens_ends_the_drawing() -> None:
    """At the limit the vote takes the samples that have finished."""
    never = asyncio.Event()
    upstream = ScriptedUpstream(SEVEN, says(*["on "] * 50, never))
    _, result = await run_to_end(upstream, vote_for(2, "window", scaling={"max_tokens": 30, "window": 2}))
    assert result.stop == "max_tokens"
    assert (result.counts.aborted, upstream.open) == (1, 0)


async def test_a_limit_in_seconds_ends_the_drawing() -> None:
    """A stream that hangs delays the vote no longer than the limit."""
    upstream = ScriptedUpstream(SEVEN, says("on ", asyncio.Event()))
    _, result = await run_to_end(upstream, vote_for(2, "window", scaling={"max_seconds": 0.05, "window": 2}))
    assert result.stop == "max_seconds"
    assert (result.counts.aborted, upstream.open) == (1, 0)


@pytest.mark.parametrize("stop", ["none", "first-4"])
async def test_closing_a_run_closes_every_stream(stop: str) -> None:
    """A run that is closed early leaves nothing running upstream."""
    gates = says("The ", asyncio.Event())
    upstream = ScriptedUpstream(gates)
    task = asyncio.create_task(run_to_end(upstream, vote_for(4, stop)))
    await until(lambda: upstream.open == (1 if stop == "none" else 4), "the streams upstream")
    task.cancel()
    await asyncio.wait({task})
    assert (upstream.open, upstream.dropped) == (0, 1 if stop == "none" else 4)
    assert task.cancelled()


async def test_progress_tells_how_the_vote_stands() -> None:
    """Each sample that ends gives one event, with the groups so far."""
    events, _ = await run_to_end(ScriptedUpstream(SEVEN, EIGHT, SEVEN), vote_for(3, stream=True))
    progress = [event for event in events if isinstance(event, Progress)]
    assert [event.status for event in progress] == ["finished"] * 3
    assert [event.counts.finished for event in progress] == [1, 2, 3]
    assert not any(isinstance(event, Delta) for event in events)


async def test_the_first_sample_may_be_shown_live() -> None:
    """With `stream: first` the deltas of exactly one sample come as they are written."""
    upstream = ScriptedUpstream(EIGHT, SEVEN, SEVEN)
    events, result = await run_to_end(upstream, vote_for(3, stream=True, scaling={"stream": "first"}))
    deltas = [event for event in events if isinstance(event, Delta)]
    assert {delta.index for delta in deltas} == {0}
    assert "".join(delta.content for delta in deltas) == "The answer is \\boxed{8}."
    assert result.chosen[0].content == "The answer is \\boxed{7}."


async def test_the_best_ranked_choices_come_back() -> None:
    """With samples, `n` says how many are returned, the winner's group first."""
    upstream = ScriptedUpstream(EIGHT, SEVEN, SEVEN, says("nothing", finish="length"))
    _, result = await run_to_end(upstream, vote_for(4, n=3))
    assert [sample.content[-3:] for sample in result.chosen] == ["7}.", "7}.", "8}."]


async def test_raw_choices_come_back_as_they_are() -> None:
    """Without samples, `n` means what it means to OpenAI: one request, no vote, the upstream's order."""
    upstream = ScriptedUpstream(SEVEN, EIGHT)
    _, result = await run_to_end(upstream, request_for(n=2))
    assert [body["n"] for body in upstream.bodies] == [2]
    assert [sample.content[-3:] for sample in result.chosen] == ["7}.", "8}."]
    assert result.vote is None
    assert (result.generated, result.upstream_prompt) == (4, 10)


async def test_raw_choices_with_a_budget_have_a_limit_each() -> None:
    """Each choice has its own limit."""
    upstream = ScriptedUpstream(thinks(9))
    _, result = await run_to_end(upstream, request_for(n=2, thinking_token_budget=4))
    assert len(result.chosen) == 2
    assert all(sample.usage.reasoning <= 4 for sample in result.chosen)
    assert len(upstream.resumed) == 2


async def test_one_plain_sample_is_one_plain_request() -> None:
    """A request that asks for nothing goes upstream as it came."""
    upstream = ScriptedUpstream(SEVEN)
    request = request_for(temperature=0.3, logit_bias={"5": 1})
    _, result = await run_to_end(upstream, request)
    assert upstream.bodies == [
        {"model": "tiny", "messages": request.body["messages"], "temperature": 0.3, "logit_bias": {"5": 1}}
    ]
    assert result.generated == SEVEN.tokens


async def test_a_greedy_vote_is_one_sample() -> None:
    """At temperature 0 all samples would be equal, so one is drawn and a note says so."""
    for body in ({"n": 2}, {}):
        upstream = ScriptedUpstream(SEVEN)
        _, result = await run_to_end(upstream, vote_for(8, temperature=0, **body))
        assert [plan.get("n") for plan in upstream.bodies] == [None]
        assert any("temperature is 0" in note for note in result.notes)


async def test_a_vote_keeps_every_samples_limit() -> None:
    """Each sample has its own limit; the total counts the tokens of all."""
    upstream = ScriptedUpstream(thinks(20))
    _, result = await run_to_end(upstream, vote_for(3, headers={"X-Reasoning-Budget": "8"}))
    assert all(sample.usage.reasoning <= 8 for sample in result.samples)
    assert groups(result) == [("7", 3)]
    assert result.enforced == "forced"
    assert result.generated == sum(sample.usage.completion for sample in result.samples)


async def test_a_bug_in_a_draw_ends_the_request() -> None:
    """An unexpected exception ends the run instead of leaving it waiting."""

    class Broken(ScriptedUpstream):
        async def render(self, body: Any) -> Any:
            raise ZeroDivisionError

    upstream = Broken(thinks(9))
    with pytest.raises(ZeroDivisionError):
        await run_to_end(upstream, vote_for(2, thinking_token_budget=3))
    assert upstream.open == 0

"""What a vote counts, what it may use, and what the result says about it."""

import asyncio
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.app import create_app
from gateway.config import Settings
from gateway.errors import UpstreamError
from gateway.runs.events import Delta
from gateway.runs.voting import LazyAsyncPool, VoteSettings
from gateway.upstreams.base import ModelCard
from scorers.judge import JudgeScorer
from scorers.types import ScorerError
from tests.fakes import Script, ScriptedUpstream, Text, groups, request_for, run_to_end, says, vote_for
from tests.serving import serving

SEVEN = says("The answer is ", "\\boxed{7}.")
EIGHT = says("The answer is ", "\\boxed{8}.")


def sure(text: str, surety: float, tokens: int = 4) -> Script:
    """A reply of so many tokens, each with a confidence of `surety` nats, its text in the last."""
    entry = {"token": "x", "logprob": -surety, "top_logprobs": [{"token": "x", "logprob": -surety}] * 2}
    words = [""] * (tokens - 1) + [text]
    return Script(tuple(Text(word or " ", choice={"logprobs": {"content": [entry]}}) for word in words))


def calls(arguments: str) -> Script:
    """A reply that calls a tool."""
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "add", "arguments": arguments}}
    return Script((Text(delta={"tool_calls": [call]}),), "tool_calls")


async def test_tool_calls_vote_by_their_value() -> None:
    """Equal calls are one group, in whichever order their arguments stand."""
    upstream = ScriptedUpstream(
        calls('{"a": 3, "b": 5}'), calls('{"a": 3, "b": 4}'), calls('{"b":4.0,"a":3}')
    )
    _, result = await run_to_end(upstream, vote_for(3))
    assert [count for _, count in groups(result)] == [2, 1]
    assert result.chosen[0].index == 1


async def test_json_votes_by_its_value_where_json_was_asked_for() -> None:
    """Under a `response_format` the whole reply is the answer; a reply that isn't JSON has no vote."""
    upstream = ScriptedUpstream(says("not JSON"), says('{"a": 1, "b": [2]}'), says('{"b": [2.0], "a": 1}'))
    _, result = await run_to_end(upstream, vote_for(3, response_format={"type": "json_object"}))
    assert [count for _, count in groups(result)] == [2]
    assert result.counts.unanswered == 1


async def test_free_text_goes_to_the_most_typical_reply() -> None:
    """Free text has no answers to count, so the reply most similar to the others wins, and a note says so."""
    typical = "Dear guest, we are glad that you will visit us soon, and the room is ready for you all week"
    other = "Dear guest, we are glad that you will visit us soon, and the room is ready for you on Monday"
    odd = "Hello there! I can't say anything about rooms, because nobody has told me what you want from me"
    upstream = ScriptedUpstream(says(odd), says(other), says(typical))
    _, result = await run_to_end(upstream, vote_for(3))
    assert result.method == "mbr"
    assert result.chosen[0].content in (typical, other)
    assert any("free text" in note for note in result.notes)


async def test_free_text_may_go_to_the_first() -> None:
    """The setting "first" compares nothing."""
    talk = says("I could think about this for a long time and never come to any end at all, really")
    _, result = await run_to_end(ScriptedUpstream(talk), vote_for(3), VoteSettings(free_form="first"))
    assert result.method == "majority"
    assert groups(result) == []


async def test_confidence_weighs_the_vote() -> None:
    """One sure sample outweighs two unsure ones; the client gets no logprobs that it didn't ask for."""
    upstream = ScriptedUpstream(sure("\\boxed{8}", 1.0), sure("\\boxed{8}", 1.0), sure("\\boxed{7}", 9.0))
    _, result = await run_to_end(
        upstream, vote_for(3, headers={"X-Scorer": "confidence"}), VoteSettings(window=2)
    )
    assert (result.method, result.scorer) == ("weighted", "confidence")
    assert result.chosen[0].content.strip() == "\\boxed{7}"
    assert [body["top_logprobs"] for body in upstream.bodies] == [20]
    assert all(sample.logprobs is None for sample in result.samples)


async def test_the_confidence_vote_brings_its_scorer() -> None:
    """`X-Vote: confidence` needs no scorer beside it."""
    upstream = ScriptedUpstream(sure("\\boxed{8}", 1.0), sure("\\boxed{8}", 1.0), sure("\\boxed{7}", 9.0))
    _, result = await run_to_end(
        upstream, vote_for(3, headers={"X-Vote": "confidence"}), VoteSettings(window=2)
    )
    assert (result.method, result.scorer) == ("confidence", "confidence")
    assert result.chosen[0].content.strip() == "\\boxed{7}"


@pytest.mark.parametrize("top", [None, 1])
async def test_the_client_gets_the_logprobs_that_it_asked_for(top: int | None) -> None:
    """The client gets as many logprobs as it asked for, however many the vote needed, streamed or whole."""
    asked: dict[str, Any] = {"logprobs": True} | ({} if top is None else {"top_logprobs": top})
    scaling = {"scorer": "confidence", "stream": "first"}
    request = vote_for(2, stream=True, scaling=scaling, **asked)
    events, result = await run_to_end(ScriptedUpstream(sure("\\boxed{7}", 2.0)), request)
    shown = [event.choice.get("logprobs") for event in events if isinstance(event, Delta)]
    for logprobs in [*filter(None, shown), *(sample.logprobs for sample in result.chosen)]:
        assert logprobs is not None
        assert all(len(entry["top_logprobs"]) == (top or 0) for entry in logprobs["content"])
        assert all(entry["token"] == "x" for entry in logprobs["content"])
    assert any(shown)


async def test_unsure_streams_are_given_up() -> None:
    """`confident` aborts a stream whose confidence falls below the warm-up's threshold."""
    never = asyncio.Event()
    good = sure("\\boxed{7}", 5.0)
    weak = Script((*sure("on", 0.1, 8).steps, never))
    other = sure("\\boxed{8}", 5.0)
    upstream = ScriptedUpstream(good, other, weak, good)
    _, result = await run_to_end(upstream, vote_for(4, "confident"), VoteSettings(window=4))
    assert result.counts.aborted == 1
    assert (upstream.open, upstream.dropped) == (0, 1)
    assert result.counts.finished == 3


async def test_an_upstream_without_logprobs_still_serves() -> None:
    """After a 400 about logprobs that the client never asked for, the vote is unweighted."""

    class Without(ScriptedUpstream):
        async def stream(self, plan: Any) -> Any:
            if plan.body.get("logprobs"):
                raise UpstreamError(400, "logprobs are not supported here")
            async for chunk in super().stream(plan):
                yield chunk

    _, result = await run_to_end(
        Without(SEVEN, EIGHT, SEVEN), vote_for(3, headers={"X-Scorer": "confidence"})
    )
    assert groups(result) == [("7", 2), ("8", 1)]
    assert result.counts.failed == 0
    assert any("no logprobs" in note for note in result.notes)
    assert any("no opinion" in note for note in result.notes)


async def test_a_number_of_samples_found_by_difficulty() -> None:
    """`X-Samples: auto` draws few samples where they agree, and more where they don't."""
    easy, hard = ScriptedUpstream(SEVEN), ScriptedUpstream(SEVEN, EIGHT, SEVEN, EIGHT, EIGHT, SEVEN, SEVEN)
    _, calm = await run_to_end(easy, request_for(headers={"X-Samples": "auto"}))
    _, split = await run_to_end(hard, request_for(scaling={"samples": "auto"}))
    assert calm.counts.launched < split.counts.launched <= 8
    assert calm.counts.asked == 8


@pytest.mark.parametrize(("launch", "started"), [("waves", 4), ("all", 8)])
async def test_how_samples_are_launched(launch: Any, started: int) -> None:
    """ "waves" starts as many samples as could settle the vote, "all" starts all of them."""
    upstream = ScriptedUpstream(SEVEN)
    await run_to_end(upstream, vote_for(8, "adaptive"), VoteSettings(launch=launch))
    assert len(upstream.plans) == started


async def test_samples_in_flight_can_be_capped() -> None:
    """Without a stopping rule each request has at most `concurrency` choices."""
    upstream = ScriptedUpstream(SEVEN)
    _, result = await run_to_end(upstream, vote_for(5, "none"), VoteSettings(concurrency=2))
    assert max(body.get("n") or 1 for body in upstream.bodies) == 2
    assert result.counts.finished == 5


async def test_a_vote_that_needs_scores_says_when_it_has_none() -> None:
    """Best-of-N without a scorer is a majority, and a note says so."""
    _, result = await run_to_end(
        ScriptedUpstream(EIGHT, SEVEN, SEVEN), vote_for(3, headers={"X-Vote": "best"})
    )
    assert result.chosen[0].content == "The answer is \\boxed{7}."
    assert any("had no scorer" in note for note in result.notes)


async def test_the_best_scored_member_of_the_winning_group_comes_back() -> None:
    """Scores also decide within a group."""
    upstream = ScriptedUpstream(sure("\\boxed{7}", 1.0), sure("So \\boxed{7}", 2.0), sure("\\boxed{8}", 1.0))
    _, result = await run_to_end(upstream, vote_for(3, scaling={"scorer": "confidence", "trace": True}))
    assert result.chosen[0].content.strip() == "So \\boxed{7}"
    assert [row["score"] for row in result.trace] == [0.5, 1.0, 0.5]


async def test_the_workers_start_with_the_first_question() -> None:
    """The pool decides hard cases, but nothing before `open` and after `close_async`."""
    pool = LazyAsyncPool(workers=1)
    assert await pool.ask_async("\\sum_{k=1}^{3} k", "6") is None
    pool.open()
    try:
        upstream = ScriptedUpstream(says("\\boxed{\\sum_{k=1}^{3} k}"), says("\\boxed{6}"))
        _, result = await run_to_end(upstream, vote_for(2), VoteSettings(pool))
        assert [count for _, count in groups(result)] == [2]
    finally:
        await pool.close_async()
    assert await pool.ask_async("\\sum_{k=1}^{3} k", "6") is None


async def test_workers_that_cannot_start_are_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Votes continue without workers that can't start; the log names the cause once, `/health` always."""
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no way >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    scripts = [says("\\boxed{\\sum_{k=1}^{3} k}"), says("\\boxed{6}")]
    upstream = ScriptedUpstream(*scripts * 2)
    request = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "scaling": {"samples": 2}}
    async with serving(create_app(Settings(), upstream)) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/health")).json() == {"status": "ok"}
        for _ in range(2):
            reply = (await client.post("/v1/chat/completions", json=request)).json()
            assert [group["count"] for group in reply["scaling"]["vote"]["groups"]] == [1, 1]
        health = await client.get("/health")
    why = "the math workers can't start: the process ended with status 3 (no way)"
    assert (health.status_code, health.json()) == (200, {"status": "ok", "math_workers": why})
    assert caplog.text.count(why) == 1


async def test_waiting_for_the_workers_has_an_end() -> None:
    """When the seconds for the workers are used up, answers that they would compare count as different."""
    pool = LazyAsyncPool(workers=1)
    pool.open()
    upstream = ScriptedUpstream(says("\\boxed{\\sum_{k=1}^{3} k}"), says("\\boxed{6}"))
    _, result = await run_to_end(upstream, vote_for(2), VoteSettings(pool, pool_seconds=0))
    assert [count for _, count in groups(result)] == [1, 1]
    await pool.close_async()


async def test_a_hostile_answer_does_not_hold_up_the_loop() -> None:
    """A thread reads a reply that takes long, so that other work continues."""
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0)
            beats += 1

    value = '{"a": [' + ",".join(f'{{"b": {i}}}' for i in range(4000)) + "]}"
    beating = asyncio.create_task(beat())
    before = beats
    _, result = await run_to_end(ScriptedUpstream(says(value)), vote_for(2))
    beating.cancel()
    assert [count for _, count in groups(result)] == [2]
    assert beats - before > 100


def test_confidence_is_a_number_of_nats() -> None:
    """The helper writes replies of the declared confidence."""
    entry = sure("x", 2.0).steps[0].choice["logprobs"]["content"][0]  # type: ignore[union-attr]
    assert math.exp(entry["logprob"]) == pytest.approx(math.exp(-2.0))


class Slow:
    """A scorer that never comes to an end."""

    needs_logprobs = False

    def __init__(self) -> None:
        self.ended = False

    async def score(self, messages: Any, samples: Any, model: Any) -> list[float | None]:
        """See `Scorer`."""
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True
        return []


class Weighs:
    """A scorer that gives each sample a weight by its text, or fails."""

    needs_logprobs = False

    def __init__(self, weights: dict[str, float], tokens: int = 0, error: Exception | None = None) -> None:
        self._weights, self._tokens, self._error = weights, tokens, error
        self.seen: list[int] = []

    async def score(self, messages: Any, samples: Any, model: Any) -> list[float | None]:
        """See `Scorer`."""
        if self._error is not None:
            raise self._error
        model.count(self._tokens)
        self.seen = [sample.index for sample in samples]
        return [self._weights.get(sample.content) for sample in samples]


def scored(samples: int, **fields: Any) -> Any:
    """A request that votes by the scorer "mine"; the stop is "none"."""
    request = vote_for(samples, **fields)
    vote = request.sampling.vote if "vote" in request.sampling.sources else "weighted"
    return replace(request, sampling=replace(request.sampling, scorer="mine", vote=vote))


async def test_a_scorer_named_means_a_weighted_vote() -> None:
    """A scorer's scores decide; its tokens are reported apart from the samples'."""
    mine = Weighs({"The answer is \\boxed{8}.": 0.9, "The answer is \\boxed{7}.": 0.2}, tokens=30)
    _, result = await run_to_end(
        ScriptedUpstream(SEVEN, SEVEN, EIGHT), scored(3), VoteSettings(scorers={"mine": mine})
    )
    assert result.chosen[0].content == "The answer is \\boxed{8}."
    assert (result.method, result.scorer, result.scorer_tokens) == ("weighted", "mine", 30)
    assert result.generated == 6


async def test_only_what_votes_is_scored() -> None:
    """The scorer gets no truncated and no unanswered samples."""
    mine = Weighs({})
    cut = says("The answer is \\boxed{8}.", finish="length")
    prose = says("I could think about this for a long time and never come to any end at all, really")
    await run_to_end(ScriptedUpstream(cut, SEVEN, prose), scored(3), VoteSettings(scorers={"mine": mine}))
    assert mine.seen == [1]


async def test_a_late_scorer_is_left_behind() -> None:
    """The vote goes on unweighted, and the response says so."""
    slow = Slow()
    vote_settings = VoteSettings(scorers={"mine": slow}, scorer_seconds=0.01)
    _, result = await run_to_end(ScriptedUpstream(EIGHT, SEVEN, SEVEN), scored(3), vote_settings)
    assert result.chosen[0].content == "The answer is \\boxed{7}."
    assert any('"mine" took longer than 0.01 s' in note for note in result.notes)
    assert slow.ended


async def test_the_requests_own_limit_holds_for_the_scorer() -> None:
    """`max_seconds` ends the scorer too."""
    request = scored(3, scaling={"max_seconds": 0.2})
    _, result = await run_to_end(
        ScriptedUpstream(EIGHT, SEVEN, SEVEN), request, VoteSettings(scorers={"mine": Slow()})
    )
    assert result.chosen[0].content == "The answer is \\boxed{7}."
    assert any("took longer than" in note for note in result.notes)


@pytest.mark.parametrize("error", [ScorerError("no weights"), UpstreamError(503, "no judge")])
async def test_a_broken_scorer_costs_only_its_weights(error: Exception) -> None:
    """The vote goes on unweighted, and the response says why."""
    vote_settings = VoteSettings(scorers={"mine": Weighs({}, error=error)})
    _, result = await run_to_end(ScriptedUpstream(EIGHT, SEVEN, SEVEN), scored(3), vote_settings)
    assert result.chosen[0].content == "The answer is \\boxed{7}."
    assert any(f"failed ({error})" in note for note in result.notes)


async def test_scores_outside_their_range_count_as_no_opinion() -> None:
    """Scores outside [0, 1] don't count."""
    mine = Weighs({"The answer is \\boxed{8}.": 99.0, "The answer is \\boxed{7}.": 0.5})
    _, result = await run_to_end(
        ScriptedUpstream(EIGHT, SEVEN, SEVEN), scored(3), VoteSettings(scorers={"mine": mine})
    )
    assert result.chosen[0].content == "The answer is \\boxed{7}."


async def test_free_text_goes_to_the_best_scored() -> None:
    """With a scorer, free text is chosen by score rather than by similarity."""
    talk = [f"I could think about this for a long time, {word}, and never come to any end" for word in "abc"]
    mine = Weighs({talk[0]: 0.1, talk[1]: 0.7, talk[2]: 0.2})
    _, result = await run_to_end(
        ScriptedUpstream(*map(says, talk)), scored(3), VoteSettings(scorers={"mine": mine})
    )
    assert result.method == "best"
    assert result.chosen[0].content == talk[1]


async def test_free_text_may_have_a_scorer_of_its_own() -> None:
    """The setting `free_form` names a scorer for free text only."""
    talk = [f"I could think about this for a long time, {word}, and never come to any end" for word in "abc"]
    vote_settings = VoteSettings(scorers={"mine": Weighs({talk[0]: 0.1, talk[2]: 0.7})}, free_form="mine")
    _, result = await run_to_end(ScriptedUpstream(*map(says, talk)), vote_for(3), vote_settings)
    assert (result.scorer, result.chosen[0].content) == ("mine", talk[2])
    _, result = await run_to_end(ScriptedUpstream(SEVEN), vote_for(3), vote_settings)
    assert result.scorer == "none"


async def test_a_judge_asks_the_requests_own_model() -> None:
    """A judge doesn't think unless its settings say so; its tokens are the scorer's."""
    verdict = says("The most consistent one is \\boxed{1}.", Text("", tokens=1))
    upstream = ScriptedUpstream(SEVEN, EIGHT, SEVEN, verdict, prompt_tokens=10)
    request = vote_for(3, headers={"X-Scorer": "judge"}, family="qwen3")
    _, result = await run_to_end(upstream, request, VoteSettings(scorers={"judge": JudgeScorer(rounds=1)}))
    assert result.scorer_tokens == 12
    assert result.generated == 6
    asked = upstream.bodies[-1]
    assert asked["temperature"] == 0
    assert asked["chat_template_kwargs"] == {"enable_thinking": False}
    assert result.vote is not None
    assert sum(group.weight for group in result.vote.groups) == 1


async def test_a_judge_of_another_name_is_an_adapter_of_the_same_base() -> None:
    """A judge with an unknown name has the family of the request's own model."""
    upstream = ScriptedUpstream(SEVEN, EIGHT, SEVEN, says("yes"))
    request = vote_for(3, headers={"X-Scorer": "judge"})
    request = replace(request, model=replace(request.model, card=ModelCard("policy", "Qwen/Qwen3-8B")))
    judge = JudgeScorer("check", model="checker", budget="low")
    await run_to_end(upstream, request, VoteSettings(scorers={"judge": judge}))
    assert upstream.bodies[-1]["model"] == "checker"
    assert upstream.bodies[-1]["chat_template_kwargs"] == {"enable_thinking": True}


async def test_a_limit_in_tokens_holds_for_the_judge() -> None:
    """After the request's token limit the judge is not asked any more."""
    upstream = ScriptedUpstream(SEVEN)
    request = vote_for(3, headers={"X-Scorer": "judge"}, scaling={"max_tokens": 6})
    _, result = await run_to_end(upstream, request, VoteSettings(scorers={"judge": JudgeScorer("grade")}))
    assert len(upstream.plans) == 1
    assert any("limit in tokens" in note for note in result.notes)


async def test_a_client_that_goes_away_ends_the_scorer() -> None:
    """A client that leaves ends the scorer."""
    slow = Slow()
    running = asyncio.create_task(
        run_to_end(
            ScriptedUpstream(SEVEN), scored(2), VoteSettings(scorers={"mine": slow}, scorer_seconds=60)
        )
    )
    done, _ = await asyncio.wait({running}, timeout=0.1)
    assert not done
    running.cancel()
    await asyncio.wait({running})
    assert slow.ended

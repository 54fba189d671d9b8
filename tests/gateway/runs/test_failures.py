"""What becomes of choices and samples that fail: the others live, and lost samples are drawn once more."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from gateway.errors import UpstreamError
from gateway.runs.events import Delta, RunResult
from gateway.runs.request import RunRequest
from gateway.upstreams.base import Chunk, UpstreamRequest
from tests.fakes import Script, ScriptedUpstream, groups, request_for, run_to_end, says, thinks, vote_for

BROKEN = UpstreamError(503, "out of order", headers={"retry-after": "7"})
SEVEN = says("The answer is ", "\\boxed{7}.")
POISON = "The answer is \\boxed{666}."
BAD_ENDS = ["abort", "error", "content_filter", "gone fishing", None]
"""Finish reasons that are none of a complete or cut answer; with None the reply just ends."""


async def result_of(upstream: ScriptedUpstream, request: RunRequest) -> RunResult:
    """Run a request to its end and return the result."""
    return (await run_to_end(upstream, request))[1]


def counted(result: RunResult) -> tuple[int, int, int, int]:
    """Return how many samples were asked for, launched, finished and failed."""
    counts = result.counts
    return counts.asked, counts.launched, counts.finished, counts.failed


@pytest.mark.parametrize("finish", BAD_ENDS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "asked",
    [{}, {"thinking_token_budget": 50}, {"thinking_token_budget": 50, "family": "deepseek-r1"}],
)
async def test_one_reply_that_did_not_finish_is_an_error(
    finish: str | None, stream: bool, asked: dict[str, Any]
) -> None:
    """A partial text is never an answer, whether it is streamed or whole, with a budget or without."""
    upstream = ScriptedUpstream(says(POISON, finish=finish))
    with pytest.raises(UpstreamError) as error:
        await run_to_end(upstream, request_for(stream=stream, **asked))
    assert error.value.status == (400 if finish == "content_filter" else 502)
    assert upstream.open == 0


async def test_a_stream_without_any_choice_is_an_error() -> None:
    """An engine that only says that it is done has not answered."""
    for stream in (False, True):
        with pytest.raises(UpstreamError, match="finish reason"):
            await run_to_end(ScriptedUpstream(Script((), None)), request_for(stream=stream))


@pytest.mark.parametrize("finish", BAD_ENDS)
@pytest.mark.parametrize("stop", ["none", "adaptive"])
async def test_a_sample_that_did_not_finish_has_no_vote(finish: str | None, stop: str) -> None:
    """Neither alone in its request nor as one of several choices; the others decide."""
    upstream = ScriptedUpstream(says(POISON, finish=finish), SEVEN)
    result = await result_of(upstream, vote_for(3, stop))
    assert all(answer == "7" for answer, _ in groups(result))
    assert result.counts.failed == 1
    assert any("1 of" in note and "failed" in note for note in result.notes)


@pytest.mark.parametrize("stop", ["none", "first-6"])
async def test_an_engine_that_ends_everything_at_once_gives_an_error(stop: str) -> None:
    """A paused vLLM aborts all: the partial texts don't vote, and neither do those of the second try."""
    upstream = ScriptedUpstream(says(POISON, finish="abort"))
    with pytest.raises(UpstreamError, match="abort") as error:
        await run_to_end(upstream, vote_for(6, stop))
    assert error.value.status == 502
    assert sum(body.get("n", 1) for body in upstream.bodies) == 12


@pytest.mark.parametrize("stop", ["none", "first-6"])
async def test_lost_samples_are_drawn_again(stop: str) -> None:
    """Two of six fail, in one request together or alone: eight are launched, and six vote."""
    lost = says("The ", finish="abort")
    upstream = ScriptedUpstream(SEVEN, lost, SEVEN, SEVEN, lost, SEVEN)
    result = await result_of(upstream, vote_for(6, stop, scaling={"vote": "weighted"}, seed=100))
    assert counted(result) == (6, 8, 6, 2)
    assert groups(result) == [("7", 6)]
    assert result.generated == 6 * SEVEN.tokens + 2 * lost.tokens
    seeds = [body["seed"] for body in upstream.bodies]
    assert seeds == ([100, 106] if stop == "none" else [*range(100, 108)])


async def test_a_request_that_carried_all_samples_and_broke_off_is_repeated() -> None:
    """Where nothing of it is complete, all of its samples are drawn again, with seeds of their own."""
    upstream = ScriptedUpstream(says(BROKEN), SEVEN, SEVEN, SEVEN)
    result = await result_of(upstream, vote_for(3, seed=100))
    assert counted(result) == (3, 6, 3, 3)
    assert [(body["n"], body["seed"]) for body in upstream.bodies] == [(3, 100), (3, 103)]


async def test_a_refusal_is_not_repeated() -> None:
    """What was wrong with the request is still wrong at the second try."""
    for status in (400, 404, 413, 422):
        upstream = ScriptedUpstream(says(UpstreamError(status, "no")))
        with pytest.raises(UpstreamError, match="no"):
            await run_to_end(upstream, vote_for(3, "first-3"))
        assert len(upstream.plans) == 3


async def test_the_last_error_reaches_the_client_with_its_headers() -> None:
    """Where all fail, the client learns when to come back."""
    with pytest.raises(UpstreamError) as error:
        await run_to_end(ScriptedUpstream(says(BROKEN)), vote_for(3))
    assert (error.value.status, error.value.headers) == (503, {"retry-after": "7"})


@pytest.mark.parametrize("stream", [False, True])
async def test_choices_that_finished_come_back_without_the_failed_ones(stream: bool) -> None:
    """With n and no vote, the reply has what finished, and a note about the rest."""
    upstream = ScriptedUpstream(SEVEN, says(POISON, finish="abort"), SEVEN)
    result = await result_of(upstream, request_for(n=3, stream=stream))
    assert [sample.index for sample in result.chosen] == [0, 2]
    assert all("666" not in sample.content for sample in result.chosen)
    assert any(note.startswith("1 of 3 choices failed (") for note in result.notes)
    assert (result.counts.finished, result.counts.failed) == (2, 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_choices_that_all_failed_are_an_error(stream: bool) -> None:
    """There is nothing to return."""
    upstream = ScriptedUpstream(says(POISON, finish="abort"))
    with pytest.raises(UpstreamError, match="abort"):
        await run_to_end(upstream, request_for(n=3, stream=stream))


async def test_choices_of_a_stream_that_broke_off_come_back_if_they_were_complete() -> None:
    """A connection that breaks loses only the choices that it cut."""
    late = says("The ", "answer ", "is ", BROKEN)
    result = await result_of(ScriptedUpstream(SEVEN, late), request_for(n=2, stream=True))
    assert [sample.content for sample in result.chosen] == ["The answer is \\boxed{7}."]
    assert any(note.startswith("1 of 2 choices failed (out of order") for note in result.notes)


async def test_a_choice_with_a_budget_is_drawn_again_unless_it_was_shown() -> None:
    """A stream can't take back what it has shown, so there the choice is missing."""
    lost = says("<think>", "a ", finish="abort")
    asked = {"n": 2, "thinking_token_budget": 50}
    result = await result_of(ScriptedUpstream(lost, thinks(3), thinks(3)), request_for(**asked))
    assert (len(result.chosen), result.counts.failed) == (2, 1)
    events, result = await run_to_end(ScriptedUpstream(lost, thinks(3)), request_for(stream=True, **asked))
    assert (len(result.chosen), result.counts.failed) == (1, 1)
    assert {event.index for event in events if isinstance(event, Delta)} == {0, 1}
    assert any(note.startswith("1 of 2 choices failed (") for note in result.notes)


@pytest.mark.parametrize("asked", [{}, {"n": 2}])
async def test_text_after_the_end_of_a_reply_is_not_read(asked: dict[str, int]) -> None:
    """Whatever an engine sends for a choice after its finish reason changes nothing."""

    class Babbling(ScriptedUpstream):
        """Repeats each choice's end, with more text and a failure."""

        async def stream(self, plan: UpstreamRequest) -> AsyncGenerator[Chunk, None]:
            """Add to each end."""
            async for chunk in super().stream(plan):
                yield chunk
                if chunk.finish_reason is not None:
                    yield self._chunk({"content": POISON}, chunk.index, {}, 99)
                    yield self._chunk({}, chunk.index, {"finish_reason": "abort"}, 99)

    result = await result_of(Babbling(SEVEN, SEVEN), request_for(stream=True, **asked))
    assert {sample.content for sample in result.chosen} == {"The answer is \\boxed{7}."}
    assert result.counts.failed == 0


class OneChoice(ScriptedUpstream):
    """Gives one choice whatever `n` says; at its end the gate says that the others are missing."""

    async def stream(self, plan: UpstreamRequest) -> AsyncGenerator[Chunk, None]:
        """Leave the other choices out."""
        async for chunk in super().stream(plan):
            if not chunk.index:
                yield chunk
        for index in range(1, plan.body.get("n") or 1):
            yield Chunk(index, failure=UpstreamError(502, "no finish reason"))


async def test_an_upstream_that_ignores_n_is_asked_for_each_of_the_rest() -> None:
    """What it never began has not failed: the vote is as large as it was asked to be."""
    upstream = OneChoice(SEVEN)
    result = await result_of(upstream, vote_for(4))
    assert counted(result) == (4, 4, 4, 0)
    assert [body.get("n") for body in upstream.bodies] == [4, None, None, None]
    result = await result_of(OneChoice(SEVEN), request_for(n=3, stream=True))
    assert (len(result.chosen), result.notes) == (1, ())

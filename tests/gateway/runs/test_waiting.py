"""Who waits for whom: a slow client stops its upstream's stream, and a vote gives its stragglers up."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import pytest

from gateway.runs.events import Delta, Finished, Progress
from gateway.runs.request import RunRequest
from gateway.runs.run import Runner
from gateway.upstreams.base import Chunk, UpstreamRequest
from policies.stopping import VotePolicy
from policies.types import Step, VoteState
from tests.fakes import Script, ScriptedUpstream, groups, request_for, run_to_end, says, vote_for

SEVEN = says("The answer is ", "\\boxed{7}.")
EIGHT = says("The answer is ", "\\boxed{8}.")
LONG = says(*["on "] * 5000, "The answer is \\boxed{7}.")


class Metered(ScriptedUpstream):
    """Counts the chunks that were read of it; every chunk lets others work first."""

    def __init__(self, *scripts: Script) -> None:
        super().__init__(*scripts)
        self.read = 0
        self.ended = 0

    async def stream(self, plan: UpstreamRequest) -> AsyncGenerator[Chunk, None]:
        """Count."""
        async for chunk in super().stream(plan):
            self.read += 1
            yield chunk
            await asyncio.sleep(0)
        self.ended += 1


async def settled(upstream: Metered) -> int:
    """Wait until nothing more is read; return how much was."""
    before = -1
    while before != upstream.read:
        before = upstream.read
        for _ in range(200):
            await asyncio.sleep(0)
    return upstream.read


SHOWN = {
    "one sample": request_for(stream=True),
    "two choices": request_for(stream=True, n=2),
    "two choices with a budget": request_for(stream=True, n=2, thinking_token_budget=50),
    "a vote that shows its first sample": vote_for(
        3, "first-3", stream=True, scaling={"stream": "first", "vote": "weighted"}
    ),
}


@pytest.mark.parametrize("shown", SHOWN)
async def test_a_client_that_does_not_read_stops_the_stream(shown: str) -> None:
    """What it sees waits in a short queue; when it reads on, everything comes."""
    upstream = Metered(LONG, LONG, SEVEN) if shown.startswith("two") else Metered(LONG, SEVEN, SEVEN)
    async with aclosing(Runner(upstream).run(SHOWN[shown])) as events:
        await anext(events)
        assert await settled(upstream) < 300
        rest = [event async for event in events]
    assert upstream.read > 5000
    assert isinstance(rest[-1], Finished)
    assert rest[-1].result.counts.failed == 0


async def test_samples_that_nobody_sees_do_not_wait_for_the_client() -> None:
    """They run to their end while the client does not read, and their votes are counted at once after it."""
    upstream = Metered(LONG, EIGHT, EIGHT)
    request = vote_for(3, "first-3", stream=True, scaling={"stream": "first", "vote": "weighted"})
    async with aclosing(Runner(upstream).run(request)) as events:
        await anext(events)
        await settled(upstream)
        assert upstream.ended == 2
        progress = [event async for event in events if isinstance(event, Progress)]
    assert [event.index for event in progress] == [1, 2, 0]


async def test_a_client_that_leaves_while_it_does_not_read_leaves_nothing_behind() -> None:
    """The sample that waits for it is aborted upstream."""
    upstream = Metered(LONG, SEVEN, SEVEN)
    async with aclosing(Runner(upstream).run(SHOWN["a vote that shows its first sample"])) as events:
        await anext(events)
        await settled(upstream)
        assert upstream.open == 1
    assert (upstream.open, upstream.dropped) == (0, 1)


async def test_a_vote_that_is_decided_aborts_the_sample_that_waits_for_the_client() -> None:
    """Its text is not read to the end, and the winner is another."""
    upstream = Metered(LONG, EIGHT, EIGHT)
    request = vote_for(3, "first-2", stream=True, scaling={"stream": "first"})
    async with aclosing(Runner(upstream).run(request)) as events:
        await anext(events)
        await settled(upstream)
        last = [event async for event in events][-1]
    assert isinstance(last, Finished)
    assert (groups(last.result), last.result.counts.aborted) == ([("8", 2)], 1)
    assert upstream.read < 5000


@dataclass(frozen=True)
class Hasty:
    """The usual policy on a clock that runs faster."""

    states: list[VoteState]
    speed: float = 1000.0

    def step(self, state: VoteState) -> Step:
        """Return what the usual policy says."""
        running = tuple(replace(sample, seconds=sample.seconds * self.speed) for sample in state.running)
        self.states.append(state)
        step = VotePolicy().step(replace(state, running=running))
        return step if step.wake_after is None else replace(step, wake_after=step.wake_after / self.speed)


async def test_a_straggler_is_given_up_though_nothing_happens() -> None:
    """The vote wakes up by itself, aborts the sample upstream and goes on with the others."""
    upstream = ScriptedUpstream(SEVEN, says("on ", asyncio.Event()), EIGHT)
    states: list[VoteState] = []
    events = [event async for event in Runner(upstream, Hasty(states)).run(weighted(3))]
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.result.counts.finished, last.result.counts.aborted) == (2, 1)
    assert (upstream.open, upstream.dropped) == (0, 1)
    assert states[-1].durations.keys() == {0, 2}
    assert all(0 <= seconds < 10 for seconds in states[-1].durations.values())


def weighted(samples: int) -> RunRequest:
    """Return a request whose vote no count decides early."""
    fields: dict[str, Any] = {"scaling": {"vote": "weighted"}}
    return vote_for(samples, f"first-{samples}", **fields)


async def test_the_time_that_a_client_takes_is_not_the_samples() -> None:
    """A sample that waits for its reader is no straggler."""
    upstream = Metered(says(*["on "] * 200, "The answer is \\boxed{7}."), SEVEN, SEVEN)
    request = vote_for(3, "first-3", stream=True, scaling={"stream": "first", "vote": "weighted"})
    async with aclosing(Runner(upstream, Hasty([], speed=100)).run(request)) as events:
        await anext(events)
        await settled(upstream)
        await asyncio.sleep(0.4)  # 40 s of the policy's: longer than any sample may take
        last = [event async for event in events][-1]
    assert isinstance(last, Finished)
    assert (last.result.counts.finished, last.result.counts.aborted) == (3, 0)


async def test_a_shared_upstream_request_is_timed_by_sample() -> None:
    """Each choice has its own duration, so that a policy can compare them."""
    gate = asyncio.Event()
    upstream = ScriptedUpstream(SEVEN, says("The answer ", gate, "is \\boxed{8}."))
    asyncio.get_running_loop().call_later(0.03, gate.set)
    states: list[VoteState] = []
    [*_, last] = [event async for event in Runner(upstream, Hasty(states)).run(vote_for(2))]
    assert isinstance(last, Finished)
    assert states[-1].durations[1] >= states[-1].durations[0]


async def test_a_vote_without_a_live_sample_reads_no_deltas() -> None:
    """Nothing queues for a client that sees only the winner."""
    upstream = Metered(LONG, SEVEN, SEVEN)
    events, _ = await run_to_end(upstream, vote_for(3, "first-3", stream=True))
    assert not any(isinstance(event, Delta) for event in events)

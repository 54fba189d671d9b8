"""Properties of every policy, whatever happens to its samples."""

import random
from collections.abc import Callable
from dataclasses import replace
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.escalation import AutoPolicy
from policies.stopping import VotePolicy, lead_probability
from policies.types import Policy, RunLimits, RunningSample, SamplingRequest, Step, VoteState
from scorers.grouping import Grouper
from scorers.types import Answer, Sample

REQUESTS = st.builds(
    SamplingRequest,
    level=st.sampled_from(["auto", "low", None]),
    samples=st.integers(1, 40),
    vote=st.sampled_from(["majority", "weighted"]),
    stop=st.sampled_from(["none", "adaptive", "window", "first-1", "first-3", "confident"]),
    limits=st.builds(RunLimits, st.none() | st.integers(1, 500), st.none() | st.floats(0.1, 20)),
    window=st.integers(1, 6),
    threshold=st.floats(0, 1),
    choices=st.integers(1, 5),
)
POLICIES = st.one_of(
    st.builds(VotePolicy, st.sampled_from(["waves", "all"]), st.none() | st.integers(1, 5)),
    st.builds(AutoPolicy, concurrency=st.none() | st.integers(1, 5)),
)


class World:
    """An engine whose samples finish, fail, give no answer or are cut, at random."""

    def __init__(self, sampling: SamplingRequest, policy: Policy, seed: int) -> None:
        self.random = random.Random(seed)
        self.sampling, self.policy = sampling, policy
        self.grouper = Grouper()
        self.running: dict[int, RunningSample] = {}
        self.finish_order: list[int] = []
        self.launched = self.failures = self.most_in_flight = 0
        self.retryable: set[int] = set()
        self.started: dict[int, float] = {}
        self.durations: dict[int, float] = {}
        self.elapsed = 0.0

    def state(self) -> VoteState:
        """Return what the policy sees."""
        return VoteState(
            sampling=self.sampling,
            groups=self.grouper.groups,
            running=tuple(
                replace(sample, seconds=self.elapsed - self.started[index])
                for index, sample in self.running.items()
            ),
            failures=self.failures,
            retryable=frozenset(self.retryable),
            durations=dict(self.durations),
            elapsed=self.elapsed,
            launched=self.launched,
            finish_order=tuple(self.finish_order),
            lengths={i: 10 + i for i in self.finish_order},
            confidences={i: self.confidence(i) for i in self.finish_order if i % 5},
        )

    @staticmethod
    def confidence(index: int) -> float:
        """Return a sample's confidence; some are low."""
        return float(index * 7 % 10)

    def happen(self) -> None:
        """End one sample in some way, or only let time pass."""
        self.elapsed += self.random.random() * self.random.choice([1, 1, 1, 20])
        if not self.running or self.random.random() < 0.2:
            return
        index = self.random.choice(list(self.running))
        del self.running[index]
        kind = self.random.choice(["answer", "answer", "answer", "nothing", "cut", "refusal", "failure"])
        if kind in ("refusal", "failure"):
            self.failures += 1
            if kind == "failure":
                self.retryable.add(index)
            return
        self.finish_order.append(index)
        self.durations[index] = self.elapsed - self.started[index]
        answer = None if kind == "nothing" else Answer(text := self.random.choice("aaab"), text)
        self.grouper.add(Sample(index, "", finish_reason="length" if kind == "cut" else "stop"), answer)

    @staticmethod
    def check_stragglers(state: VoteState, step: Step) -> None:
        """Check that a straggler is given up, and that the policy looks again when there is a new one."""
        if step.done or not state.durations or state.sampling.stop == "none":
            return
        patience = max(30.0, 3 * max(state.durations.values()))
        late = {sample.index for sample in state.running if sample.seconds >= patience}
        assert late <= step.abort
        left = [patience - s.seconds for s in state.running if s.index not in step.abort]
        assert not left or (step.wake_after is not None and step.wake_after <= min(left))

    def run(self, steps: int = 2000) -> bool:
        """Return whether the policy finishes within so many steps; check each of them."""
        for _ in range(steps):
            state = self.state()
            step = self.policy.step(state)
            assert step == self.policy.step(state)
            assert step.abort <= self.running.keys()
            self.check_stragglers(state, step)
            if step.done:
                assert not step.launch
                assert step.reason
                assert step.abort == self.running.keys()
                return True
            for index in step.abort:
                del self.running[index]
            for launch in step.launch:
                assert launch.count > 0
                for _ in range(launch.count):
                    low = self.confidence(self.launched)
                    self.running[self.launched] = RunningSample(self.launched, 5, low if low % 2 else None)
                    self.started[self.launched] = self.elapsed
                    self.launched += 1
            lost = sum(index < self.sampling.samples for index in self.retryable)
            assert self.launched <= self.sampling.samples + (lost if self.sampling.samples > 1 else 0)
            assert self.running or step.wake_after is not None
            self.most_in_flight = max(self.most_in_flight, len(self.running))
            self.happen()
        return False


@settings(deadline=None)
@given(REQUESTS, POLICIES, st.integers(0, 10**6))
def test_every_policy_ends(sampling: SamplingRequest, policy: VotePolicy | AutoPolicy, seed: int) -> None:
    """Whatever happens, the policy finishes, is pure, and launches no more than requested and allowed."""
    world = World(sampling, policy, seed)
    assert world.run()
    if policy.concurrency is not None:
        assert world.most_in_flight <= policy.concurrency


def samples_drawn(answers: str, concurrency: int | None, choose: Callable[[list[int]], int]) -> int:
    """Return how many samples the adaptive rule draws if sample i answers `answers[i]`."""
    sampling, policy = SamplingRequest(samples=len(answers)), VotePolicy(concurrency=concurrency)
    grouper, in_flight, finish_order, launched = Grouper(), [0][:0], [0][:0], 0
    while True:
        running = tuple(map(RunningSample, in_flight))
        step = policy.step(
            VoteState(sampling, grouper.groups, running, launched=launched, finish_order=tuple(finish_order))
        )
        if step.done:
            return launched
        for launch in step.launch:
            in_flight += range(launched, launched + launch.count)
            launched += launch.count
        index = choose(in_flight)
        in_flight.remove(index)
        finish_order.append(index)
        grouper.add(Sample(index, ""), Answer(answers[index], answers[index]))


@settings(deadline=None)
@given(st.text("abc", min_size=1, max_size=24))
def test_waves_cost_no_samples(answers: str) -> None:
    """The adaptive rule draws exactly as many samples in waves as one after another."""
    assert samples_drawn(answers, None, min) == samples_drawn(answers, 1, min)


def above_half(leader: int, runner_up: int, slices: int = 20_000) -> float:
    """Return the mass of Beta(a + 1, b + 1) above 1/2, by the midpoint rule."""
    middles = [0.5 + (i + 0.5) / (2 * slices) for i in range(slices)]
    density = (leader + runner_up + 1) * comb(leader + runner_up, leader)
    return density * sum(p**leader * (1 - p) ** runner_up for p in middles) / (2 * slices)


@pytest.mark.parametrize(("leader", "runner_up"), [(0, 0), (1, 0), (4, 0), (5, 1), (3, 3), (12, 7), (2, 6)])
def test_the_closed_form_is_the_integral(leader: int, runner_up: int) -> None:
    """The binomial sum equals the posterior mass that defines the adaptive rule."""
    assert lead_probability(leader, runner_up) == pytest.approx(above_half(leader, runner_up), abs=1e-6)


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_a_larger_lead_is_surer(leader: int, runner_up: int) -> None:
    """One more sample for the leader raises the probability, and one for the runner-up lowers it."""
    here = lead_probability(leader, runner_up)
    assert lead_probability(leader + 1, runner_up) >= here >= lead_probability(leader, runner_up + 1)

"""Stopping rules, and the policy that draws samples by them.

A stopping rule reads the state of a vote. It returns a `RuleResult`: how many samples should be in
flight now (0: stop), and which samples in flight to abort.

To add a stopping rule: write one function here, and add one line to `STOPPING`, below the rules.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import comb
from types import MappingProxyType
from typing import Literal

from policies.types import Launch, Step, VoteState

__all__ = [
    "STOPPING",
    "AllChoicesPolicy",
    "RuleResult",
    "StoppingRule",
    "VotePolicy",
    "lead_probability",
    "parse_stop",
]

TICK = 0.25
"""Seconds between two looks at the samples in flight, where a token limit or a confidence needs watching."""

WARM_UP = 16
"""Samples that set DeepConf's threshold."""

PATIENCE = 3.0
"""How many times longer than the slowest finished sample another one may take."""

LEAST_PATIENCE = 30.0
"""The seconds that every sample may take, however fast the others were."""

KEEP = 0.9
"""The part of the warm-up samples above the threshold: DeepConf's careful setting (the bold one is 0.1)."""


@dataclass(frozen=True, slots=True)
class RuleResult:
    """What a stopping rule returns: the samples to have in flight (0: stop), and those to abort.

    `watch` asks for another look at the samples in flight soon, even if none finishes.
    """

    in_flight: int
    abort: frozenset[int] = frozenset()
    watch: bool = False


StoppingRule = Callable[[VoteState], RuleResult]


def none(state: VoteState) -> RuleResult:
    """Draw every sample."""
    return RuleResult(_samples_left(state))


def adaptive(state: VoteState) -> RuleResult:
    """Stop when the leader will most likely stay ahead: Adaptive-Consistency (Aggarwal et al. 2023).

    Ask for the fewest further samples that would settle the vote if all were for the leader. No
    stop can come sooner. So drawing these at once never draws more than one at a time would.
    """
    left = _samples_left(state)
    leader, runner_up = _leading_counts(state)
    needed = bisect_left(
        range(left + 1),
        state.sampling.threshold,
        key=lambda extra: lead_probability(leader + extra, runner_up),
    )
    return RuleResult(min(needed, left, _fewest_to_decide(state, left)))


def window(state: VoteState) -> RuleResult:
    """Draw `window` samples at a time and stop at a unanimous window.

    This is early-stopping self-consistency (Li et al. 2024). Windows are cut from the finished
    samples in their order. A sample without an answer that counts spoils its window.
    """
    size = state.sampling.window
    for start in range(0, len(state.finish_order) - size + 1, size):
        members = set(state.finish_order[start : start + size])
        if any(members <= set(group.members) for group in state.groups):
            return RuleResult(0)
    left = _samples_left(state)
    return RuleResult(min(left, size - len(state.finish_order) % size, _fewest_to_decide(state, left)))


def first_m(state: VoteState) -> RuleResult:
    """Launch all samples and keep the first m with an answer: short-m@k (Hassid et al. 2025)."""
    left = _samples_left(state)
    missing = min(left, max(0, int(state.sampling.stop.removeprefix("first-")) - _usable_count(state)))
    return RuleResult(left if _fewest_to_decide(state, missing) else 0)


def confident(state: VoteState) -> RuleResult:
    """Abort unsure samples and stop when the sure ones agree: DeepConf online (Fu et al. 2025).

    The first finished samples are the warm-up: 16 of them, or half of all where there are fewer
    than 32. They set the threshold that keeps the surest `KEEP` of them. A sample in flight whose
    confidence falls below the threshold is aborted.

    The rule stops once the leader has the requested `threshold` of all confidence. At least half
    as many samples as the warm-up drew must vote by then: one answer among replies without any is
    no agreement. It also stops where no further sample can change a majority. Without logprobs
    nothing is aborted and every answer counts the same.
    """
    left = _samples_left(state)
    if not _fewest_to_decide(state, left):
        return RuleResult(0)
    warm_up = min(WARM_UP, (state.sampling.samples + 1) // 2)
    if len(state.finish_order) < warm_up:
        return RuleResult(min(left, warm_up - len(state.finish_order)))
    if 2 * _usable_count(state) >= warm_up and _agreement(state) >= state.sampling.threshold:
        return RuleResult(0)
    known = sorted(state.confidences[i] for i in state.finish_order[:warm_up] if i in state.confidences)
    least = _quantile(known, 1 - KEEP) if known else 0.0
    unsure = {s.index for s in state.running if s.confidence is not None and s.confidence < least}
    return RuleResult(left, frozenset(unsure), watch=bool(known))


STOPPING: Mapping[str, StoppingRule] = MappingProxyType(
    {
        "none": none,
        "adaptive": adaptive,
        "window": window,
        "first-m": first_m,
        "confident": confident,
    }
)
"""All stopping rules, by the name in `X-Stop`."""


def parse_stop(text: str) -> str:
    """Return the name in `STOPPING` of the rule that `text` names; "first-3" names "first-m".

    Raise ValueError, with the allowed names, for anything else.
    """
    if re.fullmatch(r"first-[1-9]\d{0,5}", text, re.ASCII):
        return "first-m"
    if text in STOPPING and text != "first-m":
        return text
    allowed = ", ".join("first-<m>" if name == "first-m" else name for name in STOPPING)
    raise ValueError(f"unknown stopping rule {text!r}; allowed: {allowed}")


def lead_probability(leader: int, runner_up: int) -> float:
    """Return how sure it is that the leader is the more probable answer: P(Binomial(a + b + 1, 1/2) <= a).

    That is the mass of the Beta(a + 1, b + 1) posterior above one half, in closed form. Four
    unanimous samples give 0.969.
    """
    trials = leader + runner_up + 1
    at_most: int = sum(comb(trials, hits) for hits in range(leader + 1))
    return at_most / (1 << trials)


def _unlaunched(state: VoteState) -> int:
    """Return how many samples may still be launched: those not drawn yet, and replacements.

    Each of the requested samples is replaced at most once, and only if it failed in a way that
    another try may avoid. A replacement is not replaced, and a single sample is not drawn again.
    """
    samples = state.sampling.samples
    replacements = sum(index < samples for index in state.retryable) if samples > 1 else 0
    return max(0, samples + replacements - state.launched)


def _samples_left(state: VoteState) -> int:
    """Return how many samples may still finish: those in flight, and those not launched yet."""
    return _unlaunched(state) + len(state.running)


def _patience(state: VoteState) -> float | None:
    """Return the seconds that a sample in flight may take; None before the first one has finished."""
    if state.sampling.stop == "none" or not state.durations:
        return None
    return max(LEAST_PATIENCE, PATIENCE * max(state.durations.values()))


def _usable_count(state: VoteState) -> int:
    """Return how many finished samples the vote can use. "mbr" compares texts, so it can use all."""
    return len(state.finish_order) if state.sampling.vote == "mbr" else state.votes


def _leading_counts(state: VoteState) -> tuple[int, int]:
    """Return the sizes of the two largest groups."""
    sizes = sorted((len(group.members) for group in state.groups), reverse=True)
    leader, runner_up, *_ = *sizes, 0, 0
    return leader, runner_up


def _fewest_to_decide(state: VoteState, left: int) -> int:
    """Return the fewest of `left` further samples after which the rest can't change the winner.

    0 means that they can't change it now. Only a majority is decided by counts; the last sample
    may turn any other vote.
    """
    if state.sampling.vote != "majority":
        return left
    leader, runner_up = _leading_counts(state)
    return min(left, max(0, (left - (leader - runner_up)) // 2 + 1))


def _agreement(state: VoteState) -> float:
    """Return the leader's part of all confidence, in [0, 1]. An unknown confidence counts as the mean."""
    known = state.confidences
    voting = [known[i] for group in state.groups for i in group.members if i in known]
    neutral = sum(voting) / len(voting) if voting else 1.0
    shares = [sum(known.get(i, neutral) for i in group.members) for group in state.groups]
    return max(shares) / total if (total := sum(shares)) > 0 else 0.0


def _quantile(ordered: Sequence[float], part: float) -> float:
    """Return the value below which `part` of the ordered values lie, interpolated linearly."""
    position = part * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


@dataclass(frozen=True, slots=True)
class VotePolicy:
    """Draws up to the requested number of samples, and stops by the requested rule and limits.

    `launch` weighs tokens against latency. "waves" has as many samples in flight as the rule
    asks for; "all" starts everything at once and aborts the stragglers. `concurrency` caps the
    samples in flight, and more start as slots free up (None: no cap).

    A failed sample is drawn again once, unless its error would come again; then the rest decide.
    Under every rule but "none" a sample is given up if it takes three times as long as the slowest
    finished one, and at least 30 s. A limit in tokens or seconds ends the drawing, and the finished
    samples vote.
    """

    launch: Literal["waves", "all"] = "waves"
    concurrency: int | None = None

    def __post_init__(self) -> None:
        if self.concurrency is not None and self.concurrency < 1:
            raise ValueError("concurrency must be at least 1")

    def step(self, state: VoteState) -> Step:
        """See `Policy`. Raises ValueError where the request names no known stopping rule."""
        sampling = state.sampling
        rule = parse_stop(sampling.stop)
        if limit := _reached_limit(state):
            return _finish(state, limit)
        result = STOPPING[rule](state)
        patience = _patience(state)
        stragglers = {s.index for s in state.running if patience is not None and s.seconds >= patience}
        abort = result.abort | stragglers
        alive = len(state.running) - len(abort)
        unlaunched = _unlaunched(state)
        if unlaunched <= 0 and alive <= 0:
            return _finish(state, "all drawn")
        in_flight = max(result.in_flight, sampling.choices - _usable_count(state))
        if in_flight <= 0:
            return _finish(state, rule)
        target = unlaunched + alive if self.launch == "all" else in_flight
        if self.concurrency is not None:
            target = min(target, self.concurrency)
        count = max(0, min(target - alive, unlaunched))
        return Step(
            launch=(Launch(sampling, count),) if count else (),
            abort=abort,
            wake_after=_seconds_to_next_look(state, abort, patience, watch=result.watch),
        )


@dataclass(frozen=True, slots=True)
class AllChoicesPolicy:
    """Draws `choices` samples, all of which the client gets without a vote."""

    choices: int

    def step(self, state: VoteState) -> Step:
        """See `Policy`."""
        sampling = replace(state.sampling, samples=self.choices, stop="none", choices=self.choices)
        return VotePolicy().step(replace(state, sampling=sampling))


def _reached_limit(state: VoteState) -> str:
    """Return the name of the limit that is reached, or an empty string."""
    limits = state.sampling.limits
    tokens = sum(state.lengths.values()) + sum(sample.tokens for sample in state.running) + state.lost_tokens
    if limits.max_tokens is not None and tokens >= limits.max_tokens:
        return "max_tokens"
    if limits.max_seconds is not None and state.elapsed >= limits.max_seconds:
        return "max_seconds"
    return ""


def _finish(state: VoteState, reason: str) -> Step:
    return Step(abort=frozenset(sample.index for sample in state.running), done=True, reason=reason)


def _seconds_to_next_look(
    state: VoteState, abort: frozenset[int], patience: float | None, *, watch: bool
) -> float | None:
    """Return the seconds until something may be due even if no sample finishes; None: nothing may."""
    waits, limits = [], state.sampling.limits
    if limits.max_seconds is not None:
        waits.append(limits.max_seconds - state.elapsed)
    if limits.max_tokens is not None or watch:
        waits.append(TICK)
    if patience is not None:
        waits += [patience - sample.seconds for sample in state.running if sample.index not in abort]
    return min(waits, default=None)

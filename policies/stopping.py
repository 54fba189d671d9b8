"""When enough is enough: the stopping rules, and the policy that draws samples by them.

A rule looks at the state and gives an `Outlook`: how many samples are worth having in
flight now (none: enough is known) and which streams are not worth going on with. To add a
rule, write one function here and name it in `STOPPING` at the foot.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from types import MappingProxyType
from typing import Literal

from policies.types import Launch, SamplingRequest, Step, VoteState

__all__ = ["STOPPING", "Outlook", "Rule", "VotePolicy", "lead_probability", "parse_stop"]

TICK = 0.25
"""Seconds between two looks where a limit in tokens or a confidence has to be watched."""

WARM_UP = 16
"""Samples that set DeepConf's threshold."""

KEEP = 0.9
"""The part of the warm-up that the threshold keeps: DeepConf's careful setting (its bold one is 0.1)."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """A rule's opinion: samples worth having in flight (0: stop), streams to give up.

    `watch` asks to be shown the streams again soon, though no sample may have finished.
    """

    want: int
    weak: frozenset[int] = frozenset()
    watch: bool = False


Rule = Callable[[VoteState], Outlook]


def none(state: VoteState) -> Outlook:
    """Draw them all."""
    return Outlook(_left(state))


def adaptive(state: VoteState) -> Outlook:
    """Adaptive-Consistency (Aggarwal et al. 2023): stop when the leader will most likely stay ahead.

    Wants the fewest further samples which, all for the leader, would settle it. No stop
    can come sooner, so drawing these at once never draws more than one at a time would.
    """
    left = _left(state)
    leader, runner_up = _leaders(state)
    more = bisect_left(
        range(left + 1),
        state.sampling.threshold,
        key=lambda extra: lead_probability(leader + extra, runner_up),
    )
    return Outlook(min(more, left, _undecided(state, left)))


def window(state: VoteState) -> Outlook:
    """Early-stopping self-consistency (Li et al. 2024): draw `window` at a time, stop at a unanimous one.

    Windows are cut from the finished samples in their order; a sample without an answer
    that counts spoils its window.
    """
    size = state.sampling.window
    for start in range(0, len(state.order) - size + 1, size):
        drawn = set(state.order[start : start + size])
        if any(drawn <= set(group.members) for group in state.groups):
            return Outlook(0)
    left = _left(state)
    return Outlook(min(left, size - len(state.order) % size, _undecided(state, left)))


def first(state: VoteState) -> Outlook:
    """short-m@k (Hassid et al. 2025): launch all, keep the first m that finish with an answer."""
    left = _left(state)
    missing = min(left, max(0, int(state.sampling.stop.removeprefix("first-")) - _usable(state)))
    return Outlook(left if _undecided(state, missing) else 0)


def confident(state: VoteState) -> Outlook:
    """DeepConf online (Fu et al. 2025): give up on unsure streams, stop when the sure ones agree.

    The first finished samples, 16 or half of all where there are fewer than 32, set the
    threshold that keeps the surest `KEEP` of them; a stream whose confidence falls below
    is aborted. Stops once the leader has `budget.threshold` of all confidence and at least half
    as many samples vote as the warm-up drew: one answer among replies without any is no
    agreement. Without logprobs nothing is aborted and every answer counts the same.
    """
    left = _left(state)
    warm_up = min(WARM_UP, (state.sampling.samples + 1) // 2)
    if len(state.order) < warm_up:
        return Outlook(min(left, warm_up - len(state.order)))
    if 2 * _usable(state) >= warm_up and _agreement(state) >= state.sampling.threshold:
        return Outlook(0)
    known = sorted(state.confidences[i] for i in state.order[:warm_up] if i in state.confidences)
    least = _quantile(known, 1 - KEEP) if known else 0.0
    weak = {s.index for s in state.streams if s.confidence is not None and s.confidence < least}
    return Outlook(left, frozenset(weak), watch=bool(known))


def lead_probability(leader: int, runner_up: int) -> float:
    """P(Binomial(a + b + 1, 1/2) <= a): how sure it is that the leader is the more probable answer.

    It is the Beta(a + 1, b + 1) posterior's mass above one half, in closed form. Four
    unanimous samples give 0.969.
    """
    trials = leader + runner_up + 1
    at_most: int = sum(comb(trials, hits) for hits in range(leader + 1))
    return at_most / (1 << trials)


def _left(state: VoteState) -> int:
    """How many samples may still finish: in flight, or not yet launched."""
    return state.sampling.samples - state.launched + len(state.streams)


def _usable(state: VoteState) -> int:
    """How many finished samples the vote can use; to "mbr", which compares texts, answers don't matter."""
    return len(state.order) if state.sampling.vote == "mbr" else state.votes


def _leaders(state: VoteState) -> tuple[int, int]:
    """The sizes of the two most frequent classes."""
    sizes = sorted((len(group.members) for group in state.groups), reverse=True)
    leader, runner_up, *_ = *sizes, 0, 0
    return leader, runner_up


def _undecided(state: VoteState, left: int) -> int:
    """The fewest of `left` further samples after which the rest can't change the winner; 0: they can't now.

    Only a majority is decided by counts; any other vote may be turned by its last sample.
    """
    if state.sampling.vote != "majority":
        return left
    leader, runner_up = _leaders(state)
    return min(left, max(0, (left - (leader - runner_up)) // 2 + 1))


def _agreement(state: VoteState) -> float:
    """The leader's part of all confidence in [0, 1]; an unknown confidence counts as the mean one."""
    known = state.confidences
    voting = [known[i] for group in state.groups for i in group.members if i in known]
    neutral = sum(voting) / len(voting) if voting else 1.0
    shares = [sum(known.get(i, neutral) for i in group.members) for group in state.groups]
    return max(shares) / total if (total := sum(shares)) > 0 else 0.0


def _quantile(ordered: Sequence[float], part: float) -> float:
    """The value below which `part` of the ordered values lie, interpolated linearly."""
    position = part * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


STOPPING: Mapping[str, Rule] = MappingProxyType(
    {
        "none": none,
        "adaptive": adaptive,
        "window": window,
        "first-m": first,
        "confident": confident,
    }
)


def parse_stop(text: str) -> str:
    """The name in `STOPPING` of the rule that `text` asks for ("first-3" is of "first-m").

    Raises ValueError, listing what is allowed, for anything else.
    """
    if re.fullmatch(r"first-[1-9]\d{0,5}", text, re.ASCII):
        return "first-m"
    if text in STOPPING and text != "first-m":
        return text
    allowed = ", ".join("first-<m>" if name == "first-m" else name for name in STOPPING)
    raise ValueError(f"unknown stopping rule {text!r}; allowed: {allowed}")


@dataclass(frozen=True, slots=True)
class VotePolicy:
    """Draws up to `budget.samples` samples and stops by the budget's rule and limits.

    `launch` weighs tokens against latency: "waves" has as many in flight as the rule
    wants, "all" starts everything at once and aborts the stragglers. `concurrency` caps
    the samples in flight, so that they start as slots free up (None: no cap). A failed
    sample is not replaced: the rest decide. A limit in tokens or seconds ends the drawing,
    and the vote is over what there is.
    """

    launch: Literal["waves", "all"] = "waves"
    concurrency: int | None = None

    def __post_init__(self) -> None:
        if self.concurrency is not None and self.concurrency < 1:
            raise ValueError("concurrency must be at least 1")

    def step(self, state: VoteState) -> Step:
        """See `Policy`. Raises ValueError where the budget names no known stopping rule."""
        sampling = state.sampling
        rule = parse_stop(sampling.stop)
        if spent := _spent(state):
            return _finish(state, spent)
        outlook = STOPPING[rule](state)
        alive = len(state.streams) - len(outlook.weak)
        unlaunched = sampling.samples - state.launched
        if unlaunched <= 0 and alive <= 0:
            return _finish(state, "all drawn")
        want = max(outlook.want, sampling.choices - _usable(state))
        if want <= 0:
            return _finish(state, rule)
        target = unlaunched + alive if self.launch == "all" else want
        if self.concurrency is not None:
            target = min(target, self.concurrency)
        count = max(0, min(target - alive, unlaunched))
        return Step(
            launch=(Launch(sampling, count),) if count else (),
            abort=outlook.weak,
            wake_after=_next_look(sampling, state.elapsed, outlook.watch),
        )


def _spent(state: VoteState) -> str:
    """Which limit is reached, in a word; empty where none is."""
    limits = state.sampling.limits
    used = sum(state.lengths.values()) + sum(stream.tokens for stream in state.streams) + state.lost
    if limits.max_tokens is not None and used >= limits.max_tokens:
        return "max_tokens"
    if limits.max_seconds is not None and state.elapsed >= limits.max_seconds:
        return "max_seconds"
    return ""


def _finish(state: VoteState, reason: str) -> Step:
    return Step(abort=frozenset(stream.index for stream in state.streams), done=True, reason=reason)


def _next_look(sampling: SamplingRequest, elapsed: float, watch: bool) -> float | None:
    """Seconds until something may have to be done though no sample finishes; None: nothing may."""
    looks = []
    if sampling.limits.max_seconds is not None:
        looks.append(sampling.limits.max_seconds - elapsed)
    if sampling.limits.max_tokens is not None or watch:
        looks.append(TICK)
    return min(looks, default=None)

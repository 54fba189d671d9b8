"""`auto`: spend by difficulty. Few samples with little thinking first; more of both where they disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from policies.prompts import LEVELS
from policies.stopping import VotePolicy
from policies.types import Launch, SamplingRequest, Step, VoteState

__all__ = ["LADDER", "AutoPolicy", "Rung"]


@dataclass(frozen=True, slots=True)
class Rung:
    """The next `samples` samples (None: all that are left) are drawn at this level of effort."""

    level: str
    samples: int | None = None


LADDER = (Rung("low", 3), Rung("medium", 5), Rung("high"))
"""Three unanimous samples end it at the first rung; after the second, six of eight do."""


@dataclass(frozen=True, slots=True)
class AutoPolicy:
    """Climbs `ladder` until the leader is `sure` enough, within the budget's samples and limits.

    It is the adaptive rule with an easier threshold: again only as many samples are drawn
    at once as could settle it, so a rung is left as soon as its samples can't. All answers
    count alike, whichever rung they come from. `levels` gives each level's thinking limit
    for the model at hand, which the budget's own `thinking_tokens` still caps. Where the
    budget names another effort than "auto", that is kept and only the number of samples is
    found. One sample alone has nothing to agree with; it is drawn at the middle rung.
    """

    ladder: Sequence[Rung] = LADDER
    levels: Mapping[str, int | None] = field(
        default_factory=lambda: {name: level.tokens for name, level in LEVELS.items()}
    )
    sure: float = 0.9
    concurrency: int | None = None

    def step(self, state: VoteState) -> Step:
        """See `Policy`. Raises KeyError where the ladder names a level without a limit."""
        asked = state.sampling
        adaptive = replace(asked, stop="adaptive", threshold=self.sure)
        step = VotePolicy(concurrency=self.concurrency).step(replace(state, sampling=adaptive))
        if asked.level != "auto" or not step.launch:
            return step
        count = sum(ask.count for ask in step.launch)
        return replace(step, launch=tuple(self._asks(asked, state.launched, count)))

    def _asks(self, asked: SamplingRequest, launched: int, count: int) -> list[Launch]:
        """The next `count` samples after the `launched` ones, each at its rung's level."""
        if asked.samples == 1:
            return [Launch(self._at(asked, self.ladder[len(self.ladder) // 2]), 1)]
        asks, start = [], 0
        for rung in self.ladder:
            end = asked.samples if rung is self.ladder[-1] or rung.samples is None else start + rung.samples
            here = min(end, launched + count) - max(start, launched)
            if here > 0:
                asks.append(Launch(self._at(asked, rung), here))
            start = max(start, end)
        return asks

    def _at(self, asked: SamplingRequest, rung: Rung) -> SamplingRequest:
        limits = [limit for limit in (self.levels[rung.level], asked.thinking_limit) if limit is not None]
        return replace(asked, level=rung.level, thinking_limit=min(limits, default=None))

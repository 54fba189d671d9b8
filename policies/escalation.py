"""The `auto` level spends by difficulty: few short samples first, longer ones where they disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from policies.prompts import LEVELS
from policies.stopping import VotePolicy
from policies.types import Launch, SamplingRequest, Step, VoteState

__all__ = ["TIERS", "AutoPolicy", "Tier"]


@dataclass(frozen=True, slots=True)
class Tier:
    """A level, and how many of the next samples are drawn at it (None: all that remain)."""

    level: str
    samples: int | None = None


TIERS = (Tier("low", 3), Tier("medium", 5), Tier("high"))
"""Three unanimous samples stop at the first tier; six equal answers of eight stop at the second."""


@dataclass(frozen=True, slots=True)
class AutoPolicy:
    """Moves up the tiers until the leader is ahead with probability `threshold`.

    This is the adaptive rule with an easier threshold. It launches only as many samples at once
    as could settle the vote, so it leaves a tier as soon as the tier's samples can't. All answers
    count alike, whichever tier they come from.

    `levels` gives each level's thinking limit for the model at hand; the request's own
    `thinking_limit` still caps it. A request for another level than "auto" keeps that level, and
    only the number of samples adapts. A single sample is drawn at the middle tier, because it has
    nothing to agree with.
    """

    tiers: Sequence[Tier] = TIERS
    levels: Mapping[str, int | None] = field(
        default_factory=lambda: {name: level.tokens for name, level in LEVELS.items()}
    )
    threshold: float = 0.9
    concurrency: int | None = None

    def step(self, state: VoteState) -> Step:
        """See `Policy`. Raises KeyError where a tier names a level without an entry in `levels`."""
        sampling = state.sampling
        adaptive = replace(sampling, stop="adaptive", threshold=self.threshold)
        step = VotePolicy(concurrency=self.concurrency).step(replace(state, sampling=adaptive))
        if sampling.level != "auto" or not step.launch:
            return step
        count = sum(launch.count for launch in step.launch)
        return replace(step, launch=tuple(self._launches(sampling, state.launched, count)))

    def _launches(self, sampling: SamplingRequest, launched: int, count: int) -> list[Launch]:
        """Return launches for the `count` samples after the `launched` ones, each at its tier's level."""
        if sampling.samples == 1:
            return [Launch(self._at_tier(sampling, self.tiers[len(self.tiers) // 2]), 1)]
        launches, start = [], 0
        for tier in self.tiers:
            last = tier is self.tiers[-1] or tier.samples is None
            end = launched + count if last else start + (tier.samples or 0)
            count_here = min(end, launched + count) - max(start, launched)
            if count_here > 0:
                launches.append(Launch(self._at_tier(sampling, tier), count_here))
            start = max(start, end)
        return launches

    def _at_tier(self, sampling: SamplingRequest, tier: Tier) -> SamplingRequest:
        limits = [limit for limit in (self.levels[tier.level], sampling.thinking_limit) if limit is not None]
        return replace(sampling, level=tier.level, thinking_limit=min(limits, default=None))

"""Samples the completions of a step of reinforcement learning, and computes their advantages.

TRL's trainer calls a `Rollout` for its completions. Pure functions elsewhere make every decision: rewards
(`training.rewards`), dynamic sampling (`training.rl.filters`), advantages (`training.rl.advantages`), and the
length limit (`training.rl.length_schedule`). Only the seed and the step's number determine the extra problems
of a step, each problem's budget, and each completion's random numbers. So a resumed run samples what an
uninterrupted one would have sampled.

Several processes divide the problems of a step among them. Their completions are gathered, and each process
decides about the whole step before it continues with its part, so that all take the same number of rounds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Protocol

from training.data.budgets import BudgetSampler
from training.data.prompts import Prompt, Prompter
from training.rewards import GroupRewards, RewardPlan
from training.rl.advantages import Normalisation, advantages
from training.rl.filters import informative, next_batch
from training.rl.length_schedule import LengthSchedule, LengthState, next_length, start_length
from training.trainer.process_group import SINGLE_PROCESS, ProcessGroup, map_over_processes
from training.trainer.weight_check import ROLLOUT_TOLERANCE, StaleWeights, compare_logprobs
from training.types import Completion, Problem

__all__ = ["PromptGroup", "Rollout", "RolloutSettings", "Sampler"]

_MISMATCHES = {
    "differs": f"at most {ROLLOUT_TOLERANCE} is normal",
    "stale": "they are nearer to those of the model without its adapter",
}

TokenLogprobs = Callable[[Prompt, Sequence[int]], Sequence[float]]
"""Returns a model's log probabilities of a completion's tokens."""


class TrainerState(Protocol):
    """What a rollout reads of the trainer's state."""

    global_step: int


class Sampler(Protocol):
    """What a rollout needs of the trainer that calls it: see `training.trainer.grpo.Trainer`."""

    @property
    def state(self) -> TrainerState:
        """The trainer's state."""

    def sample(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[str], limit: int, stop_ids: Collection[int]
    ) -> tuple[Sequence[Sequence[int]], Sequence[Sequence[float]] | None]:
        """Return (ids, logprobs) of one completion of each prompt."""


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """How a step is sampled.

    Each problem gets `num_generations` completions. `rounds` bounds dynamic sampling, and 1 turns it off.
    `scale_rewards` is the unit of `advantages`.
    """

    num_generations: int
    budgets: BudgetSampler
    length: LengthSchedule
    rounds: int = 1
    scale_rewards: Normalisation = "group"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class PromptGroup:
    """All completions of one problem in one step."""

    problem: Problem
    prompt: Prompt
    ids: Sequence[Sequence[int]]
    logprobs: Sequence[Sequence[float]] | None
    completions: Sequence[Completion]
    rewards: GroupRewards

    @property
    def is_informative(self) -> bool:
        """Whether training on the group changes the policy (see `informative`)."""
        return informative(self.rewards.totals, self.rewards.main)


class Rollout:
    """TRL's rollout function over a fixed list of problems. TRL's prompts are indices into it, as text.

    `plan_for` returns the reward plan for a length limit. `length` is saved with a checkpoint. `metrics`
    describe the last step, and `problem_ids` names the problems that it trained on.

    If a server samples, every step compares its logprobs with the trainer's own, `policy_logprobs`. A server
    that an adapter never reached has the logprobs of its base model, `base_logprobs`.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        prompter: Prompter,
        plan_for: Callable[[int], RewardPlan],
        settings: RolloutSettings,
        *,
        policy_logprobs: TokenLogprobs | None = None,
        base_logprobs: TokenLogprobs | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.problems = problems
        self._prompter = prompter
        self._plan_for = plan_for
        self._settings = settings
        self._policy_logprobs = policy_logprobs
        self._base_logprobs = base_logprobs
        self._group = group
        self.length: LengthState = start_length(settings.length)
        self.metrics: dict[str, float] = {}
        self.problem_ids: list[str] = []

    def __call__(self, prompts: Sequence[str], trainer: Sampler) -> dict[str, Any]:
        """Sample and judge a step, for as many rounds as it needs; see TRL's `rollout_func`."""
        settings = self._settings
        step = trainer.state.global_step
        indices = self._group.gather([int(index) for index in prompts[:: settings.num_generations]])
        problems = [self.problems[index] for index in indices]
        groups = self._sample(problems, step, 0, trainer)
        distance = self._check_weights(groups)
        rounds = 1
        batch = next_batch([group.is_informative for group in groups], len(problems), rounds, settings.rounds)
        while batch.redraw:
            others = random.Random(f"{settings.seed} {step} {rounds}").sample(self.problems, batch.redraw)
            groups += self._sample(others, step, rounds, trainer)
            rounds += 1
            batch = next_batch(
                [group.is_informative for group in groups], len(problems), rounds, settings.rounds
            )
        selected_indices = (*batch.train, *batch.fill)
        selected = [groups[index] for index in selected_indices]
        # With dynamic sampling, a group that only fills the batch gets no advantage. Shaping rewards could
        # give it one, even where its main rewards are all equal.
        no_gradient = set(batch.fill) if settings.rounds > 1 else set()
        self._record_metrics(groups, selected, rounds)
        if distance is not None:
            self.metrics["canary"] = distance
        finished = [completion.finished for group in groups for completion in group.completions]
        self.length = next_length(settings.length, self.length, finished)
        totals = [
            [None] * settings.num_generations if index in no_gradient else groups[index].rewards.totals
            for index in selected_indices
        ]
        group_advantages = advantages(totals, settings.scale_rewards)
        self.metrics["taught"] = fmean(value is not None for group in group_advantages for value in group)
        part_size = len(problems) // self._group.world_size  # a process returns its own problems' groups
        part = slice(self._group.rank * part_size, (self._group.rank + 1) * part_size)
        selected, group_advantages = selected[part], group_advantages[part]
        return {
            "prompt_ids": [list(group.prompt.ids) for group in selected for _ in group.ids],
            "completion_ids": [list(ids) for group in selected for ids in group.ids],
            "logprobs": _join_logprobs(selected),
            "advantage": [value or 0.0 for group in group_advantages for value in group],
            "env_mask": _loss_mask(selected, group_advantages),
        }

    def _sample(
        self, problems: Sequence[Problem], step: int, rounds: int, trainer: Sampler
    ) -> list[PromptGroup]:
        """Sample a round, and return its groups from all processes."""
        return map_over_processes(
            self._group,
            problems,
            lambda first, part: self._sample_part(part, first, step, rounds, trainer),
        )

    def _sample_part(
        self, problems: Sequence[Problem], first: int, step: int, rounds: int, trainer: Sampler
    ) -> list[PromptGroup]:
        settings, size = self._settings, self._settings.num_generations
        prompts = [
            self._prompter.prompt(problem, settings.budgets.level(problem, step)) for problem in problems
        ]
        prompt_ids = [list(prompt.ids) for prompt in prompts for _ in range(size)]
        seeds = [
            f"{settings.seed} {step} {rounds} {first + index} {sample}"
            for index in range(len(problems))
            for sample in range(size)
        ]
        ids, logprobs = trainer.sample(prompt_ids, seeds, self.length.limit, self._prompter.stop_ids)
        plan = self._plan_for(self.length.limit)
        groups = []
        for index, (problem, prompt) in enumerate(zip(problems, prompts, strict=True)):
            part = slice(index * size, (index + 1) * size)
            completions = [self._prompter.completion(prompt, completion_ids) for completion_ids in ids[part]]
            rewards = plan.judge(problem, completions)
            group_logprobs = logprobs[part] if logprobs else None
            groups.append(PromptGroup(problem, prompt, ids[part], group_logprobs, completions, rewards))
        return groups

    def _check_weights(self, groups: Sequence[PromptGroup]) -> float | None:
        """Return the mean distance, in nats, between the logprobs of trainer and server.

        Returns None without a server. Each process compares the first completion of its first group. All
        raise StaleWeights if one differs, or is nearer to the base model than to the adapter. The server then
        samples from other weights than are trained (verl#7495: LoRA weights that never reached the rollouts).
        """
        group = groups[self._group.rank * math.ceil(len(groups) / self._group.world_size)]
        if group.logprobs is None or self._policy_logprobs is None:
            return None
        prompt, ids = group.prompt, group.ids[0]
        base = self._base_logprobs(prompt, ids) if self._base_logprobs is not None else None
        check = compare_logprobs(
            self._policy_logprobs(prompt, ids), group.logprobs[0], base, tolerance=ROLLOUT_TOLERANCE
        )
        checks = self._group.gather([(check.verdict, check.mean)])
        for verdict, mean in checks:
            if verdict != "agrees":
                raise StaleWeights(
                    f"the server's logprobs differ from the trainer's by {mean:.2f} nats a token "
                    f"({_MISMATCHES[verdict]}): the server does not sample from the weights that are trained"
                )
        return fmean(mean for _, mean in checks)

    def _record_metrics(
        self, groups: Sequence[PromptGroup], selected: Sequence[PromptGroup], rounds: int
    ) -> None:
        """Record metrics over all samples, before filtering, so that they describe the policy."""
        completions = [completion for group in groups for completion in group.completions]
        self.metrics = {
            "accuracy": _mean([value for group in groups for value in group.rewards.main]),
            "total": _mean([value for group in groups for value in group.rewards.totals]),
            "length": fmean(len(completion.ids) for completion in completions),
            "thinking": fmean(completion.thinking_tokens for completion in completions),
            "cut_off": fmean(not completion.finished for completion in completions),
            "live": fmean(group.is_informative for group in groups),
            "rounds": rounds,
            "limit": self.length.limit,
        }
        for name in groups[0].rewards.parts:
            self.metrics[name] = _mean([value for group in groups for value in group.rewards.parts[name]])
        for budget in sorted({group.prompt.budget or "none" for group in groups}):
            at_budget = [group for group in groups if (group.prompt.budget or "none") == budget]
            self.metrics[f"accuracy/{budget}"] = _mean(
                [value for group in at_budget for value in group.rewards.main]
            )
            self.metrics[f"thinking/{budget}"] = fmean(
                completion.thinking_tokens for group in at_budget for completion in group.completions
            )
        self.problem_ids = [group.problem.id for group in selected]


def _loss_mask(
    groups: Sequence[PromptGroup], group_advantages: Sequence[Sequence[float | None]]
) -> list[list[int]]:
    """Return TRL's mask of the tokens that the loss is taken on, and that its divisor counts.

    Completions without an advantage are left out of both: they only fill a batch, or have no total.
    """
    return [
        [int(value is not None)] * len(ids)
        for group, values in zip(groups, group_advantages, strict=True)
        for ids, value in zip(group.ids, values, strict=True)
    ]


def _join_logprobs(groups: Sequence[PromptGroup]) -> list[Sequence[float]] | None:
    if any(group.logprobs is None for group in groups):
        return None
    return [logprobs for group in groups for logprobs in group.logprobs or ()]


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return fmean(known) if known else float("nan")

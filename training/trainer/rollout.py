"""What is drawn for a step of reinforcement learning, and what it is worth.

TRL's trainer calls a `Rollout` for its completions. Everything that decides is a pure function
elsewhere: rewards (`training.rewards`), dynamic sampling (`training.rl.filters`), advantages
(`training.rl.advantages`), the length limit (`training.rl.length_schedule`). Which questions a step
redraws, at which budget each is asked, and the random numbers of each reply depend on the seed and the
step's number alone, so that a resumed run draws what an uninterrupted one would have drawn.

Several processes share the questions of a step among them. What they drew is gathered, and each
decides of the whole step, so that all take the same number of rounds, before it goes on with its part.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from training.data.budgets import BudgetSampler
from training.data.prompts import Prompt, Prompter
from training.rewards import GroupRewards, RewardPlan
from training.rl.advantages import Normalisation, advantages
from training.rl.filters import informative, next_batch
from training.rl.guards import check_weights
from training.rl.length_schedule import LengthSchedule, LengthState, next_length, start_length
from training.trainer.ranks import ALONE, Ranks, shared
from training.types import Completion, Problem

__all__ = ["CANARY", "Group", "Rollout", "RolloutSettings", "StaleWeights"]


CANARY = 0.2
"""Nats a token by which a server of another precision may differ from the trainer, in the mean."""
_VERDICTS = {
    "differs": f"at most {CANARY}",
    "stale": "less from those of the model without its adapter",
}


class StaleWeights(Exception):
    """The server that draws the samples does not have the trainer's weights."""


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """How a step is drawn.

    `samples` replies to each question; `rounds` bounds dynamic sampling, 1 turns it off;
    `normalise` is `advantages`' unit.
    """

    samples: int
    budgets: BudgetSampler
    length: LengthSchedule
    rounds: int = 1
    normalise: Normalisation = "group"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """All replies to one question in one step."""

    row: Problem
    prompt: Prompt
    ids: Sequence[Sequence[int]]
    logprobs: Sequence[Sequence[float]] | None
    completions: Sequence[Completion]
    judged: GroupRewards

    @property
    def live(self) -> bool:
        """Whether it teaches something."""
        return informative(self.judged.totals, self.judged.main)


class Rollout:
    """TRL's rollout function over a fixed list of rows; a prompt is the text of a row's place in it.

    The trainer's `draw` gives the replies: see `training.trainer.grpo.Trainer`.
    `plan` judges at the length limit of the moment. `length` is kept with a checkpoint.
    `figures` tell of the last step, for the log. Where a server draws, `ours` gives the trainer's own
    logprobs of a reply's tokens: the canary that every step compares with the server's. `without` gives those
    of an adapter's base model, which a server draws from that the adapter never reached.
    """

    def __init__(
        self,
        rows: Sequence[Problem],
        prompter: Prompter,
        plan: Callable[[int], RewardPlan],
        settings: RolloutSettings,
        *,
        ours: Callable[[Prompt, Sequence[int]], Sequence[float]] | None = None,
        without: Callable[[Prompt, Sequence[int]], Sequence[float]] | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.rows = rows
        self._prompter = prompter
        self._plan = plan
        self._settings = settings
        self._ours = ours
        self._without = without
        self._ranks = ranks
        self.length: LengthState = start_length(settings.length)
        self.figures: dict[str, float] = {}
        self.drawn: list[str] = []

    def __call__(self, prompts: Sequence[str], trainer: Any) -> dict[str, Any]:
        """Draws, judges and, where asked to, redraws; see TRL's `rollout_func`."""
        settings = self._settings
        step = trainer.state.global_step
        places = self._ranks.gather([int(place) for place in prompts[:: settings.samples]])
        rows = [self.rows[place] for place in places]
        groups = self._draw(rows, step, 0, trainer)
        difference = self._check(groups)
        rounds = 1
        batch = next_batch([group.live for group in groups], len(rows), rounds, settings.rounds)
        while batch.redraw:
            others = random.Random(f"{settings.seed} {step} {rounds}").sample(self.rows, batch.redraw)
            groups += self._draw(others, step, rounds, trainer)
            rounds += 1
            batch = next_batch([group.live for group in groups], len(rows), rounds, settings.rounds)
        chosen = [groups[place] for place in (*batch.train, *batch.fill)]
        # With filtering, what only fills the batch must not count, though shaping rewards may spread it.
        idle = set(batch.fill) if settings.rounds > 1 else set()
        self._note(groups, chosen, rounds)
        if difference is not None:
            self.figures["canary"] = difference
        finished = [completion.finished for group in groups for completion in group.completions]
        self.length = next_length(settings.length, self.length, finished)
        totals = [
            [None] * settings.samples if place in idle else groups[place].judged.totals
            for place in (*batch.train, *batch.fill)
        ]
        worth = advantages(totals, settings.normalise)
        self.figures["taught"] = fmean(value is not None for group in worth for value in group)
        each = len(rows) // self._ranks.count  # the rows that the trainer has given this process
        mine = slice(self._ranks.index * each, (self._ranks.index + 1) * each)
        chosen, worth = chosen[mine], worth[mine]
        return {
            "prompt_ids": [list(group.prompt.ids) for group in chosen for _ in group.ids],
            "completion_ids": [list(ids) for group in chosen for ids in group.ids],
            "logprobs": _joined(chosen),
            "advantage": [value or 0.0 for group in worth for value in group],
            "env_mask": _mask(chosen, worth),
        }

    def _draw(self, rows: Sequence[Problem], step: int, rounds: int, trainer: Any) -> list[Group]:
        """All groups of a round, this process's and the others'."""
        return shared(self._ranks, rows, lambda first, part: self._part(part, first, step, rounds, trainer))

    def _part(self, rows: Sequence[Problem], first: int, step: int, rounds: int, trainer: Any) -> list[Group]:
        settings = self._settings
        prompts = [self._prompter.prompt(row, settings.budgets.level(row, step)) for row in rows]
        asked = [list(prompt.ids) for prompt in prompts for _ in range(settings.samples)]
        seeds = [
            f"{settings.seed} {step} {rounds} {first + place} {sample}"
            for place in range(len(rows))
            for sample in range(settings.samples)
        ]
        ids, logprobs = trainer.draw(asked, seeds, self.length.limit, self._prompter.all_ends)
        plan = self._plan(self.length.limit)
        groups = []
        for place, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
            part = slice(place * settings.samples, (place + 1) * settings.samples)
            completions = [self._prompter.completion(prompt, each) for each in ids[part]]
            judged = plan.judge(row, completions)
            groups.append(
                Group(row, prompt, ids[part], logprobs[part] if logprobs else None, completions, judged)
            )
        return groups

    def _check(self, groups: Sequence[Group]) -> float | None:
        """The mean difference, in nats, of the trainer's and the server's logprobs; None without a server.

        Each process asks about the first of its groups. Raises StaleWeights, in all of them, where one
        differs, or where it is nearer to the base model than to the adapter: then the server draws from other
        weights than are trained (verl#7495: LoRA weights that never reached the rollouts).
        """
        group = groups[self._ranks.index * -(-len(groups) // self._ranks.count)]
        if group.logprobs is None or self._ours is None:
            return None
        prompt, ids = group.prompt, group.ids[0]
        before = self._without(prompt, ids) if self._without is not None else None
        found = check_weights(self._ours(prompt, ids), group.logprobs[0], before, tolerance=CANARY)
        told = self._ranks.gather([(found.verdict, found.difference)])
        for verdict, difference in told:
            if verdict != "agrees":
                raise StaleWeights(
                    f"the server's logprobs differ from the trainer's by {difference:.2f} nats a token "
                    f"({_VERDICTS[verdict]}): it does not draw from the weights that are trained"
                )
        return fmean(difference for _, difference in told)

    def _note(self, groups: Sequence[Group], chosen: Sequence[Group], rounds: int) -> None:
        """Figures over everything drawn, before filtering: what the policy does, not what it was shown."""
        every = [(group, place) for group in groups for place in range(len(group.completions))]
        completions = [group.completions[place] for group, place in every]
        self.figures = {
            "accuracy": _mean([group.judged.main[place] for group, place in every]),
            "total": _mean([group.judged.totals[place] for group, place in every]),
            "length": fmean(len(completion.ids) for completion in completions),
            "thinking": fmean(completion.thought for completion in completions),
            "cut_off": fmean(not completion.finished for completion in completions),
            "live": fmean(group.live for group in groups),
            "rounds": rounds,
            "limit": self.length.limit,
        }
        for name in groups[0].judged.parts:
            self.figures[name] = _mean([group.judged.parts[name][place] for group, place in every])
        for budget in sorted({group.prompt.budget or "none" for group in groups}):
            asked = [group for group in groups if (group.prompt.budget or "none") == budget]
            self.figures[f"accuracy/{budget}"] = _mean([x for group in asked for x in group.judged.main])
            self.figures[f"thinking/{budget}"] = fmean(
                c.thought for group in asked for c in group.completions
            )
        self.drawn = [group.row.id for group in chosen]


def _mask(groups: Sequence[Group], worth: Sequence[Sequence[float | None]]) -> list[list[int]]:
    """TRL's mask of the tokens that the loss is taken on, and that its divisor counts.

    Replies without an advantage are left out of both: those that only fill a batch, or have no total.
    """
    return [
        [int(value is not None)] * len(ids)
        for group, values in zip(groups, worth, strict=True)
        for ids, value in zip(group.ids, values, strict=True)
    ]


def _joined(groups: Sequence[Group]) -> list[Sequence[float]] | None:
    if any(group.logprobs is None for group in groups):
        return None
    return [each for group in groups for each in group.logprobs or ()]


def _mean(values: Sequence[float | None]) -> float:
    given = [value for value in values if value is not None]
    return fmean(given) if given else float("nan")

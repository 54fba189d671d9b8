"""Reinforcement learning as the stages do it: rows in, a model out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from training.data.budgets import BudgetSampler
from training.data.mixing import problem_order
from training.data.prompts import Prompt, Prompter
from training.data.readers import fingerprint
from training.evaluation.weight_check import token_logprobs
from training.rewards import RewardContext, RewardPlan, reward_plan
from training.rl.filters import DifficultySplit, split_by_difficulty
from training.rl.guards import Convergence, Divergence
from training.rl.length_schedule import LengthSchedule, LengthState
from training.rl.stopping import StoppingRules
from training.stages.collected import binding, once
from training.stages.fingerprints import asked_levels, model_bound, rl_bound
from training.stages.reward_context import at_limit, reward_setting
from training.stages.run import Stage, described
from training.trainer.callbacks import Watch
from training.trainer.generation import draw
from training.trainer.grpo import train_grpo
from training.trainer.models import save_model
from training.trainer.rollout import Rollout, RolloutSettings
from training.trainer.states import from_json, to_json
from training.types import Problem

__all__ = ["reinforce"]


def reinforce(
    stage: Stage, start: Path | None, rows: Sequence[Problem], setting: RewardContext | None = None
) -> Path:
    """GRPO on the rows, from the model of an earlier stage; goes back to the best where accuracy falls.

    `setting` brings a preference model, where rows need one.
    """
    given = replace(setting or RewardContext(), pool=stage.run.pool)
    needed = reward_setting(stage.config, stage.table, {row.reward for row in rows}, given)
    return _reinforce(stage, start, rows, needed)


def _reinforce(stage: Stage, start: Path | None, rows: Sequence[Problem], setting: RewardContext) -> Path:
    table = stage.table
    bound = rl_bound(stage, start, rows)
    resume = stage.last_checkpoint(bound)  # before anything of what it was made of could be overwritten
    loaded = model, tokenizer, prompter = stage.load(start)
    told: dict[str, Any] = {}
    filtering = 0.0
    if table.difficulty is not None:
        rows, told, filtering = _filtered(stage, model, prompter, rows, setting, start=start)
    rollout = _rollout(stage, model, prompter, rows, setting)
    watch = _watch(stage, loaded, rollout, (bound, fingerprint(rows)))
    watch.seen.trained = filtering  # what the filter draws is part of the stage's cost
    if resume is not None:
        watch.load(resume)
    train_grpo(
        model,
        tokenizer,
        len(rollout.rows),
        rollout=rollout,
        table=table,
        watch=watch,
        directory=stage.directory,
        seed=stage.seed,
        resume=resume,
    )
    fallen = watch.seen.accuracies[-1] < max(watch.seen.accuracies)
    if watch.ending.restore_best or (table.best and fallen):
        model, _, _ = stage.load(stage.directory / "best")
        told["weights"] = "best evaluation"
    told |= {
        "ended": watch.ending.reason,
        "seconds": round(watch.seen.trained, 1),
        "accuracies": watch.seen.accuracies,
    }
    return stage.finish(model, tokenizer, described(rows), told)


def _rollout(
    stage: Stage, model: Any, prompter: Prompter, rows: Sequence[Problem], setting: RewardContext
) -> Rollout:
    """What draws and judges, over the rows in the order in which they are asked."""
    table = stage.table
    kinds = {row.reward for row in rows}

    @lru_cache(maxsize=8)
    def plan(limit: int) -> RewardPlan:
        return reward_plan(
            at_limit(setting, limit), kinds, table.rewards, leave_out_unfinished=table.leave_out_unfinished
        )

    def ours(prompt: Prompt, ids: Sequence[int]) -> list[float]:
        return token_logprobs(model, prompt.ids, ids, table.temperature)

    def base(prompt: Prompt, ids: Sequence[int]) -> list[float]:
        with model.disable_adapter():
            return ours(prompt, ids)

    settings = RolloutSettings(
        samples=table.samples,
        budgets=BudgetSampler(table.budgets, stage.seed, stage.config.budgets),
        rounds=table.rounds,
        normalise=table.normalise,
        length=LengthSchedule(table.length, table.length_most or table.length),
        seed=stage.seed,
    )
    batches = -(-table.steps // table.updates)
    asked = problem_order(rows, batches * table.groups, table.general, stage.seed)
    without = base if hasattr(model, "disable_adapter") else None
    return Rollout(asked, prompter, plan, settings, ours=ours, without=without, ranks=stage.ranks)


def _watch(stage: Stage, loaded: tuple[Any, Any, Prompter], rollout: Rollout, bound: Sequence[str]) -> Watch:
    """The evaluations, the rules that end the stage, and what is kept with a checkpoint."""
    model, tokenizer, prompter = loaded
    table, held = stage.table, stage.held_out()

    def restore(saved: dict[str, Any]) -> None:
        rollout.length = from_json(LengthState, saved)

    return Watch(
        table.every,
        StoppingRules(
            seconds=table.seconds,
            convergence=Convergence(len(held), table.converged) if table.converged else None,
            divergence=Divergence(fall=table.fall, entropy=table.entropy),
        ),
        lambda: stage.accuracy(model, prompter, held),
        stage.directory / "metrics.jsonl",
        figures=lambda: {**rollout.figures, "rows": rollout.drawn},
        state=lambda: to_json(rollout.length),
        restore=restore,
        keep=lambda: save_model(model, tokenizer, stage.directory / "best"),
        clock=stage.clock,
        report=stage.report,
        ranks=stage.ranks,
        bound=bound,
    )


def _filtered(
    stage: Stage,
    model: Any,
    prompter: Prompter,
    rows: Sequence[Problem],
    setting: RewardContext,
    *,
    start: Path | None,
) -> tuple[list[Problem], dict[str, Any], float]:
    """The rows in the band of difficulty, figures for the card, and the time that it took to find them.

    General rows all stay; so do all rows, where too few are in the band. A resumed stage finds the same.
    """
    table = stage.table
    bound = binding(
        band=table.difficulty.model_dump(),
        asked=[table.budgets, table.temperature, table.length],
        seed=stage.seed,
        model=model_bound(stage, start),
        levels=asked_levels(stage),
        rows=fingerprint(rows),
    )

    def make() -> dict[str, Any]:
        found = _difficulty(stage, model, prompter, [row for row in rows if not row.general], setting)
        return {"kept": found.within, "easy": len(found.easy), "hard": len(found.hard)}

    found, seconds = once(stage.directory / "difficulty.json", bound, make, stage.clock, stage.ranks)
    kept = set(found["kept"])
    left = [row for row in rows if row.general or row.id in kept]
    told: dict[str, Any] = {"difficulty": {**found, "kept": len(kept)}}
    stage.report(f"difficulty filter {told['difficulty']}")
    if len(kept) < table.groups:
        return list(rows), {**told, "difficulty_unused": True}, seconds
    return left, told, seconds


def _difficulty(
    stage: Stage, model: Any, prompter: Prompter, asked: Sequence[Problem], setting: RewardContext
) -> DifficultySplit:
    """By the start policy's own replies."""
    table = stage.table
    band = table.difficulty
    budgets = BudgetSampler(table.budgets, stage.seed, stage.config.budgets)
    prompts = [prompter.prompt(row, budgets.level(row, 0)) for row in asked]
    drawn = draw(
        model,
        prompter,
        prompts,
        samples=band.samples,
        temperature=table.temperature,
        max_tokens=table.length,
        seed=stage.seed,
    )
    plan = reward_plan(setting, {row.reward for row in asked}, {})
    return split_by_difficulty(
        {row.id: plan.judge(row, replies).main for row, replies in zip(asked, drawn, strict=True)},
        band.low,
        band.high,
    )

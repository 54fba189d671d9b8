"""Reinforcement learning as the stages do it: rows in, a model out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from scorers.mathpool import MathPool
from training.canary import token_logprobs
from training.data.budgets import BudgetSampler
from training.data.mixing import ordered
from training.ending import Rules
from training.filters import by_difficulty
from training.guards import Convergence, Divergence
from training.lengths import LengthSchedule, LengthState
from training.prompting import Prompt, Prompter
from training.rewards import RewardPlan, Setting, reward_plan
from training.stages.run import Stage
from training.stages.setting import at_limit, reward_setting
from training.states import from_json, to_json
from training.trainer.drawing import draw
from training.trainer.grpo import train_grpo
from training.trainer.models import save_model
from training.trainer.rollout import Rollout, RolloutSettings
from training.trainer.watch import Watch
from training.types import Row

__all__ = ["reinforce"]


def reinforce(stage: Stage, start: Path | None, rows: Sequence[Row], setting: Setting | None = None) -> Path:
    """GRPO on the rows, from the model of an earlier stage; goes back to the best where accuracy falls.

    `setting` brings a preference model, where rows need one.
    """
    with MathPool(1) as pool:
        given = replace(setting or Setting(), pool=pool)
        needed = reward_setting(stage.config, stage.table, {row.reward for row in rows}, given)
        return _reinforce(stage, start, rows, needed)


def _reinforce(stage: Stage, start: Path | None, rows: Sequence[Row], setting: Setting) -> Path:
    table, config = stage.table, stage.config
    model, tokenizer, prompter = stage.load(start)
    told: dict[str, Any] = {}
    began = stage.clock()
    if table.difficulty is not None:
        rows, told = _filtered(stage, model, prompter, rows, setting)
    filtering = stage.clock() - began
    held = stage.held_out()
    kinds = {row.reward for row in rows}

    @lru_cache(maxsize=8)
    def plan(limit: int) -> RewardPlan:
        return reward_plan(
            at_limit(setting, limit), kinds, table.rewards, leave_out_unfinished=table.leave_out_unfinished
        )

    length = LengthSchedule(table.length, table.length_most or table.length)
    settings = RolloutSettings(
        samples=table.samples,
        budgets=BudgetSampler(table.budgets, stage.seed, config.budgets),
        rounds=table.rounds,
        normalise=table.normalise,
        length=length,
        seed=stage.seed,
    )
    batches = -(-table.steps // table.updates)
    asked = ordered(rows, batches * table.groups, table.general, stage.seed)

    def ours(prompt: Prompt, ids: Sequence[int]) -> list[float]:
        return token_logprobs(model, prompt.ids, ids)

    rollout = Rollout(asked, prompter, plan, settings, ours=ours, ranks=stage.ranks)

    def restore(saved: dict[str, Any]) -> None:
        rollout.length = from_json(LengthState, saved)

    watch = Watch(
        table.every,
        Rules(
            seconds=table.seconds,
            convergence=Convergence(len(held), table.converged) if table.converged else None,
            divergence=Divergence(fall=table.fall),
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
    )
    watch.seen.trained = filtering  # what the filter draws is part of the stage's cost
    resume = stage.last_checkpoint()
    if resume is not None:
        watch.load(resume)
    train_grpo(
        model,
        tokenizer,
        len(asked),
        rollout=rollout,
        table=table,
        watch=watch,
        directory=stage.directory,
        seed=stage.seed,
        resume=resume,
    )
    if watch.ending.gone_wrong:
        model, _, _ = stage.load(stage.directory / "best")
    told |= {
        "ended": watch.ending.reason,
        "seconds": round(watch.seen.trained, 1),
        "accuracies": watch.seen.accuracies,
    }
    return stage.finish(model, tokenizer, rows, told)


def _filtered(
    stage: Stage, model: Any, prompter: Prompter, rows: Sequence[Row], setting: Setting
) -> tuple[list[Row], dict[str, Any]]:
    """The rows in the band of difficulty, by the start policy's own replies; general rows all stay."""
    table = stage.table
    band = table.difficulty
    asked = [row for row in rows if not row.general]
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
    found = by_difficulty(
        {row.id: plan.judge(row, replies).main for row, replies in zip(asked, drawn, strict=True)},
        band.low,
        band.high,
    )
    kept = set(found.kept)
    left = [row for row in rows if row.general or row.id in kept]
    told = {"difficulty": {"kept": len(found.kept), "easy": len(found.easy), "hard": len(found.hard)}}
    stage.report(f"difficulty filter {told['difficulty']}")
    return (left, told) if len(kept) >= table.groups else (list(rows), told | {"difficulty_unused": True})

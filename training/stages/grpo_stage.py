"""Reinforcement learning as the stages do it: from problems and a start model to a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from training.config import Difficulty, RlTable
from training.data.budgets import BudgetSampler
from training.data.mixing import problem_order
from training.data.prompts import Prompt
from training.data.readers import fingerprint
from training.rewards import RewardContext, RewardPlan, reward_plan
from training.rl.filters import DifficultySplit, split_by_difficulty
from training.rl.guards import Convergence, Divergence
from training.rl.length_schedule import LengthSchedule, LengthState
from training.rl.stopping import StoppingRules
from training.stages.cache import digest, load_or_compute
from training.stages.checkpoint_identity import levels_in_use, model_identity, rl_digest
from training.stages.reward_context import stage_reward_context, with_token_limit
from training.stages.stage import LoadedModel, Stage, describe_problems
from training.trainer.callbacks import StageCallback
from training.trainer.generation import sample_completions
from training.trainer.grpo import train_grpo
from training.trainer.models import save_model
from training.trainer.rollout import Rollout, RolloutSettings
from training.trainer.saved_state import from_json, to_json
from training.trainer.weight_check import token_logprobs
from training.types import Problem

__all__ = ["run_grpo"]


def run_grpo(
    stage: Stage[RlTable],
    start: Path | None,
    problems: Sequence[Problem],
    context: RewardContext | None = None,
) -> Path:
    """Train by GRPO on the problems, from the model in `start`.

    If accuracy falls the weights of the best evaluation are restored. `context` brings a preference model,
    if problems need one.
    """
    table = stage.table
    given = replace(context or RewardContext(), pool=stage.run.pool)
    context = stage_reward_context(stage.config, table, {problem.reward for problem in problems}, given)
    stage_digest = rl_digest(stage, start, problems)
    resume = stage.last_checkpoint(stage_digest)  # refuses before files of its run are overwritten
    loaded = stage.load(start)
    results: dict[str, object] = {}
    filter_seconds = 0.0
    if table.difficulty is not None:
        problems, results, filter_seconds = _filter_by_difficulty(
            stage, table.difficulty, loaded, problems, context, start=start
        )
    rollout = _rollout(stage, loaded, problems, context)
    callback = _callback(stage, loaded, rollout, (stage_digest, fingerprint(problems)))
    callback.progress.trained = filter_seconds  # sampling for the filter is part of the stage's cost
    if resume is not None:
        callback.load(resume)
    train_grpo(
        loaded.model,
        loaded.tokenizer,
        rollout=rollout,
        table=table,
        callback=callback,
        directory=stage.directory,
        seed=stage.seed,
        resume=resume,
    )
    accuracies = callback.progress.accuracies
    fell = accuracies[-1] < max(accuracies)
    if callback.ending.restore_best or (table.load_best_model_at_end and fell):
        loaded = stage.load(stage.directory / "best")
        results["weights"] = "best evaluation"
    results |= {
        "ended": callback.ending.reason,
        "seconds": round(callback.progress.trained, 1),
        "accuracies": accuracies,
    }
    return stage.finish(loaded.model, loaded.tokenizer, describe_problems(problems), results)


def _rollout(
    stage: Stage[RlTable], loaded: LoadedModel, problems: Sequence[Problem], context: RewardContext
) -> Rollout:
    """Return the rollout over the problems in the order in which they are asked."""
    table = stage.table
    model, rewards = loaded.model, {problem.reward for problem in problems}

    @lru_cache(maxsize=8)
    def plan(limit: int) -> RewardPlan:
        return reward_plan(
            with_token_limit(context, limit),
            rewards,
            table.rewards,
            leave_out_unfinished=table.mask_truncated_completions,
        )

    def policy_logprobs(prompt: Prompt, ids: Sequence[int]) -> list[float]:
        return token_logprobs(model, prompt.ids, ids, table.temperature)

    def base_logprobs(prompt: Prompt, ids: Sequence[int]) -> list[float]:
        with model.disable_adapter():
            return policy_logprobs(prompt, ids)

    final_length = table.final_completion_length or table.max_completion_length
    settings = RolloutSettings(
        num_generations=table.num_generations,
        budgets=BudgetSampler(table.budgets, stage.seed, stage.config.budgets),
        rounds=table.rounds,
        scale_rewards=table.scale_rewards,
        length=LengthSchedule(table.max_completion_length, final_length),
        seed=stage.seed,
    )
    batches = -(-table.max_steps // table.num_iterations)
    return Rollout(
        problem_order(problems, batches * table.groups, table.general, stage.seed),
        loaded.prompter,
        plan,
        settings,
        policy_logprobs=policy_logprobs,
        base_logprobs=base_logprobs if hasattr(model, "disable_adapter") else None,
        group=stage.group,
    )


def _callback(
    stage: Stage[RlTable], loaded: LoadedModel, rollout: Rollout, digests: Sequence[str]
) -> StageCallback:
    """Return the callback with the evaluations, the stopping rules, and the state that a checkpoint saves."""
    model, tokenizer, prompter = loaded
    table, held_out = stage.table, stage.held_out()

    def restore_length(saved: dict[str, Any]) -> None:
        rollout.length = from_json(LengthState, saved)

    window = table.convergence_window
    return StageCallback(
        table.eval_steps,
        StoppingRules(
            seconds=table.max_seconds,
            convergence=Convergence(len(held_out), window) if window else None,
            divergence=Divergence(fall=table.max_accuracy_drop, entropy=table.min_entropy),
        ),
        lambda: stage.evaluate(model, prompter, held_out),
        stage.directory / "metrics.jsonl",
        step_metrics=lambda: {**rollout.metrics, "rows": rollout.problem_ids},
        save_state=lambda: to_json(rollout.length),
        restore_state=restore_length,
        save_best=lambda: save_model(model, tokenizer, stage.directory / "best"),
        clock=stage.clock,
        report=stage.report,
        group=stage.group,
        digests=digests,
    )


def _filter_by_difficulty(
    stage: Stage[RlTable],
    band: Difficulty,
    loaded: LoadedModel,
    problems: Sequence[Problem],
    context: RewardContext,
    *,
    start: Path | None,
) -> tuple[Sequence[Problem], dict[str, object], float]:
    """Return the problems in the band of difficulty, results for the run card, and the seconds that it took.

    General problems all stay; so do all problems, if too few are in the band. A resumed stage reuses the
    result.
    """
    table = stage.table
    filter_digest = digest(
        band=band.model_dump(),
        asked=[table.budgets, table.temperature, table.max_completion_length],
        seed=stage.seed,
        model=model_identity(stage, start),
        levels=levels_in_use(stage),
        rows=fingerprint(problems),
    )

    def compute() -> dict[str, object]:
        reasoning = [problem for problem in problems if not problem.general]
        split = _split_by_difficulty(stage, band, loaded, reasoning, context)
        return {"kept": split.within, "easy": len(split.easy), "hard": len(split.hard)}

    path = stage.directory / "difficulty.json"
    split, seconds = load_or_compute(path, filter_digest, compute, stage.clock, stage.group)
    in_band = set(split["kept"])
    results: dict[str, object] = {"difficulty": {**split, "kept": len(in_band)}}
    stage.report(f"difficulty filter {results['difficulty']}")
    if len(in_band) < table.groups:
        return problems, {**results, "difficulty_unused": True}, seconds
    remaining = [problem for problem in problems if problem.general or problem.id in in_band]
    return remaining, results, seconds


def _split_by_difficulty(
    stage: Stage[RlTable],
    band: Difficulty,
    loaded: LoadedModel,
    problems: Sequence[Problem],
    context: RewardContext,
) -> DifficultySplit:
    """Sort problems by the share of the start policy's own replies that are correct."""
    table = stage.table
    budgets = BudgetSampler(table.budgets, stage.seed, stage.config.budgets)
    samples = sample_completions(
        loaded.model,
        loaded.prompter,
        [loaded.prompter.prompt(problem, budgets.level(problem, 0)) for problem in problems],
        samples=band.samples,
        temperature=table.temperature,
        max_tokens=table.max_completion_length,
        seed=stage.seed,
    )
    plan = reward_plan(context, {problem.reward for problem in problems}, {})
    return split_by_difficulty(
        {
            problem.id: plan.judge(problem, replies).main
            for problem, replies in zip(problems, samples, strict=True)
        },
        band.low,
        band.high,
    )

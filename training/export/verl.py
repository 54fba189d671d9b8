"""Export for verl on Ray (volcengine/verl): parquet, a reward file and Hydra overrides.

tests/export checks them with verl's own code.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from training.config import RlTable, SftTable
from training.data.prompts import Example, Prompter
from training.export.notes import unsupported_options
from training.export.plan import (
    RL_STAGES,
    ExportedFiles,
    ExportError,
    ExportPlan,
    PromptedProblem,
    full_model,
    held_out_problems,
    load_prompter,
    rollout_problems,
    sft_examples,
)
from training.export.scoring import grading_record, reward_names, scoring_file

__all__ = ["export"]

PASS_THROUGH_TEMPLATE = "{{ messages | map(attribute='content') | join }}"
"""A chat template that adds nothing, because the prompts are already rendered."""

REWARD = '''"""Rewards for verl, by ThinkGate's own grader: needs `thinkgate` installed."""

from functools import cache
from pathlib import Path
from threading import Lock

from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager

from training.export.scoring import Scoring

LOCK = Lock()


@cache
def load_scoring():
    return Scoring.open(Path(__file__).with_name("scoring.json"))


def scoring():
    with LOCK:  # verl calls this from several threads
        return load_scoring()


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    reply = extra_info.get("response_ids", solution_str)
    return scoring().score(extra_info["thinkgate"], reply)


class ThinkGateRewards(NaiveRewardManager):
    """verl's manager, which also passes the reply's tokens: the text does not show whether it was cut off."""

    async def run_single(self, data):
        item = data[-1:][0]
        ids = item.batch["responses"]
        length = int(item.batch["attention_mask"][-ids.shape[-1]:].sum())
        item.non_tensor_batch["extra_info"]["response_ids"] = ids[:length].tolist()
        return await super().run_single(data)
'''

TRAIN = """#!/usr/bin/env bash
# verl's trainer on this export; you may add further overrides: ./train.sh trainer.nnodes=2
set -euo pipefail
cd "$(dirname "${{BASH_SOURCE[0]}}")"
mapfile -t overrides < <(sed "s|@here@|$PWD|g" overrides.txt)
exec {command} "${{overrides[@]}}" "$@"
"""

_LOSSES = {
    "grpo": "seq-mean-token-mean",
    "dapo": "token-mean",
    "bnpo": "token-mean",
    "dr_grpo": "seq-mean-token-sum-norm",
    "cispo": "token-mean",
}


def export(plan: ExportPlan) -> ExportedFiles:
    """Return the files. Raises ExportError for options that verl lacks."""
    return _rl(plan) if plan.stage in RL_STAGES else _sft(plan)


def _rl(plan: ExportPlan) -> ExportedFiles:
    table: RlTable = plan.table
    model, prompter = full_model(plan), load_prompter(plan)
    train = rollout_problems(plan, prompter, rounds=table.rounds)
    held_out = held_out_problems(plan, prompter)
    rewards = reward_names(plan, [*train, *held_out])
    overrides = _rl_overrides(plan, table, model, train + held_out)
    differences = [
        *unsupported_options(table),
        "The check of the server's logprobs and the guards exist only in this project's trainer.",
        "vLLM has its own random numbers; a reply that no reward could judge counts 0.",
    ]
    if table.rounds > 1:
        differences.append(
            "rounds: groups of equal rewards are replaced until the batch is full, without limit."
        )
    if table.loss_type == "bnpo":
        differences.append("loss_type: bnpo averages tokens over the whole batch, not over one pass.")
    differences.append(
        "The tokenizer that verl saves has a chat template that adds nothing: serve with the start model's."
    )
    return ExportedFiles(
        {
            "train.parquet": _parquet([_rl_record(i, each, "train") for i, each in enumerate(train)]),
            "held-out.parquet": _parquet([_rl_record(i, each, "test") for i, each in enumerate(held_out)]),
            "reward.py": REWARD,
            "scoring.json": scoring_file(plan, rewards, prompter.stop_ids),
            "overrides.txt": _lines(overrides),
            "train.sh": TRAIN.format(command="python3 -m verl.trainer.main_ppo"),
        },
        differences,
        "`./train.sh` on the head of a Ray cluster, or alone on one machine.",
    )


def _rl_record(index: int, prompted: PromptedProblem, split: str) -> dict[str, Any]:
    problem = prompted.problem
    return {
        "data_source": problem.source or "thinkgate",
        "prompt": [{"role": "user", "content": prompted.prompt.text}],
        "ability": problem.reward,
        "reward_model": {"style": "rule", "ground_truth": problem.gold or ""},
        "extra_info": {"index": index, "split": split, "thinkgate": grading_record(prompted)},
    }


def _rl_overrides(
    plan: ExportPlan, table: RlTable, model: str, prompted: Sequence[PromptedProblem]
) -> dict[str, Any]:
    if table.scale_rewards not in ("group", "none"):
        raise ExportError(
            f"scale_rewards = {table.scale_rewards!r}: verl divides by the group's spread or not at all"
        )
    if table.groups * table.num_generations % plan.processes:
        raise ExportError(f"groups * num_generations must be a multiple of the processes ({plan.processes})")
    batch = min(table.per_device_train_batch_size, table.groups * table.num_generations // plan.processes)
    return {
        "data.train_files": "@here@/train.parquet",
        "data.val_files": "@here@/held-out.parquet",
        "data.shuffle": False,
        "data.seed": plan.data.seed,
        "data.train_batch_size": table.groups,
        "data.max_prompt_length": max(len(item.prompt.ids) for item in prompted),
        "data.max_response_length": table.final_completion_length or table.max_completion_length,
        "algorithm.adv_estimator": "grpo",
        "algorithm.norm_adv_by_std_in_grpo": table.scale_rewards == "group",
        "algorithm.use_kl_in_reward": False,
        "algorithm.filter_groups.enable": table.rounds > 1,
        "algorithm.filter_groups.metric": "acc",
        "reward.custom_reward_function.path": "@here@/reward.py",
        "reward.custom_reward_function.name": "compute_score",
        "reward.reward_manager.source": "importlib",
        "reward.reward_manager.name": "ThinkGateRewards",
        "reward.reward_manager.module.path": "@here@/reward.py",
        **{f"actor_rollout_ref.model.{name}": value for name, value in _model(plan, model).items()},
        **{f"actor_rollout_ref.actor.{name}": value for name, value in _actor(plan, table, batch).items()},
        **{
            f"actor_rollout_ref.rollout.{name}": value for name, value in _rollout(plan, table, batch).items()
        },
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": batch,
        "trainer.total_training_steps": -(-table.max_steps // table.num_iterations),
        "trainer.total_epochs": 1,
        "trainer.test_freq": max(1, table.eval_steps // table.num_iterations),
        "trainer.save_freq": max(1, table.save_steps // table.num_iterations),
        "trainer.n_gpus_per_node": plan.processes,
        "trainer.logger": ["console"],
        "trainer.project_name": plan.config.name,
        "trainer.experiment_name": plan.stage,
        "trainer.default_local_dir": str(plan.output / "verl"),
    }


def _actor(plan: ExportPlan, table: RlTable, batch: int) -> dict[str, Any]:
    """Return the settings of the policy's updates; `batch` counts the replies in one pass on one GPU."""
    low, high = table.epsilon, table.epsilon_above
    if table.loss_type == "cispo":
        low = 1.0  # TRL's CISPO clips the ratio from above only
    return {
        "ppo_mini_batch_size": table.groups,
        "ppo_micro_batch_size_per_gpu": batch,
        "ppo_epochs": table.num_iterations,
        "clip_ratio": low,
        "clip_ratio_low": low,
        "clip_ratio_high": high,
        "clip_ratio_c": 1e6,  # no second bound for replies below the mean
        "policy_loss.loss_mode": "cispo" if table.loss_type == "cispo" else "vanilla",
        "loss_agg_mode": _LOSSES[table.loss_type],
        "loss_scale_factor": table.max_completion_length if table.loss_type == "dr_grpo" else None,
        "use_kl_loss": table.beta > 0,
        "kl_loss_coef": table.beta,
        "kl_loss_type": "low_var_kl",
        "entropy_coeff": 0,
        "grad_clip": 1.0,
        "data_loader_seed": plan.data.seed,
        "optim.weight_decay": 0.0,
        **{f"optim.{name}": value for name, value in _optimizer(table).items()},
    }


def _rollout(plan: ExportPlan, table: RlTable, batch: int) -> dict[str, Any]:
    """Return the settings of the rollouts."""
    rollout: dict[str, Any] = {
        "name": "vllm",
        "n": table.num_generations,
        "temperature": table.temperature,
        "top_p": 1.0,
        "top_k": -1,
        "seed": plan.data.seed,
        "tensor_model_parallel_size": 1,
        "log_prob_micro_batch_size_per_gpu": batch,
    }
    if plan.config.model.lora is not None:
        rollout["load_format"] = "safetensors"  # verl requires this with LoRA
    return rollout


def _model(plan: ExportPlan, model: str) -> dict[str, Any]:
    settings: dict[str, Any] = {"path": model, "custom_chat_template": PASS_THROUGH_TEMPLATE}
    if (lora := plan.config.model.lora) is not None:
        settings |= {"lora_rank": lora.rank, "lora_alpha": lora.alpha, "target_modules": "all-linear"}
    return settings


def _optimizer(table: RlTable | SftTable) -> dict[str, Any]:
    if table.lr_scheduler_type == "linear":
        raise ExportError(
            "lr_scheduler_type = 'linear': verl's learning rate is constant or falls along a cosine"
        )
    return {
        "lr": table.learning_rate,
        "lr_warmup_steps": table.warmup_steps,
        "lr_scheduler_type": table.lr_scheduler_type,
    }


def _sft(plan: ExportPlan) -> ExportedFiles:
    table: SftTable = plan.table
    model, prompter = full_model(plan), load_prompter(plan)
    examples = sft_examples(plan, prompter)
    records = [_sft_record(example, prompter) for example in examples]
    if table.batch % plan.processes:
        raise ExportError(f"batch ({table.batch}) must be a multiple of the processes ({plan.processes})")
    max_length = max(len(example.prompt.ids) + len(example.target) for example in examples)
    overrides = {
        "data.train_files": "@here@/train.parquet",
        "data.train_batch_size": table.batch,
        "data.micro_batch_size_per_gpu": table.batch // plan.processes,
        "data.use_dynamic_bsz": False,
        "data.max_length": max_length,
        **{f"model.{name}": value for name, value in _model(plan, model).items()},
        "optim.weight_decay": 0.0,
        **{f"optim.{name}": value for name, value in _optimizer(table).items()},
        "trainer.total_training_steps": table.max_steps,
        "trainer.total_epochs": -(-table.max_steps * table.batch // max(1, len(records))),
        "trainer.save_freq": table.save_steps,
        "trainer.seed": plan.data.seed,
        "trainer.n_gpus_per_node": plan.processes,
        "trainer.logger": ["console"],
        "trainer.project_name": plan.config.name,
        "trainer.experiment_name": plan.stage,
        "trainer.default_local_dir": str(plan.output / "verl"),
    }
    command = f"torchrun --standalone --nproc-per-node {plan.processes} -m verl.trainer.sft_trainer"
    return ExportedFiles(
        {
            "train.parquet": _parquet(records),
            "overrides.txt": _lines(overrides),
            "train.sh": TRAIN.format(command=command),
        },
        [*unsupported_options(table), "eval_steps: held-out accuracy is not measured during training."],
        "`./train.sh`.",
    )


def _sft_record(example: Example, prompter: Prompter) -> dict[str, Any]:
    reply = prompter.tokenizer.decode(example.target, skip_special_tokens=False)
    if tuple(prompter.tokenizer.encode(reply, add_special_tokens=False)) != example.target:
        raise ExportError(f"the text of the reply {reply!r} has other tokens than after its prompt")
    return {
        "messages": [
            {"role": "user", "content": example.prompt.text},
            {"role": "assistant", "content": reply},
        ]
    }


def _parquet(records: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(records)), buffer)
    return buffer.getvalue()


def _lines(overrides: Mapping[str, Any]) -> str:
    """Return one override per line, in Hydra's notation."""
    return "".join(f"{name}={_value(value)}\n" for name, value in overrides.items())


def _value(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return json.dumps(value)

"""For verl on Ray: parquet, a reward file, Hydra overrides (volcengine/verl; tests/export checks them)."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from training.config import RlTable, SftTable
from training.data.prompts import Example, Prompter
from training.export.notes import unsupported_options
from training.export.scoring import grading_record, reward_names, scoring_file
from training.export.stage_export import (
    RL_STAGES,
    ExportedFiles,
    ExportError,
    PromptedProblem,
    StageExport,
    full_model,
    held_out_problems,
    load_prompter,
    rollout_problems,
    sft_examples,
)

__all__ = ["export"]

THROUGH = "{{ messages | map(attribute='content') | join }}"
"""A chat template that adds nothing: the prompts are rendered already."""

REWARD = '''"""Rewards for verl, by ThinkGate's own grader: needs `thinkgate` installed."""

from functools import cache
from pathlib import Path
from threading import Lock

from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager

from training.export.scoring import Scoring

ONCE = Lock()


@cache
def opened():
    return Scoring.open(Path(__file__).with_name("scoring.json"))


def scoring():
    with ONCE:  # it is called from several threads
        return opened()


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    reply = extra_info.get("response_ids", solution_str)
    return scoring().score(extra_info["thinkgate"], reply)


class ThinkGateRewards(NaiveRewardManager):
    """verl's own, which also hands the reply's tokens over: the text leaves out whether it was cut off."""

    async def run_single(self, data):
        item = data[-1:][0]
        ids = item.batch["responses"]
        length = int(item.batch["attention_mask"][-ids.shape[-1]:].sum())
        item.non_tensor_batch["extra_info"]["response_ids"] = ids[:length].tolist()
        return await super().run_single(data)
'''

TRAIN = """#!/usr/bin/env bash
# verl's trainer on this export; further overrides may follow: ./train.sh trainer.nnodes=2
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


def export(job: StageExport) -> ExportedFiles:
    """The files. Raises ExportError for what verl can't do."""
    return _rl(job) if job.stage in RL_STAGES else _sft(job)


def _rl(job: StageExport) -> ExportedFiles:
    table: RlTable = job.table
    model, renders = full_model(job), load_prompter(job)
    asked, kept = rollout_problems(job, renders, rounds=table.rounds), held_out_problems(job, renders)
    kinds = reward_names(job, [*asked, *kept])
    overrides = _rl_overrides(job, table, model, asked + kept)
    left = [
        *unsupported_options(table),
        "The canary that compares the server's logprobs, and the guards, are this project's own trainer's.",
        "Replies are drawn by random numbers of vLLM's own; a reply that no reward could judge counts 0.",
    ]
    if table.rounds > 1:
        left.append("rounds: groups without a spread are replaced until the batch is full, without a bound.")
    if table.loss == "bnpo":
        left.append("loss: bnpo's tokens are averaged over the whole batch, not over one pass.")
    left.append(
        "The tokenizer that verl saves has the template that adds nothing: serve with the start model's."
    )
    return ExportedFiles(
        {
            "train.parquet": _parquet([_rl_row(place, each, "train") for place, each in enumerate(asked)]),
            "held-out.parquet": _parquet([_rl_row(place, each, "test") for place, each in enumerate(kept)]),
            "reward.py": REWARD,
            "scoring.json": scoring_file(job, kinds, renders.all_ends),
            "overrides.txt": _lines(overrides),
            "train.sh": TRAIN.format(command="python3 -m verl.trainer.main_ppo"),
        },
        left,
        "`./train.sh` on the head of a Ray cluster, or alone on one machine.",
    )


def _rl_row(place: int, asked: PromptedProblem, split: str) -> dict[str, Any]:
    row = asked.row
    return {
        "data_source": row.source or "thinkgate",
        "prompt": [{"role": "user", "content": asked.prompt.text}],
        "ability": row.reward,
        "reward_model": {"style": "rule", "ground_truth": row.gold or ""},
        "extra_info": {"index": place, "split": split, "thinkgate": grading_record(asked)},
    }


def _rl_overrides(
    job: StageExport, table: RlTable, model: str, asked: Sequence[PromptedProblem]
) -> dict[str, Any]:
    if table.normalise not in ("group", "none"):
        raise ExportError(f"normalise = {table.normalise!r}: verl divides by the group's spread or not")
    if table.groups * table.samples % job.processes:
        raise ExportError(f"groups * samples must be a multiple of the processes ({job.processes})")
    batch = min(table.batch, table.groups * table.samples // job.processes)
    return {
        "data.train_files": "@here@/train.parquet",
        "data.val_files": "@here@/held-out.parquet",
        "data.shuffle": False,
        "data.seed": job.data.seed,
        "data.train_batch_size": table.groups,
        "data.max_prompt_length": max(len(each.prompt.ids) for each in asked),
        "data.max_response_length": table.length_most or table.length,
        "algorithm.adv_estimator": "grpo",
        "algorithm.norm_adv_by_std_in_grpo": table.normalise == "group",
        "algorithm.use_kl_in_reward": False,
        "algorithm.filter_groups.enable": table.rounds > 1,
        "algorithm.filter_groups.metric": "acc",
        "reward.custom_reward_function.path": "@here@/reward.py",
        "reward.custom_reward_function.name": "compute_score",
        "reward.reward_manager.source": "importlib",
        "reward.reward_manager.name": "ThinkGateRewards",
        "reward.reward_manager.module.path": "@here@/reward.py",
        **{f"actor_rollout_ref.model.{name}": value for name, value in _model(job, model).items()},
        **{f"actor_rollout_ref.actor.{name}": value for name, value in _actor(job, table, batch).items()},
        **{f"actor_rollout_ref.rollout.{name}": value for name, value in _rollout(job, table, batch).items()},
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": batch,
        "trainer.total_training_steps": -(-table.steps // table.updates),
        "trainer.total_epochs": 1,
        "trainer.test_freq": max(1, table.every // table.updates),
        "trainer.save_freq": max(1, table.save_every // table.updates),
        "trainer.n_gpus_per_node": job.processes,
        "trainer.logger": ["console"],
        "trainer.project_name": job.config.name,
        "trainer.experiment_name": job.stage,
        "trainer.default_local_dir": str(job.output / "verl"),
    }


def _actor(job: StageExport, table: RlTable, batch: int) -> dict[str, Any]:
    """How the policy learns; `batch` are the replies of one pass on one GPU."""
    low, high = table.clip, table.clip if table.clip_high is None else table.clip_high
    if table.loss == "cispo":
        low = 1.0  # TRL's CISPO clips the ratio from above alone
    return {
        "ppo_mini_batch_size": table.groups,
        "ppo_micro_batch_size_per_gpu": batch,
        "ppo_epochs": table.updates,
        "clip_ratio": low,
        "clip_ratio_low": low,
        "clip_ratio_high": high,
        "clip_ratio_c": 1e6,  # no second bound for replies that were worse than the mean
        "policy_loss.loss_mode": "cispo" if table.loss == "cispo" else "vanilla",
        "loss_agg_mode": _LOSSES[table.loss],
        "loss_scale_factor": table.length if table.loss == "dr_grpo" else None,
        "use_kl_loss": table.kl > 0,
        "kl_loss_coef": table.kl,
        "kl_loss_type": "low_var_kl",
        "entropy_coeff": 0,
        "grad_clip": 1.0,
        "data_loader_seed": job.data.seed,
        "optim.weight_decay": 0.0,
        **{f"optim.{name}": value for name, value in _optimizer(table).items()},
    }


def _rollout(job: StageExport, table: RlTable, batch: int) -> dict[str, Any]:
    """How replies are drawn."""
    rollout: dict[str, Any] = {
        "name": "vllm",
        "n": table.samples,
        "temperature": table.temperature,
        "top_p": 1.0,
        "top_k": -1,
        "seed": job.data.seed,
        "tensor_model_parallel_size": 1,
        "log_prob_micro_batch_size_per_gpu": batch,
    }
    if job.config.model.lora is not None:
        rollout["load_format"] = "safetensors"  # as verl asks for with LoRA
    return rollout


def _model(job: StageExport, model: str) -> dict[str, Any]:
    grading_record: dict[str, Any] = {"path": model, "custom_chat_template": THROUGH}
    if (lora := job.config.model.lora) is not None:
        grading_record |= {"lora_rank": lora.rank, "lora_alpha": lora.alpha, "target_modules": "all-linear"}
    return grading_record


def _optimizer(table: RlTable | SftTable) -> dict[str, Any]:
    if table.decay == "linear":
        raise ExportError("decay = 'linear': verl's learning rate is constant or falls along a cosine")
    return {"lr": table.rate, "lr_warmup_steps": table.warmup, "lr_scheduler_type": table.decay}


def _sft(job: StageExport) -> ExportedFiles:
    table: SftTable = job.table
    model, renders = full_model(job), load_prompter(job)
    grading_record = sft_examples(job, renders)
    rows = [_sft_row(each, renders) for each in grading_record]
    if table.batch % job.processes:
        raise ExportError(f"batch ({table.batch}) must be a multiple of the processes ({job.processes})")
    most = max(len(each.prompt.ids) + len(each.target) for each in grading_record)
    overrides = {
        "data.train_files": "@here@/train.parquet",
        "data.train_batch_size": table.batch,
        "data.micro_batch_size_per_gpu": table.batch // job.processes,
        "data.use_dynamic_bsz": False,
        "data.max_length": most,
        **{f"model.{name}": value for name, value in _model(job, model).items()},
        "optim.weight_decay": 0.0,
        **{f"optim.{name}": value for name, value in _optimizer(table).items()},
        "trainer.total_training_steps": table.steps,
        "trainer.total_epochs": -(-table.steps * table.batch // max(1, len(rows))),
        "trainer.save_freq": table.save_every,
        "trainer.seed": job.data.seed,
        "trainer.n_gpus_per_node": job.processes,
        "trainer.logger": ["console"],
        "trainer.project_name": job.config.name,
        "trainer.experiment_name": job.stage,
        "trainer.default_local_dir": str(job.output / "verl"),
    }
    command = f"torchrun --standalone --nproc-per-node {job.processes} -m verl.trainer.sft_trainer"
    return ExportedFiles(
        {
            "train.parquet": _parquet(rows),
            "overrides.txt": _lines(overrides),
            "train.sh": TRAIN.format(command=command),
        },
        [*unsupported_options(table), "every: held-out accuracy is not measured while it trains."],
        "`./train.sh`.",
    )


def _sft_row(example: Example, renders: Prompter) -> dict[str, Any]:
    reply = renders.tokenizer.decode(example.target, skip_special_tokens=False)
    if tuple(renders.tokenizer.encode(reply, add_special_tokens=False)) != example.target:
        raise ExportError(f"the reply {reply!r} has other tokens as text than in its place behind the prompt")
    return {
        "messages": [
            {"role": "user", "content": example.prompt.text},
            {"role": "assistant", "content": reply},
        ]
    }


def _parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), buffer)
    return buffer.getvalue()


def _lines(overrides: Mapping[str, Any]) -> str:
    """Hydra's own notation, an override a line."""
    return "".join(f"{name}={_value(value)}\n" for name, value in overrides.items())


def _value(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return json.dumps(value)

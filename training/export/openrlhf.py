"""Export for OpenRLHF: JSON lines, a reward function and a launch script.

tests/export checks them with OpenRLHF's own code.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from training.config import RlTable, SftTable
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

REWARD = '''"""Rewards for OpenRLHF, by ThinkGate's own grader: needs `thinkgate` installed."""

import logging
from functools import cache
from pathlib import Path
from threading import Lock

import torch

from training.export.scoring import Scoring

LOCK = Lock()


@cache
def load_scoring():
    return Scoring.open(Path(__file__).with_name("scoring.json"))


def scoring():
    with LOCK:  # OpenRLHF calls this from several threads
        return load_scoring()


def reward_func(queries, prompts, labels, **_):
    """`scores` are the problem's own reward, which filters groups; `rewards` are what is trained on."""
    try:
        results = [
            scoring().score(label, scoring().reply(query, prompt))
            for query, prompt, label in zip(queries, prompts, labels)
        ]
    except Exception:
        logging.exception("ThinkGate's rewards failed")  # OpenRLHF would log one line and go on
        raise
    rewards = torch.tensor([result["score"] for result in results])
    scores = torch.tensor([result["acc"] for result in results])
    names = [name for name in results[0] if name != "score"]
    logs = {name: torch.tensor([result[name] for result in results]) for name in names}
    return {"rewards": rewards, "scores": scores, "extra_logs": logs}
'''

TRAIN = """#!/usr/bin/env bash
# OpenRLHF's trainer on this export; you may add further options.
set -euo pipefail
cd "$(dirname "${{BASH_SOURCE[0]}}")"
mapfile -t options < <(sed "s|@here@|$PWD|g" options.txt)
exec {command} "${{options[@]}}" "$@"
"""

_LOSSES = {"grpo": "seq-mean-token-mean", "dapo": "token-mean", "bnpo": "token-mean"}
_ESTIMATORS = {"group": "group_norm", "none": "dr_grpo"}
_DECAYS = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


def export(plan: ExportPlan) -> ExportedFiles:
    """Return the files. Raises ExportError for options that OpenRLHF lacks."""
    return _rl(plan) if plan.stage in RL_STAGES else _sft(plan)


def _rl(plan: ExportPlan) -> ExportedFiles:
    table: RlTable = plan.table
    model, prompter = full_model(plan), load_prompter(plan)
    train, held_out = rollout_problems(plan, prompter), held_out_problems(plan, prompter)
    rewards = reward_names(plan, [*train, *held_out])
    prompt_tokens = max(len(item.prompt.ids) for item in [*train, *held_out])
    differences = [
        *unsupported_options(table),
        "OpenRLHF shuffles the questions; each keeps its budget.",
        "A reply that no reward could judge counts 0; one whose rewards fail is logged and gets none.",
        "DeepSpeed computes advantages, loss and weights in bfloat16.",
        "The check of the server's logprobs and the guards exist only in this project's trainer.",
        f"eval_steps: held-out accuracy is measured greedily every {_in_batches(table, 'eval_steps')} steps.",
    ]
    if table.rounds > 1:
        differences.append(
            "rounds: the next questions replace groups that are all right or all wrong, without limit; "
            "when the questions run out, the training ends after fewer steps than configured."
        )
    if table.loss_type == "bnpo":
        differences.append("loss_type: bnpo averages tokens over the whole batch, not over one pass.")
    return ExportedFiles(
        {
            "train.jsonl": _jsonl(_record(item) for item in train),
            "held-out.jsonl": _jsonl(_record(item) for item in held_out),
            "reward.py": REWARD,
            "scoring.json": scoring_file(plan, rewards, prompter.stop_ids),
            "options.txt": _lines(_rl_options(plan, table, model, prompt_tokens)),
            "train.sh": TRAIN.format(command="python3 -m openrlhf.cli.train_ppo_ray"),
        },
        differences,
        "`ray start --head`, then `./train.sh`.",
    )


def _record(prompted: PromptedProblem) -> dict[str, Any]:
    return {
        "input": prompted.prompt.text,
        "label": grading_record(prompted),
        "datasource": prompted.problem.source or "thinkgate",
    }


def _rl_options(plan: ExportPlan, table: RlTable, model: str, prompt_tokens: int) -> dict[str, Any]:
    if table.loss_type not in _LOSSES:
        raise ExportError(f"loss_type = {table.loss_type!r}: OpenRLHF has {', '.join(_LOSSES)}")
    if table.scale_rewards not in _ESTIMATORS:
        raise ExportError(
            f"scale_rewards = {table.scale_rewards!r}: OpenRLHF divides by the group's spread or not at all"
        )
    rollouts = table.groups * table.num_generations
    if rollouts % plan.processes:
        raise ExportError(f"groups * num_generations must be a multiple of the processes ({plan.processes})")
    length = table.final_completion_length or table.max_completion_length
    micro = min(table.per_device_train_batch_size, rollouts // plan.processes)
    kl: dict[str, Any] = {"algo.kl.init_coef": table.beta}
    if table.beta:
        kl |= {"algo.kl.use_loss": True, "algo.kl.estimator": "k3"}
    return {
        "actor.model_name_or_path": model,
        "actor.num_nodes": 1,
        "actor.num_gpus_per_node": plan.processes,
        "ref.num_nodes": 1,
        "ref.num_gpus_per_node": plan.processes,
        "vllm.num_engines": plan.processes,
        "vllm.tensor_parallel_size": 1,
        "vllm.enable_sleep": True,
        "vllm.gpu_memory_utilization": 0.5,
        "ds.enable_sleep": True,
        "ds.zero_stage": 2,
        "train.colocate_all": True,
        "data.prompt_dataset": "@here@/train.jsonl",
        "data.input_key": "input",
        "data.label_key": "label",
        "data.max_len": prompt_tokens + length,
        "eval.dataset": "@here@/held-out.jsonl",
        "eval.temperature": 0.0,
        "eval.n_samples_per_prompt": 1,
        "eval.steps": _in_batches(table, "eval_steps"),
        "reward.remote_url": "@here@/reward.py",
        "rollout.batch_size": table.groups,
        "rollout.n_samples_per_prompt": table.num_generations,
        "rollout.micro_batch_size": micro,
        "rollout.max_new_tokens": length,
        "rollout.temperature": table.temperature,
        "rollout.top_p": 1.0,
        "train.batch_size": rollouts,
        "train.micro_batch_size": micro,
        "train.max_epochs": table.num_iterations,
        "train.num_episodes": 1,
        "train.seed": plan.data.seed,
        "algo.advantage.estimator": _ESTIMATORS[table.scale_rewards],
        "algo.advantage.gamma": 1.0,
        **kl,
        "algo.dynamic_filtering_enable": table.rounds > 1,
        "algo.dynamic_filtering_range": [0, 1],
        "actor.eps_clip_low_high": [table.epsilon, table.epsilon_above],
        "actor.loss_agg_mode": _LOSSES[table.loss_type],
        **{f"actor.{name}": value for name, value in _optimizer(table).items()},
        **_lora(plan),
        "ckpt.path": str(plan.output / "openrlhf" / "checkpoints"),
        "ckpt.output_dir": str(plan.output / "openrlhf" / "model"),
        "ckpt.save_steps": _in_batches(table, "save_steps"),
        "ckpt.load_enable": True,
    }


def _in_batches(table: RlTable, name: str) -> int:
    """Convert an interval in optimizer steps to batches of rollouts."""
    return max(1, getattr(table, name) // table.num_iterations)


def _optimizer(table: RlTable | SftTable) -> dict[str, Any]:
    return {
        "adam.lr": table.learning_rate,
        "adam.betas": [0.9, 0.999],
        "adam.weight_decay": 0.0,
        "lr_scheduler": _DECAYS[table.lr_scheduler_type],
        "lr_warmup_ratio": min(1.0, table.warmup_steps / table.max_steps),
        "max_norm": 1.0,
    }


def _lora(plan: ExportPlan) -> dict[str, Any]:
    lora = plan.config.model.lora
    return {} if lora is None else {"ds.lora.rank": lora.rank, "ds.lora.alpha": lora.alpha}


def _sft(plan: ExportPlan) -> ExportedFiles:
    table: SftTable = plan.table
    model, prompter = full_model(plan), load_prompter(plan)
    examples = sft_examples(plan, prompter)
    if table.batch % plan.processes:
        raise ExportError(f"batch ({table.batch}) must be a multiple of the processes ({plan.processes})")
    records = []
    for example in examples:
        reply = prompter.tokenizer.decode(example.target, skip_special_tokens=False)
        ids = prompter.tokenizer.encode(example.prompt.text + reply, add_special_tokens=False)
        if tuple(ids) != (*example.prompt.ids, *example.target):
            raise ExportError(f"the text of the reply {reply!r} has other tokens after its prompt")
        records.append({"input": example.prompt.text, "output": reply})
    options = {
        "model.model_name_or_path": model,
        "data.dataset": "@here@/train.jsonl",
        "data.input_key": "input",
        "data.output_key": "output",
        "data.input_template": "",  # the default would wrap the prompts, which are already rendered
        "data.max_len": max(len(example.prompt.ids) + len(example.target) for example in examples) + 2,
        "train.batch_size": table.batch,
        "train.micro_batch_size": table.batch // plan.processes,
        "train.max_epochs": -(-table.max_steps * table.batch // len(records)),
        "train.seed": plan.data.seed,
        "ds.zero_stage": 2,
        **_optimizer(table),
        **_lora(plan),
        "ckpt.path": str(plan.output / "openrlhf" / "checkpoints"),
        "ckpt.output_dir": str(plan.output / "openrlhf" / "model"),
        "ckpt.save_steps": table.save_steps,
        "ckpt.load_enable": True,
    }
    return ExportedFiles(
        {
            "train.jsonl": _jsonl(records),
            "options.txt": _lines(options),
            "train.sh": TRAIN.format(
                command=f"deepspeed --num_gpus {plan.processes} --module openrlhf.cli.train_sft"
            ),
        },
        [
            *unsupported_options(table),
            f"steps: it trains whole epochs, {options['train.max_epochs']} of {len(records)} replies.",
            "eval_steps: held-out accuracy is not measured during training.",
        ],
        "`./train.sh`.",
    )


def _jsonl(records: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _lines(options: Mapping[str, Any]) -> str:
    """Return one word of the command line per line; a switch has no value, and is omitted if it is off."""
    words: list[str] = []
    for name, value in options.items():
        if value is False:
            continue
        words.append(f"--{name}")
        if value is not True:
            words += map(str, value) if isinstance(value, list) else [str(value)]
    return "".join(f"{word}\n" for word in words)

"""For OpenRLHF: JSON lines, a reward function, a launch script; tests/export checks them on its own code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from training.config import RlTable, SftTable
from training.export.notes import unsupported_options
from training.export.scoring import grading_record, reward_names, scoring_file
from training.export.stage_export import (
    RL_STAGES,
    ExportedFiles,
    ExportError,
    StageExport,
    full_model,
    held_out_problems,
    load_prompter,
    rollout_problems,
    sft_examples,
)

__all__ = ["export"]

REWARD = '''"""Rewards for OpenRLHF, by ThinkGate's own grader: needs `thinkgate` installed."""

import logging
from functools import cache
from pathlib import Path
from threading import Lock

import torch

from training.export.scoring import Scoring

ONCE = Lock()


@cache
def opened():
    return Scoring.open(Path(__file__).with_name("scoring.json"))


def scoring():
    with ONCE:  # it is called from several threads
        return opened()


def reward_func(queries, prompts, labels, **_):
    """`scores` are the row's own reward, which groups are filtered by; `rewards` what is trained on."""
    try:
        found = [
            scoring().score(label, scoring().reply(query, prompt))
            for query, prompt, label in zip(queries, prompts, labels)
        ]
    except Exception:
        logging.exception("ThinkGate's rewards failed")  # OpenRLHF would go on with a line of its own
        raise
    rewards = torch.tensor([each["score"] for each in found])
    scores = torch.tensor([each["acc"] for each in found])
    logs = {name: torch.tensor([each[name] for each in found]) for name in found[0] if name != "score"}
    return {"rewards": rewards, "scores": scores, "extra_logs": logs}
'''

TRAIN = """#!/usr/bin/env bash
# OpenRLHF's trainer on this export; further options may follow.
set -euo pipefail
cd "$(dirname "${{BASH_SOURCE[0]}}")"
mapfile -t options < <(sed "s|@here@|$PWD|g" options.txt)
exec {command} "${{options[@]}}" "$@"
"""

_LOSSES = {"grpo": "seq-mean-token-mean", "dapo": "token-mean", "bnpo": "token-mean"}
_ESTIMATORS = {"group": "group_norm", "none": "dr_grpo"}
_DECAYS = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


def export(job: StageExport) -> ExportedFiles:
    """The files. Raises ExportError for what OpenRLHF can't do."""
    return _rl(job) if job.stage in RL_STAGES else _sft(job)


def _rl(job: StageExport) -> ExportedFiles:
    table: RlTable = job.table
    model, renders = full_model(job), load_prompter(job)
    asked, kept = rollout_problems(job, renders), held_out_problems(job, renders)
    kinds = reward_names(job, [*asked, *kept])
    most = max(len(each.prompt.ids) for each in [*asked, *kept])
    left = [
        *unsupported_options(table),
        "Questions are asked in an order that OpenRLHF shuffles; each keeps its budget.",
        "A reply that no reward could judge counts 0; one whose rewards fail is logged and left without any.",
        "Advantages, the loss and the weights are computed in bfloat16 by DeepSpeed.",
        "The canary that compares the server's logprobs, and the guards, are this project's own trainer's.",
        f"every: held-out accuracy is measured at temperature 0 every {_saves(table, 'every')} steps.",
    ]
    if table.rounds > 1:
        left.append(
            "rounds: groups that are all right or all wrong are replaced without a bound, by the next "
            "questions; when those are used up it ends, after fewer steps than asked for."
        )
    if table.loss == "bnpo":
        left.append("loss: bnpo's tokens are averaged over the whole batch, not over one pass.")
    return ExportedFiles(
        {
            "train.jsonl": _jsonl(_asked(each) for each in asked),
            "held-out.jsonl": _jsonl(_asked(each) for each in kept),
            "reward.py": REWARD,
            "scoring.json": scoring_file(job, kinds, renders.all_ends),
            "options.txt": _lines(_rl_options(job, table, model, most)),
            "train.sh": TRAIN.format(command="python3 -m openrlhf.cli.train_ppo_ray"),
        },
        left,
        "`ray start --head`, then `./train.sh`.",
    )


def _asked(each: Any) -> dict[str, Any]:
    return {
        "input": each.prompt.text,
        "label": grading_record(each),
        "datasource": each.row.source or "thinkgate",
    }


def _rl_options(job: StageExport, table: RlTable, model: str, prompt: int) -> dict[str, Any]:
    if table.loss not in _LOSSES:
        raise ExportError(f"loss = {table.loss!r}: OpenRLHF has {', '.join(_LOSSES)}")
    if table.normalise not in _ESTIMATORS:
        raise ExportError(f"normalise = {table.normalise!r}: OpenRLHF divides by the group's spread or not")
    drawn = table.groups * table.samples
    if drawn % job.processes:
        raise ExportError(f"groups * samples must be a multiple of the processes ({job.processes})")
    length = table.length_most or table.length
    micro = min(table.batch, drawn // job.processes)
    kl: dict[str, Any] = {"algo.kl.init_coef": table.kl}
    if table.kl:
        kl |= {"algo.kl.use_loss": True, "algo.kl.estimator": "k3"}
    return {
        "actor.model_name_or_path": model,
        "actor.num_nodes": 1,
        "actor.num_gpus_per_node": job.processes,
        "ref.num_nodes": 1,
        "ref.num_gpus_per_node": job.processes,
        "vllm.num_engines": job.processes,
        "vllm.tensor_parallel_size": 1,
        "vllm.enable_sleep": True,
        "vllm.gpu_memory_utilization": 0.5,
        "ds.enable_sleep": True,
        "ds.zero_stage": 2,
        "train.colocate_all": True,
        "data.prompt_dataset": "@here@/train.jsonl",
        "data.input_key": "input",
        "data.label_key": "label",
        "data.max_len": prompt + length,
        "eval.dataset": "@here@/held-out.jsonl",
        "eval.temperature": 0.0,
        "eval.n_samples_per_prompt": 1,
        "eval.steps": _saves(table, "every"),
        "reward.remote_url": "@here@/reward.py",
        "rollout.batch_size": table.groups,
        "rollout.n_samples_per_prompt": table.samples,
        "rollout.micro_batch_size": micro,
        "rollout.max_new_tokens": length,
        "rollout.temperature": table.temperature,
        "rollout.top_p": 1.0,
        "train.batch_size": drawn,
        "train.micro_batch_size": micro,
        "train.max_epochs": table.updates,
        "train.num_episodes": 1,
        "train.seed": job.data.seed,
        "algo.advantage.estimator": _ESTIMATORS[table.normalise],
        "algo.advantage.gamma": 1.0,
        **kl,
        "algo.dynamic_filtering_enable": table.rounds > 1,
        "algo.dynamic_filtering_range": [0, 1],
        "actor.eps_clip_low_high": [table.clip, table.clip if table.clip_high is None else table.clip_high],
        "actor.loss_agg_mode": _LOSSES[table.loss],
        **{f"actor.{name}": value for name, value in _optimizer(table).items()},
        **_lora(job),
        "ckpt.path": str(job.output / "openrlhf" / "checkpoints"),
        "ckpt.output_dir": str(job.output / "openrlhf" / "model"),
        "ckpt.save_steps": _saves(table, "save_every"),
        "ckpt.load_enable": True,
    }


def _saves(table: RlTable, name: str) -> int:
    """Optimizer steps as batches of samples."""
    return max(1, getattr(table, name) // table.updates)


def _optimizer(table: RlTable | SftTable) -> dict[str, Any]:
    return {
        "adam.lr": table.rate,
        "adam.betas": [0.9, 0.999],
        "adam.weight_decay": 0.0,
        "lr_scheduler": _DECAYS[table.decay],
        "lr_warmup_ratio": min(1.0, table.warmup / table.steps),
        "max_norm": 1.0,
    }


def _lora(job: StageExport) -> dict[str, Any]:
    lora = job.config.model.lora
    return {} if lora is None else {"ds.lora.rank": lora.rank, "ds.lora.alpha": lora.alpha}


def _sft(job: StageExport) -> ExportedFiles:
    table: SftTable = job.table
    model, renders = full_model(job), load_prompter(job)
    taught = sft_examples(job, renders)
    if table.batch % job.processes:
        raise ExportError(f"batch ({table.batch}) must be a multiple of the processes ({job.processes})")
    rows = []
    for each in taught:
        reply = renders.tokenizer.decode(each.target, skip_special_tokens=False)
        whole = renders.tokenizer.encode(each.prompt.text + reply, add_special_tokens=False)
        if tuple(whole) != (*each.prompt.ids, *each.target):
            raise ExportError(f"the reply {reply!r} has other tokens as text behind its prompt")
        rows.append({"input": each.prompt.text, "output": reply})
    options = {
        "model.model_name_or_path": model,
        "data.dataset": "@here@/train.jsonl",
        "data.input_key": "input",
        "data.output_key": "output",
        "data.input_template": "",  # its default would wrap the prompts, which are rendered already
        "data.max_len": max(len(each.prompt.ids) + len(each.target) for each in taught) + 2,
        "train.batch_size": table.batch,
        "train.micro_batch_size": table.batch // job.processes,
        "train.max_epochs": -(-table.steps * table.batch // len(rows)),
        "train.seed": job.data.seed,
        "ds.zero_stage": 2,
        **_optimizer(table),
        **_lora(job),
        "ckpt.path": str(job.output / "openrlhf" / "checkpoints"),
        "ckpt.output_dir": str(job.output / "openrlhf" / "model"),
        "ckpt.save_steps": table.save_every,
        "ckpt.load_enable": True,
    }
    return ExportedFiles(
        {
            "train.jsonl": _jsonl(rows),
            "options.txt": _lines(options),
            "train.sh": TRAIN.format(
                command=f"deepspeed --num_gpus {job.processes} --module openrlhf.cli.train_sft"
            ),
        },
        [
            *unsupported_options(table),
            f"steps: whole epochs are made, {options['train.max_epochs']} of {len(rows)} replies.",
            "every: held-out accuracy is not measured while it trains.",
        ],
        "`./train.sh`.",
    )


def _jsonl(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _lines(options: Mapping[str, Any]) -> str:
    """One word of the command line a line; switches have no value, and are left out where they are off."""
    words: list[str] = []
    for name, value in options.items():
        if value is False:
            continue
        words.append(f"--{name}")
        if value is not True:
            words += map(str, value) if isinstance(value, list) else [str(value)]
    return "".join(f"{word}\n" for word in words)

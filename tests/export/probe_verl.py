"""Puts an export to verl's own code: `probe_verl.py TOLD FOLDER`."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import verl
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from transformers import AutoTokenizer
from verl import DataProto
from verl.trainer.ppo.reward import load_reward_manager
from verl.utils.config import omega_conf_to_dataclass, validate_config
from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

from training.config import read_config
from training.export.stage_export import (
    StageExport,
    held_out_problems,
    load_prompter,
    rollout_problems,
    sft_examples,
)

told, folder = map(Path, sys.argv[1:])
CONFIGS = Path(verl.__file__).parent / "trainer" / "config"


def composed(name: str, export: Path) -> tuple[DictConfig, list[str]]:
    """verl's own tree with our overrides, none of which it may not know."""
    text = (export / "overrides.txt").read_text(encoding="utf-8").replace("@here@", str(export))
    with initialize_config_dir(str(CONFIGS), version_base=None):
        return compose(name, overrides=text.splitlines()), [x.partition("=")[0] for x in text.splitlines()]


def job(stage: str) -> StageExport:
    """What was exported."""
    return StageExport.of(read_config(folder / "run.toml"), stage, folder / "run.toml", 2)  # type: ignore[arg-type]


def rl() -> dict[str, Any]:
    """Configuration, data and rewards of reinforcement learning."""
    config, names = composed("ppo_trainer", folder / "verl-rl")
    for part in ("actor", "rollout"):
        omega_conf_to_dataclass(config.actor_rollout_ref[part])
    omega_conf_to_dataclass(config.algorithm)
    bare = config.copy()
    bare.actor_rollout_ref.model.lora_rank = (
        0  # for a LoRA it asks the vLLM that isn't here how large it may be
    )
    validate_config(bare, use_reference_policy=True, use_critic=False)
    tokenizer = AutoTokenizer.from_pretrained(config.actor_rollout_ref.model.path)
    own = load_prompter(job("rl"))
    asked = rollout_problems(job("rl"), own, rounds=2)
    tokenizer.chat_template = config.actor_rollout_ref.model.custom_chat_template
    dataset = RLHFDataset([config.data.train_files], tokenizer, config.data)
    kept = RLHFDataset([config.data.val_files], tokenizer, config.data)
    builder = create_continuous_token_builder(tokenizer, hf_model_type="llama")
    prompts = [
        builder.build_initial_tokens(list(dataset[place]["raw_prompt"])) for place in range(len(dataset))
    ]
    high = next(place for place, each in enumerate(asked) if each.prompt.budget == "high")
    return {
        "values": {name: at(config, name) for name in names},
        "prompts_agree": prompts == [list(each.prompt.ids) for each in asked],
        "budgets": sorted({each.prompt.budget or "none" for each in asked}),
        "longest": max(map(len, prompts)),
        "held_out": len(kept) == len(held_out_problems(job("rl"), own)),
        "scores": asyncio.run(scores(config, tokenizer, dataset[high], asked[high].row.gold or "")),
    }


def at(config: DictConfig, name: str) -> Any:
    """A value of the tree."""
    value = OmegaConf.select(config, name)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


async def scores(config: DictConfig, tokenizer: Any, row: dict[str, Any], gold: str) -> dict[str, Any]:
    """What verl's reward loop makes of replies to one question, through its own manager."""
    manager = load_reward_manager(config, tokenizer)
    end = tokenizer.eos_token
    replies = {
        "right": f"1+1=2\n</think>\n\n{gold}{end}",
        "wrong": f"1+1=2\n</think>\n\n{int(gold) + 1}{end}",
        "cut off": f"1+1=2\n</think>\n\n{gold}",
        "formless": f"{gold}{end}",
    }
    return {name: await manager.run_single(batch(tokenizer, row, text)) for name, text in replies.items()}


def batch(tokenizer: Any, row: dict[str, Any], text: str) -> DataProto:
    """One reply as verl's agent loop hands it over: padded on the right."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    room = 40
    responses = torch.tensor([ids + [tokenizer.pad_token_id] * (room - len(ids))])
    mask = torch.tensor([[1] * 8 + [1] * len(ids) + [0] * (room - len(ids))])
    tensors = TensorDict({"responses": responses, "attention_mask": mask}, batch_size=1)
    fields = {
        name: np.array([row[name]], dtype=object) for name in ("data_source", "reward_model", "extra_info")
    }
    return DataProto(batch=tensors, non_tensor_batch=fields)


def sft() -> dict[str, Any]:
    """Configuration and data of fine-tuning."""
    config, names = composed("sft_trainer_engine", folder / "verl-cold-start")
    tokenizer = AutoTokenizer.from_pretrained(config.model.path)
    tokenizer.chat_template = config.model.custom_chat_template
    dataset = MultiTurnSFTDataset([config.data.train_files], tokenizer, config.data)
    own = sft_examples(job("cold-start"), load_prompter(job("cold-start")))
    agree = []
    for place, example in enumerate(own):
        row = dataset[place]
        whole = [*example.prompt.ids, *example.target]
        learned = row["input_ids"][row["loss_mask"].bool()].tolist()
        agree.append(row["input_ids"].tolist() == whole and learned == list(example.target))
    omega_conf_to_dataclass(config.optim)
    return {"values": {name: at(config, name) for name in names}, "agree": agree, "rows": len(dataset)}


told.write_text(json.dumps({"rl": rl(), "sft": sft()}, default=float), encoding="utf-8")

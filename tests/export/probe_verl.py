"""Load an export with verl's own code: `probe_verl.py OUT FOLDER`."""

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
from training.export.plan import (
    ExportPlan,
    held_out_problems,
    load_prompter,
    rollout_problems,
    sft_examples,
)

out, folder = map(Path, sys.argv[1:])
CONFIGS = Path(verl.__file__).parent / "trainer" / "config"


def compose_config(name: str, export: Path) -> tuple[DictConfig, list[str]]:
    """Compose verl's configuration with our overrides; an unknown override raises an error."""
    text = (export / "overrides.txt").read_text(encoding="utf-8").replace("@here@", str(export))
    overrides = text.splitlines()
    with initialize_config_dir(str(CONFIGS), version_base=None):
        return compose(name, overrides=overrides), [line.partition("=")[0] for line in overrides]


def plan_of(stage: str) -> ExportPlan:
    """Plan the same export again."""
    return ExportPlan.for_stage(read_config(folder / "run.toml"), stage, folder / "run.toml", 2)  # type: ignore[arg-type]


def rl() -> dict[str, Any]:
    """Check the configuration, data and rewards of reinforcement learning."""
    config, names = compose_config("ppo_trainer", folder / "verl-rl")
    for part in ("actor", "rollout"):
        omega_conf_to_dataclass(config.actor_rollout_ref[part])
    omega_conf_to_dataclass(config.algorithm)
    bare = config.copy()
    # With a LoRA, verl asks vLLM for the maximum rank, and vLLM is not installed.
    bare.actor_rollout_ref.model.lora_rank = 0
    validate_config(bare, use_reference_policy=True, use_critic=False)
    tokenizer = AutoTokenizer.from_pretrained(config.actor_rollout_ref.model.path)
    prompter = load_prompter(plan_of("rl"))
    rollouts = rollout_problems(plan_of("rl"), prompter, rounds=2)
    tokenizer.chat_template = config.actor_rollout_ref.model.custom_chat_template
    dataset = RLHFDataset([config.data.train_files], tokenizer, config.data)
    held_out = RLHFDataset([config.data.val_files], tokenizer, config.data)
    builder = create_continuous_token_builder(tokenizer, hf_model_type="llama")
    prompts = [
        builder.build_initial_tokens(list(dataset[index]["raw_prompt"])) for index in range(len(dataset))
    ]
    high = next(index for index, rollout in enumerate(rollouts) if rollout.prompt.budget == "high")
    return {
        "values": {name: at(config, name) for name in names},
        "prompts_agree": prompts == [list(rollout.prompt.ids) for rollout in rollouts],
        "budgets": sorted({rollout.prompt.budget or "none" for rollout in rollouts}),
        "longest": max(map(len, prompts)),
        "held_out": len(held_out) == len(held_out_problems(plan_of("rl"), prompter)),
        "scores": asyncio.run(scores(config, tokenizer, dataset[high], rollouts[high].problem.gold or "")),
    }


def at(config: DictConfig, name: str) -> Any:
    """Return a value of the configuration."""
    value = OmegaConf.select(config, name)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


async def scores(config: DictConfig, tokenizer: Any, item: dict[str, Any], gold: str) -> dict[str, Any]:
    """Score replies to one question with verl's reward loop and its own manager."""
    manager = load_reward_manager(config, tokenizer)
    end = tokenizer.eos_token
    replies = {
        "right": f"1+1=2\n</think>\n\n{gold}{end}",
        "wrong": f"1+1=2\n</think>\n\n{int(gold) + 1}{end}",
        "cut off": f"1+1=2\n</think>\n\n{gold}",
        "formless": f"{gold}{end}",
    }
    return {name: await manager.run_single(batch(tokenizer, item, text)) for name, text in replies.items()}


def batch(tokenizer: Any, item: dict[str, Any], text: str) -> DataProto:
    """Build the batch of one reply as verl's agent loop passes it, padded on the right."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    length = 40
    responses = torch.tensor([ids + [tokenizer.pad_token_id] * (length - len(ids))])
    mask = torch.tensor([[1] * 8 + [1] * len(ids) + [0] * (length - len(ids))])
    tensors = TensorDict({"responses": responses, "attention_mask": mask}, batch_size=1)
    fields = {
        name: np.array([item[name]], dtype=object) for name in ("data_source", "reward_model", "extra_info")
    }
    return DataProto(batch=tensors, non_tensor_batch=fields)


def sft() -> dict[str, Any]:
    """Check the configuration and data of fine-tuning."""
    config, names = compose_config("sft_trainer_engine", folder / "verl-cold-start")
    tokenizer = AutoTokenizer.from_pretrained(config.model.path)
    tokenizer.chat_template = config.model.custom_chat_template
    dataset = MultiTurnSFTDataset([config.data.train_files], tokenizer, config.data)
    examples = sft_examples(plan_of("cold-start"), load_prompter(plan_of("cold-start")))
    agree = []
    for index, example in enumerate(examples):
        item = dataset[index]
        expected = [*example.prompt.ids, *example.target]
        target = item["input_ids"][item["loss_mask"].bool()].tolist()
        agree.append(item["input_ids"].tolist() == expected and target == list(example.target))
    omega_conf_to_dataclass(config.optim)
    return {"values": {name: at(config, name) for name in names}, "agree": agree, "examples": len(dataset)}


out.write_text(json.dumps({"rl": rl(), "sft": sft()}, default=float), encoding="utf-8")

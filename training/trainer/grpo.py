"""Reinforcement learning with verifiable rewards: TRL's GRPO trainer, fed by a `Rollout`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from datasets import Dataset
from trl import GRPOConfig

from training.config import ConfigError, RlTable
from training.trainer.callbacks import StageCallback
from training.trainer.generation import generate_ids
from training.trainer.learning_rate import TimedSchedule
from training.trainer.models import mixed_precision
from training.trainer.packing import PackedBatch, attention_bias, pack_shared_prompts
from training.trainer.process_group import rl_batch, world_size
from training.trainer.rollout import Rollout
from training.trainer.run_trainer import run_trainer
from training.trainer.trl_compat import (
    OpenGRPOTrainer,
    TokenScores,
    fused_log_probs,
    silence_experimental_warning,
)
from training.trainer.trl_settings import merge_settings
from training.trainer.untyped import Batch, HFTokenizer, Model

__all__ = ["Trainer", "advantage_reward", "drop_zero_advantages", "grpo_config", "train_grpo"]


class Trainer(TimedSchedule, OpenGRPOTrainer):
    """TRL's trainer with our own sampling, packed passes, masked completions and a schedule by the clock.

    Each completion depends on its own seed alone. A masked completion counts in no divisor, as if it had not
    been sampled. TRL's counts of tokens (`dapo`, `cispo`, `bnpo`) do without it already; the means over
    sequences (`grpo`, `dr_grpo`) would take it for a completion with a loss of 0.
    """

    def sample(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[str], limit: int, stop_ids: Collection[int]
    ) -> tuple[Sequence[Sequence[int]], Sequence[Sequence[float]] | None]:
        """Return (ids, logprobs) of one completion of each prompt, of at most `limit` tokens.

        A vLLM server samples by random numbers of its own and returns logprobs; without one there are none.
        """
        if self.use_vllm:
            return self.sample_on_server(prompts, limit)
        with self.generation_model() as model:
            return generate_ids(model, prompts, self.temperature, limit, stop_ids, seeds=seeds), None

    def prepare_batch(self, batch: Batch) -> Batch:
        """Add the share of completions, over all processes, that the loss is taken on."""
        mask = batch["completion_mask"] * batch.get("tool_mask", 1)
        batch["taught"] = self.accelerator.gather(mask.any(dim=1)).float().mean()
        return batch

    def token_logprobs(
        self,
        model: Model,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        completion_length: int,
        batch_size: int | None,
        *,
        compute_entropy: bool,
        **options: object,
    ) -> TokenScores:
        """Return what TRL returns. Pass a prompt once for all its completions, if that is cheaper."""
        whole = len(input_ids) if batch_size is None else batch_size
        inner = self.accelerator.unwrap_model(model)
        if any(value is not None and value is not False for value in options.values()):
            batch: PackedBatch | None = None  # images, or a balancing loss
        elif whole < len(input_ids):
            parts = [
                self.token_logprobs(
                    model, ids, mask, completion_length, None, compute_entropy=compute_entropy
                )
                for ids, mask in zip(input_ids.split(whole), attention_mask.split(whole), strict=True)
            ]
            logprobs, entropies, _ = zip(*parts, strict=True)
            return torch.cat(logprobs), torch.cat(entropies) if compute_entropy else None, None
        else:
            batch = pack_shared_prompts(inner, input_ids, attention_mask, completion_length)
        if batch is None:
            return super().token_logprobs(
                model,
                input_ids,
                attention_mask,
                completion_length,
                batch_size,
                compute_entropy=compute_entropy,
                **options,
            )
        with self.accelerator.autocast():
            mask = attention_bias(batch.mask, inner.dtype)
            log_probs, entropy = fused_log_probs(model, batch.ids, mask, batch.positions, batch.labels)
        return batch.unpack(log_probs), batch.unpack(entropy) if compute_entropy else None, None

    def batch_loss(self, model: Model, batch: Batch) -> torch.Tensor:
        """Return TRL's loss, without passing what adds nothing to it."""
        if self._may_drop_completions():
            batch = drop_zero_advantages(batch)
        loss = super().batch_loss(model, batch)
        taught = batch["taught"].clamp(min=1 / len(batch["completion_ids"]))
        return loss / taught if self.loss_type in ("grpo", "dr_grpo") else loss

    def _may_drop_completions(self) -> bool:
        """Return whether a completion without advantage adds nothing to the loss, the divisor included.

        Several processes gather metrics by completion, so each must pass as many as the others. A balancing
        loss, the KL term, an entropy bonus and a quantile of entropies are taken over all that is passed.
        """
        single = self.accelerator.num_processes == 1 and not self.aux_loss_enabled
        terms = self.beta or self.entropy_coef or self.use_adaptive_entropy
        return bool(
            single and not terms and self.top_entropy_quantile == 1.0 and self.loss_type in ("dapo", "cispo")
        )


def drop_zero_advantages(batch: Batch) -> Batch:
    """Return a pass's tensors without completions of advantage 0, and without columns that are all padding.

    Without a KL term, and with a divisor known beforehand, such a completion adds nothing to the loss nor to
    its gradient. Groups that are all correct or all wrong are half of many a step. If no completion has an
    advantage one stays, unmasked if there is any: the trainer needs a loss, and the log an entropy.
    """
    advantages = batch["advantages"]
    counted = batch["completion_mask"] * batch.get("tool_mask", 1)
    selected = advantages != 0
    if not selected.any():
        selected[int(counted.any(dim=1).long().argmax())] = True
    prompt, completion = batch["prompt_mask"], batch["completion_mask"]
    first = int(prompt[selected].any(dim=0).long().argmax())
    last = int(completion[selected].any(dim=0).nonzero().max()) + 1 if completion[selected].any() else 1
    smaller = {}
    for name, value in batch.items():
        if not torch.is_tensor(value) or value.dim() == 0 or len(value) != len(advantages):
            smaller[name] = value
        elif name in ("prompt_ids", "prompt_mask"):
            smaller[name] = value[selected, first:]
        elif value.dim() == 2 and value.shape[1] == completion.shape[1]:
            smaller[name] = value[selected, :last]
        else:
            smaller[name] = value[selected]
    return smaller


def train_grpo(
    model: Model,
    tokenizer: HFTokenizer,
    *,
    rollout: Rollout,
    table: RlTable,
    callback: StageCallback,
    directory: Path,
    seed: int,
    resume: Path | None,
) -> None:
    """Train the model in place on the rollout's problems, in their order, each once.

    Each batch of completions takes `table.groups` of them. Checkpoints go under `directory`.
    """
    silence_experimental_warning()
    trainer = Trainer(
        model=model,
        reward_funcs=advantage_reward,
        args=grpo_config(
            table,
            directory,
            seed,
            cpu=model.device.type == "cpu",
            mixed=mixed_precision(model),
            processes=world_size(),
        ),
        train_dataset=Dataset.from_dict({"prompt": [str(index) for index in range(len(rollout.problems))]}),
        processing_class=tokenizer,
        rollout_func=rollout,
        callbacks=[callback],
    )
    run_trainer(trainer, callback, resume)


def advantage_reward(advantage: list[float], **_: object) -> list[float]:
    """Return the rollout's own advantages, as TRL's reward function.

    They are handed over as rewards with `scale_rewards="none"`. TRL then subtracts each group's mean, which
    is 0, and so uses them as they are.
    """
    return advantage


def grpo_config(
    table: RlTable, directory: Path, seed: int, *, cpu: bool, mixed: bool, processes: int = 1
) -> GRPOConfig:
    """Return the table as TRL's configuration; what the rollout decides (advantages, length) is switched off.

    A step's groups are divided among the processes. Raises ConfigError if they don't divide evenly.
    """
    try:
        batch, passes = rl_batch(
            table.groups, table.num_generations, table.per_device_train_batch_size, processes
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    defaults = {
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "save_total_limit": 3,
        "gradient_checkpointing": not cpu,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": not cpu,
    }
    decided = {
        "output_dir": str(directory),
        "max_steps": table.max_steps,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": passes,
        "steps_per_generation": passes,
        "num_iterations": table.num_iterations,
        "num_generations": table.num_generations,
        # Dr. GRPO's divisor, and so constant; the rollout sets the limit that grows.
        "max_completion_length": table.max_completion_length,
        "shuffle_dataset": False,  # TRL's shuffling starts anew if a run resumes in a later epoch
        "temperature": table.temperature,
        "top_p": 1.0,  # a truncated distribution would not be the one whose ratios are taken
        "top_k": 0,
        "learning_rate": table.learning_rate,
        "warmup_steps": table.warmup_steps,
        "lr_scheduler_type": table.lr_scheduler_type,
        "beta": table.beta,
        "loss_type": table.loss_type,
        "epsilon": table.epsilon,
        # CISPO's is the largest ratio itself.
        "epsilon_high": table.epsilon_above + (table.loss_type == "cispo"),
        "scale_rewards": "none",
        "mask_truncated_completions": table.mask_truncated_completions,
        "use_vllm": table.vllm_server_base_url is not None,
        "vllm_mode": "server",
        "vllm_server_base_url": table.vllm_server_base_url,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # the divergence guard must see a loss that is no number
        "save_steps": table.save_steps,
        "seed": seed,
        "data_seed": seed,
        "use_cpu": cpu,
        "bf16": mixed,
    }
    return merge_settings(GRPOConfig, defaults, table.trl, decided)

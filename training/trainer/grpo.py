"""Reinforcement learning with verifiable rewards: TRL's GRPO trainer, fed by a `Rollout`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from training.config import RlTable
from training.trainer.models import mixed_precision
from training.trainer.rollout import Rollout
from training.trainer.watch import Watch, quieten

__all__ = ["Trainer", "grpo_config", "train_grpo"]


class Trainer(GRPOTrainer):
    """TRL's, but for replies that are left out: they count in no divisor, as if they had not been drawn.

    TRL's counts of tokens (`dapo`, `cispo`, `bnpo`) leave out what is masked; its means over sequences
    (`grpo`, `dr_grpo`) would take it for replies with a loss of 0.
    """

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        mask = output["completion_mask"] * output.get("tool_mask", 1)
        output["taught"] = self.accelerator.gather(mask.any(dim=1)).float().mean()
        return output

    def _compute_loss(self, model: Any, inputs: Any) -> Any:
        loss = super()._compute_loss(model, inputs)
        counted = inputs["taught"].clamp(min=1 / len(inputs["completion_ids"]))
        return loss / counted if self.loss_type in ("grpo", "dr_grpo") else loss


def train_grpo(
    model: Any,
    tokenizer: Any,
    count: int,
    *,
    rollout: Rollout,
    table: RlTable,
    watch: Watch,
    directory: Path,
    seed: int,
    resume: Path | None,
) -> None:
    """Trains in place on the `count` rows that the rollout knows, in their order, each once.

    They are `table.groups` for each batch of samples. Checkpoints go under `directory`.
    """
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func may change: trl is pinned
    trainer = Trainer(
        model=model,
        reward_funcs=advantage_of,
        args=grpo_config(
            table, directory, seed, cpu=model.device.type == "cpu", mixed=mixed_precision(model)
        ),
        train_dataset=Dataset.from_dict({"prompt": [str(place) for place in range(count)]}),
        processing_class=tokenizer,
        rollout_func=rollout,
        callbacks=[watch],
    )
    quieten(trainer)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)


def advantage_of(advantage: list[float], **_: Any) -> list[float]:
    """TRL's reward function: the rollout's own advantages.

    They are handed over as rewards with `scale_rewards="none"`: TRL then takes off each group's mean,
    which is 0, and so uses them as they are.
    """
    return advantage


def grpo_config(table: RlTable, directory: Path, seed: int, *, cpu: bool, mixed: bool) -> GRPOConfig:
    """The table in TRL's words; what the rollout decides (advantages, length limit) is set to rest."""
    drawn = table.groups * table.samples
    batch = min(table.batch, drawn)
    passes = drawn // batch
    high = table.clip if table.clip_high is None else table.clip_high
    return GRPOConfig(
        output_dir=str(directory),
        max_steps=table.steps,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=passes,
        steps_per_generation=passes,
        num_iterations=table.updates,
        num_generations=table.samples,
        # Dr. GRPO's divisor, and so constant; the limit that grows is set by the rollout.
        max_completion_length=table.length,
        shuffle_dataset=False,  # TRL's shuffling starts anew where a run resumes in a later epoch
        temperature=table.temperature,
        top_p=1.0,  # a truncated distribution would not be the one whose ratios are taken
        top_k=0,
        learning_rate=table.rate,
        warmup_steps=table.warmup,
        lr_scheduler_type=table.decay,
        weight_decay=0.0,
        max_grad_norm=1.0,
        beta=table.kl,
        loss_type=table.loss,
        epsilon=table.clip,
        epsilon_high=1 + high if table.loss == "cispo" else high,  # CISPO's is the largest ratio itself
        scale_rewards="none",
        mask_truncated_completions=table.leave_out_unfinished,
        use_vllm=table.vllm is not None,
        vllm_server_base_url=table.vllm,
        logging_steps=1,
        logging_nan_inf_filter=False,  # the divergence guard is to see a loss that is no number
        save_steps=table.save_every,
        save_total_limit=3,
        seed=seed,
        data_seed=seed,
        use_cpu=cpu,
        bf16=mixed,
        gradient_checkpointing=not cpu,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=not cpu,
    )

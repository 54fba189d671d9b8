"""Reinforcement learning with verifiable rewards: TRL's GRPO trainer, fed by a `Rollout`."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer
from trl.models.utils import unwrap_model_for_generation

from training.config import ConfigError, RlTable
from training.trainer.callbacks import StageCallback
from training.trainer.generation import generate_ids
from training.trainer.learning_rate import TimedSchedule
from training.trainer.models import mixed_precision
from training.trainer.packing import attention_bias, pack_shared_prompts
from training.trainer.process_group import rl_batch, world_size
from training.trainer.rollout import Rollout
from training.trainer.run_trainer import run_trainer

__all__ = ["Trainer", "drop_zero_advantages", "grpo_config", "train_grpo"]


class Trainer(TimedSchedule, GRPOTrainer):
    """TRL's, but for how replies are drawn and passed, for those that are left out, and for a clock's rate.

    Each reply depends on its own seed alone. One that is left out counts in no divisor, as if it had not
    been drawn: TRL's counts of tokens (`dapo`, `cispo`, `bnpo`) leave out what is masked; its means over
    sequences (`grpo`, `dr_grpo`) would take it for a reply with a loss of 0.
    """

    def draw(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[str], limit: int, ends: Collection[int]
    ) -> tuple[Sequence[Sequence[int]], Sequence[Sequence[float]] | None]:
        """(ids, logprobs) of a reply to each prompt, of at most `limit` tokens.

        A vLLM server draws by random numbers of its own and gives the logprobs; else there are none.
        """
        if self.use_vllm:
            self.vllm_generation.max_completion_length = limit
            ids, logprobs = self._generate_single_turn(list(prompts), None, {}, self.num_generations)
            return ids, logprobs
        with unwrap_model_for_generation(
            self.model_wrapped,
            self.accelerator,
            gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
        ) as model:
            return generate_ids(model, prompts, self.temperature, limit, ends, seeds=seeds), None

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        mask = output["completion_mask"] * output.get("tool_mask", 1)
        output["taught"] = self.accelerator.gather(mask.any(dim=1)).float().mean()
        return output

    def _get_per_token_logps_and_entropies(  # noqa: PLR0917 - TRL's own
        self,
        model: Any,
        input_ids: Any,
        attention_mask: Any,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **more: Any,
    ) -> Any:
        """TRL's, but that a prompt which several replies share is passed once, where that is cheaper."""
        whole = len(input_ids) if batch_size is None else batch_size
        inner = self.accelerator.unwrap_model(model)
        if any(value is not None and value is not False for value in more.values()):
            rows = None  # images, or a balancing loss
        elif whole < len(input_ids):
            parts = [
                self._get_per_token_logps_and_entropies(
                    model, ids, mask, logits_to_keep, compute_entropy=compute_entropy
                )
                for ids, mask in zip(input_ids.split(whole), attention_mask.split(whole), strict=True)
            ]
            logprobs, entropies, _ = zip(*parts, strict=True)
            return torch.cat(logprobs), torch.cat(entropies) if compute_entropy else None, None
        else:
            rows = pack_shared_prompts(inner, input_ids, attention_mask, logits_to_keep)
        if rows is None:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **more
            )
        with self.accelerator.autocast():
            out = model(
                input_ids=rows.ids,
                attention_mask=attention_bias(rows.mask, inner.dtype),
                position_ids=rows.positions,
                shift_labels=rows.labels,
                fused_lm_head=True,
            )
        return rows.unpacked(out.log_probs), rows.unpacked(out.entropy) if compute_entropy else None, None

    def _compute_loss(self, model: Any, inputs: Any) -> Any:
        # Several processes gather figures by reply, so each must pass as many as the others; a balancing
        # loss is taken over all that is passed.
        alone = self.accelerator.num_processes == 1 and not self.aux_loss_enabled
        if alone and self.beta == 0.0 and self.loss_type in ("dapo", "cispo"):
            inputs = drop_zero_advantages(inputs)
        loss = super()._compute_loss(model, inputs)
        counted = inputs["taught"].clamp(min=1 / len(inputs["completion_ids"]))
        return loss / counted if self.loss_type in ("grpo", "dr_grpo") else loss


def drop_zero_advantages(inputs: dict[str, Any]) -> dict[str, Any]:
    """A pass's tensors without the replies whose advantage is 0, and without columns that are padding to all.

    Without a KL term, and where the divisor is known beforehand, such a reply adds nothing to the loss nor
    to its gradient; groups that are all right or all wrong are half of many a step. Where none has an
    advantage one stays, whose tokens count if any's do: the trainer needs a loss, and the log an entropy.
    """
    advantages = inputs["advantages"]
    counted = inputs["completion_mask"] * inputs.get("tool_mask", 1)
    kept = advantages != 0
    if not kept.any():
        kept[int(counted.any(dim=1).long().argmax())] = True
    prompt, completion = inputs["prompt_mask"], inputs["completion_mask"]
    first = int(prompt[kept].any(dim=0).long().argmax())
    last = int(completion[kept].any(dim=0).nonzero().max()) + 1 if completion[kept].any() else 1
    chosen = {}
    for name, value in inputs.items():
        if not torch.is_tensor(value) or value.dim() == 0 or len(value) != len(advantages):
            chosen[name] = value
        elif name in ("prompt_ids", "prompt_mask"):
            chosen[name] = value[kept, first:]
        elif value.dim() == 2 and value.shape[1] == completion.shape[1]:
            chosen[name] = value[kept, :last]
        else:
            chosen[name] = value[kept]
    return chosen


def train_grpo(
    model: Any,
    tokenizer: Any,
    count: int,
    *,
    rollout: Rollout,
    table: RlTable,
    watch: StageCallback,
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
            table,
            directory,
            seed,
            cpu=model.device.type == "cpu",
            mixed=mixed_precision(model),
            processes=world_size(),
        ),
        train_dataset=Dataset.from_dict({"prompt": [str(place) for place in range(count)]}),
        processing_class=tokenizer,
        rollout_func=rollout,
        callbacks=[watch],
    )
    run_trainer(trainer, watch, resume)


def advantage_of(advantage: list[float], **_: Any) -> list[float]:
    """TRL's reward function: the rollout's own advantages.

    They are handed over as rewards with `scale_rewards="none"`: TRL then takes off each group's mean,
    which is 0, and so uses them as they are.
    """
    return advantage


def grpo_config(
    table: RlTable, directory: Path, seed: int, *, cpu: bool, mixed: bool, processes: int = 1
) -> GRPOConfig:
    """The table in TRL's words; what the rollout decides (advantages, length limit) is set to rest.

    A step's groups are shared out among the processes. Raises ConfigError where they can't be.
    """
    try:
        batch, passes = rl_batch(table.groups, table.samples, table.batch, processes)
    except ValueError as error:
        raise ConfigError(str(error)) from error
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

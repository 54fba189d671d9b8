"""Supervised fine-tuning: TRL's trainer, on replies that are token ids already: nothing is rendered twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from training.config import ConfigError, SftTable
from training.data.prompts import Example
from training.trainer.callbacks import StageCallback
from training.trainer.learning_rate import TimedSchedule
from training.trainer.models import mixed_precision
from training.trainer.process_group import sft_batch, world_size
from training.trainer.run_trainer import run_trainer

__all__ = ["train_sft"]

_IGNORED = -100  # the label that torch's cross-entropy leaves out


class _Trainer(TimedSchedule, SFTTrainer):
    """TRL's, but for the rate of a stage that the clock ends."""


def train_sft(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    *,
    table: SftTable,
    watch: StageCallback,
    directory: Path,
    seed: int,
    resume: Path | None,
) -> None:
    """Trains in place, checkpointing under `directory`; batches are the same for the same seed.

    Several processes share each batch. Raises ConfigError where it can't be.
    """
    try:
        batch = sft_batch(table.batch, world_size())
    except ValueError as error:
        raise ConfigError(str(error)) from error
    dataset = Dataset.from_list([_row(example) for example in examples])
    cpu = model.device.type == "cpu"
    settings = SFTConfig(
        output_dir=str(directory),
        max_steps=table.steps,
        per_device_train_batch_size=batch,
        learning_rate=table.rate,
        warmup_steps=table.warmup,
        lr_scheduler_type=table.decay,
        weight_decay=0.0,
        logging_steps=1,
        save_steps=table.save_every,
        save_total_limit=2,
        seed=seed,
        data_seed=seed,
        use_cpu=cpu,
        bf16=mixed_precision(model),
        gradient_checkpointing=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=not cpu,
    )
    trainer = _Trainer(
        model=model, args=settings, train_dataset=dataset, processing_class=tokenizer, callbacks=[watch]
    )
    run_trainer(trainer, watch, resume)


def _row(example: Example) -> dict[str, list[int]]:
    prompt, target = list(example.prompt.ids), list(example.target)
    return {"input_ids": prompt + target, "labels": [_IGNORED] * len(prompt) + target}

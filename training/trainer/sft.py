"""Supervised fine-tuning by TRL's trainer, on replies that are token ids already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from training.config import ConfigError, SftTable
from training.data.prompts import Example
from training.trainer.callbacks import StageCallback
from training.trainer.learning_rate import TimedSchedule
from training.trainer.models import mixed_precision
from training.trainer.process_group import sft_batch, world_size
from training.trainer.run_trainer import run_trainer
from training.trainer.trl_settings import merge_settings
from training.trainer.untyped import HFTokenizer, Model

__all__ = ["sft_config", "train_sft"]

_IGNORED = -100  # the label that torch's cross-entropy leaves out


class _Trainer(TimedSchedule, SFTTrainer):
    """TRL's trainer with the learning-rate schedule of a stage that the clock ends."""


def train_sft(
    model: Model,
    tokenizer: HFTokenizer,
    examples: Sequence[Example],
    *,
    table: SftTable,
    callback: StageCallback,
    directory: Path,
    seed: int,
    resume: Path | None,
) -> None:
    """Train the model in place, with checkpoints under `directory`. Equal seeds give equal batches.

    Several processes share each batch. Raises ConfigError if it doesn't divide evenly.
    """
    trainer = _Trainer(
        model=model,
        args=sft_config(
            table,
            directory,
            seed,
            cpu=model.device.type == "cpu",
            mixed=mixed_precision(model),
            processes=world_size(),
        ),
        train_dataset=Dataset.from_list([_encode(example) for example in examples]),
        processing_class=tokenizer,
        callbacks=[callback],
    )
    run_trainer(trainer, callback, resume)


def sft_config(
    table: SftTable, directory: Path, seed: int, *, cpu: bool, mixed: bool, processes: int = 1
) -> SFTConfig:
    """Return the table as TRL's configuration. Raises ConfigError if a batch doesn't divide evenly."""
    try:
        batch = sft_batch(table.batch, processes)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    defaults = {
        "weight_decay": 0.0,
        "save_total_limit": 2,
        "gradient_checkpointing": False,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": not cpu,
    }
    decided = {
        "output_dir": str(directory),
        "max_steps": table.max_steps,
        "per_device_train_batch_size": batch,
        "learning_rate": table.learning_rate,
        "warmup_steps": table.warmup_steps,
        "lr_scheduler_type": table.lr_scheduler_type,
        "logging_steps": 1,
        "save_steps": table.save_steps,
        "seed": seed,
        "data_seed": seed,
        "use_cpu": cpu,
        "bf16": mixed,
        "max_length": None,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
    return merge_settings(SFTConfig, defaults, table.trl, decided)


def _encode(example: Example) -> dict[str, list[int]]:
    prompt, target = list(example.prompt.ids), list(example.target)
    return {"input_ids": prompt + target, "labels": [_IGNORED] * len(prompt) + target}

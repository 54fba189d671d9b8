"""Runs one of TRL's trainers with a stage's callback, from the start or from a checkpoint."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from training.trainer.callbacks import StageCallback, StageFinished, replace_progress_bars
from training.trainer.distributed import refuse_unsupported_sharding
from training.trainer.trl_compat import score_completions_only
from training.trainer.untyped import HFTrainer

__all__ = ["run_trainer"]


def run_trainer(trainer: HFTrainer, callback: StageCallback, resume: Path | None) -> None:
    """Train the trainer's model in place. Take no step if the stage had ended at the checkpoint."""
    trainer.use_clock(callback.time_share)
    refuse_unsupported_sharding(trainer)
    replace_progress_bars(trainer)
    with score_completions_only(), suppress(StageFinished):
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)

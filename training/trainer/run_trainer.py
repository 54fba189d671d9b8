"""How a trainer of TRL's is run: with a watch, from a checkpoint or from the start."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from training.trainer.callbacks import StageCallback, StageFinished, replace_progress_bars
from training.trainer.distributed import refuse_unsupported_sharding
from training.trainer.trl_compat import score_completions_only

__all__ = ["run_trainer"]


def run_trainer(trainer: Any, watch: StageCallback, resume: Path | None) -> None:
    """Trains in place, and takes no step from a checkpoint at which the stage had ended."""
    trainer.by_clock(watch.spent)
    refuse_unsupported_sharding(trainer)
    replace_progress_bars(trainer)
    with score_completions_only(), suppress(StageFinished):
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)

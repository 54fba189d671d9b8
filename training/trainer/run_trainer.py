"""How a trainer of TRL's is run: with a watch, from a checkpoint or from the start."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from training.trainer.callbacks import Over, Watch, quieten
from training.trainer.distributed import refuse_unknown_split
from training.trainer.trl_compat import replies_alone

__all__ = ["run_trainer"]


def run_trainer(trainer: Any, watch: Watch, resume: Path | None) -> None:
    """Trains in place, and takes no step from a checkpoint at which the stage had ended."""
    trainer.by_clock(watch.spent)
    refuse_unknown_split(trainer)
    quieten(trainer)
    with replies_alone(), suppress(Over):
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)

"""Supervised fine-tuning as the stages do it: examples in, a model out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from training.ending import Rules
from training.problems import DataError
from training.prompting import Example, Prompter
from training.stages.run import Stage
from training.trainer.sft import train_sft
from training.trainer.watch import Watch
from training.types import Row

__all__ = ["imitate"]


def imitate(
    stage: Stage,
    start: Path | None,
    gather: Callable[[Any, Prompter], tuple[Sequence[Example], Sequence[Row], dict[str, Any]]],
) -> Path:
    """Trains on what `gather` collects with the model: (examples, their rows, figures for the card)."""
    model, tokenizer, prompter = stage.load(start)
    began = stage.clock()
    examples, rows, told = gather(model, prompter)
    gathering = stage.clock() - began
    if not examples:
        raise DataError(
            f"{stage.name}: none of the replies to {len(rows)} questions was right and fit to imitate"
        )
    held = stage.held_out()
    watch = Watch(
        stage.table.every,
        Rules(until=stage.table.until, seconds=stage.table.seconds),
        lambda: stage.accuracy(model, prompter, held),
        stage.directory / "metrics.jsonl",
        clock=stage.clock,
        report=stage.report,
        ranks=stage.ranks,
    )
    watch.seen.trained = gathering  # drawing what is imitated is part of the stage's cost
    resume = stage.last_checkpoint()
    if resume is not None:
        watch.load(resume)
    train_sft(
        model,
        tokenizer,
        examples,
        table=stage.table,
        watch=watch,
        directory=stage.directory,
        seed=stage.seed,
        resume=resume,
    )
    ended = {
        "ended": watch.ending.reason,
        "seconds": round(watch.seen.trained, 1),
        "accuracies": watch.seen.accuracies,
    }
    return stage.finish(model, tokenizer, rows, {**told, "examples": len(examples), **ended})

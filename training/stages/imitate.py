"""Supervised fine-tuning as the stages do it: examples in, a model out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from training.prompting import Prompter
from training.stages.run import Stage
from training.trainer.sft import Example, train_sft
from training.trainer.watch import Rules, Watch
from training.types import Row

__all__ = ["imitate"]


def imitate(
    stage: Stage,
    start: Path | None,
    gather: Callable[[Any, Prompter], tuple[Sequence[Example], Sequence[Row], dict[str, Any]]],
) -> Path:
    """Trains on what `gather` collects with the model it starts from: (examples, their rows, figures for the card)."""
    model, tokenizer, prompter = stage.load(start)
    examples, rows, told = gather(model, prompter)
    held = stage.held_out()
    watch = Watch(
        stage.table.every,
        Rules(until=stage.table.until, seconds=stage.table.seconds),
        lambda: stage.accuracy(model, prompter, held),
        stage.directory / "metrics.jsonl",
        report=lambda line: print(f"{stage.name}: {line}", flush=True),
    )
    resume = stage.last_checkpoint()
    if resume is not None:
        watch.load(resume)
    train_sft(model, tokenizer, examples, stage.table, watch, stage.directory, seed=stage.seed, resume=resume)
    ended = {"ended": watch.reason, "seconds": round(watch.seen.trained, 1), "accuracies": watch.seen.accuracies}
    return stage.finish(model, tokenizer, rows, {**told, "examples": len(examples), **ended})

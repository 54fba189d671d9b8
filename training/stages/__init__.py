"""The stages of DeepSeek-R1's recipe.

To add one: a file here with `run(stage)`, and a line in `training.config.STAGES`, which also names the type
of its table in the settings. The other files are what stages share: `grpo_stage.py` and `sft_stage.py` hold
the two ways to train, and `stage.py` what every stage is given.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from training.config import STAGES, ConfigError, TrainConfig

__all__ = ["pipeline", "run_stage"]


def run_stage(config: TrainConfig, name: str) -> Path:
    """Run a stage or resume it from its last checkpoint, and return its model.

    A finished stage stays as it is. Raises ConfigError if the settings have no table for it.
    """
    try:
        table = config.table(name)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    from training.stages.stage import Run

    with Run(config) as run:
        stage = run.stage(name, table)
        if stage.card.exists():
            stage.report(f"finished before, see {stage.card}")
            return stage.directory / "model"
        run_module: Callable[..., Path] = import_module(STAGES[name].module).run
        return run_module(stage)


def pipeline(config: TrainConfig) -> Path:
    """Run the configured stages in order, skip finished ones, and return the last model."""
    model = Path()
    for name in config.pipeline:
        model = run_stage(config, name)
    return model

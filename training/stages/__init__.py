"""The stages of DeepSeek-R1's recipe. To add one: a file, a line in `STAGES`, a table in the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from training.config import ConfigError, StageName, TrainConfig

__all__ = ["STAGES", "pipeline", "run_stage"]

STAGES: Mapping[StageName, str] = {
    "base": "training.stages.base",
    "zero": "training.stages.zero",
    "cold-start": "training.stages.cold_start",
    "rl": "training.stages.rl",
    "rejection": "training.stages.rejection",
    "mixed": "training.stages.mixed",
}
"""Each module has `run(stage)`, which returns the directory of the model that came out."""


def run_stage(config: TrainConfig, name: StageName) -> Path:
    """Runs one stage, or goes on with it from its last checkpoint; nothing where it is done."""
    try:
        config.table(name)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    from training.stages.stage import Run

    with Run(config) as whole:
        stage = whole.stage(name)
        if (stage.directory / "card.json").exists():
            stage.report(f"done before, see {stage.directory / 'card.json'}")
            return stage.directory / "model"
        run: Callable[..., Path] = import_module(STAGES[name]).run
        return run(stage)


def pipeline(config: TrainConfig) -> Path:
    """Runs the configured stages in order; those that are done are passed over."""
    model = Path()
    for name in config.pipeline:
        model = run_stage(config, name)
    return model

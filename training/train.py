"""`thinkgate train STAGE CONFIG`: runs one stage, or all of them in order."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from training.config import STAGES, ConfigError, read_config
from training.data.problems import DataError
from training.rewards import RewardError
from training.sandbox import SandboxError
from training.stages.teachers import TeacherError
from training.trainer.process_group import process_rank, world_size
from training.trainer.weight_check import StaleWeights

__all__ = ["main"]

_PACKAGES = ("torch", "trl", "peft", "datasets")


def main(arguments: list[str]) -> int:
    """Run the command. The exit status is 2 for a mistake of the user, which one line explains."""
    if arguments[:1] == ["export"]:
        from training.export.command import main as export

        return export(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="thinkgate train",
        description="Run a training stage, all stages in order, or train a scorer.",
        epilog="`thinkgate train export` writes a stage for another engine.",
    )
    parser.add_argument(
        "stage",
        choices=[*STAGES, "pipeline", "scorer"],
        help="a stage; `pipeline` for all stages that the file lists; or `scorer`",
    )
    parser.add_argument(
        "config", type=Path, help="the run's TOML file; see docs/reference/training-settings.md"
    )
    parser.add_argument("--seed", type=int, help="a seed that replaces the file's")
    parser.add_argument("--output", type=Path, help="the run's directory, which replaces the file's")
    parser.add_argument("--threads", type=int, help="the number of torch's CPU threads")
    options = parser.parse_args(arguments)
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        print(f"Training needs {', '.join(missing)}: pip install 'thinkgate[train]'.", file=sys.stderr)
        return 2
    try:
        config = read_config(
            options.config, seed=options.seed, output=options.output, threads=options.threads
        )
        if options.stage == "scorer":
            if world_size() > 1:
                raise ConfigError("a scorer is trained in one process: start it without a launcher")
            from training.stages.train_scorer import train_scorer

            return train_scorer(config)
        from training.stages import pipeline, run_stage

        model = pipeline(config) if options.stage == "pipeline" else run_stage(config, options.stage)
    except (ConfigError, DataError, RewardError, SandboxError, StaleWeights, TeacherError) as error:
        print(error, file=sys.stderr)
        return 2
    if process_rank() == 0:
        print(f"The model is in {model}.")
    return 0

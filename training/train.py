"""`thinkgate train STAGE CONFIG`: one stage of a run, or all of them in order."""

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
from training.trainer.ranks import process_count, process_index
from training.trainer.rollout import StaleWeights

__all__ = ["main"]

_NEEDED = ("torch", "trl", "peft", "datasets")


def main(arguments: list[str]) -> int:
    """Runs the command; 2 for what the user can mend, said in one line."""
    if arguments[:1] == ["export"]:
        from training.export.command import main as export

        return export(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="thinkgate train",
        description=__doc__,
        epilog="`thinkgate train export` writes a stage for another engine.",
    )
    parser.add_argument(
        "stage",
        choices=[*STAGES, "pipeline", "scorer"],
        help="a stage, all of the configured ones, or a scorer",
    )
    parser.add_argument("config", type=Path, help="the run's TOML file; see docs/how-to/train.md")
    parser.add_argument("--seed", type=int, help="in place of the file's")
    parser.add_argument("--output", type=Path, help="the run's directory, in place of the file's")
    parser.add_argument("--threads", type=int, help="CPU threads for torch")
    chosen = parser.parse_args(arguments)
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        print(f"Training needs {', '.join(missing)}: pip install 'thinkgate[train]'.", file=sys.stderr)
        return 2
    try:
        config = read_config(chosen.config, seed=chosen.seed, output=chosen.output, threads=chosen.threads)
        if chosen.stage == "scorer" and process_count() > 1:
            raise ConfigError("a scorer is trained in one process: start it without a launcher")
        if chosen.stage == "scorer":
            from training.stages.train_scorer import train_scorer

            return train_scorer(config)
        from training.stages import pipeline, run_stage

        model = pipeline(config) if chosen.stage == "pipeline" else run_stage(config, chosen.stage)
    except (ConfigError, DataError, RewardError, SandboxError, StaleWeights, TeacherError) as error:
        print(error, file=sys.stderr)
        return 2
    if process_index() == 0:
        print(f"The model is in {model}.")
    return 0

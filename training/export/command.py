"""`thinkgate train export TARGET CONFIG`: write a stage's data, rewards and launch for another engine."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

from training.config import STAGES, ConfigError, read_config
from training.data.problems import DataError
from training.export import TARGETS
from training.export.notes import readme
from training.export.plan import ExportedFiles, ExportError, ExportPlan
from training.rewards import RewardError
from training.stages.reward_context import check_reward_names

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Run the command; return 2, with one line on stderr, for errors that the user can correct."""
    parser = argparse.ArgumentParser(prog="thinkgate train export", description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("config", type=Path, help="the run's TOML file")
    parser.add_argument("--stage", choices=list(STAGES), default="rl")
    parser.add_argument("--out", type=Path, required=True, help="the directory to write")
    parser.add_argument("--processes", type=int, default=8, help="GPUs that train (8)")
    parser.add_argument("--model", help="the start model (default: the result of the stages before)")
    parser.add_argument("--seed", type=int, help="overrides the file's seed")
    parser.add_argument("--output", type=Path, help="overrides the file's output, the run's directory")
    args = parser.parse_args(arguments)
    try:
        config = read_config(args.config, seed=args.seed, output=args.output)
        check_reward_names(config)
        try:
            config.table(args.stage)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        plan = ExportPlan.for_stage(config, args.stage, args.config, args.processes, args.model)
        export: Callable[[ExportPlan], ExportedFiles] = importlib.import_module(TARGETS[args.target]).export
        exported = export(plan)
    except ExportError as error:
        print(f"{args.target}: {error}", file=sys.stderr)
        return 2
    except (ConfigError, DataError, RewardError) as error:
        print(error, file=sys.stderr)
        return 2
    _write(args.out, exported, readme(config.name, args.stage, args.target, exported))
    print(f"Written to {args.out}: see {args.out / 'README.md'}.")
    return 0


def _write(directory: Path, exported: ExportedFiles, notes: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in {**exported.files, "README.md": notes}.items():
        path = directory / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        if name.endswith(".sh"):
            path.chmod(0o755)

"""`thinkgate train export TARGET CONFIG`: a stage's data, rewards and launch for another engine."""

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
from training.export.stage_export import ExportedFiles, ExportError, StageExport
from training.rewards import RewardError

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Runs the command; 2 for what the user can mend, said in one line."""
    parser = argparse.ArgumentParser(prog="thinkgate train export", description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("config", type=Path, help="the run's TOML file")
    parser.add_argument("--stage", choices=STAGES, default="rl")
    parser.add_argument("--out", type=Path, required=True, help="the directory to write into")
    parser.add_argument("--processes", type=int, default=8, help="GPUs that train (8)")
    parser.add_argument("--model", help="what to start from, in place of what the stages before have made")
    parser.add_argument("--seed", type=int, help="in place of the file's")
    parser.add_argument("--output", type=Path, help="the run's directory, in place of the file's")
    chosen = parser.parse_args(arguments)
    try:
        config = read_config(chosen.config, seed=chosen.seed, output=chosen.output)
        try:
            config.table(chosen.stage)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        job = StageExport.of(config, chosen.stage, chosen.config, chosen.processes, chosen.model)
        export: Callable[[StageExport], ExportedFiles] = importlib.import_module(
            TARGETS[chosen.target]
        ).export
        exported = export(job)
    except ExportError as error:
        print(f"{chosen.target}: {error}", file=sys.stderr)
        return 2
    except (ConfigError, DataError, RewardError) as error:
        print(error, file=sys.stderr)
        return 2
    _write(chosen.out, exported, readme(config.name, chosen.stage, chosen.target, exported))
    print(f"Written to {chosen.out}: see {chosen.out / 'README.md'}.")
    return 0


def _write(directory: Path, exported: ExportedFiles, notes: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in {**exported.files, "README.md": notes}.items():
        path = directory / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        if name.endswith(".sh"):
            path.chmod(0o755)

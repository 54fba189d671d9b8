"""Build the tiny model and export it to every target: `make_exports.py OUT FOLDER`."""

import contextlib
import io
import json
import sys
from pathlib import Path

from training.export import TARGETS
from training.export.command import main
from training.tiny.model import build

out, folder = map(Path, sys.argv[1:])
build(folder / "model", seed=1)
text = (folder / "run.toml").read_text(encoding="utf-8")


def export(target: str, stage: str, file: Path, directory: Path) -> int:
    """Run the command; return its exit status."""
    return main([target, str(file), "--stage", stage, "--out", str(directory), "--processes", "2"])


statuses = [
    export(target, stage, folder / "run.toml", folder / f"{target}-{stage}")
    for target in TARGETS
    for stage in ("rl", "cold-start")
]

CHANGES = [
    ("verl", "rl", "max_steps = 6", 'max_steps = 6\nscale_rewards = "magistral"'),
    ("verl", "rl", "max_steps = 6", 'max_steps = 6\nlr_scheduler_type = "linear"'),
    ("verl", "rl", "max_steps = 6", "max_steps = 6\nmask_truncated_completions = true"),
    ("verl", "rl", "format = 0.25", "short = 0.25"),
    ("openrlhf", "rl", "max_steps = 6", 'max_steps = 6\nloss_type = "dr_grpo"'),
    ("openrlhf", "rl", "max_steps = 6", 'max_steps = 6\nscale_rewards = "batch"'),
    ("openrlhf", "cold-start", "problems = 20", 'problems = 20\nteacher = "policy"'),
]
refused = {}
for target, stage, old, new in CHANGES:
    file = folder / "refused.toml"
    file.write_text(text.replace(old, new), encoding="utf-8")
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        status = export(target, stage, file, folder / "refused")
    refused[f"{target}: {new.splitlines()[-1]}"] = [status, errors.getvalue()]

out.write_text(json.dumps({"statuses": statuses, "refused": refused}), encoding="utf-8")

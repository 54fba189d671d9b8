"""`thinkgate eval`, as the benchmarks of served models use it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from training.evaluation.command import main as evaluate
from training.types import Problem

__all__ = ["evaluate_gateway", "write_questions"]


def write_questions(path: Path, problems: Iterable[Problem]) -> None:
    """Write the problems as a file for `--data`."""
    lines = (json.dumps({"question": problem.question, "answer": problem.gold}) for problem in problems)
    path.write_text("".join(f"{line}\n" for line in lines))


def evaluate_gateway(out: Path, arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Return the metrics of each setting. Asks once more for missing replies, then gives up."""
    command = [*arguments, "--json", "--out", str(out)]
    if evaluate(command) and (status := evaluate(command)):
        raise SystemExit(f"{out.stem}: the evaluation ended with status {status}, twice")
    return list(json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))["settings"])

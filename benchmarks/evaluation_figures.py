"""`thinkgate eval` as the benchmarks of served models use it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from training.evaluation.command import main as evaluate
from training.types import Problem

__all__ = ["evaluate_gateway", "write_questions"]


def write_questions(path: Path, rows: Iterable[Problem]) -> None:
    """The rows as a file that `--data` takes."""
    path.write_text("".join(json.dumps({"question": r.question, "answer": r.gold}) + "\n" for r in rows))


def evaluate_gateway(out: Path, arguments: Sequence[str]) -> list[dict[str, Any]]:
    """What it finds at each setting. Replies that are missing are asked for once more, then it ends."""
    told = [*arguments, "--json", "--out", str(out)]
    if evaluate(told) and (status := evaluate(told)):
        raise SystemExit(f"{out.stem}: the evaluation ended with status {status}, twice")
    return list(json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))["settings"])

"""A run on a model of a few thousand weights: its settings, and what its stages leave behind."""

import json
from pathlib import Path
from typing import Any

from training.config import TrainConfig, parse_config
from training.stages.plots import read_metrics
from training.tiny.model import build

__all__ = ["RL", "SFT", "card", "configured", "steps"]

STEPS = {"eval_steps": 4, "save_steps": 2, "problems": 8}
SFT = STEPS | {"batch": 4}
RL = STEPS | {"per_device_train_batch_size": 4}
STAGES = {"cold_start": SFT, "rl": RL, "rejection": SFT, "mixed": RL}


def configured(directory: Path, **tables: Any) -> TrainConfig:
    """Return a run in this directory; the start model is made beside it when it is first needed."""
    start = directory / "start"
    if not start.exists():
        build(start, width=64, layers=1)
    additions = {"kind": "additions", "digits": 1}
    stages = {name.replace("_", "-"): STAGES[name] | tables.pop(name) for name in STAGES if name in tables}
    settings = {
        "name": "small",
        "output": directory / "out",
        "threads": 1,
        "pipeline": list(stages),
        "model": {"path": str(start), "family": "thinkgate"},
        "data": [additions],
        "held_out": {"sources": [additions], "count": 2, "max_tokens": 8},
    }
    return parse_config({**settings, **stages, **tables})


def card(config: TrainConfig, stage: str) -> dict[str, Any]:
    """Return a stage's run card."""
    text = (config.output / stage / "card.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def steps(config: TrainConfig, stage: str) -> list[dict[str, Any]]:
    """Return a stage's metrics of its steps, without those that depend on the clock."""
    lines = read_metrics(config.output / stage / "metrics.jsonl")
    return [{key: line[key] for key in line if key != "seconds"} for line in lines if "loss" in line]

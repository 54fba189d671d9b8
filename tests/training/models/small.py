"""A run on a model of a few thousand weights: settings, and what the stages of a run left behind."""

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
    """A run in this directory, from a start model beside it that is made when it is first asked for."""
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
    """What a stage wrote of itself."""
    text = (config.output / stage / "card.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def steps(config: TrainConfig, stage: str) -> list[dict[str, Any]]:
    """A stage's metrics of its steps, without what depends on the clock."""
    lines = read_metrics(config.output / stage / "metrics.jsonl")
    return [{key: line[key] for key in line if key != "seconds"} for line in lines if "loss" in line]

"""A stage's curves."""

import json
from pathlib import Path
from xml.etree import ElementTree

from training.stages.plots import curves, read_metrics

LINES = [
    {"step": 0, "evaluation": {"accuracy": 0.25}},
    {"step": 1, "loss": 1.0, "accuracy": 0.2, "total": 0.3, "entropy": None},
    {"step": 2, "loss": 0.5, "accuracy": 0.4, "total": float("nan"), "entropy": 0.7},
    {"step": 2, "evaluation": {"accuracy": 0.5}},
]


def texts(svg: str) -> set[str]:
    """Return all text in a picture."""
    return {element.text or "" for element in ElementTree.fromstring(svg).iter() if element.text}


def test_every_figure_with_two_points_has_a_line() -> None:
    """A figure logged never or once has no panel; values that are no numbers are left out."""
    svg = curves(LINES, "run: rl")
    written = texts(svg)
    assert {"run: rl", "accuracy", "held out", "loss", "step"} <= written
    assert not {"entropy", "live", "reward"} & written
    assert "nan" not in svg


def test_metrics_are_read_as_they_were_written(tmp_path: Path) -> None:
    """One object a line."""
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES[:2]), encoding="utf-8")
    assert read_metrics(path) == LINES[:2]

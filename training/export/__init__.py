"""Export a stage to engines that train on many GPUs: `thinkgate train export TARGET CONFIG`.

To add a target, write a module with `export(plan)`, and add a line to `TARGETS`.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["TARGETS"]

TARGETS: Mapping[str, str] = {
    "accelerate": "training.export.accelerate",
    "openrlhf": "training.export.openrlhf",
    "verl": "training.export.verl",
}
"""Modules by target; each has `export(plan)`, which returns the files (see `training.export.plan`)."""

"""A stage of a run for other engines, which train on many GPUs: `thinkgate train export TARGET CONFIG`.

To add a target: a module with `export(job)`, and a line in `TARGETS`.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["TARGETS"]

TARGETS: Mapping[str, str] = {
    "accelerate": "training.export.accelerate",
    "openrlhf": "training.export.openrlhf",
    "verl": "training.export.verl",
}
"""Each module has `export(job)`, which gives the files (see `training.export.stage_export`)."""

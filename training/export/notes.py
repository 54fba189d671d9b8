"""The notes of an export: every way in which the engine differs from this project's trainer."""

from __future__ import annotations

from collections.abc import Mapping

from training.config import RlTable, SftTable
from training.export.plan import ExportedFiles

__all__ = ["UNSUPPORTED", "readme", "unsupported_options"]

UNSUPPORTED: Mapping[str, str] = {
    "difficulty": (
        "difficulty: the offline filter needs the start policy's replies, so all questions are asked."
    ),
    "final_completion_length": "final_completion_length: the limit does not grow but is this from the start.",
    "convergence_window": "convergence_window: no rule ends the stage; watch the held-out accuracy.",
    "max_accuracy_drop": "max_accuracy_drop: a drop in held-out accuracy does not restore the best weights.",
    "target_accuracy": "target_accuracy: no rule ends the stage; watch the held-out accuracy.",
    "max_seconds": "max_seconds: the clock does not end the stage.",
    "trl": "trl: settings of TRL alone are left out.",
}
"""Options that only this project's trainer has, with the sentence for the notes."""


def unsupported_options(table: RlTable | SftTable) -> list[str]:
    """Return a sentence for each option of the table that another engine lacks."""
    return [text for name, text in UNSUPPORTED.items() if getattr(table, name, None)]


def readme(name: str, stage: str, target: str, exported: ExportedFiles) -> str:
    """Return the notes that stand beside an export."""
    differences = "\n".join(f"- {sentence}" for sentence in exported.differences)
    return f"""# {name}: {stage} on {target}

Start: {exported.launch}

Differences from `thinkgate train {stage}`:

{differences}
"""

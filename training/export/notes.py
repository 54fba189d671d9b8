"""What an engine does otherwise than this project's own trainer, in sentences; nothing is dropped unsaid."""

from __future__ import annotations

from collections.abc import Mapping

from training.config import RlTable, SftTable
from training.export.job import Exported

__all__ = ["BEYOND", "left_over", "readme"]

BEYOND: Mapping[str, str] = {
    "difficulty": "difficulty: the offline filter needs the start policy's replies; all questions are asked.",
    "final_completion_length": "final_completion_length: the limit does not grow but is this from the start.",
    "convergence_window": "convergence_window: no rule ends the stage; look at held-out accuracy.",
    "max_accuracy_drop": "max_accuracy_drop: no fall of held-out accuracy brings the best weights back.",
    "target_accuracy": "target_accuracy: no rule ends the stage; look at held-out accuracy.",
    "max_seconds": "max_seconds: the clock does not end the stage.",
    "trl": "trl: settings of TRL alone are left out.",
}
"""Options that only this project's own trainer has, where the table sets them."""


def left_over(table: RlTable | SftTable) -> list[str]:
    """Sentences on those of the table's options that another engine does not carry."""
    return [text for name, text in BEYOND.items() if getattr(table, name, None)]


def readme(name: str, stage: str, target: str, exported: Exported) -> str:
    """The notes that are written beside an export."""
    points = "\n".join(f"- {sentence}" for sentence in exported.left)
    return f"""# {name}: {stage} on {target}

Start: {exported.start}

What is otherwise than in `thinkgate train {stage}`:

{points}
"""

"""What an engine does otherwise than this project's own trainer, in sentences; nothing is dropped unsaid."""

from __future__ import annotations

from collections.abc import Mapping

from training.config import RlTable, SftTable
from training.export.stage_export import ExportedFiles

__all__ = ["UNSUPPORTED", "readme", "unsupported_options"]

UNSUPPORTED: Mapping[str, str] = {
    "difficulty": "difficulty: the offline filter needs the start policy's replies; all questions are asked.",
    "length_most": "length_most: the limit does not grow, it is length_most from the first step on.",
    "converged": "converged: no rule ends the stage; look at held-out accuracy.",
    "fall": "fall: nothing goes back to the best weights where held-out accuracy falls.",
    "until": "until: no rule ends the stage; look at held-out accuracy.",
    "seconds": "seconds: the clock does not end the stage.",
}
"""Options that only this project's own trainer has, where the table sets them."""


def unsupported_options(table: RlTable | SftTable) -> list[str]:
    """Sentences on those of the table's options that another engine does not carry."""
    return [text for name, text in UNSUPPORTED.items() if getattr(table, name, None)]


def readme(name: str, stage: str, target: str, exported: ExportedFiles) -> str:
    """The notes that are written beside an export."""
    points = "\n".join(f"- {sentence}" for sentence in exported.left)
    return f"""# {name}: {stage} on {target}

Start: {exported.start}

What is otherwise than in `thinkgate train {stage}`:

{points}
"""

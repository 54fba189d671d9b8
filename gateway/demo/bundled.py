"""What the demo brings along: two adapters for SmolLM2-135M-Instruct, of which one thinks and one checks.

Both were trained by training/configs/smollm2*.toml: see benchmarks/training-runs.md.
"""

from __future__ import annotations

from pathlib import Path

from gateway.config import Settings
from gateway.runs.scorers import JudgeTable

__all__ = ["CHECKER", "JUDGE", "REASONER", "checker", "with_bundled"]

REASONER = Path(__file__).with_name("smollm2-reasoner.gguf")
JUDGE = Path(__file__).with_name("smollm2-judge.gguf")
CHECKER = "checker"
"""The scorer by the name that clients say."""


def checker() -> JudgeTable:
    """The judge as a scorer of the embedded engine that serves it, released by its own gate."""
    return JudgeTable(
        kind="judge",
        method="check",
        model=JUDGE.stem,
        effort="high",
        rounds=1,
        max_tokens=192,
        gate=JUDGE.with_suffix(".gate.json"),
        calibration=JUDGE.with_suffix(".calibration.json"),
    )


def with_bundled(settings: Settings) -> Settings:
    """With both adapters on the default model, and the checker; another engine stays as it is."""
    if settings.upstream or settings.embedded_model or settings.embedded_adapters:
        return settings
    scorers = {CHECKER: checker(), **settings.scorers}
    return settings.model_copy(update={"embedded_adapters": (REASONER, JUDGE), "scorers": scorers})

"""The demo's own adapters for SmolLM2-135M-Instruct: one thinks, the other checks answers.

Training with training/configs/smollm2*.toml made both; see benchmarks/training-runs.md.
"""

from __future__ import annotations

from pathlib import Path

from gateway.config import Settings
from gateway.scorer_settings import JudgeTable

__all__ = ["CHECKER", "JUDGE", "REASONER", "checker", "with_bundled"]

REASONER = Path(__file__).with_name("smollm2-reasoner.gguf")
JUDGE = Path(__file__).with_name("smollm2-judge.gguf")
CHECKER = "checker"
"""The scorer's name, which clients send as `X-Scorer`."""


def checker() -> JudgeTable:
    """Return the settings of the judge that the embedded engine serves, with the gate that released it."""
    return JudgeTable(
        kind="judge",
        method="check",
        model=JUDGE.stem,
        budget="high",
        rounds=1,
        max_tokens=192,
        gate=JUDGE.with_suffix(".gate.json"),
        calibration=JUDGE.with_suffix(".calibration.json"),
    )


def with_bundled(settings: Settings) -> Settings:
    """Add both adapters and the checker to the default model. Leave any other engine as it is.

    A model that small may not find an end, so its answers are capped.
    """
    if settings.upstream or settings.embedded_model or settings.embedded_adapters:
        return settings
    scorers = {CHECKER: checker(), **settings.scorers}
    added = {
        "embedded_adapters": (REASONER, JUDGE),
        "scorers": scorers,
        "answer_cap": settings.answer_cap or settings.answer_reserve,
    }
    return settings.model_copy(update=added)

"""Every switch of reinforcement learning, turned on in one small run."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("trl")

from tests.training.models.small import card, configured, steps
from training.config import TrainConfig
from training.data.contamination import overlaps
from training.plots import read_metrics
from training.sandbox import SandboxError, open_sandbox
from training.stages import run_stage
from training.stages.run import Run

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

FUNCTIONS = {"kind": "functions"}
SWITCHES = {
    "kl": 0.1,
    "rounds": 2,
    "normalise": "magistral",
    "leave_out_unfinished": True,
    "length_most": 16,
    "rewards": {"format": 0.1, "language": 0.1, "overlong": 0.1, "short": 0.1, "budget": 0.1},
    "budgets": {"off": 1, "high": 1},
    "entropy": 0.01,
}


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A run of two steps on problems whose answers are functions, judged by their unit tests."""
    try:
        open_sandbox()
    except SandboxError as error:
        pytest.skip(str(error))
    config = configured(
        tmp_path_factory.mktemp("coded"),
        rl={"steps": 2, "groups": 2, "samples": 2, "length": 8, "every": 2, **SWITCHES},
        data=[FUNCTIONS],
        held_out={"sources": [FUNCTIONS], "count": 2, "max_tokens": 8},
    )
    run_stage(config, "rl")
    return config


def test_a_stage_learns_from_unit_tests(coded: TrainConfig) -> None:
    """Every part of the reward is logged beside what decides, KL, length limit and rounds of sampling."""
    assert card(coded, "rl")["ended"] == "all steps done"
    assert len(steps(coded, "rl")) == 2
    for step in steps(coded, "rl"):
        assert {"accuracy", "total", "kl", "entropy", "taught", *SWITCHES["rewards"]} <= step.keys()
        assert (step["limit"], step["rounds"]) == (8, 2)
        assert 0 <= step["taught"] <= 1
    held = [
        line["evaluation"]
        for line in read_metrics(coded.output / "rl" / "metrics.jsonl")
        if "evaluation" in line
    ]
    assert [each["accuracy"] for each in held] == [0, 0]


def test_what_is_held_out_is_not_trained_on(coded: TrainConfig) -> None:
    """Though both come from the same thirty problems."""
    with Run(coded) as run:
        stage = run.stage("rl")
        rows, held = stage.rows(30), stage.held_out()
    assert 20 < len(rows) <= 28
    assert len(held) == 2
    assert overlaps(rows, held) == []

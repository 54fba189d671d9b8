"""Every switch of reinforcement learning: most in one small run, the difficulty filter by itself."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("trl")

from tests.training.models.small import card, configured, steps
from training.config import TrainConfig
from training.data.contamination import overlaps
from training.data.prompts import Prompt, Prompter
from training.sandbox import SandboxError, open_sandbox
from training.stages import run_stage
from training.stages.plots import read_metrics
from training.stages.stage import Run
from training.types import Completion

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

FUNCTIONS = {"kind": "functions"}
SWITCHES = {
    "beta": 0.1,
    "rounds": 2,
    "scale_rewards": "magistral",
    "mask_truncated_completions": True,
    "final_completion_length": 16,
    "rewards": {"format": 0.1, "language": 0.1, "overlong": 0.1, "short": 0.1, "budget": 0.1},
    "budgets": {"off": 1, "high": 1},
    "min_entropy": 0.01,
}
FILTERED = {
    "groups": 2,
    "num_generations": 2,
    "max_completion_length": 8,
    "max_steps": 2,
    "difficulty": {"samples": 2},
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
        rl={
            "max_steps": 2,
            "groups": 2,
            "num_generations": 2,
            "max_completion_length": 8,
            "eval_steps": 2,
            **SWITCHES,
        },
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
        stage = run.stage("rl", coded.table("rl"))
        rows, held = stage.problems(30), stage.held_out()
    assert 20 < len(rows) <= 28
    assert len(held) == 2
    assert overlaps(rows, held) == []


def sometimes_right(
    model: Any, prompter: Prompter, prompts: Sequence[Prompt], **_: Any
) -> list[list[Completion]]:
    """Two replies to each sum, right by its first number: both to 2, one to 5."""
    drawn = []
    for prompt in prompts:
        one, other = map(int, re.findall(r"\d+", prompt.text))
        right = 2 if one <= 2 else 1 if one <= 5 else 0
        answers = [str(one + other)] * right + ["none"] * (2 - right)
        drawn.append([Completion("", (), "", answer, 0, True, prompt.budget) for answer in answers])
    return drawn


def test_the_difficulty_filter_decides_what_is_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Questions in the band alone; the card tells how many were too easy and too hard."""
    monkeypatch.setattr("training.stages.grpo_stage.sample_completions", sometimes_right)
    rl = FILTERED | {"problems": 40}
    config = configured(tmp_path, rl=rl)
    run_stage(config, "rl")
    told = card(config, "rl")
    counts = told["difficulty"]
    assert min(counts.values()) > 0
    assert sum(counts.values()) == 40
    assert told["data"]["rows"] == counts["kept"]
    asked = {name for line in steps(config, "rl") for name in line["rows"]}
    problems = Run(config).stage("rl", config.table("rl")).problems(40)
    first = {problem.id: int(problem.question.split()[-1].partition("+")[0]) for problem in problems}
    assert all(2 < first[name] <= 5 for name in asked)


def test_where_hardly_a_question_is_in_the_band_all_are_kept(tmp_path: Path) -> None:
    """A model that gets nothing right has none; the card says that the filter was set aside."""
    config = configured(tmp_path, rl=FILTERED)
    run_stage(config, "rl")
    told = card(config, "rl")
    assert told["difficulty"] == {"kept": 0, "easy": 0, "hard": 8}
    assert told["difficulty_unused"]
    assert told["data"]["rows"] == 8

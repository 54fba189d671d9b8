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
def code_run(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Run two steps on problems whose answers are functions, judged by their unit tests."""
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


def test_a_stage_learns_from_unit_tests(code_run: TrainConfig) -> None:
    """The log has every part of the reward, KL, the length limit and the rounds of sampling."""
    assert card(code_run, "rl")["ended"] == "all steps done"
    assert len(steps(code_run, "rl")) == 2
    for step in steps(code_run, "rl"):
        assert {"accuracy", "total", "kl", "entropy", "taught", *SWITCHES["rewards"]} <= step.keys()
        assert (step["limit"], step["rounds"]) == (8, 2)
        assert 0 <= step["taught"] <= 1
    evaluations = [
        line["evaluation"]
        for line in read_metrics(code_run.output / "rl" / "metrics.jsonl")
        if "evaluation" in line
    ]
    assert [evaluation["accuracy"] for evaluation in evaluations] == [0, 0]


def test_held_out_problems_are_not_trained_on(code_run: TrainConfig) -> None:
    """Although both come from the same thirty problems."""
    with Run(code_run) as run:
        stage = run.stage("rl", code_run.table("rl"))
        problems, held_out = stage.problems(30), stage.held_out()
    assert 20 < len(problems) <= 28
    assert len(held_out) == 2
    assert overlaps(problems, held_out) == []


def sometimes_right(
    model: Any, prompter: Prompter, prompts: Sequence[Prompt], **_: Any
) -> list[list[Completion]]:
    """Answer each sum twice, right by its first number: both times up to 2, once up to 5."""
    completions = []
    for prompt in prompts:
        one, other = map(int, re.findall(r"\d+", prompt.text))
        right = 2 if one <= 2 else 1 if one <= 5 else 0
        answers = [str(one + other)] * right + ["none"] * (2 - right)
        completions.append([Completion("", (), "", answer, 0, True, prompt.budget) for answer in answers])
    return completions


def test_the_difficulty_filter_decides_what_is_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only problems in the band stay; the card counts those that were too easy and too hard."""
    monkeypatch.setattr("training.stages.grpo_stage.sample_completions", sometimes_right)
    rl = FILTERED | {"problems": 40}
    config = configured(tmp_path, rl=rl)
    run_stage(config, "rl")
    run_card = card(config, "rl")
    counts = run_card["difficulty"]
    assert min(counts.values()) > 0
    assert sum(counts.values()) == 40
    assert run_card["data"]["rows"] == counts["kept"]
    trained_on = {name for line in steps(config, "rl") for name in line["rows"]}
    problems = Run(config).stage("rl", config.table("rl")).problems(40)
    first = {problem.id: int(problem.question.split()[-1].partition("+")[0]) for problem in problems}
    assert all(2 < first[name] <= 5 for name in trained_on)


def test_a_band_with_too_few_problems_is_not_used(tmp_path: Path) -> None:
    """A model that gets nothing right has none; the card says that the filter was not used."""
    config = configured(tmp_path, rl=FILTERED)
    run_stage(config, "rl")
    run_card = card(config, "rl")
    assert run_card["difficulty"] == {"kept": 0, "easy": 0, "hard": 8}
    assert run_card["difficulty_unused"]
    assert run_card["data"]["rows"] == 8

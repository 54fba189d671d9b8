"""Exports for other engines, as far as they need no engine; tests/export covers the rest."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from policies.thinking import Markup
from scorers.answers import verify
from tests.training.trainer.test_rollout import END, Letters
from training.config import read_config
from training.data.prompts import Prompt
from training.export.command import main
from training.export.notes import UNSUPPORTED, unsupported_options
from training.export.plan import ExportError, ExportPlan, PromptedProblem
from training.export.scoring import Scoring, grading_record, reward_names, scoring_file
from training.types import Problem

RUN = """
name = "a"
output = "{output}"
data = [{{ kind = "additions" }}]
model = {{ path = "somewhere", family = "qwen3" }}
pipeline = ["rl"]
held_out = {{ sources = [{{ kind = "additions" }}] }}
[rl]
max_steps = 8
groups = 4
num_generations = 4
per_device_train_batch_size = 8
max_completion_length = 64
rewards = {{ format = 0.5 }}
vllm_server_base_url = "http://127.0.0.1:8123"
{more}
"""


def config_file(directory: Path, more: str = "") -> Path:
    """Write a run's TOML file."""
    path = directory / "run.toml"
    path.write_text(RUN.format(output=directory / "out", more=more), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> ExportPlan:
    """The export of the run's stage `rl`, for two processes."""
    path = config_file(tmp_path_factory.mktemp("run"))
    return ExportPlan.for_stage(read_config(path), "rl", path, 2)


@pytest.fixture(scope="module")
def score(plan: ExportPlan) -> Iterator[Callable[[Problem, str], dict[str, float]]]:
    """Score a reply as another engine's process would."""
    scoring = Scoring(json.loads(scoring_file(plan, ["correct"], [END])), Letters())

    def score_reply(problem: Problem, reply: str) -> dict[str, float]:
        prompted = PromptedProblem(problem, Prompt("", (), Markup(), "high"))
        return scoring.score(grading_record(prompted), [*map(ord, reply), END])

    yield score_reply
    scoring.close()


@given(st.integers(0, 999), st.integers(0, 999))
def test_another_engine_grades_like_serving(
    score: Callable[[Problem, str], dict[str, float]], gold: int, answer: int
) -> None:
    """`acc` agrees with `verify`, and the total is the stage's own sum."""
    problem = Problem("1", f"What is {gold}+0?", str(gold))
    scores = score(problem, f"<think>\nso\n</think>\n\nThe answer is {answer}.")
    assert (scores["acc"] == 1) == (verify(f"The answer is {answer}.", str(gold)) is True)
    assert scores["score"] == scores["acc"] + 0.5 * scores["format"] == scores["acc"] + 0.5


def test_the_reply_in_a_text_follows_its_prompt(plan: ExportPlan) -> None:
    """A text that begins otherwise is refused."""
    scoring = Scoring(json.loads(scoring_file(plan, ["correct"], [END])), Letters())
    assert scoring.reply("question: answer", "question: ") == "answer"
    with pytest.raises(ValueError, match="does not begin with its prompt"):
        scoring.reply("answer", "question: ")
    scoring.close()


@pytest.mark.parametrize("reward", ["majority", "preference"])
def test_rewards_that_need_more_than_one_reply_are_refused(plan: ExportPlan, reward: str) -> None:
    """Other engines judge one reply at a time, and have no model that the stage trains."""
    prompted = PromptedProblem(replace(Problem("1", "?", "1"), reward=reward), Prompt("", (), Markup(), None))
    with pytest.raises(ExportError, match=reward):
        reward_names(plan, [prompted])


def test_an_export_for_accelerate_is_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has configurations that YAML can read, executable scripts, and notes."""
    out = tmp_path / "export"
    arguments = ["accelerate", str(config_file(tmp_path)), "--out", str(out), "--processes", "2"]
    assert main(arguments) == 0
    fsdp = yaml.safe_load((out / "fsdp.yaml").read_text(encoding="utf-8"))
    assert (fsdp["num_processes"], fsdp["fsdp_config"]["fsdp_version"]) == (2, 2)
    deepspeed = yaml.safe_load((out / "deepspeed.yaml").read_text(encoding="utf-8"))
    assert deepspeed["deepspeed_config"]["zero_stage"] == 2
    assert {path.name for path in out.iterdir() if path.stat().st_mode & 0o100} == {"train.sh", "serve.sh"}
    assert (out / "README.md").exists()


def test_an_export_for_accelerate_runs_the_installed_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`-m training` ignores a folder named `training` beside the run's file."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "export"
    assert main(["accelerate", str(config_file(tmp_path)), "--out", str(out), "--processes", "2"]) == 0
    (tmp_path / "training").mkdir()
    for module in ("__init__", "__main__"):
        (tmp_path / "training" / f"{module}.py").write_text("raise SystemExit('an impostor ran')")
    stub = tmp_path / "bin" / "accelerate"
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/sh\nshift 3\nexec {sys.executable} "$1" "$2" "$3" --help\n')
    stub.chmod(0o755)
    process = subprocess.run(
        [out / "train.sh"],
        env={**os.environ, "PATH": f"{stub.parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith("usage: thinkgate train ")


def test_a_step_that_cannot_be_divided_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line names the option, and nothing is written."""
    out = tmp_path / "export"
    assert main(["accelerate", str(config_file(tmp_path)), "--out", str(out), "--processes", "3"]) == 2
    errors = capsys.readouterr().err
    assert errors == "accelerate: groups (4) must be a multiple of the processes (3)\n"
    assert not out.exists()


@pytest.mark.parametrize(
    "more",
    [
        "difficulty = {}",
        "final_completion_length = 128",
        "convergence_window = 3",
        "max_seconds = 9.0",
        "max_accuracy_drop = 0.2",
    ],
)
def test_the_notes_name_every_unsupported_option(tmp_path: Path, more: str) -> None:
    """If the table sets the option, the notes have its sentence."""
    table: Any = read_config(config_file(tmp_path, more)).rl
    assert UNSUPPORTED[more.partition(" ")[0]] in unsupported_options(table)

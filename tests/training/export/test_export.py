"""What is exported for other engines, as far as it needs none of them; the rest is in tests/export."""

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
from training.export.scoring import Scoring, grading_record, reward_names, scoring_file
from training.export.stage_export import ExportError, PromptedProblem, StageExport
from training.types import Problem

RUN = """
name = "a"
output = "{output}"
data = [{{ kind = "additions" }}]
model = {{ path = "somewhere", family = "qwen3" }}
pipeline = ["rl"]
held_out = {{ sources = [{{ kind = "additions" }}] }}
[rl]
steps = 8
groups = 4
samples = 4
batch = 8
length = 64
rewards = {{ format = 0.5 }}
vllm = "http://127.0.0.1:8123"
{more}
"""


def file(directory: Path, more: str = "") -> Path:
    """A run's TOML."""
    path = directory / "run.toml"
    path.write_text(RUN.format(output=directory / "out", more=more), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> StageExport:
    """The stage `rl` of that run, for two processes."""
    path = file(tmp_path_factory.mktemp("run"))
    return StageExport.of(read_config(path), "rl", path, 2)


@pytest.fixture(scope="module")
def scored(job: StageExport) -> Iterator[Callable[[Problem, str], dict[str, float]]]:
    """Scores a reply, given as another engine's process gives it."""
    scoring = Scoring(json.loads(scoring_file(job, ["correct"], [END])), Letters())

    def score(row: Problem, reply: str) -> dict[str, float]:
        asked = PromptedProblem(row, Prompt("", (), Markup(), "high"))
        return scoring.score(grading_record(asked), [*map(ord, reply), END])

    yield score
    scoring.close()


@given(st.integers(0, 999), st.integers(0, 999))
def test_a_reply_is_right_elsewhere_where_serving_finds_the_answer_equal(
    scored: Callable[[Problem, str], dict[str, float]], gold: int, answer: int
) -> None:
    """The verdict is that of `verify`, and the total the stage's own sum."""
    row = Problem("1", f"What is {gold}+0?", str(gold))
    found = scored(row, f"<think>\nso\n</think>\n\nThe answer is {answer}.")
    assert (found["acc"] == 1) == (verify(f"The answer is {answer}.", str(gold)) is True)
    assert found["score"] == found["acc"] + 0.5 * found["format"] == found["acc"] + 0.5


def test_the_reply_of_a_text_is_what_follows_its_prompt(job: StageExport) -> None:
    """And a text that begins otherwise is refused rather than misread."""
    scoring = Scoring(json.loads(scoring_file(job, ["correct"], [END])), Letters())
    assert scoring.reply("question: answer", "question: ") == "answer"
    with pytest.raises(ValueError, match="does not begin with its prompt"):
        scoring.reply("answer", "question: ")
    scoring.close()


@pytest.mark.parametrize("reward", ["majority", "preference"])
def test_rewards_that_need_more_than_a_reply_are_refused(job: StageExport, reward: str) -> None:
    """Other engines judge one reply at a time, without a model that the stage trains."""
    asked = PromptedProblem(replace(Problem("1", "?", "1"), reward=reward), Prompt("", (), Markup(), None))
    with pytest.raises(ExportError, match=reward):
        reward_names(job, [asked])


def test_an_export_for_accelerate_is_written_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Configurations that YAML reads, scripts that may be run, and notes."""
    out = tmp_path / "export"
    arguments = ["accelerate", str(file(tmp_path)), "--out", str(out), "--processes", "2"]
    assert main(arguments) == 0
    fsdp = yaml.safe_load((out / "fsdp.yaml").read_text(encoding="utf-8"))
    assert (fsdp["num_processes"], fsdp["fsdp_config"]["fsdp_version"]) == (2, 2)
    deepspeed = yaml.safe_load((out / "deepspeed.yaml").read_text(encoding="utf-8"))
    assert deepspeed["deepspeed_config"]["zero_stage"] == 2
    assert {path.name for path in out.iterdir() if path.stat().st_mode & 0o100} == {"train.sh", "serve.sh"}
    assert (out / "README.md").exists()


def test_an_export_for_accelerate_trains_by_the_installed_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder named `training` where the run's file lies is not what `-m training` means."""
    monkeypatch.chdir(tmp_path)
    assert (
        main(["accelerate", str(file(tmp_path)), "--out", str(tmp_path / "export"), "--processes", "2"]) == 0
    )
    (tmp_path / "training").mkdir()
    for module in ("__init__", "__main__"):
        (tmp_path / "training" / f"{module}.py").write_text("raise SystemExit('an impostor ran')")
    stub = tmp_path / "bin" / "accelerate"
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/sh\nshift 3\nexec {sys.executable} "$1" "$2" "$3" --help\n')
    stub.chmod(0o755)
    done = subprocess.run(
        [tmp_path / "export" / "train.sh"],
        env={**os.environ, "PATH": f"{stub.parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: thinkgate train ")


def test_a_step_that_cannot_be_shared_out_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line that names the option, and nothing is written."""
    out = tmp_path / "export"
    assert main(["accelerate", str(file(tmp_path)), "--out", str(out), "--processes", "3"]) == 2
    said = capsys.readouterr().err
    assert said == "accelerate: groups (4) must be a multiple of the processes (3)\n"
    assert not out.exists()


@pytest.mark.parametrize(
    "more", ["difficulty = {}", "length_most = 128", "converged = 3", "seconds = 9.0", "fall = 0.2"]
)
def test_every_option_of_this_trainer_alone_is_said(tmp_path: Path, more: str) -> None:
    """Where the table sets it, the notes have its sentence."""
    table: Any = read_config(file(tmp_path, more)).rl
    assert UNSUPPORTED[more.partition(" ")[0]] in unsupported_options(table)

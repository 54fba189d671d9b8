"""Stages that are stopped and resume: nothing that they collected is collected again."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("trl")

from tests.training.models.small import card, configured, steps
from tests.training.teaching import Teacher
from training.config import TrainConfig
from training.data.problems import DataError
from training.stages import run_stage
from training.trainer.callbacks import StageCallback

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]


class Stopped(Exception):
    """The power was cut."""


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Callable[[TrainConfig, Any, int], None]:
    """Return a function that runs a stage and stops it after a step."""
    log = StageCallback.on_log

    def stop(config: TrainConfig, stage: Any, step: int) -> None:
        def log_and_stop(self: StageCallback, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            log(self, args, state, control, **kwargs)
            if state.global_step == step:
                raise Stopped

        with monkeypatch.context() as patched:
            patched.setattr(StageCallback, "on_log", log_and_stop)
            with pytest.raises(Stopped):
                run_stage(config, stage)

    return stop


RL = {
    "max_steps": 5,
    "groups": 2,
    "num_generations": 2,
    "max_completion_length": 8,
    "budgets": {"high": 1, "off": 1},
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "imitation": ("cold-start", {"cold_start": {"max_steps": 5, "budgets": {"high": 1, "low": 1}}}),
    "two updates a draw": ("rl", {"rl": RL | {"max_steps": 6, "num_iterations": 2}}),
    "an adapter": ("rl", {"rl": RL, "lora": {"rank": 2}}),
    "general rows": ("mixed", {"mixed": RL | {"general": 0.5}, "general": [{"kind": "errands"}]}),
    "a length limit that grows": ("rl", {"rl": RL | {"final_completion_length": 12}}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_stopped_stage_takes_the_same_steps_as_one_that_was_not(
    tmp_path: Path, stopped: Callable[[TrainConfig, Any, int], None], case: str
) -> None:
    """The same problems, completions and losses, whichever step it was stopped at."""
    stage, tables = CASES[case]

    def run(name: str) -> TrainConfig:
        fields = dict(tables)
        directory = tmp_path / name
        model = {"path": str(directory / "start"), "family": "thinkgate", "lora": fields.pop("lora", None)}
        return configured(directory, model=model, **fields)

    whole, broken = run("whole"), run("broken")
    run_stage(whole, stage)
    step = random.randrange(1, 5)
    stopped(broken, stage, step)
    run_stage(broken, stage)
    taken = steps(broken, stage)
    assert taken == steps(whole, stage), f"stopped behind step {step}"
    assert len(taken) >= 5


def test_a_stage_resumes_with_its_own_data_alone(
    tmp_path: Path, stopped: Callable[[TrainConfig, Any, int], None]
) -> None:
    """Other problems, or steps of another size, are another run; the learning rate may change."""
    stopped(configured(tmp_path, rl=RL), "rl", 3)
    held_out = {"sources": [{"kind": "additions", "digits": 1}], "count": 2, "max_tokens": 4}
    for change in (
        {"rl": RL | {"groups": 1}},
        {"rl": RL, "seed": 1},
        {"rl": RL | {"problems": 7}},
        {"rl": RL, "held_out": held_out},
    ):
        with pytest.raises(DataError, match="belongs to another run"):
            run_stage(configured(tmp_path, **change), "rl")
    run_stage(configured(tmp_path, rl=RL | {"learning_rate": 1e-3}), "rl")


@pytest.mark.parametrize("step", [1, 3])
def test_a_resumed_stage_asks_no_teacher_again(
    tmp_path: Path, stopped: Callable[[TrainConfig, Any, int], None], step: int
) -> None:
    """Before the first checkpoint or after it; the steps are those of a run that was never stopped."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    with Teacher() as teacher:
        table = {"teacher": "endpoint", "endpoint": teacher.url, "max_steps": 4}
        run_stage(configured(whole, cold_start=table), "cold-start")
        assert set(teacher.asked.values()) == {1}
        config = configured(broken, cold_start=table)
        stopped(config, "cold-start", step)
        assert set(teacher.asked.values()) == {2}
        gathering = (broken / "out" / "cold-start" / "gathered.json").read_bytes()
        run_stage(config, "cold-start")
    assert set(teacher.asked.values()) == {2}
    assert (broken / "out" / "cold-start" / "gathered.json").read_bytes() == gathering
    assert steps(config, "cold-start") == steps(configured(whole, cold_start=table), "cold-start")
    assert card(config, "cold-start")["examples"] == 8
    assert card(config, "cold-start")["wrong"] == 0


def test_other_settings_overwrite_nothing_that_a_checkpoint_needs(
    tmp_path: Path, stopped: Callable[[TrainConfig, Any, int], None]
) -> None:
    """They are refused before the teacher is asked; with the old ones the stage resumes."""
    with Teacher() as teacher:
        table = {"teacher": "endpoint", "endpoint": teacher.url, "max_steps": 4}
        stopped(configured(tmp_path, cold_start=table), "cold-start", 3)
        with pytest.raises(DataError, match="belongs to another run"):
            run_stage(configured(tmp_path, cold_start=table | {"temperature": 0.5}), "cold-start")
        assert set(teacher.asked.values()) == {1}
        run_stage(configured(tmp_path, cold_start=table | {"learning_rate": 1e-3}), "cold-start")
    assert set(teacher.asked.values()) == {1}


def test_other_settings_ask_the_teacher_again(
    tmp_path: Path, stopped: Callable[[TrainConfig, Any, int], None]
) -> None:
    """Settings of the training may change without that; settings of the collection may not."""
    with Teacher() as teacher:
        table = {"teacher": "endpoint", "endpoint": teacher.url, "max_steps": 4}
        stopped(configured(tmp_path, cold_start=table), "cold-start", 1)
        stopped(configured(tmp_path, cold_start=table | {"learning_rate": 1e-3}), "cold-start", 1)
        assert set(teacher.asked.values()) == {1}
        stopped(configured(tmp_path, cold_start=table | {"temperature": 0.5}), "cold-start", 1)
    assert set(teacher.asked.values()) == {2}


def test_a_difficulty_filter_samples_once(
    tmp_path: Path, stopped: Callable[[TrainConfig, Any, int], None]
) -> None:
    """Its result is saved beside the stage and counts the same time when it is read again."""
    rl = {
        "max_steps": 4,
        "groups": 2,
        "num_generations": 2,
        "max_completion_length": 8,
        "difficulty": {"low": 0, "high": 0.5, "samples": 2},
    }
    config = configured(tmp_path, rl=rl)
    stopped(config, "rl", 3)
    verdict = tmp_path / "out" / "rl" / "difficulty.json"
    before = verdict.stat()
    run_stage(config, "rl")
    after = verdict.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert card(config, "rl")["difficulty"]["kept"] == card(config, "rl")["data"]["rows"] == 8

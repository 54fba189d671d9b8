"""The callback of a stage, driven as a trainer drives it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("transformers")

from training.data.problems import DataError
from training.rl.guards import Convergence, Divergence
from training.rl.stopping import StoppingRules
from training.stages.plots import read_metrics
from training.trainer.callbacks import PROGRESS_FILE, StageCallback, StageFinished

pytestmark = pytest.mark.training


@dataclass
class Trained:
    """What became of a stage: its steps, and the accuracies at which it saved the best weights."""

    callback: StageCallback
    steps: int = 0
    best_accuracies: list[float] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)


def train(  # every evaluation gives the next accuracy, every look at the clock is a second later
    directory: Path,
    rules: StoppingRules,
    accuracies: list[float],
    *,
    max_steps: int = 20,
    rewards: Iterator[float] | None = None,
    entropy: float = 1.0,
    taught: float = 1.0,
) -> Trained:
    """Run a stage that evaluates after every second step."""
    values, now, reward_values = iter(accuracies), count(), rewards or iter(())
    last_accuracy, reports = [0.0], list[str]()

    def evaluate() -> dict[str, float]:
        last_accuracy[0] = next(values, accuracies[-1])
        return {"accuracy": last_accuracy[0]}

    callback = StageCallback(
        2,
        rules,
        evaluate,
        directory / "metrics.jsonl",
        step_metrics=lambda: {"taught": taught} | ({} if rewards is None else {"total": next(reward_values)}),
        save_best=lambda: run.best_accuracies.append(last_accuracy[0]),
        report=reports.append,
        clock=lambda: float(next(now)),
    )
    run = Trained(callback, reports=reports)
    control = SimpleNamespace(should_training_stop=False)
    state = SimpleNamespace(global_step=0, max_steps=max_steps)
    callback.on_train_begin(None, state, control)
    while state.global_step < max_steps and not control.should_training_stop:
        state.global_step += 1
        callback.on_step_end(None, state, control)
        callback.on_log(None, state, control, {"loss": 0.5, "entropy": entropy})
    run.steps = state.global_step
    return run


def test_a_stage_without_rules_makes_all_steps(tmp_path: Path) -> None:
    """It evaluates the start model first, and again after the last step."""
    run = train(tmp_path, StoppingRules(), [0.1, 0.3, 0.2], max_steps=3)
    assert (run.steps, run.callback.ending.reason) == (3, "all steps done")
    assert run.callback.progress.accuracies == [0.1, 0.3, 0.2]
    assert run.best_accuracies == [0.1, 0.3]


def test_a_target_accuracy_ends_a_stage(tmp_path: Path) -> None:
    """The stage ends at the evaluation that reaches the target, not one step later."""
    run = train(tmp_path, StoppingRules(until=0.5), [0.1, 0.3, 0.6])
    assert (run.steps, run.callback.ending.reason) == (4, "held-out accuracy reached 50%")


def test_a_time_limit_ends_a_stage_with_an_evaluation(tmp_path: Path) -> None:
    """Even if none was due at that step; evaluations cost none of the time."""
    run = train(tmp_path, StoppingRules(seconds=3.0), [0.1, 0.2, 0.3])
    assert (run.steps, run.callback.ending.reason) == (3, "3 seconds spent")
    assert run.callback.progress.accuracies == [0.1, 0.2, 0.3]


def test_the_callback_returns_the_share_of_the_time(tmp_path: Path) -> None:
    """The learning rate falls with it. Without a time limit there is none."""
    time_share = train(tmp_path, StoppingRules(seconds=8.0), [0.1], max_steps=4).callback.time_share
    assert time_share is not None
    assert time_share() == 0.5
    assert train(tmp_path, StoppingRules(), [0.1], max_steps=4).callback.time_share is None


def test_convergence_ends_a_stage(tmp_path: Path) -> None:
    """After two windows without a gain."""
    run = train(tmp_path, StoppingRules(convergence=Convergence(200, 2)), [0.5, 0.5, 0.5, 0.5])
    assert (run.steps, run.callback.ending.reason) == (6, "held-out accuracy has converged")


def test_a_fall_counts_more_than_a_time_limit(tmp_path: Path) -> None:
    """The stage has diverged even if its time is up; the saved weights are of the best evaluation."""
    rules = StoppingRules(seconds=4.0, divergence=Divergence(fall=0.1))
    run = train(tmp_path, rules, [0.5, 0.3, 0.2])
    assert run.steps == 4
    assert run.callback.ending.restore_best
    assert "fell to 20.0%" in run.callback.ending.reason
    assert run.best_accuracies == [0.5]


def test_a_reward_that_rises_while_accuracy_falls_is_reported(tmp_path: Path) -> None:
    """It ends nothing by itself: accuracy has its own guard."""
    fallen = [0.9, 0.8, 0.8, 0.8, 0.5, 0.5, 0.5]
    run = train(tmp_path, StoppingRules(), fallen, max_steps=14, rewards=(0.1 * step for step in count()))
    assert run.steps == 14
    assert any("exploiting the reward" in line for line in run.reports)
    honest_run = train(
        tmp_path, StoppingRules(), fallen[::-1], max_steps=14, rewards=(0.1 * step for step in count())
    )
    assert not any("exploiting the reward" in line for line in honest_run.reports)


@pytest.mark.parametrize(("taught", "steps"), [(1.0, 3), (0.0, 20)])
def test_a_collapsed_policy_ends_a_stage(tmp_path: Path, taught: float, steps: int) -> None:
    """Its entropy stays below the minimum. A step that taught nothing has no entropy to count."""
    rules = StoppingRules(divergence=Divergence(entropy=0.1, steps=3))
    run = train(tmp_path, rules, [0.5], entropy=0.01, taught=taught)
    assert run.steps == steps
    assert run.callback.ending.restore_best == (taught > 0)


def test_progress_comes_back_with_a_checkpoint(tmp_path: Path) -> None:
    """Accuracies, the guard's state and the time; the file is written whole."""
    run = train(tmp_path, StoppingRules(divergence=Divergence()), [0.1, 0.3, 0.2], max_steps=4)
    checkpoint = tmp_path / "checkpoint-4"
    checkpoint.mkdir()
    run.callback.on_save(SimpleNamespace(output_dir=tmp_path), SimpleNamespace(global_step=4), None)
    assert [file.name for file in checkpoint.iterdir()] == ["thinkgate.json"]
    other = StageCallback(2, StoppingRules(), dict, tmp_path / "other.jsonl")
    other.load(checkpoint)
    assert other.progress == run.callback.progress
    assert json.loads((checkpoint / "thinkgate.json").read_text())["accuracies"] == [0.1, 0.3, 0.2]


def saved(callback: StageCallback, directory: Path, step: int) -> Path:
    """Return a checkpoint of this step."""
    checkpoint = directory / f"checkpoint-{step}"
    checkpoint.mkdir()
    callback.on_save(SimpleNamespace(output_dir=directory), SimpleNamespace(global_step=step), None)
    return checkpoint


def test_a_stage_that_ended_at_its_checkpoint_takes_no_more_steps(tmp_path: Path) -> None:
    """Whether a guard ended it or all steps were done; the reason stays the same."""
    rules = StoppingRules(divergence=Divergence(fall=0.1))
    fallen = train(tmp_path, rules, [0.5, 0.3, 0.2]).callback
    other = StageCallback(2, rules, dict, tmp_path / "metrics.jsonl")
    other.load(saved(fallen, tmp_path, 4))
    assert other.ending == fallen.ending
    assert other.ending.restore_best
    with pytest.raises(StageFinished):
        other.on_train_begin(None, SimpleNamespace(global_step=4, max_steps=20), None)
    run = train(tmp_path, StoppingRules(), [0.1], max_steps=6).callback
    other.load(saved(run, tmp_path, 6))
    assert other.ending.reason == "all steps done"
    with pytest.raises(StageFinished):
        other.on_train_begin(None, SimpleNamespace(global_step=6, max_steps=6), None)
    other.on_train_begin(None, SimpleNamespace(global_step=6, max_steps=8), None)  # two more were asked for


def test_the_ending_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """Its file says `gone_wrong` where today's says `restore_best`."""
    rules = StoppingRules(divergence=Divergence(fall=0.1))
    fallen = train(tmp_path, rules, [0.5, 0.3, 0.2]).callback
    checkpoint = saved(fallen, tmp_path, 4)
    progress = checkpoint / PROGRESS_FILE
    progress.write_text(progress.read_text().replace('"restore_best"', '"gone_wrong"'))
    other = StageCallback(2, rules, dict, tmp_path / "metrics.jsonl")
    other.load(checkpoint)
    assert other.ending == fallen.ending


@pytest.mark.parametrize(
    ("before", "later"),
    [
        (StoppingRules(seconds=4.0), StoppingRules(seconds=9.0)),
        (StoppingRules(until=0.5), StoppingRules(until=0.9)),
        (StoppingRules(convergence=Convergence(200, 2)), StoppingRules()),
    ],
)
def test_todays_rules_decide_whether_a_stage_is_over(
    tmp_path: Path, before: StoppingRules, later: StoppingRules
) -> None:
    """With more time, a higher target or no rule it continues; with the same rules it is over."""
    ended = train(tmp_path, before, [0.6, 0.6, 0.6, 0.6]).callback
    checkpoint = saved(ended, tmp_path, 4)
    same, more = (StageCallback(2, rules, dict, tmp_path / "metrics.jsonl") for rules in (before, later))
    same.load(checkpoint)
    assert same.ending == ended.ending
    assert same.ending.reason != "all steps done"
    with pytest.raises(StageFinished):
        same.on_train_begin(None, SimpleNamespace(global_step=4, max_steps=20), None)
    more.load(checkpoint)
    more.on_train_begin(None, SimpleNamespace(global_step=4, max_steps=20), None)
    assert more.ending.reason == "all steps done"


@pytest.mark.parametrize("other", [("other rows", "its replies"), ("these rows", "others")])
def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path, other: tuple[str, str]) -> None:
    """Continuing from it would mix two runs; the error says what to do."""
    digests = ("these rows", "its replies")
    checkpoint = saved(
        StageCallback(2, StoppingRules(), dict, tmp_path / "metrics.jsonl", digests=digests), tmp_path, 2
    )
    StageCallback(2, StoppingRules(), dict, tmp_path / "metrics.jsonl", digests=digests).load(checkpoint)
    with pytest.raises(DataError, match=r"checkpoint-2 belongs to another run.*Remove .* to start over"):
        StageCallback(2, StoppingRules(), dict, tmp_path / "metrics.jsonl", digests=other).load(checkpoint)


def test_a_metrics_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    """A loss of power leaves such a line behind."""
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(
        '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.4}\n{"step": 3, "lo', encoding="utf-8"
    )
    callback = StageCallback(2, StoppingRules(), lambda: {"accuracy": 0.5}, metrics)
    callback.progress.accuracies = [0.5]
    callback.on_train_begin(None, SimpleNamespace(global_step=2, max_steps=4), None)
    assert [line["step"] for line in read_metrics(metrics)] == [1, 2]

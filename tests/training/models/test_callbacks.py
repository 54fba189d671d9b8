"""The watch over a stage, driven as a trainer would drive it."""

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
from training.trainer.callbacks import Over, Watch

pytestmark = pytest.mark.training


@dataclass
class Trained:
    """What came of a stage: the steps made, why it ended, at which accuracies the weights were kept."""

    watch: Watch
    steps: int = 0
    kept: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def train(  # every evaluation gives the next accuracy, every look at the clock is a second later
    directory: Path,
    rules: StoppingRules,
    accuracies: list[float],
    *,
    most: int = 20,
    rewards: Iterator[float] | None = None,
    entropy: float = 1.0,
    taught: float = 1.0,
) -> Trained:
    """A stage that evaluates after every second step."""
    given, now, worth = iter(accuracies), count(), rewards or iter(())
    latest, said = [0.0], list[str]()

    def evaluate() -> dict[str, float]:
        latest[0] = next(given, accuracies[-1])
        return {"accuracy": latest[0]}

    watch = Watch(
        2,
        rules,
        evaluate,
        directory / "metrics.jsonl",
        figures=lambda: {"taught": taught} | ({} if rewards is None else {"total": next(worth)}),
        keep=lambda: done.kept.append(latest[0]),
        report=said.append,
        clock=lambda: float(next(now)),
    )
    done = Trained(watch, said=said)
    control = SimpleNamespace(should_training_stop=False)
    state = SimpleNamespace(global_step=0, max_steps=most)
    watch.on_train_begin(None, state, control)
    while state.global_step < most and not control.should_training_stop:
        state.global_step += 1
        watch.on_step_end(None, state, control)
        watch.on_log(None, state, control, {"loss": 0.5, "entropy": entropy})
    done.steps = state.global_step
    return done


def test_all_steps_are_made_where_no_rule_ends_them(tmp_path: Path) -> None:
    """The first evaluation is of the start model, and one is made after the last step."""
    done = train(tmp_path, StoppingRules(), [0.1, 0.3, 0.2], most=3)
    assert (done.steps, done.watch.ending.reason) == (3, "all steps done")
    assert done.watch.seen.accuracies == [0.1, 0.3, 0.2]
    assert done.kept == [0.1, 0.3]


def test_until_ends_a_stage_at_the_evaluation_that_reaches_it(tmp_path: Path) -> None:
    """Not one step later."""
    done = train(tmp_path, StoppingRules(until=0.5), [0.1, 0.3, 0.6])
    assert (done.steps, done.watch.ending.reason) == (4, "held-out accuracy reached 50%")


def test_time_ends_a_stage_with_an_evaluation_of_what_it_has_become(tmp_path: Path) -> None:
    """Though none was due at that step; evaluations cost none of the time."""
    done = train(tmp_path, StoppingRules(seconds=3.0), [0.1, 0.2, 0.3])
    assert (done.steps, done.watch.ending.reason) == (3, "3 seconds spent")
    assert done.watch.seen.accuracies == [0.1, 0.2, 0.3]


def test_the_watch_tells_how_much_of_the_time_is_spent(tmp_path: Path) -> None:
    """For the rate, which falls with it; where no clock ends the stage there is nothing to tell."""
    spent = train(tmp_path, StoppingRules(seconds=8.0), [0.1], most=4).watch.spent
    assert spent is not None
    assert spent() == 0.5
    assert train(tmp_path, StoppingRules(), [0.1], most=4).watch.spent is None


def test_convergence_ends_a_stage(tmp_path: Path) -> None:
    """After two windows without a gain."""
    done = train(tmp_path, StoppingRules(convergence=Convergence(200, 2)), [0.5, 0.5, 0.5, 0.5])
    assert (done.steps, done.watch.ending.reason) == (6, "held-out accuracy has converged")


def test_a_fall_ends_a_stage_as_gone_wrong_even_when_its_time_is_up(tmp_path: Path) -> None:
    """What was kept is of the best evaluation."""
    rules = StoppingRules(seconds=4.0, divergence=Divergence(fall=0.1))
    done = train(tmp_path, rules, [0.5, 0.3, 0.2])
    assert done.steps == 4
    assert done.watch.ending.restore_best
    assert "fell to 20.0%" in done.watch.ending.reason
    assert done.kept == [0.5]


def test_a_reward_that_rises_while_accuracy_falls_is_reported(tmp_path: Path) -> None:
    """It ends nothing by itself: accuracy has its own guard."""
    fallen = [0.9, 0.8, 0.8, 0.8, 0.5, 0.5, 0.5]
    done = train(tmp_path, StoppingRules(), fallen, most=14, rewards=(0.1 * step for step in count()))
    assert done.steps == 14
    assert any("is it hacked?" in line for line in done.said)
    honest = train(tmp_path, StoppingRules(), fallen[::-1], most=14, rewards=(0.1 * step for step in count()))
    assert not any("is it hacked?" in line for line in honest.said)


@pytest.mark.parametrize(("taught", "steps"), [(1.0, 3), (0.0, 20)])
def test_a_policy_that_has_no_choice_left_ends_a_stage(tmp_path: Path, taught: float, steps: int) -> None:
    """Where entropy stays under the least; a step that taught nothing has none, and tells nothing."""
    rules = StoppingRules(divergence=Divergence(entropy=0.1, steps=3))
    done = train(tmp_path, rules, [0.5], entropy=0.01, taught=taught)
    assert done.steps == steps
    assert done.watch.ending.restore_best == (taught > 0)


def test_what_was_seen_comes_back_with_a_checkpoint(tmp_path: Path) -> None:
    """Accuracies, the guard's memory and the time; the file is written whole."""
    done = train(tmp_path, StoppingRules(divergence=Divergence()), [0.1, 0.3, 0.2], most=4)
    checkpoint = tmp_path / "checkpoint-4"
    checkpoint.mkdir()
    done.watch.on_save(SimpleNamespace(output_dir=tmp_path), SimpleNamespace(global_step=4), None)
    assert [file.name for file in checkpoint.iterdir()] == ["thinkgate.json"]
    other = Watch(2, StoppingRules(), dict, tmp_path / "other.jsonl")
    other.load(checkpoint)
    assert other.seen == done.watch.seen
    assert json.loads((checkpoint / "thinkgate.json").read_text())["accuracies"] == [0.1, 0.3, 0.2]


def saved(watch: Watch, directory: Path, step: int) -> Path:
    """A checkpoint of this step."""
    checkpoint = directory / f"checkpoint-{step}"
    checkpoint.mkdir()
    watch.on_save(SimpleNamespace(output_dir=directory), SimpleNamespace(global_step=step), None)
    return checkpoint


def test_a_stage_that_had_ended_at_its_checkpoint_takes_no_step_more(tmp_path: Path) -> None:
    """Neither where a guard had ended it nor where all steps were done; the reason is that of before."""
    rules = StoppingRules(divergence=Divergence(fall=0.1))
    fallen = train(tmp_path, rules, [0.5, 0.3, 0.2]).watch
    other = Watch(2, rules, dict, tmp_path / "metrics.jsonl")
    other.load(saved(fallen, tmp_path, 4))
    assert other.ending == fallen.ending
    assert other.ending.restore_best
    with pytest.raises(Over):
        other.on_train_begin(None, SimpleNamespace(global_step=4, max_steps=20), None)
    done = train(tmp_path, StoppingRules(), [0.1], most=6).watch
    other.load(saved(done, tmp_path, 6))
    assert other.ending.reason == "all steps done"
    with pytest.raises(Over):
        other.on_train_begin(None, SimpleNamespace(global_step=6, max_steps=6), None)
    other.on_train_begin(None, SimpleNamespace(global_step=6, max_steps=8), None)  # two more were asked for


@pytest.mark.parametrize(
    ("before", "later"),
    [
        (StoppingRules(seconds=4.0), StoppingRules(seconds=9.0)),
        (StoppingRules(until=0.5), StoppingRules(until=0.9)),
        (StoppingRules(convergence=Convergence(200, 2)), StoppingRules()),
    ],
)
def test_whether_a_stage_is_over_is_for_the_rules_that_it_has_now(
    tmp_path: Path, before: StoppingRules, later: StoppingRules
) -> None:
    """Given more time, a higher aim or no rule, it goes on; left as they were, it is over."""
    ended = train(tmp_path, before, [0.6, 0.6, 0.6, 0.6]).watch
    checkpoint = saved(ended, tmp_path, 4)
    same, more = (Watch(2, rules, dict, tmp_path / "metrics.jsonl") for rules in (before, later))
    same.load(checkpoint)
    assert same.ending == ended.ending
    assert same.ending.reason != "all steps done"
    with pytest.raises(Over):
        same.on_train_begin(None, SimpleNamespace(global_step=4, max_steps=20), None)
    more.load(checkpoint)
    more.on_train_begin(None, SimpleNamespace(global_step=4, max_steps=20), None)
    assert more.ending.reason == "all steps done"


@pytest.mark.parametrize("other", [("other rows", "its replies"), ("these rows", "others")])
def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path, other: tuple[str, str]) -> None:
    """Going on from it would mix two runs; the error says what to do."""
    bound = ("these rows", "its replies")
    checkpoint = saved(Watch(2, StoppingRules(), dict, tmp_path / "metrics.jsonl", bound=bound), tmp_path, 2)
    Watch(2, StoppingRules(), dict, tmp_path / "metrics.jsonl", bound=bound).load(checkpoint)
    with pytest.raises(DataError, match=r"checkpoint-2 was made of other data.*remove .* to begin anew"):
        Watch(2, StoppingRules(), dict, tmp_path / "metrics.jsonl", bound=other).load(checkpoint)


def test_a_line_of_metrics_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    """As a loss of power leaves one behind."""
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(
        '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.4}\n{"step": 3, "lo', encoding="utf-8"
    )
    watch = Watch(2, StoppingRules(), lambda: {"accuracy": 0.5}, metrics)
    watch.seen.accuracies = [0.5]
    watch.on_train_begin(None, SimpleNamespace(global_step=2, max_steps=4), None)
    assert [line["step"] for line in read_metrics(metrics)] == [1, 2]

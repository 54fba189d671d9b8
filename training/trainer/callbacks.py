"""The callback that evaluates a stage while it trains, applies its stopping rules, and writes the log."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from rich.progress import Progress
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from training.data.problems import DataError
from training.rl.guards import DivergenceState, RewardHacking, detect_reward_hacking
from training.rl.stopping import StageEnd, StoppingRules, after_evaluation, after_step, out_of_time
from training.trainer.process_group import SINGLE_PROCESS, ProcessGroup
from training.trainer.saved_state import from_json
from training.trainer.untyped import HFTrainer

__all__ = ["StageCallback", "StageFinished", "StageProgress", "check_checkpoint", "replace_progress_bars"]

PROGRESS_FILE = "thinkgate.json"
"""In a checkpoint's directory: the stage's progress, and digests of what the checkpoint belongs to."""


class _Arguments(Protocol):
    """What the callback reads of the trainer's configuration."""

    output_dir: str


class _State(Protocol):
    """What the callback reads of the trainer's state."""

    global_step: int
    max_steps: int


class _Control(Protocol):
    """How the callback ends the training."""

    should_training_stop: bool


@dataclass(slots=True)
class StageProgress:
    """What is saved with a checkpoint: accuracies by evaluation, the guard's state, seconds trained.

    `totals` are the mean rewards between evaluations, from the second evaluation on. `ending` is saved if
    the stage diverged at this very step. The field names are the keys of the file.
    """

    accuracies: list[float] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)
    divergence: DivergenceState = field(default_factory=DivergenceState)
    trained: float = 0.0
    ending: StageEnd | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def check_checkpoint(checkpoint: Path, digests: Sequence[str]) -> None:
    """Raise DataError if the first digests saved with a checkpoint differ from these."""
    saved = json.loads((checkpoint / PROGRESS_FILE).read_text(encoding="utf-8"))
    if list(saved.get("bound", ()))[: len(digests)] != list(digests):
        raise DataError(
            f"{checkpoint} belongs to another run (other data, model, seed or step size). "
            f"Remove {checkpoint.parent} to start over, or restore the settings it was made with."
        )


class StageFinished(Exception):
    """The stage had ended at the checkpoint that it resumed from: no step is left to train."""


class _ProgressBar(TrainerCallback):
    """A progress bar on the terminal."""

    def __init__(self) -> None:
        self._progress = Progress(transient=True)

    def on_train_begin(self, args: object, state: _State, control: object, **kwargs: object) -> None:
        """Show the bar, at the step where a resumed run continues."""
        self._task = self._progress.add_task("training", total=state.max_steps, completed=state.global_step)
        self._progress.start()

    def on_step_end(self, args: object, state: _State, control: _Control, **kwargs: object) -> None:
        """Advance by one step."""
        self._progress.update(self._task, completed=state.global_step)

    def on_train_end(self, args: object, state: _State, control: object, **kwargs: object) -> None:
        """Remove the bar from the screen."""
        self._progress.stop()


def replace_progress_bars(trainer: HFTrainer) -> None:
    """Show one bar instead of transformers' line for every step: the metrics file has the rest."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    if sys.stderr.isatty():
        trainer.add_callback(_ProgressBar())


class StageCallback(TrainerCallback):
    """Evaluates every `eval_steps` steps, logs JSON lines to `metrics_file`, and ends the stage by its rules.

    `evaluate` returns held-out accuracy and whatever else belongs in the log; `step_metrics` returns the
    metrics of the last step. `save_state` and `restore_state` handle what else must survive a restart.
    `save_best` is called when held-out accuracy is the best so far. After training, `ending` says why the
    stage ended. `report` gets a line for every evaluation, and a warning if the reward rises while accuracy
    falls. A checkpoint can be resumed from only with equal `digests`: of the settings first, then of the
    collected data.

    Each of several processes has one. `evaluate` and `save_best` are called in all of them at the same step.
    Rank 0 writes, and all end the stage at once, because the rules see the same facts in each.
    """

    def __init__(
        self,
        eval_steps: int,
        rules: StoppingRules,
        evaluate: Callable[[], Mapping[str, float]],
        metrics_file: Path,
        *,
        step_metrics: Callable[[], Mapping[str, object]] = dict,
        save_state: Callable[[], dict[str, Any]] = dict,
        restore_state: Callable[[dict[str, Any]], None] = lambda state: None,
        save_best: Callable[[], None] = lambda: None,
        report: Callable[[str], None] = print,
        clock: Callable[[], float] = time.monotonic,
        group: ProcessGroup = SINGLE_PROCESS,
        digests: Sequence[str] = (),
    ) -> None:
        self._eval_steps = eval_steps
        self._rules = rules
        self._evaluate = evaluate
        self._metrics_file = metrics_file
        self._step_metrics = step_metrics
        self._save_state = save_state
        self._restore_state = restore_state
        self._save_best = save_best
        self._report = report
        self._clock = clock
        self._group = group
        self._digests = digests
        self._last_time = 0.0
        self._rewards: list[float] = []
        self.progress = StageProgress()

    @property
    def ending(self) -> StageEnd:
        """Why the stage ended."""
        return self.progress.ending or StageEnd("all steps done")

    @property
    def time_share(self) -> Callable[[], float] | None:
        """What returns the share of the stage's time that has passed. None: no clock ends the stage."""
        seconds = self._rules.seconds
        return None if seconds is None else lambda: self.progress.trained / seconds

    def load(self, checkpoint: Path) -> None:
        """Restore what was saved with a checkpoint. Raises DataError if it belongs to another run."""
        check_checkpoint(checkpoint, self._digests)
        saved = json.loads((checkpoint / PROGRESS_FILE).read_text(encoding="utf-8"))
        del saved["bound"]
        divergence, ending = from_json(DivergenceState, saved["divergence"]), saved["ending"]
        if ending and "gone_wrong" in ending:  # the field's name in 0.1
            ending["restore_best"] = ending.pop("gone_wrong")
        parsed = {"divergence": divergence, "ending": ending and from_json(StageEnd, ending)}
        self.progress = StageProgress(**saved | parsed)
        self._restore_state(saved["extra"])
        if self.progress.ending is None:  # today's rules decide, which may have changed since
            self.progress.ending = self._ending_at_checkpoint()

    def on_train_begin(self, args: object, state: _State, control: object, **kwargs: object) -> None:
        """Evaluate the start model, unless a checkpoint holds its accuracy. Raises StageFinished."""
        if self._group.rank == 0:
            self._cut_metrics(state.global_step)
        if self.progress.ending is not None or state.global_step >= state.max_steps:
            raise StageFinished
        if not self.progress.accuracies:
            self._run_evaluation(state.global_step)
        self._last_time = self._clock()

    def on_step_end(self, args: object, state: _State, control: _Control, **kwargs: object) -> None:
        """Count the time. Evaluate if this step is due, the last one, or the one at which time is up."""
        self._count_time()
        late = out_of_time(self._rules, self.progress.trained)
        due = state.global_step % self._eval_steps == 0 or state.global_step == state.max_steps
        if late or due:
            ending = self._run_evaluation(state.global_step) or late
            self._last_time = self._clock()
            self._end(ending, control)

    def on_log(
        self, args: object, state: _State, control: _Control, logs: Mapping[str, float], **kwargs: object
    ) -> None:
        """Write one line a step, with the trainer's metrics and ours, and apply the rules to it."""
        if "loss" not in logs:
            return
        metrics = self._step_metrics()
        if isinstance(total := metrics.get("total"), float):
            self._rewards.append(total)
        self._write(
            {
                "step": state.global_step,
                "seconds": round(self.progress.trained, 2),
                **_trainer_metrics(logs),
                **metrics,
            }
        )
        entropy = logs.get("entropy") if metrics.get("taught", 1) else None  # no completion, no entropy
        self.progress.divergence, ending = after_step(
            self._rules, self.progress.divergence, float(logs["loss"]), entropy
        )
        self._end(ending, control)

    def on_save(self, args: _Arguments, state: _State, control: object, **kwargs: object) -> None:
        """Save the progress beside the checkpoint."""
        if self._group.rank != 0:
            return
        self.progress.extra = self._save_state()
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        partial = checkpoint / f"{PROGRESS_FILE}.part"  # renamed when whole: it marks a complete checkpoint
        progress = self.progress if self.ending.restore_best else replace(self.progress, ending=None)
        saved = {**asdict(progress), "bound": list(self._digests)}
        partial.write_text(json.dumps(saved), encoding="utf-8")
        partial.replace(checkpoint / PROGRESS_FILE)

    def _run_evaluation(self, step: int) -> StageEnd | None:
        """Evaluate, and return why to stop, if there is a reason."""
        metrics = dict(self._evaluate())
        accuracy = metrics["accuracy"]
        progress = self.progress
        if accuracy > max(progress.accuracies, default=-1.0):
            self._save_best()
        progress.accuracies.append(accuracy)
        self._write({"step": step, "seconds": round(progress.trained, 2), "evaluation": metrics})
        self._print(f"step {step}: held-out accuracy {accuracy:.1%}, {progress.trained:.0f} s trained")
        if self._rewards:
            progress.totals.append(fmean(self._rewards))
            self._rewards.clear()
        if detect_reward_hacking(RewardHacking(), progress.totals, progress.accuracies):
            self._print(
                f"step {step}: the reward rises while held-out accuracy falls. "
                "The policy may be exploiting the reward."
            )
        progress.divergence, ending = after_evaluation(
            self._rules, progress.divergence, progress.accuracies, step
        )
        return ending

    def _ending_at_checkpoint(self) -> StageEnd | None:
        """Return why a resumed stage is over already, if it is: by its time, or by its last evaluation."""
        rules, progress = replace(self._rules, divergence=None), self.progress
        if not progress.accuracies:
            return out_of_time(rules, progress.trained)
        _, ending = after_evaluation(rules, progress.divergence, progress.accuracies, 0)
        return ending or out_of_time(rules, progress.trained)

    def _end(self, ending: StageEnd | None, control: _Control) -> None:
        """End the stage for the first reason given; divergence replaces any other reason."""
        if ending is None:
            return
        if ending.restore_best or not control.should_training_stop:
            self.progress.ending = ending
        control.should_training_stop = True

    def _count_time(self) -> None:
        now = self._clock()
        self.progress.trained += now - self._last_time
        if self._rules.seconds is not None:  # each process has its own clock, and all must end at once
            self.progress.trained = max(self._group.gather([self.progress.trained]))
        self._last_time = now

    def _print(self, line: str) -> None:
        if self._group.rank == 0:
            self._report(line)

    def _write(self, line: Mapping[str, object]) -> None:
        if self._group.rank != 0:
            return
        with self._metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _cut_metrics(self, step: int) -> None:
        """Drop the lines of steps that a resumed run repeats, and a line that was cut off."""
        if self._metrics_file.exists():
            whole, _, _ = self._metrics_file.read_text(encoding="utf-8").rpartition("\n")
            lines = [f"{line}\n" for line in whole.splitlines()]
            earlier = [line for line in lines if json.loads(line)["step"] <= step]
            self._metrics_file.write_text("".join(earlier if step else []), encoding="utf-8")


def _trainer_metrics(logs: Mapping[str, float]) -> dict[str, float]:
    """Return those of the trainer's metrics that belong in the metrics file."""
    names = ("loss", "grad_norm", "learning_rate", "entropy", "kl", "clip_ratio/region_mean")
    return {name: float(logs[name]) for name in names if logs.get(name) is not None}

"""What watches a stage while it runs: held-out accuracy, the guards, the clock; and writes it all down."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.progress import Progress
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from training.data.problems import DataError
from training.rl.guards import DivergenceState, RewardHacking, detect_reward_hacking
from training.rl.stopping import StageEnd, StoppingRules, after_evaluation, after_step, out_of_time
from training.trainer.ranks import ALONE, Ranks
from training.trainer.states import from_json

__all__ = ["Over", "Seen", "Watch", "check_bound", "quieten"]

STATE = "thinkgate.json"


@dataclass(slots=True)
class Seen:
    """What is kept with a checkpoint: accuracies by evaluation, the guard's memory, seconds trained.

    `totals` are the mean rewards between evaluations, from the second evaluation on; `ending` is kept where
    the stage had gone wrong at this very step.
    """

    accuracies: list[float] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)
    divergence: DivergenceState = field(default_factory=DivergenceState)
    trained: float = 0.0
    ending: StageEnd | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def check_bound(checkpoint: Path, bound: Sequence[str]) -> None:
    """Raises DataError where the first digests that a checkpoint is bound to are others than these."""
    saved = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    if list(saved.get("bound", ()))[: len(bound)] != list(bound):
        raise DataError(
            f"{checkpoint} was made of other data, another model, seed or step than this run is of: "
            f"remove {checkpoint.parent} to begin anew, or go back to the settings of before"
        )


class Over(Exception):
    """A checkpoint was taken up at which the stage had ended: there is nothing left to train."""


class _Bar(TrainerCallback):
    """A progress bar where there is a terminal to show it on."""

    def __init__(self) -> None:
        self._progress = Progress(transient=True)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts it where a resumed run goes on."""
        self._task = self._progress.add_task("training", total=state.max_steps, completed=state.global_step)
        self._progress.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One step on."""
        self._progress.update(self._task, completed=state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Takes it off the screen."""
        self._progress.stop()


def quieten(trainer: Any) -> None:
    """One bar in place of transformers' line for every step: the figures are in the metrics file."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    if sys.stderr.isatty():
        trainer.add_callback(_Bar())


class Watch(TrainerCallback):
    """Evaluates every `every` steps, logs to `metrics` (JSON lines) and ends the stage by its rules.

    `evaluate` gives held-out accuracy and whatever else is to be logged. `figures` tells of the
    last step; `state` and `restore` save what else must survive a restart. `keep` is called where
    held-out accuracy is the best so far. After training, `ending` says why the stage ended; `report`
    is told of every evaluation, and where the reward rises while accuracy falls. `bound` are digests of what
    a checkpoint can't be taken up without, of the settings first, then of what the stage gathered.

    Of several processes each has one. `evaluate` and `keep` are called in all of them at the same step,
    the first one writes, and all end the stage at once: what the rules look at is the same in each.
    """

    def __init__(
        self,
        every: int,
        rules: StoppingRules,
        evaluate: Callable[[], Mapping[str, float]],
        metrics: Path,
        *,
        figures: Callable[[], Mapping[str, Any]] = dict,
        state: Callable[[], dict[str, Any]] = dict,
        restore: Callable[[dict[str, Any]], None] = lambda state: None,
        keep: Callable[[], None] = lambda: None,
        report: Callable[[str], None] = print,
        clock: Callable[[], float] = time.monotonic,
        ranks: Ranks = ALONE,
        bound: Sequence[str] = (),
    ) -> None:
        self._every = every
        self._rules = rules
        self._evaluate = evaluate
        self._metrics = metrics
        self._figures = figures
        self._state = state
        self._restore = restore
        self._keep = keep
        self._report = report
        self._clock = clock
        self._ranks = ranks
        self._bound = bound
        self._began = 0.0
        self._rewards: list[float] = []
        self.seen = Seen()

    @property
    def ending(self) -> StageEnd:
        """Why the stage ended."""
        return self.seen.ending or StageEnd("all steps done")

    @property
    def spent(self) -> Callable[[], float] | None:
        """How to tell the share of the stage's time that has gone by; None where no clock ends it."""
        seconds = self._rules.seconds
        return None if seconds is None else lambda: self.seen.trained / seconds

    def load(self, checkpoint: Path) -> None:
        """Takes up what was saved with a checkpoint. Raises DataError where it is another run's."""
        check_bound(checkpoint, self._bound)
        saved = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        del saved["bound"]
        divergence, ending = from_json(DivergenceState, saved["divergence"]), saved["ending"]
        read = {"divergence": divergence, "ending": ending and from_json(StageEnd, ending)}
        self.seen = Seen(**saved | read)
        self._restore(saved["extra"])
        if self.seen.ending is None:  # by the rules of today, which may be others than it was stopped by
            self.seen.ending = self._due()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluates the model as it starts, unless a checkpoint already tells. Raises Over."""
        if self._ranks.index == 0:
            self._cut_metrics(state.global_step)
        if self.seen.ending is not None or state.global_step >= state.max_steps:
            raise Over
        if not self.seen.accuracies:
            self._look(state.global_step)
        self._began = self._clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The clock, and every so many steps the evaluation."""
        self._count()
        late = out_of_time(self._rules, self.seen.trained)
        if late or state.global_step % self._every == 0 or state.global_step == state.max_steps:
            ending = self._look(state.global_step) or late
            self._began = self._clock()
            self._end(ending, control)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
        """One line a step: the trainer's own figures and ours."""
        if "loss" not in logs:
            return
        figures = self._figures()
        if "total" in figures:
            self._rewards.append(figures["total"])
        self._write(
            {
                "step": state.global_step,
                "seconds": round(self.seen.trained, 2),
                **_kept(logs),
                **figures,
            }
        )
        entropy = logs.get("entropy") if figures.get("taught", 1) else None  # of no reply there is none
        self.seen.divergence, ending = after_step(
            self._rules, self.seen.divergence, float(logs["loss"]), entropy
        )
        self._end(ending, control)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Puts what was seen beside the checkpoint."""
        if self._ranks.index != 0:
            return
        self.seen.extra = self._state()
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        written = checkpoint / f"{STATE}.part"  # put in place when whole: a checkpoint is known by it
        kept = self.seen if self.ending.restore_best else replace(self.seen, ending=None)
        told = {**asdict(kept), "bound": list(self._bound)}
        written.write_text(json.dumps(told), encoding="utf-8")
        written.replace(checkpoint / STATE)

    def _look(self, step: int) -> StageEnd | None:
        """Evaluates; returns why to stop, if so."""
        figures = dict(self._evaluate())
        accuracy = figures["accuracy"]
        if accuracy > max(self.seen.accuracies, default=-1.0):
            self._keep()
        self.seen.accuracies.append(accuracy)
        self._write({"step": step, "seconds": round(self.seen.trained, 2), "evaluation": figures})
        self._tell(f"step {step}: held-out accuracy {accuracy:.1%}, {self.seen.trained:.0f} s trained")
        if self._rewards:
            self.seen.totals.append(fmean(self._rewards))
            self._rewards.clear()
        if detect_reward_hacking(RewardHacking(), self.seen.totals, self.seen.accuracies):
            self._tell(f"step {step}: the reward rises while held-out accuracy falls: is it hacked?")
        self.seen.divergence, ending = after_evaluation(
            self._rules, self.seen.divergence, self.seen.accuracies, step
        )
        return ending

    def _due(self) -> StageEnd | None:
        """Why a stage that is taken up is over already, if so: its time, or its last evaluation."""
        rules = replace(self._rules, divergence=None)
        if not self.seen.accuracies:
            return out_of_time(rules, self.seen.trained)
        _, over = after_evaluation(rules, self.seen.divergence, self.seen.accuracies, 0)
        return over or out_of_time(rules, self.seen.trained)

    def _end(self, ending: StageEnd | None, control: Any) -> None:
        """Ends the stage for the first reason there is; that it has gone wrong goes before any other."""
        if ending is None:
            return
        if ending.restore_best or not control.should_training_stop:
            self.seen.ending = ending
        control.should_training_stop = True

    def _count(self) -> None:
        now = self._clock()
        self.seen.trained += now - self._began
        if self._rules.seconds is not None:  # each process has its own clock, and all must end at once
            self.seen.trained = max(self._ranks.gather([self.seen.trained]))
        self._began = now

    def _tell(self, line: str) -> None:
        if self._ranks.index == 0:
            self._report(line)

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._ranks.index != 0:
            return
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _cut_metrics(self, step: int) -> None:
        """Drops the lines of steps that a resumed run will make again, and one that was cut off."""
        if self._metrics.exists():
            whole, _, _ = self._metrics.read_text(encoding="utf-8").rpartition("\n")
            lines = [f"{line}\n" for line in whole.splitlines()]
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            self._metrics.write_text("".join(kept if step else []), encoding="utf-8")


def _kept(logs: Mapping[str, Any]) -> dict[str, float]:
    """Of the trainer's figures those that mean something here."""
    names = ("loss", "grad_norm", "learning_rate", "entropy", "kl", "clip_ratio/region_mean")
    return {name: float(logs[name]) for name in names if logs.get(name) is not None}

"""One run's directory, and what every stage needs of it: models, data, held-out questions, the run card."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Any, Self

import torch
from transformers import set_seed

from policies.chart import ChartsUnavailable
from scorers.grader.pool import LazyWorkerPool
from training.config import TrainConfig
from training.data.problems import DataError
from training.data.prompts import Prompter
from training.data.readers import fingerprint
from training.rewards import RewardContext, reward_plan
from training.stages.plots import curves, read_metrics
from training.stages.stage_data import StageData, model_before, start_model
from training.trainer.callbacks import check_bound
from training.trainer.generation import draw
from training.trainer.models import load_model, load_tokenizer, save_model
from training.trainer.processes import processes
from training.trainer.ranks import Ranks
from training.types import Problem

__all__ = ["VERIFIABLE", "Run", "Stage", "described"]

VERIFIABLE = frozenset(("checks", "correct", "tests"))
"""Rewards that one reply alone earns by rule, so that questions with them can be held out."""
_PATIENCE = 5.0  # seconds for an answer: on a machine that trains, what serving gives may be too short
_PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "thinkgate")


@dataclass(frozen=True)
class Run:
    """A configuration and its directory, in which each stage has a folder of its own.

    `pool` are the grader's workers, for all that is verified in it; used with `with`, a run ends them.
    """

    config: TrainConfig
    directory: Path = field(init=False)
    pool: LazyWorkerPool = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pool", LazyWorkerPool(seconds=_PATIENCE))
        object.__setattr__(self, "directory", self.config.output)
        if self.config.threads is not None:
            torch.set_num_threads(self.config.threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pool.close()

    def stage(self, name: str) -> Stage:
        """The stage's own folder and table; its random numbers begin from the run's seed and its name."""
        stage = Stage(self, name)
        set_seed(stage.seed)
        stage.directory.mkdir(parents=True, exist_ok=True)
        return stage

    def start_model(self) -> Path | None:
        """What the run starts from: the model of the stage `base`; None: the configuration's own."""
        return start_model(self.config)

    def model_before(self, name: str) -> Path | None:
        """The model of the last stage before this one that is done; None: the run's start model."""
        return model_before(self.config, name)


@dataclass(frozen=True)
class Stage:
    """One stage of a run."""

    run: Run
    name: str

    @property
    def config(self) -> TrainConfig:
        """The run's configuration."""
        return self.run.config

    @property
    def data(self) -> StageData:
        """Its settings and rows, which need no model."""
        return StageData(self.config, self.name)

    @property
    def table(self) -> Any:
        """The stage's own settings."""
        return self.data.table

    @property
    def directory(self) -> Path:
        """Where the stage writes."""
        return self.run.directory / self.name

    @property
    def seed(self) -> int:
        """The stage's seed, a positive 31-bit number."""
        return self.data.seed

    @property
    def ranks(self) -> Ranks:
        """The processes that run the stage together."""
        return processes()

    def report(self, line: str) -> None:
        """Says a line about the stage, once for all processes."""
        if self.ranks.index == 0:
            print(f"{self.name}: {line}", flush=True)

    @property
    def clock(self) -> Callable[[], float]:
        """What time is counted by: on CPUs this process's own, which other work doesn't bend."""
        return time.monotonic if torch.cuda.is_available() else time.process_time

    def load(self, start: Path | None) -> tuple[Any, Any, Prompter]:
        """(model, tokenizer, prompter) from an earlier stage's directory, or from the start model."""
        source = self.config.model
        if start is not None:
            adapter = (start / "adapter_config.json").exists()
            source = source.model_copy(update={"adapter": start} if adapter else {"path": str(start)})
        try:
            tokenizer, model = load_tokenizer(source), load_model(source)
        except (OSError, ValueError) as error:  # what the library raises for places and for files
            raise DataError(f"the model {source.path!r} can't be loaded: {error}") from error
        ends = model.generation_config.eos_token_id
        ends = () if ends is None else (ends,) if isinstance(ends, int) else tuple(ends)
        return model, tokenizer, Prompter(tokenizer, self.config.family, self.config.budgets, ends)

    def held_out(self) -> list[Problem]:
        """The questions that no stage trains on."""
        return self.data.held_out()

    def rows(self, count: int) -> list[Problem]:
        """Training rows, none of which overlaps with one that is kept apart."""
        return self.data.rows(count)

    def general(self, count: int) -> list[Problem]:
        """General rows, none of which overlaps with one that is kept apart."""
        return self.data.general(count)

    def accuracy(self, model: Any, prompter: Prompter, rows: Sequence[Problem]) -> dict[str, float]:
        """Greedy on held-out questions: the share right, thinking tokens, the share that ended.

        Right is what the question's own reward gives 1. Raises DataError where none can verify it.
        """
        held = self.config.held_out
        if unknown := sorted({row.reward for row in rows} - VERIFIABLE):
            raise DataError(f"held-out questions must be verifiable; the reward {unknown[0]!r} is not")
        setting = RewardContext(markup=self.config.family.markup, pool=self.run.pool)
        plan = reward_plan(setting, {row.reward for row in rows}, {})
        prompts = [prompter.prompt(row, held.budget) for row in rows]
        drawn = draw(model, prompter, prompts, temperature=0, max_tokens=held.max_tokens)
        replies = [each[0] for each in drawn]
        return {
            "accuracy": fmean(
                plan.judge(row, [reply]).main == (1.0,) for row, reply in zip(rows, replies, strict=True)
            ),
            "thinking": fmean(c.thought for c in replies),
            "finished": fmean(c.finished for c in replies),
        }

    def last_checkpoint(self, bound: str) -> Path | None:
        """The newest checkpoint that was written to its end. Raises DataError where it is another run's."""
        found = sorted(
            self.directory.glob("checkpoint-*/thinkgate.json"),
            key=lambda path: int(path.parent.name.partition("-")[2]),
        )
        if not found:
            return None
        check_bound(found[-1].parent, (bound,))
        return found[-1].parent

    def finish(self, model: Any, tokenizer: Any, data: Mapping[str, Any], told: Mapping[str, Any]) -> Path:
        """Saves the model and, last of all, the card, whose being there says that the stage is done.

        `data` tells what it was trained on, see `described`. All processes must call this, and go on together
        when the card is there.
        """
        save_model(model, tokenizer, self.directory / "model")
        if self.ranks.index == 0:
            self._write_card(model, tokenizer, data, told)
        self.ranks.wait()
        return self.directory / "model"

    def _write_card(
        self, model: Any, tokenizer: Any, data: Mapping[str, Any], told: Mapping[str, Any]
    ) -> None:
        card = {
            "run": self.config.name,
            "stage": self.name,
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {model.device.type}",
            "processes": self.ranks.count,
            "versions": {name: _version(name) for name in _PACKAGES},
            "data": data,
            "held_out": described(self.held_out()),
            "template_sha256": hashlib.sha256((tokenizer.chat_template or "").encode()).hexdigest(),
            **told,
            "config": json.loads(self.config.model_dump_json(by_alias=True)),
        }
        try:
            plot = curves(read_metrics(self.directory / "metrics.jsonl"), f"{self.config.name}: {self.name}")
            (self.directory / "curves.svg").write_text(plot, encoding="utf-8")
        except ChartsUnavailable as error:
            print(f"{self.name}: no curves are drawn: {error}", flush=True)
        (self.directory / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def described(rows: Sequence[Problem]) -> dict[str, Any]:
    """Rows as a card tells of them: how many, and their fingerprint."""
    return {"rows": len(rows), "sha256": fingerprint(rows)}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"

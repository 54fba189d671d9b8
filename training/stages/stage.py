"""A run's directory, and what every stage needs: models, data, held-out questions, the run card."""

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
from typing import Generic, NamedTuple, Self

import torch
from transformers import set_seed

from scorers.grader.pool import LazyWorkerPool
from training.config import TrainConfig
from training.data.problems import DataError
from training.data.prompts import Prompter
from training.data.readers import fingerprint
from training.rewards import RewardContext, reward_plan
from training.stages.plots import curves, read_metrics
from training.stages.reward_context import check_reward_names
from training.stages.stage_data import StageData, Table_co, model_before, start_model
from training.trainer.callbacks import PROGRESS_FILE, check_checkpoint
from training.trainer.distributed import process_group
from training.trainer.generation import sample_completions
from training.trainer.models import load_model, load_tokenizer, save_model
from training.trainer.process_group import ProcessGroup
from training.trainer.trl_settings import check_trl_tables
from training.trainer.untyped import HFTokenizer, Model
from training.types import Problem

__all__ = ["VERIFIABLE", "LoadedModel", "Run", "Stage", "describe_problems"]

VERIFIABLE = frozenset(("checks", "correct", "tests"))
"""Rewards that a reply earns by rule and by itself, so that problems with them can be held out."""
_GRADER_SECONDS = 5.0  # a machine that trains may be too slow for the limit that serving gives an answer
_PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "thinkgate")


class LoadedModel(NamedTuple):
    """A model, its tokenizer, and what renders problems for it."""

    model: Model
    tokenizer: HFTokenizer
    prompter: Prompter


@dataclass(frozen=True)
class Run:
    """A configuration and its directory, in which each stage has a folder of its own.

    `pool` are the grader's workers, which verify for all stages; leaving the context stops them. Raises
    ConfigError for reward names and TRL settings that don't exist.
    """

    config: TrainConfig
    directory: Path = field(init=False)
    pool: LazyWorkerPool = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_reward_names(self.config)
        check_trl_tables(self.config)
        object.__setattr__(self, "pool", LazyWorkerPool(seconds=_GRADER_SECONDS))
        object.__setattr__(self, "directory", self.config.output)
        if self.config.threads is not None:
            torch.set_num_threads(self.config.threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pool.close()

    def stage(self, name: str, table: Table_co) -> Stage[Table_co]:  # type: ignore[misc]
        """Return the stage with these settings. Its random numbers begin from the run's seed and its name."""
        stage = Stage(self, name, table)
        set_seed(stage.seed)
        stage.directory.mkdir(parents=True, exist_ok=True)
        return stage

    def start_model(self) -> Path | None:
        """Return what the run starts from: the model of the stage `base`. None: the configuration's own."""
        return start_model(self.config)

    def model_before(self, name: str) -> Path | None:
        """Return the model of the last finished stage before this one. None: the run's start model."""
        return model_before(self.config, name)


@dataclass(frozen=True)
class Stage(Generic[Table_co]):
    """One stage of a run, with its settings."""

    run: Run
    name: str
    table: Table_co

    @property
    def config(self) -> TrainConfig:
        """The run's configuration."""
        return self.run.config

    @property
    def data(self) -> StageData[Table_co]:
        """The stage's problems, which need no model."""
        return StageData(self.config, self.name, self.table)

    @property
    def directory(self) -> Path:
        """Where the stage writes."""
        return self.run.directory / self.name

    @property
    def seed(self) -> int:
        """The stage's seed, a positive 31-bit number."""
        return self.data.seed

    @property
    def group(self) -> ProcessGroup:
        """The processes that run the stage together."""
        return process_group()

    @property
    def clock(self) -> Callable[[], float]:
        """The clock of the stage: on CPUs this process's own time, which other work doesn't bend."""
        return time.monotonic if torch.cuda.is_available() else time.process_time

    @property
    def card(self) -> Path:
        """The run card, which exists only after the stage has finished."""
        return self.directory / "card.json"

    def report(self, line: str) -> None:
        """Print a line about the stage, once for all processes."""
        if self.group.rank == 0:
            print(f"{self.name}: {line}", flush=True)

    def load(self, start: Path | None) -> LoadedModel:
        """Load the model in an earlier stage's directory, or the start model. Raises DataError."""
        source = self.config.model
        if start is not None:
            adapter = (start / "adapter_config.json").exists()
            source = source.model_copy(update={"adapter": start} if adapter else {"path": str(start)})
        try:
            tokenizer, model = load_tokenizer(source), load_model(source)
        except (OSError, ValueError) as error:  # what the library raises for locations and for files
            raise DataError(f"the model {source.path!r} can't be loaded: {error}") from error
        stop_ids = model.generation_config.eos_token_id
        stop_ids = () if stop_ids is None else (stop_ids,) if isinstance(stop_ids, int) else tuple(stop_ids)
        prompter = Prompter(tokenizer, self.config.family, self.config.budgets, stop_ids)
        return LoadedModel(model, tokenizer, prompter)

    def held_out(self) -> list[Problem]:
        """Return the questions that no stage trains on."""
        return self.data.held_out()

    def problems(self, count: int) -> list[Problem]:
        """Return training problems that overlap with no excluded one."""
        return self.data.problems(count)

    def general_problems(self, count: int) -> list[Problem]:
        """Return general problems that overlap with no excluded one."""
        return self.data.general_problems(count)

    def evaluate(self, model: Model, prompter: Prompter, problems: Sequence[Problem]) -> dict[str, float]:
        """Answer held-out questions greedily; return the shares correct and finished, and thinking tokens.

        A reply is correct if its problem's own reward is 1. Raises DataError if a reward can't verify.
        """
        held_out = self.config.held_out
        if unknown := sorted({problem.reward for problem in problems} - VERIFIABLE):
            raise DataError(f"held-out questions must be verifiable; the reward {unknown[0]!r} is not")
        context = RewardContext(markup=self.config.family.markup, pool=self.run.pool)
        plan = reward_plan(context, {problem.reward for problem in problems}, {})
        prompts = [prompter.prompt(problem, held_out.budget) for problem in problems]
        samples = sample_completions(model, prompter, prompts, temperature=0, max_tokens=held_out.max_tokens)
        replies = [completions[0] for completions in samples]
        return {
            "accuracy": fmean(
                plan.judge(problem, [reply]).main == (1.0,)
                for problem, reply in zip(problems, replies, strict=True)
            ),
            "thinking": fmean(reply.thinking_tokens for reply in replies),
            "finished": fmean(reply.finished for reply in replies),
        }

    def last_checkpoint(self, digest: str) -> Path | None:
        """Return the newest complete checkpoint. Raises DataError if it belongs to another run."""
        checkpoints = sorted(
            self.directory.glob(f"checkpoint-*/{PROGRESS_FILE}"),
            key=lambda path: int(path.parent.name.partition("-")[2]),
        )
        if not checkpoints:
            return None
        check_checkpoint(checkpoints[-1].parent, (digest,))
        return checkpoints[-1].parent

    def finish(
        self, model: Model, tokenizer: HFTokenizer, data: Mapping[str, object], results: Mapping[str, object]
    ) -> Path:
        """Save the model and, last, the run card, which marks the stage as finished.

        `data` describes the training problems, see `describe_problems`. All processes must call this; they
        continue together when the card exists.
        """
        save_model(model, tokenizer, self.directory / "model")
        if self.group.rank == 0:
            self._write_card(model, tokenizer, data, results)
        self.group.wait()
        return self.directory / "model"

    def _write_card(
        self, model: Model, tokenizer: HFTokenizer, data: Mapping[str, object], results: Mapping[str, object]
    ) -> None:
        card = {
            "run": self.config.name,
            "stage": self.name,
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {model.device.type}",
            "processes": self.group.world_size,
            "versions": {name: _version(name) for name in _PACKAGES},
            "data": data,
            "held_out": describe_problems(self.held_out()),
            "template_sha256": hashlib.sha256((tokenizer.chat_template or "").encode()).hexdigest(),
            **results,
            "config": json.loads(self.config.model_dump_json(by_alias=True)),
        }
        plot = curves(read_metrics(self.directory / "metrics.jsonl"), f"{self.config.name}: {self.name}")
        (self.directory / "curves.svg").write_text(plot, encoding="utf-8")
        self.card.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def describe_problems(problems: Sequence[Problem]) -> dict[str, object]:
    """Return the number and the fingerprint of problems, for a run card."""
    return {"rows": len(problems), "sha256": fingerprint(problems)}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"

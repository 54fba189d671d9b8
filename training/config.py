"""The settings of a training run: one TOML file, validated before anything is loaded.

The stages share `[model]`, `[data]`, `[levels]` and `[held_out]`. Each stage has a table of its own, and
`pipeline` says which stages run, in which order. Settings that TRL has too go by TRL's names.
docs/reference/training-settings.md explains every setting and names its source paper.
"""

from __future__ import annotations

import tomllib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
    model_validator,
)

from policies.families import FAMILIES, Family, find_family
from policies.prompts import LEVELS, Level

__all__ = [
    "NO_BUDGET",
    "STAGES",
    "TRIES",
    "ClassifierTable",
    "ConfigError",
    "Difficulty",
    "JudgeTable",
    "LevelTable",
    "Lora",
    "Miss",
    "ModelSource",
    "OldSettingName",
    "RlTable",
    "ScorerTable",
    "SftTable",
    "Source",
    "StageEntry",
    "StageTable",
    "TrainConfig",
    "Try",
    "parse_config",
    "read_config",
]

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Weights = dict[str, Annotated[float, Field(ge=0)]]
Try = Literal["generative", "classifier", "backbone", "negatives", "steps"]
Miss = Literal["digit", "length", "sign"]
"""How a wrong answer differs: in one digit, by one digit too many or too few, or in its sign."""
TRIES: tuple[Try, ...] = ("generative", "classifier", "backbone", "negatives", "steps")
NO_BUDGET = "none"
"""The name that stands for a prompt without a budget, where levels have weights."""


class ConfigError(Exception):
    """The settings can't be used. The message names each field and the allowed values."""


class OldSettingName(FutureWarning):
    """A setting goes by an old name, which the next major version refuses."""


class _Table(BaseModel):
    """One table of the file. `old_names` maps each earlier name of a setting to its name of today."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    old_names: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _accept_old_names(cls, values: Any, info: ValidationInfo) -> Any:
        """Rename settings that go by old names. `read_config` collects the names; else each table warns."""
        if not isinstance(values, Mapping):
            return values
        used = {old: new for old, new in cls.old_names.items() if old in values}
        for old, new in used.items():
            if new in values:
                raise ValueError(f"{old} is the old name of {new}: give {new} alone")
        if not used:
            return values
        if isinstance(info.context, set):
            info.context.update(used.items())
        else:
            _warn_of_old_names(used.items())
        renamed = {used[name]: cls._old_value(name, values) for name in used}
        return {name: value for name, value in values.items() if name not in used} | renamed

    @classmethod
    def _old_value(cls, old: str, values: Mapping[str, Any]) -> Any:
        """Return what the setting of an old name means today."""
        return values[old]

    def by_first_names(self) -> dict[str, Any]:
        """Return the settings as JSON values by their first names, which fingerprints of old runs hold."""
        first = {new: old for old, new in self.old_names.items()}
        return {first.get(name, name): value for name, value in self.model_dump(mode="json").items()}


def _warn_of_old_names(names: Iterable[tuple[str, str]], place: str = "") -> None:
    pairs = ", ".join(f"{old} is {new} now" for old, new in sorted(names))
    message = f"{place}old names of settings, accepted until 1.0: {pairs}"
    warnings.warn(message, OldSettingName, stacklevel=3)


class Lora(_Table):
    """A low-rank adapter on all linear layers (LoRA, arXiv:2106.09685)."""

    rank: Positive = 16
    alpha: Positive = 32


class ModelSource(_Table):
    """Where a model comes from: a directory or a GGUF file, with an adapter's directory or a fresh adapter.

    In a run with the stage `base` the path is only a name, since that stage builds the model.
    """

    path: str
    adapter: Path | None = None
    lora: Lora | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    family: str | None = None
    """The model family (see docs/reference/families.md). None: found by the path's name."""


class LevelTable(_Table):
    """A budget level of this model, where it differs from the gateway's defaults."""

    tokens: NotNegative | None = None
    prompt: str | None = None


class Source(_Table):
    """One data source. `kind` names it (see `training.data.sources`); `weight` is its share of the draws."""

    kind: str
    count: Positive | None = None
    weight: Annotated[float, Field(gt=0)] = 1.0
    seed: int = 0
    task: str | None = None
    """gym: the task and its options, as "chain_sum:max_terms=4"."""
    path: Path | None = None
    """jsonl, recorded: the file."""
    unlabelled: bool = False
    """recorded: also questions without feedback, whose majority stands for the answer (TTRL)."""
    ratings: bool = False
    """recorded: only rated questions, from whose ratings the preference model learns."""
    name: str | None = None
    """hub: the data set. `subset`, `split`, `columns` and `fixed` are explained in `training.data.hub`."""
    subset: str | None = None
    split: str = "train"
    columns: dict[str, str] | None = None
    fixed: dict[str, Any] | None = None
    digits: Positive = 3
    """additions: how long the numbers are."""


class HeldOut(_Table):
    """Questions that are never trained on. They are asked at `budget` after every `eval_steps` steps."""

    old_names: ClassVar = {"apart": "other_runs"}

    sources: tuple[Source, ...]
    count: Positive = 200
    budget: str = "high"
    max_tokens: Positive = 256
    other_runs: tuple[Path, ...] = ()
    """Files of other runs, relative to this one's directory. Their held-out questions are kept out too."""


class _StageTable(_Table):
    """The settings that all stages share. TRL's names stand for TRL's meanings."""

    old_names: ClassVar[Mapping[str, str]] = {
        "steps": "max_steps",
        "rate": "learning_rate",
        "warmup": "warmup_steps",
        "decay": "lr_scheduler_type",
        "every": "eval_steps",
        "save_every": "save_steps",
        "seconds": "max_seconds",
        "rows": "problems",
    }

    max_steps: Positive
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    warmup_steps: NotNegative = 10
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "constant"
    eval_steps: Positive = 25
    """Steps between evaluations."""
    save_steps: Positive = 25
    """Steps between checkpoints."""
    budgets: Weights = {NO_BUDGET: 1.0}
    """Levels by weight at which problems are asked; "none" is without a budget."""
    general: Share = 0.0
    """The share of general problems among all training problems."""
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    """Time after which the stage ends, for comparisons at equal cost. On a CPU it is processor time.

    The learning rate then decays over this time, or over the steps if they end sooner.
    """
    trl: dict[str, Any] = {}
    """Further settings of TRL's own configuration class (see `training.trainer.trl_settings`)."""


class SftTable(_StageTable):
    """Supervised fine-tuning on replies of a teacher (`cold-start`) or of the policy (`rejection`)."""

    old_names: ClassVar = {
        **_StageTable.old_names,
        "may_fail": "max_failure_rate",
        "until": "target_accuracy",
    }

    batch: Positive = 32
    """Sequences a step, over all processes. TRL's `per_device_train_batch_size` counts those of one."""
    teacher: Literal["worked", "policy", "endpoint"] = "worked"
    """Who writes the replies: worked chains of the data, the stage before, or an OpenAI-compatible API."""
    endpoint: str | None = None
    endpoint_model: str | None = None
    max_failure_rate: Share = 0.05
    """The share of questions that the endpoint may leave unanswered. Beyond it the stage stops."""
    problems: Positive = 2000
    """Problems to collect replies to."""
    samples: Positive = 1
    """Replies sampled for each problem. The best by verifier (or scorer) are imitated."""
    keep: Positive = 1
    """The largest number of replies imitated for each problem."""
    scorer: Path | None = None
    """A trained scorer's directory. It ranks the right replies; without it the shortest come first."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    max_tokens: Positive = 256
    target_accuracy: Share | None = None
    """Held-out accuracy at which the stage ends. None: it ends after its steps."""
    fresh: bool = False
    """Start from the run's start model instead of the stage before (R1's rejection stage does)."""

    @model_validator(mode="after")
    def _check_endpoint(self) -> SftTable:
        if (self.teacher == "endpoint") != (self.endpoint is not None):
            raise ValueError("teacher = 'endpoint' and endpoint = URL go together")
        return self


class Difficulty(_Table):
    """The offline filter: keep questions that the start policy solves at a rate in [low, high]."""

    low: Share = 0.2
    high: Share = 0.8
    samples: Positive = 8


class JudgeTable(_Table):
    """A model behind an OpenAI-compatible endpoint that grades by rubric; `url` ends in /v1."""

    old_names: ClassVar = {"effort": "budget"}

    url: str
    model: str
    budget: str | None = None
    """The reasoning budget that the judge is asked with."""


def _scale_name(value: Any) -> Any:
    """Read TRL's true and false as "group" and "none"."""
    return {True: "group", False: "none"}[value] if isinstance(value, bool) else value


class RlTable(_StageTable):
    """GRPO with verifiable rewards."""

    old_names: ClassVar = {
        **_StageTable.old_names,
        "batch": "per_device_train_batch_size",
        "samples": "num_generations",
        "updates": "num_iterations",
        "kl": "beta",
        "loss": "loss_type",
        "clip": "epsilon",
        "clip_high": "epsilon_high",
        "normalise": "scale_rewards",
        "leave_out_unfinished": "mask_truncated_completions",
        "length": "max_completion_length",
        "length_most": "final_completion_length",
        "converged": "convergence_window",
        "fall": "max_accuracy_drop",
        "entropy": "min_entropy",
        "best": "load_best_model_at_end",
        "vllm": "vllm_server_base_url",
    }

    per_device_train_batch_size: Positive = 32
    """Completions of one forward pass in one process. A step has groups * num_generations of them."""
    problems: Positive = 4000
    """Problems to draw from."""
    groups: Positive = 8
    """Problems of a step, each sampled `num_generations` times, over all processes."""
    num_generations: Annotated[int, Field(ge=2)] = 8
    num_iterations: Positive = 1
    """Optimizer steps on each batch of completions."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    beta: Annotated[float, Field(ge=0)] = 0.0
    loss_type: Literal["grpo", "dapo", "dr_grpo", "bnpo", "cispo"] = "dapo"
    epsilon: Annotated[float, Field(gt=0)] = 0.2
    epsilon_high: Annotated[float, Field(gt=0)] | None = None
    """As in TRL: how far a ratio may rise above 1; with "cispo" the largest ratio. None: 0.28, or 1.28."""
    scale_rewards: Annotated[Literal["group", "batch", "none", "magistral"], BeforeValidator(_scale_name)] = (
        "group"
    )
    rounds: Annotated[int, Field(ge=1, le=3)] = 1
    """Rounds of dynamic sampling; 1 turns it off."""
    difficulty: Difficulty | None = None
    rewards: Weights = {"format": 0.1}
    """Shaping rewards by weight, added to each problem's own reward."""
    overlong_cache: Positive = 256
    """Tokens before the length limit over which `overlong` grows, at most a quarter of the limit."""
    budget_slack: Annotated[float, Field(gt=0)] = 0.25
    """The excess over a level's thinking limit, as a part of it, at which `budget` reaches -1."""
    min_share: Share = 0.5
    """The share of its group that a majority needs, for problems whose reward is "majority"."""
    judge: JudgeTable | None = None
    """For problems whose reward is "rubric". The key in the environment's THINKGATE_KEY is sent along."""
    mask_truncated_completions: bool = False
    max_completion_length: Positive = 256
    final_completion_length: Positive | None = None
    """The length limit grows from `max_completion_length` to this. None: it stays."""
    convergence_window: NotNegative = 4
    """Evaluations in a window of the convergence rule (see `training.rl.guards`). 0: all steps are made."""
    max_accuracy_drop: Share = 0.1
    """Drop of held-out accuracy at which the stage ends and restores its best checkpoint."""
    min_entropy: Annotated[float, Field(ge=0)] = 0.0
    """Nats a token. A policy below it for 20 steps has collapsed, and the stage ends likewise. 0: never."""
    load_best_model_at_end: bool = False
    """End with the weights of the best evaluation, the first included, if the last one is worse."""
    vllm_server_base_url: str | None = None
    """Address of TRL's vLLM server, which then samples. None: the training processes do."""

    @property
    def epsilon_above(self) -> float:
        """How far a ratio may rise above 1, whatever the loss."""
        if self.epsilon_high is None:
            return 0.28
        return round(self.epsilon_high - 1, 12) if self.loss_type == "cispo" else self.epsilon_high

    @classmethod
    def _old_value(cls, old: str, values: Mapping[str, Any]) -> Any:
        """Return the value; `clip_high` was the distance above 1 for every loss, unlike `epsilon_high`."""
        value = values[old]
        loss_type = values.get("loss_type", values.get("loss"))
        if old == "clip_high" and loss_type == "cispo" and isinstance(value, int | float):
            return 1 + value
        return value

    @model_validator(mode="after")
    def _check_consistency(self) -> RlTable:
        completions = self.groups * self.num_generations
        if completions % min(self.per_device_train_batch_size, completions):
            raise ValueError(
                f"groups * num_generations ({completions}) must be a multiple of "
                f"per_device_train_batch_size ({self.per_device_train_batch_size})"
            )
        final = self.final_completion_length
        if final is not None and final < self.max_completion_length:
            raise ValueError(
                f"final_completion_length ({final}) must not be under "
                f"max_completion_length ({self.max_completion_length})"
            )
        if self.save_steps % self.num_iterations:
            raise ValueError(
                f"save_steps must be a multiple of num_iterations ({self.num_iterations}): "
                "a checkpoint holds no completions"
            )
        if self.loss_type == "cispo" and self.epsilon_above <= 0:
            raise ValueError(
                f"epsilon_high ({self.epsilon_high}) is the largest ratio itself where loss_type = 'cispo', "
                "as in TRL, and must be above 1: 1.28, say"
            )
        return self


class ClassifierTable(_Table):
    """A scorer's classifier: cross-entropy on verified samples, with AdamW and a cosine schedule."""

    old_names: ClassVar = {
        "steps": "max_steps",
        "rate": "learning_rate",
        "warmup": "warmup_steps",
        "decay": "weight_decay",
        "every": "eval_steps",
    }

    max_steps: Positive = 400
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    warmup_steps: Positive = 20
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    batch: Positive = 32
    eval_steps: Positive = 50
    """Steps between measurements of the validation loss. The weights with the lowest loss win."""


class ScorerTable(_Table):
    """`thinkgate train scorer`: ways to make a scorer, tried in order until one passes its gate."""

    old_names: ClassVar = {
        "every_try": "all_tries",
        "auc": "min_auc",
        "error": "max_calibration_error",
    }

    policy: str | None = None
    """The stage, or the model's directory, that samples come from. None: the last stage done."""
    tries: tuple[Try, ...] = TRIES
    all_tries: bool = False
    """Make all tries, also after one passed, to compare them."""
    problems: Positive = 500
    """Problems to learn from; `validation` more calibrate. The gate asks the run's held-out ones."""
    validation: Positive = 100
    samples: Annotated[int, Field(ge=2)] = 16
    budgets: Weights = {NO_BUDGET: 1.0}
    """Levels by weight at which the training samples are drawn; all others use `held_out.budget`."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    min_auc: Share = 0.75
    """The lowest AUC within problems that passes."""
    max_calibration_error: Share = 0.1
    """The highest calibration error that passes."""
    backbone: str | None = None
    """The stronger backbone's directory. None: the generative judge's weights."""
    classifier: ClassifierTable = ClassifierTable()
    question: str = "{question} Is it {answer}?"
    """How the generative judge is asked about a reply. It thinks at `held_out.budget`."""
    rounds: Positive = 1
    """How often the judge is asked about each reply: once at temperature 0, more often at 1."""
    start: str | None = None
    """The directory of the model that the generative judge starts from. None: the policy."""
    misses: Annotated[tuple[Miss, ...], Field(min_length=1)] = ("digit",)
    """How wrong answers made by rule differ from the right ones (see `training.scorer.judge_problems`)."""
    checks: SftTable | None = None
    """The judge's fine-tuning on checks made by rule, and without `judge` also on the policy's replies."""
    judge: RlTable | None = None
    """The judge's GRPO on checks of the policy's own replies. None: fine-tuning alone."""

    @model_validator(mode="after")
    def _check_tries(self) -> ScorerTable:
        if "generative" in self.tries and self.checks is None:
            raise ValueError("the generative try needs a table [scorer.checks]")
        if {"backbone", "negatives", "steps"} & set(self.tries) and not (self.backbone or self.checks):
            raise ValueError("the stronger backbone needs backbone = DIRECTORY or the generative try")
        return self


StageTable = SftTable | RlTable


class StageEntry(NamedTuple):
    """A stage: the module with its `run(stage)`, and the type of its table in the settings."""

    module: str
    table: type[StageTable]


STAGES: Mapping[str, StageEntry] = {
    "base": StageEntry("training.stages.base", SftTable),
    "zero": StageEntry("training.stages.zero", RlTable),
    "cold-start": StageEntry("training.stages.cold_start", SftTable),
    "rl": StageEntry("training.stages.rl", RlTable),
    "rejection": StageEntry("training.stages.rejection", SftTable),
    "mixed": StageEntry("training.stages.mixed", RlTable),
}
"""All stages in the order in which a pipeline runs them. To add one: its module, and a line here.

Module paths instead of imports, because settings are read without torch.
"""


def _known_stage(name: str) -> str:
    if name not in STAGES:
        raise ValueError(f"{name!r} is no stage; there are {', '.join(STAGES)}")
    return name


class TrainConfig(_Table):
    """One run. `parse_config` makes it, with a field for the table of each stage in `STAGES`."""

    name: str
    output: Path
    seed: int = 0
    threads: Positive | None = None
    model: ModelSource
    levels: dict[str, LevelTable] = {}
    data: tuple[Source, ...]
    general: tuple[Source, ...] = ()
    held_out: HeldOut
    pipeline: tuple[Annotated[str, AfterValidator(_known_stage)], ...] = tuple(STAGES)
    scorer: ScorerTable | None = None

    @property
    def family(self) -> Family:
        """The model's family, which decides how budgets are asked for."""
        return find_family(self.model.path, explicit=self.model.family)

    @property
    def budgets(self) -> Mapping[str, Level]:
        """The levels with this model's own tokens and prompts."""
        own = {name: table.model_dump(exclude_none=True) for name, table in self.levels.items()}
        return {name: replace(level, **own.get(name, {})) for name, level in LEVELS.items()}

    def table(self, stage: str) -> StageTable:
        """Return a stage's settings. Raises ValueError if the file has none."""
        table: StageTable | None = getattr(self, _field_name(stage), None)
        if table is None:
            raise ValueError(f"there is no table [{stage}]")
        return table

    def tables(self) -> Iterator[tuple[str, StageTable]]:
        """Yield every table that a trainer reads, the scorer's included, by its heading in the file."""
        for stage in STAGES:
            table: StageTable | None = getattr(self, _field_name(stage), None)
            if table is not None:
                yield stage, table
        if self.scorer is not None:
            judges = {"scorer.checks": self.scorer.checks, "scorer.judge": self.scorer.judge}
            yield from ((heading, table) for heading, table in judges.items() if table is not None)

    @model_validator(mode="after")
    def _check_consistency(self) -> TrainConfig:
        if self.model.family and self.model.family not in {family.name for family in FAMILIES}:
            raise ValueError(
                f"model.family: {self.model.family!r} is no family; see docs/reference/families.md"
            )
        for name in self.levels:
            if name not in LEVELS:
                raise ValueError(f"levels: {name!r} is no level; there are {', '.join(LEVELS)}")
        if self.held_out.budget not in LEVELS:
            raise ValueError(
                f"held_out.budget: {self.held_out.budget!r} is no level; there are {', '.join(LEVELS)}"
            )
        for stage in self.pipeline:
            self.table(stage)
        for stage, table in self.tables():
            if stage in STAGES:
                self._check_stage(stage, table)
        return self

    def _check_stage(self, stage: str, table: StageTable) -> None:
        if unknown := sorted(set(table.budgets) - {*LEVELS, NO_BUDGET}):
            raise ValueError(
                f"{stage}.budgets: {unknown[0]!r} is no level; there are {', '.join(LEVELS)}, {NO_BUDGET}"
            )
        if not sum(table.budgets.values()):
            raise ValueError(f"{stage}.budgets: one weight must be above 0")
        if table.general and not self.general:
            raise ValueError(f"{stage}.general: there are no general problems without [[general]]")
        if table.general == 1:
            raise ValueError(f"{stage}.general: must be less than 1")


def _field_name(stage: str) -> str:
    return stage.replace("-", "_")


_STAGE_FIELDS: dict[str, Any] = {
    _field_name(name): (entry.table | None, Field(None, alias=name)) for name, entry in STAGES.items()
}
_RunConfig = create_model("TrainConfig", __base__=TrainConfig, **_STAGE_FIELDS)


def parse_config(values: Mapping[str, Any], *, place: str = "") -> TrainConfig:
    """Return the run that these values describe. Raises pydantic's ValidationError.

    One warning lists the old names of settings, behind `place`.
    """
    old_names: set[tuple[str, str]] = set()
    config = _RunConfig.model_validate(values, context=old_names)
    if old_names:
        _warn_of_old_names(old_names, place)
    return config


def read_config(path: Path, **overrides: Any) -> TrainConfig:
    """Return the run that a TOML file describes; `overrides` that are not None win. Raises ConfigError."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: can't be read ({error})") from error
    values |= {name: value for name, value in overrides.items() if value is not None}
    try:
        return _resolve_other_runs(path, parse_config(values, place=f"{path}: "))
    except ValidationError as error:
        lines = (
            f"{path}: {'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg']}"
            for problem in error.errors(include_url=False)
        )
        raise ConfigError("\n".join(lines)) from error


def _resolve_other_runs(path: Path, config: TrainConfig) -> TrainConfig:
    """Make the paths of other runs relative to this file. Raises ConfigError for a missing one."""
    others = tuple(path.parent / other for other in config.held_out.other_runs)
    if missing := [other for other in others if not other.is_file()]:
        raise ConfigError(f"{path}: held_out.other_runs: there is no file {missing[0]}")
    held_out = config.held_out.model_copy(update={"other_runs": others})
    return config.model_copy(update={"held_out": held_out})

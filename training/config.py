"""A training run's settings: one TOML file, checked before anything is loaded.

`[model]`, `[data]`, `[levels]` and `[held_out]` are shared by the stages; each stage has a table of
its own, and `pipeline` says which of them run, in which order. Every option's meaning and
source paper stands in docs/reference/training-settings.md.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from policies.families import FAMILIES, Family, find_family
from policies.prompts import LEVELS, Level
from training.types import NO_BUDGET, SHAPING_REWARDS

__all__ = [
    "STAGES",
    "TRIES",
    "ClassifierTable",
    "ConfigError",
    "LevelTable",
    "Lora",
    "Miss",
    "ModelSource",
    "RlTable",
    "ScorerTable",
    "SftTable",
    "Source",
    "TrainConfig",
    "Try",
    "read_config",
]

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Weights = dict[str, Annotated[float, Field(ge=0)]]
StageName = Literal["base", "zero", "cold-start", "rl", "rejection", "mixed"]
Try = Literal["generative", "classifier", "backbone", "negatives", "steps"]
Miss = Literal["digit", "length", "sign"]
"""How a wrong answer differs: a digit is another one, one is missing or too many, or the sign is wrong."""
TRIES: tuple[Try, ...] = ("generative", "classifier", "backbone", "negatives", "steps")
STAGES: tuple[StageName, ...] = ("base", "zero", "cold-start", "rl", "rejection", "mixed")


class ConfigError(Exception):
    """The settings can't be used; the message names each field and what is allowed."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Lora(_Table):
    """A low-rank adapter on all linear layers (LoRA, arXiv:2106.09685)."""

    rank: Positive = 16
    alpha: Positive = 32


class ModelSource(_Table):
    """Where a model comes from: a directory or GGUF file, with an adapter's directory or a fresh adapter.

    With a stage `base` the path is only a name: that stage makes the model from nothing.
    """

    path: str
    adapter: Path | None = None
    lora: Lora | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    family: str | None = None
    """The model family (see docs/reference/families.md); None: by the path's name."""


class LevelTable(_Table):
    """What a budget level is for this model, where it differs from the gateway's defaults."""

    tokens: Annotated[int, Field(ge=0)] | None = None
    prompt: str | None = None


class Source(_Table):
    """One source. `kind` names it (see `training.data.sources`), `weight` is its share of the draws."""

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
    """recorded: instead the questions that were rated; the preference model learns from the ratings."""
    name: str | None = None
    """hub: the data set, with `subset`, `split`, `columns` and `fixed`, see `training.data.hub`."""
    subset: str | None = None
    split: str = "train"
    columns: dict[str, str] | None = None
    fixed: dict[str, Any] | None = None
    digits: Positive = 3
    """additions: how long the numbers are."""


class HeldOut(_Table):
    """Questions that are never trained on, asked at `budget` after every `every` steps."""

    sources: tuple[Source, ...]
    count: Positive = 200
    budget: str = "high"
    max_tokens: Positive = 256
    apart: tuple[Path, ...] = ()
    """Other runs' files, from this one's directory: their held-out questions are not trained on either."""


class _Steps(_Table):
    """What all stages have in common."""

    steps: Positive
    rate: Annotated[float, Field(gt=0)] = 1e-4
    warmup: Annotated[int, Field(ge=0)] = 10
    decay: Literal["constant", "linear", "cosine"] = "constant"
    batch: Positive = 32
    """Sequences in one step of imitation; in RL those of one pass in one process, groups * samples a step."""
    every: Positive = 25
    """Steps between evaluations."""
    save_every: Positive = 25
    budgets: Weights = {NO_BUDGET: 1.0}
    """Levels by weight at which rows are asked; "none" is without a budget."""
    general: Share = 0.0
    """The share of general rows among all training rows."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """Time after which the stage ends, for comparisons at equal cost; on a CPU processor time.

    The rate then decays over it, or over the steps where these end sooner.
    """


class SftTable(_Steps):
    """Supervised fine-tuning on replies of a teacher (`cold-start`) or of the policy (`rejection`)."""

    teacher: Literal["worked", "policy", "endpoint"] = "worked"
    """Who writes them: the rows' own worked chains, the stage before, or an OpenAI-compatible endpoint."""
    endpoint: str | None = None
    endpoint_model: str | None = None
    may_fail: Share = 0.05
    """The share of its questions that the endpoint may leave unanswered; beyond it the stage stops."""
    rows: Positive = 2000
    """Questions to collect replies to."""
    samples: Positive = 1
    """Replies drawn a question, of which the best by verifier (or scorer) are kept."""
    keep: Positive = 1
    """The most replies kept a question."""
    scorer: Path | None = None
    """A trained scorer's directory: of the right replies those it likes best are kept, not the shortest."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    max_tokens: Positive = 256
    until: Share | None = None
    """Held-out accuracy at which the stage ends; None: when its steps are done."""
    fresh: bool = False
    """Start from the run's start model instead of the stage before (R1's rejection stage does)."""

    @model_validator(mode="after")
    def _endpoint_named(self) -> SftTable:
        if (self.teacher == "endpoint") != (self.endpoint is not None):
            raise ValueError("teacher = 'endpoint' and endpoint = URL go together")
        return self


class Difficulty(_Table):
    """The offline filter: questions that the start policy answers right with a rate in [low, high]."""

    low: Share = 0.2
    high: Share = 0.8
    samples: Positive = 8


class JudgeTable(_Table):
    """A model behind an OpenAI-compatible endpoint that grades what can't be verified; `url` ends in /v1."""

    url: str
    model: str
    effort: str | None = None


class RlTable(_Steps):
    """GRPO with verifiable rewards."""

    rows: Positive = 4000
    """Questions to draw from."""
    groups: Positive = 8
    """Questions asked in a step, `samples` times each, over all processes."""
    samples: Annotated[int, Field(ge=2)] = 8
    updates: Positive = 1
    """Optimizer steps on each batch of samples."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    kl: Annotated[float, Field(ge=0)] = 0.0
    loss: Literal["grpo", "dapo", "dr_grpo", "bnpo", "cispo"] = "dapo"
    clip: Annotated[float, Field(gt=0)] = 0.2
    clip_high: Annotated[float, Field(gt=0)] | None = 0.28
    normalise: Literal["group", "batch", "none", "magistral"] = "group"
    rounds: Annotated[int, Field(ge=1, le=3)] = 1
    """Rounds of dynamic sampling; 1 is without."""
    difficulty: Difficulty | None = None
    rewards: Weights = {"format": 0.1}
    """Shaping rewards by weight, beside each row's own reward."""
    overlong_cache: Positive = 256
    """Tokens before the length limit over which `overlong` grows; at most a quarter of the limit counts."""
    budget_slack: Annotated[float, Field(gt=0)] = 0.25
    """The part of a level's thinking limit above it at which `budget` is down to -1."""
    min_share: Share = 0.5
    """What a majority must hold of its group, for rows whose reward is "majority"."""
    judge: JudgeTable | None = None
    """For rows whose reward is "rubric"; a key in the environment's THINKGATE_KEY goes along."""
    leave_out_unfinished: bool = False
    length: Positive = 256
    length_most: Positive | None = None
    """The progressive length limit grows from `length` to this; None: it stays."""
    converged: Annotated[int, Field(ge=0)] = 4
    """Evaluations in a window of the convergence rule (see `training.rl.guards`); 0: all steps are made."""
    fall: Share = 0.1
    """Fall of held-out accuracy at which the stage ends with the weights of its best evaluation."""
    entropy: Annotated[float, Field(ge=0)] = 0.0
    """Nats a token; a policy under it for 20 steps has collapsed, and the stage ends likewise. 0: never."""
    best: bool = False
    """Ends with the weights of the best evaluation, the first included, where the last one is worse."""
    vllm: str | None = None
    """URL of TRL's vLLM server for the rollouts; None: this process draws them."""

    @model_validator(mode="after")
    def _fitting(self) -> RlTable:
        drawn = self.groups * self.samples
        if drawn % min(self.batch, drawn):
            raise ValueError(f"groups * samples ({drawn}) must be a multiple of batch ({self.batch})")
        if self.length_most is not None and self.length_most < self.length:
            raise ValueError(f"length_most ({self.length_most}) must not be under length ({self.length})")
        if self.save_every % self.updates:
            raise ValueError(
                f"save_every must be a multiple of updates ({self.updates}): samples aren't kept"
            )
        if unknown := sorted(set(self.rewards) - set(SHAPING_REWARDS)):
            names = ", ".join(SHAPING_REWARDS)
            raise ValueError(f"rewards: {unknown[0]!r} is no shaping reward; there are {names}")
        return self


class ClassifierTable(_Table):
    """A scorer's classifier: cross-entropy on verified samples."""

    steps: Positive = 400
    rate: Annotated[float, Field(gt=0)] = 3e-4
    warmup: Positive = 20
    decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's weight decay; the learning rate falls along a cosine."""
    batch: Positive = 32
    every: Positive = 50
    """Steps between looks at the validation loss; the weights of the least are kept."""


class ScorerTable(_Table):
    """`thinkgate train scorer`: ways of making a scorer, tried in order until one passes its gate."""

    policy: str | None = None
    """The stage, or the model's directory, that the samples are drawn from; None: the last stage done."""
    tries: tuple[Try, ...] = TRIES
    every_try: bool = False
    """Makes all tries, whichever passes, for the comparison."""
    problems: Positive = 500
    """Questions to learn from; `validation` more calibrate; the gate's are the run's held-out ones."""
    validation: Positive = 100
    samples: Annotated[int, Field(ge=2)] = 16
    budgets: Weights = {NO_BUDGET: 1.0}
    """Levels by weight at which the policy is asked to learn from; else it is `held_out.budget`."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    auc: Share = 0.75
    """The least AUC within problems that passes."""
    error: Share = 0.1
    """The greatest calibration error that passes."""
    backbone: str | None = None
    """The stronger backbone's directory; None: the generative judge's weights."""
    classifier: ClassifierTable = ClassifierTable()
    question: str = "{question} Is it {answer}?"
    """How the generative judge is asked about a reply; it thinks at `held_out.budget`."""
    rounds: Positive = 1
    """How often it is asked about each reply: once at temperature 0, more often at 1."""
    start: str | None = None
    """The directory of the model that the generative judge starts from; None: the policy."""
    misses: Annotated[tuple[Miss, ...], Field(min_length=1)] = ("digit",)
    """How wrong answers made by rule differ from the right ones, see `training.scorer.judge_problems`."""
    checks: SftTable | None = None
    """The generative judge's imitation of checks made by rule, and without GRPO of the policy's replies."""
    judge: RlTable | None = None
    """Its GRPO on checks of the policy's own replies; None: imitation alone, of those as well."""

    @model_validator(mode="after")
    def _checks_given(self) -> ScorerTable:
        if "generative" in self.tries and self.checks is None:
            raise ValueError("the generative try needs a table [scorer.checks]")
        if {"backbone", "negatives", "steps"} & set(self.tries) and not (self.backbone or self.checks):
            raise ValueError("a stronger backbone is named by backbone, or made by the generative try")
        return self


class TrainConfig(_Table):
    """One run."""

    name: str
    output: Path
    seed: int = 0
    threads: Positive | None = None
    model: ModelSource
    levels: dict[str, LevelTable] = {}
    data: tuple[Source, ...]
    general: tuple[Source, ...] = ()
    held_out: HeldOut
    pipeline: tuple[StageName, ...] = STAGES
    base: SftTable | None = None
    zero: RlTable | None = None
    cold_start: Annotated[SftTable | None, Field(alias="cold-start")] = None
    rl: RlTable | None = None
    rejection: SftTable | None = None
    mixed: RlTable | None = None
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

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
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
        for stage in STAGES:
            if (table := self._tables().get(stage)) is not None:
                self._check_stage(stage, table)
        return self

    def table(self, stage: str) -> SftTable | RlTable:
        """A stage's settings. Raises ValueError where the file has none."""
        table = self._tables().get(stage)
        if table is None:
            raise ValueError(f"there is no table [{stage}]")
        return table

    def _tables(self) -> Mapping[str, SftTable | RlTable | None]:
        return {
            "base": self.base,
            "zero": self.zero,
            "cold-start": self.cold_start,
            "rl": self.rl,
            "rejection": self.rejection,
            "mixed": self.mixed,
        }

    def _check_stage(self, stage: str, table: SftTable | RlTable) -> None:
        if unknown := sorted(set(table.budgets) - {*LEVELS, NO_BUDGET}):
            raise ValueError(
                f"{stage}.budgets: {unknown[0]!r} is no level; there are {', '.join(LEVELS)}, {NO_BUDGET}"
            )
        if not sum(table.budgets.values()):
            raise ValueError(f"{stage}.budgets: one weight must be above 0")
        if table.general and not self.general:
            raise ValueError(f"{stage}.general: there are no general rows without [[general]]")
        if table.general == 1:
            raise ValueError(f"{stage}.general: must be less than 1")


def read_config(path: Path, **overrides: Any) -> TrainConfig:
    """The run that a TOML file describes; `overrides` that are not None win. Raises ConfigError."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: can't be read ({error})") from error
    values |= {name: value for name, value in overrides.items() if value is not None}
    try:
        return _with_others(path, TrainConfig.model_validate(values))
    except ValidationError as error:
        lines = (
            f"{path}: {'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg']}"
            for problem in error.errors(include_url=False)
        )
        raise ConfigError("\n".join(lines)) from error


def _with_others(path: Path, config: TrainConfig) -> TrainConfig:
    """With the files that it names found beside its own. Raises ConfigError where one isn't there."""
    others = tuple(path.parent / other for other in config.held_out.apart)
    if missing := [other for other in others if not other.is_file()]:
        raise ConfigError(f"{path}: held_out.apart: there is no file {missing[0]}")
    held = config.held_out.model_copy(update={"apart": others})
    return config.model_copy(update={"held_out": held})

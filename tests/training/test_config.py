"""A run's TOML file."""

import re
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from training.config import (
    STAGES,
    ClassifierTable,
    ConfigError,
    HeldOut,
    JudgeTable,
    OldSettingName,
    RlTable,
    ScorerTable,
    SftTable,
    parse_config,
    read_config,
)
from training.stages.reward_context import check_reward_names
from training.stages.stage_data import StageData

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
RUN = """
name = "a"
output = "runs/a"
pipeline = ["rl"]
data = [{ kind = "additions" }]
model = { path = "somewhere" }
held_out = { sources = [{ kind = "additions" }] }
[rl]
max_steps = 1
"""


RUN_VALUES = {
    "name": "a",
    "output": "runs/a",
    "pipeline": ["rl"],
    "data": [{"kind": "additions"}],
    "model": {"path": "somewhere"},
    "held_out": {"sources": [{"kind": "additions"}]},
    "rl": {"max_steps": 1},
}


def written(directory: Path, text: str) -> Path:
    """The text as a file."""
    path = directory / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_configurations_that_come_along_are_valid(path: Path) -> None:
    """Each names only stages that have a table, or a scorer, and a family that is known."""
    config = read_config(path)
    assert config.pipeline or config.scorer
    assert config.family.name == config.model.family


def test_levels_of_a_model_change_only_what_they_name(tmp_path: Path) -> None:
    """A level's own tokens keep its prompt, and other levels stay as they are."""
    config = read_config(written(tmp_path, RUN + "[levels.high]\ntokens = 64\n"))
    default = read_config(written(tmp_path, RUN))
    assert config.budgets["high"].tokens == 64
    assert config.budgets["high"].prompt == default.budgets["high"].prompt
    assert config.budgets["low"] == default.budgets["low"]


def test_what_the_command_line_says_wins(tmp_path: Path) -> None:
    """Overrides replace the file's values, and None replaces nothing."""
    config = read_config(written(tmp_path, RUN), seed=7, output=None)
    assert (config.seed, str(config.output)) == (7, "runs/a")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["rl"]', '["rl", "mixed"]', r"no table \[mixed\]"),
        ('["rl"]', '["dream"]', r"pipeline\.0: .*'dream' is no stage; there are base, zero"),
        ("max_steps = 1", "max_steps = 0", "rl.max_steps"),
        ("max_steps = 1", "max_steps = 1\nstep = 2", "rl.step: Extra inputs"),
        ("max_steps = 1", "max_steps = 1\nbudgets = { huge = 1 }", "'huge' is no level"),
        ("max_steps = 1", "max_steps = 1\nbudgets = { high = 0 }", "one weight must be above 0"),
        ("max_steps = 1", "max_steps = 1\nrounds = 9", "rl.rounds"),
        ("max_steps = 1", "max_steps = 1\ngeneral = 0.5", r"without \[\[general\]\]"),
        (
            "max_steps = 1",
            "max_steps = 1\nper_device_train_batch_size = 48",
            r"groups \* num_generations \(64\) must be a multiple of",
        ),
        (
            "max_steps = 1",
            "max_steps = 1\nfinal_completion_length = 8",
            r"final_completion_length \(8\) must not be under",
        ),
        ("max_steps = 1", "max_steps = 1\nnum_iterations = 3", "save_steps must be a multiple of num_iter"),
        (
            "max_steps = 1",
            "max_steps = 1\nloss_type = 'cispo'\nepsilon_high = 0.28",
            r"epsilon_high \(0\.28\) is the largest ratio itself where loss_type = 'cispo'",
        ),
        ('"somewhere"', '"x", family = "nobody"', "'nobody' is no family"),
        ('"additions" }] }', '"additions" }], budget = "huge" }', "held_out.budget: 'huge'"),
        ("[rl]", "[levels.gigantic]\ntokens = 1\n[rl]", "'gigantic' is no level"),
        ("[rl]", "[zero]\nmax_steps = 1\nbudgets = { huge = 1 }\n[rl]", "zero.budgets: 'huge'"),
        ("name =", "name = [", "can't be read"),
    ],
)
def test_an_error_names_the_setting(tmp_path: Path, old: str, new: str, message: str) -> None:
    """The message has the setting's name as the file writes it."""
    with pytest.raises(ConfigError, match=message):
        read_config(written(tmp_path, RUN.replace(old, new)))


def test_a_shaping_reward_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    """The message lists those that do."""
    config = read_config(written(tmp_path, RUN + "rewards = { tidy = 1 }\n"))
    with pytest.raises(ConfigError, match=r"rl\.rewards: 'tidy' is no shaping reward; there are format"):
        check_reward_names(config)


STAGE_NAMES: dict[str, tuple[str, Any]] = {
    "steps": ("max_steps", 7),
    "rate": ("learning_rate", 0.25),
    "warmup": ("warmup_steps", 3),
    "decay": ("lr_scheduler_type", "cosine"),
    "every": ("eval_steps", 5),
    "save_every": ("save_steps", 4),
    "seconds": ("max_seconds", 9.5),
    "rows": ("problems", 12),
}
OLD_NAMES: dict[type[BaseModel], dict[str, tuple[str, Any]]] = {
    SftTable: STAGE_NAMES | {"may_fail": ("max_failure_rate", 0.5), "until": ("target_accuracy", 0.75)},
    RlTable: STAGE_NAMES
    | {
        "batch": ("per_device_train_batch_size", 16),
        "samples": ("num_generations", 4),
        "updates": ("num_iterations", 5),
        "kl": ("beta", 0.5),
        "loss": ("loss_type", "dr_grpo"),
        "clip": ("epsilon", 0.3),
        "clip_high": ("epsilon_high", 0.4),
        "normalise": ("scale_rewards", "magistral"),
        "leave_out_unfinished": ("mask_truncated_completions", True),
        "length": ("max_completion_length", 99),
        "length_most": ("final_completion_length", 300),
        "converged": ("convergence_window", 2),
        "fall": ("max_accuracy_drop", 0.25),
        "entropy": ("min_entropy", 0.125),
        "best": ("load_best_model_at_end", True),
        "vllm": ("vllm_server_base_url", "http://127.0.0.1:8000"),
    },
    ClassifierTable: {
        "steps": ("max_steps", 7),
        "rate": ("learning_rate", 0.25),
        "warmup": ("warmup_steps", 3),
        "decay": ("weight_decay", 0.5),
        "every": ("eval_steps", 5),
    },
    ScorerTable: {
        "every_try": ("all_tries", True),
        "auc": ("min_auc", 0.9),
        "error": ("max_calibration_error", 0.2),
    },
    JudgeTable: {"effort": ("budget", "low")},
    HeldOut: {"apart": ("other_runs", (Path("other.toml"),))},
}
"""By table: each old name of a setting, the name of today, and a value that is not the default."""
REQUIRED: dict[type[BaseModel], dict[str, Any]] = {
    SftTable: {"max_steps": 1},
    RlTable: {"max_steps": 1, "save_steps": 25},
    ScorerTable: {"checks": {"max_steps": 1}},
    JudgeTable: {"url": "http://judge/v1", "model": "judge"},
    HeldOut: {"sources": [{"kind": "additions"}]},
}


@pytest.mark.parametrize(
    ("table", "old"), [(table, old) for table, names in OLD_NAMES.items() for old in names]
)
def test_an_old_name_works_and_warns(table: type[BaseModel], old: str) -> None:
    """The warning has both names; together they are an error, for one of them would be ignored."""
    new, value = OLD_NAMES[table][old]
    required = {name: value for name, value in REQUIRED.get(table, {}).items() if name != new}
    with pytest.warns(OldSettingName, match=rf"accepted until 1\.0: {old} is {new} now$"):
        read = table.model_validate(required | {old: value})
    assert read == table.model_validate(required | {new: value})
    assert getattr(read, new) == value
    with pytest.raises(ValueError, match=f"{old} is the old name of {new}: give {new} alone"):
        table.model_validate(required | {old: value, new: value})


def test_every_old_name_is_in_the_list_above() -> None:
    """So that none can be dropped by accident."""
    kinds = {kind for kind in tables(type(parse_config(RUN_VALUES))) if getattr(kind, "old_names", {})}
    assert kinds == OLD_NAMES.keys()
    for kind in kinds:
        assert kind.old_names == {old: new for old, (new, _) in OLD_NAMES[kind].items()}


def test_a_file_with_old_names_warns_once(tmp_path: Path) -> None:
    """The warning has the file's name and every pair, however many tables use it."""
    tables_ = "[rl]\nsteps = 1\nkl = 0.5\n[zero]\nsteps = 1\n"
    path = written(tmp_path, RUN.partition("[rl]")[0] + tables_)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        config = read_config(path)
    assert [str(warning.message) for warning in caught] == [
        f"{path}: old names of settings, accepted until 1.0: kl is beta now, steps is max_steps now"
    ]
    assert config.table("rl").max_steps == 1


def test_the_old_margin_of_cispo_becomes_the_largest_ratio() -> None:
    """`clip_high` was the distance above 1 for every loss; TRL's `epsilon_high` is not, for this one."""
    with pytest.warns(OldSettingName):
        table = RlTable.model_validate({"max_steps": 1, "loss": "cispo", "clip_high": 0.3})
    assert table.epsilon_high == pytest.approx(1.3)
    assert table.epsilon_above == pytest.approx(0.3)


@pytest.mark.parametrize(("value", "meaning"), [(True, "group"), (False, "none"), ("batch", "batch")])
def test_scale_rewards_takes_all_values_of_trl(value: bool | str, meaning: str) -> None:
    """TRL writes two of them as true and false."""
    assert RlTable.model_validate({"max_steps": 1, "scale_rewards": value}).scale_rewards == meaning


def test_fingerprints_hold_the_first_names_of_settings() -> None:
    """So that what a stage collected before a setting was renamed is still its own."""
    settings = SftTable(max_steps=1, problems=5, max_failure_rate=0.25).by_first_names()
    assert {"steps": 1, "rows": 5, "may_fail": 0.25, "teacher": "worked"}.items() <= settings.items()
    assert not {"max_steps", "problems", "max_failure_rate"} & settings.keys()


@pytest.mark.parametrize("name", STAGES)
def test_a_line_in_stages_is_all_that_the_settings_need(name: str) -> None:
    """Each stage has a module, a table of its type under its name, and a place in the pipeline."""
    values = {**RUN_VALUES, "pipeline": [name], name: {"max_steps": 3}}
    table = parse_config(values).table(name)
    assert type(table) is STAGES[name].table
    assert table.max_steps == 3
    assert find_spec(STAGES[name].module) is not None


def tables(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A table of settings and all that may stand within it."""
    yield kind
    for field in kind.model_fields.values():
        for annotation in (field.annotation, *get_args(field.annotation)):
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                yield from tables(annotation)


def test_every_setting_is_documented() -> None:
    """docs/reference/training-settings.md names each one, in a row of its own or with others."""
    root = Path(__file__).parents[2]
    page = (root / "docs" / "reference" / "training-settings.md").read_text(encoding="utf-8")
    settings = {name for table in tables(type(parse_config(RUN_VALUES))) for name in table.model_fields} - {
        "cold_start"
    }
    assert len(settings) > 80
    rows = [line.partition(" |")[0] for line in page.splitlines() if line.startswith("|")]
    named = set(re.findall(r"\[?\[?([a-z_]+)(?:\.NAME)?\]?\]?`", " ".join(rows)))
    inside = {"rank", "alpha", "low", "high", "url", "model", "weight_decay"}  # of tables that stand in a row
    assert settings - named - inside == set()


def test_other_runs_are_found_beside_this_one(tmp_path: Path) -> None:
    """Their held-out questions are kept apart, whatever directory the command is given in."""
    held = 'held_out = { sources = [{ kind = "additions" }] }'
    other = written(tmp_path, RUN).rename(tmp_path / "other.toml")
    own = held.replace("}] }", '}], other_runs = ["other.toml"] }').replace("additions", "stories")
    path = written(tmp_path, RUN.replace(held, own))
    config = read_config(path)
    assert config.held_out.other_runs == (other,)
    excluded = StageData(config, "rl", config.table("rl")).excluded()
    assert {problem.source for problem in excluded} == {"additions", "stories"}
    other.unlink()
    with pytest.raises(ConfigError, match=r"held_out\.other_runs: there is no file .*other\.toml"):
        read_config(path)

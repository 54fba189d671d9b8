"""A run's TOML file."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from training.config import ConfigError, TrainConfig, read_config
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
steps = 1
"""


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
    ("text", "told"),
    [
        (RUN.replace('["rl"]', '["rl", "mixed"]'), r"no table \[mixed\]"),
        (RUN.replace("steps = 1", "steps = 0"), "rl.steps"),
        (RUN.replace("steps = 1", "steps = 1\nstep = 2"), "rl.step: Extra inputs"),
        (RUN.replace("steps = 1", "steps = 1\nbudgets = { huge = 1 }"), "'huge' is no level"),
        (RUN.replace("steps = 1", "steps = 1\nrounds = 9"), "rl.rounds"),
        (RUN.replace('"somewhere"', '"x", family = "nobody"'), "'nobody' is no family"),
        (RUN + "[levels.gigantic]\ntokens = 1\n", "'gigantic' is no level"),
        (RUN.replace('pipeline = ["rl"]', 'pipeline = ["dream"]'), "pipeline.0"),
        (
            RUN.replace("steps = 1", "steps = 1\nbatch = 48"),
            r"groups \* samples \(64\) must be a multiple of",
        ),
        (RUN.replace("steps = 1", "steps = 1\nlength_most = 8"), r"length_most \(8\) must not be under"),
        (RUN.replace("steps = 1", "steps = 1\nupdates = 3"), "save_every must be a multiple of updates"),
        (RUN.replace("steps = 1", "steps = 1\nrewards = { tidy = 1 }"), "'tidy' is no shaping reward"),
        (RUN.replace("steps = 1", "steps = 1\ngeneral = 0.5"), r"without \[\[general\]\]"),
        (RUN.replace("steps = 1", "steps = 1\nbudgets = { high = 0 }"), "one weight must be above 0"),
        (RUN.replace('"additions" }] }', '"additions" }], budget = "huge" }'), "held_out.budget: 'huge'"),
        (RUN + "[zero]\nsteps = 1\nbudgets = { huge = 1 }\n", "zero.budgets: 'huge'"),
        ("name = [", "can't be read"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    """What is wrong is said by the field's name, in the file's own words."""
    with pytest.raises(ConfigError, match=told):
        read_config(written(tmp_path, text))


def tables(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A table of settings and all that may stand within it."""
    yield kind
    for field in kind.model_fields.values():
        for each in (field.annotation, *get_args(field.annotation)):
            if isinstance(each, type) and issubclass(each, BaseModel):
                yield from tables(each)


def test_every_setting_is_documented() -> None:
    """docs/reference/training-settings.md names each one, in a row of its own or with others."""
    root = Path(__file__).parents[2]
    page = (root / "docs" / "reference" / "training-settings.md").read_text(encoding="utf-8")
    found = {name for table in tables(TrainConfig) for name in table.model_fields} - {"cold_start"}
    assert len(found) > 80
    rows = [line.partition(" |")[0] for line in page.splitlines() if line.startswith("|")]
    named = set(re.findall(r"\[?\[?([a-z_]+)(?:\.NAME)?\]?\]?`", " ".join(rows)))
    inside = {"rank", "alpha", "low", "high", "url", "model", "effort"}  # of tables that stand in a row
    assert found - named - inside == set()


def test_other_runs_are_found_beside_this_one(tmp_path: Path) -> None:
    """Their held-out questions are kept apart, whatever directory the command is given in."""
    held = 'held_out = { sources = [{ kind = "additions" }] }'
    other = written(tmp_path, RUN).rename(tmp_path / "other.toml")
    own = held.replace("}] }", '}], apart = ["other.toml"] }').replace("additions", "stories")
    path = written(tmp_path, RUN.replace(held, own))
    config = read_config(path)
    assert config.held_out.apart == (other,)
    kept = StageData(config, "rl").kept_apart()
    assert {row.source for row in kept} == {"additions", "stories"}
    other.unlink()
    with pytest.raises(ConfigError, match=r"held_out\.apart: there is no file .*other\.toml"):
        read_config(path)

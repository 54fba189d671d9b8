"""The `[STAGE.trl]` tables: what TRL gets, and what is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("trl")

from trl import GRPOConfig, SFTConfig

from training.config import ConfigError, RlTable, SftTable, TrainConfig, parse_config
from training.stages.stage import Run
from training.trainer.grpo import grpo_config
from training.trainer.sft import sft_config
from training.trainer.trl_settings import check_trl_tables, merge_settings, refused_settings

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

RUN = {
    "name": "a",
    "output": "runs/a",
    "pipeline": ["rl"],
    "data": [{"kind": "additions"}],
    "model": {"path": "somewhere"},
    "held_out": {"sources": [{"kind": "additions"}]},
}


def config(**trl: Any) -> TrainConfig:
    """Return a run whose stage of reinforcement learning has this table."""
    return parse_config({**RUN, "rl": {"max_steps": 1, "trl": trl}})


def test_a_setting_of_trl_reaches_its_configuration(tmp_path: Path) -> None:
    """The table changes defaults, and sets what has no name here."""
    trl = {"weight_decay": 0.1, "importance_sampling_level": "sequence", "report_to": "none"}
    check_trl_tables(config(**trl))
    table = RlTable(max_steps=1, trl=trl)
    settings_ = grpo_config(table, tmp_path, 1, cpu=True, mixed=False)
    assert (settings_.weight_decay, settings_.importance_sampling_level) == (0.1, "sequence")
    sft = SftTable(max_steps=1, trl={"loss_type": "dft", "neftune_noise_alpha": 5.0})
    other = sft_config(sft, tmp_path, 1, cpu=True, mixed=False)
    assert (other.loss_type, other.neftune_noise_alpha) == ("dft", 5.0)


def test_without_a_table_the_defaults_are_ours(tmp_path: Path) -> None:
    """The documentation lists those that differ from TRL's."""
    for settings_, saved in (
        (grpo_config(RlTable(max_steps=1), tmp_path, 1, cpu=True, mixed=False), 3),
        (sft_config(SftTable(max_steps=1), tmp_path, 1, cpu=True, mixed=False), 2),
    ):
        assert (settings_.weight_decay, settings_.max_grad_norm, settings_.save_total_limit) == (0, 1, saved)
        assert (settings_.gradient_checkpointing, settings_.report_to) == (False, [])


def test_an_unknown_setting_is_an_error_with_the_nearest_names() -> None:
    """The error comes at the start of a run, before anything is loaded."""
    message = r"\[rl\.trl\] importance_sampling: TRL's GRPOConfig has no such setting; .*importance_sampling_"
    with pytest.raises(ConfigError, match=message):
        Run(config(importance_sampling="sequence"))
    with pytest.raises(ConfigError, match=r"\[rl\.trl\] zzz: TRL's GRPOConfig has no such setting$"):
        check_trl_tables(config(zzz=1))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("learning_rate", "set learning_rate of the stage itself"),
        ("gradient_accumulation_steps", "set groups, num_generations and per_device_train_batch_size"),
        ("reward_weights", "set rewards of the stage"),
        ("vllm_mode", "set vllm_server_base_url of the stage"),
        ("seed", "the run's seed decides it"),
        ("kl", "set beta of the stage"),
    ],
)
def test_a_setting_that_the_stage_decides_is_refused(name: str, reason: str) -> None:
    """The message names the setting to use instead."""
    with pytest.raises(ConfigError, match=rf"\[rl\.trl\] {name} can't be set here: {reason}"):
        check_trl_tables(config(**{name: 1}))


def test_fine_tuning_has_a_table_of_its_own() -> None:
    """A setting without effect on tokenized examples is refused, in the judge's table too."""
    values = {**RUN, "pipeline": [], "cold-start": {"max_steps": 1, "trl": {"packing": True}}}
    with pytest.raises(ConfigError, match=r"\[cold-start\.trl\] packing can't be set here: .*no effect"):
        check_trl_tables(parse_config(values))
    checks = {"max_steps": 1, "trl": {"beta": 0.1}}
    with pytest.raises(ConfigError, match=r"\[scorer\.checks\.trl\] beta: TRL's SFTConfig has no such"):
        check_trl_tables(parse_config({**RUN, "pipeline": [], "scorer": {"checks": checks}}))


@pytest.mark.parametrize(("table", "kind"), [(RlTable, GRPOConfig), (SftTable, SFTConfig)])
def test_every_refused_setting_exists(table: Any, kind: Any) -> None:
    """A setting that TRL has dropped would make a message that misleads."""
    names = {field.name for field in dataclasses.fields(kind)}
    assert refused_settings(table).keys() - names - table.model_fields.keys() == set()


@pytest.mark.parametrize("kind", [RlTable, SftTable])
def test_all_that_a_stage_decides_is_refused(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No setting is overwritten in silence."""
    decided: dict[str, Any] = {}

    def note_settings(_: Any, defaults: Any, trl: Any, settings: dict[str, Any]) -> None:
        decided.update(settings)

    module, make = ("grpo", grpo_config) if kind is RlTable else ("sft", sft_config)
    monkeypatch.setattr(f"training.trainer.{module}.merge_settings", note_settings)
    make(kind(max_steps=1), tmp_path, 1, cpu=True, mixed=False)
    assert len(decided) > 10
    assert decided.keys() - refused_settings(kind).keys() == set()


def test_a_value_that_trl_refuses_is_an_error_in_the_settings(tmp_path: Path) -> None:
    """The message has TRL's own reason."""
    with pytest.raises(ConfigError, match=r"TRL refuses the settings: .*fastest"):
        merge_settings(GRPOConfig, {"output_dir": str(tmp_path)}, {"optim": "fastest"}, {"use_cpu": True})

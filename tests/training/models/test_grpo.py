"""What TRL is told to do."""

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("trl")

from training.config import ConfigError, RlTable
from training.trainer.grpo import grpo_config

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]


def config(tmp_path: Path, **fields: object):  # type: ignore[no-untyped-def]
    """TRL's settings for a table with these fields."""
    table = RlTable.model_validate({"steps": 4, **fields})
    return grpo_config(table, tmp_path, 1, cpu=True, mixed=False)


def test_cispo_clips_at_one_more_than_the_margin(tmp_path: Path) -> None:
    """TRL's CISPO takes the largest ratio, the other losses how far it may be above 1."""
    assert config(tmp_path, loss="cispo", clip_high=0.28).epsilon_high == pytest.approx(1.28)
    assert config(tmp_path, loss="cispo", clip=0.2, clip_high=0.2).epsilon_high == pytest.approx(1.2)
    assert config(tmp_path, loss="dapo", clip_high=0.28).epsilon_high == pytest.approx(0.28)


def test_the_divisor_of_dr_grpo_stays_while_the_limit_grows(tmp_path: Path) -> None:
    """It is the first limit, so that a token weighs the same before and after the limit has grown."""
    grown = config(tmp_path, loss="dr_grpo", length=64, length_most=256)
    assert (
        grown.max_completion_length == config(tmp_path, loss="dr_grpo", length=64).max_completion_length == 64
    )


def test_advantages_are_used_as_they_are_and_nothing_is_truncated(tmp_path: Path) -> None:
    """TRL neither scales nor shuffles, samples from the whole distribution, and hides no broken loss."""
    told = config(tmp_path, kl=0.02, leave_out_unfinished=True)
    assert (told.scale_rewards, told.shuffle_dataset, told.logging_nan_inf_filter) == ("none", False, False)
    assert (told.top_p, told.top_k, told.min_p) == (1.0, 0, None)
    assert (told.beta, told.mask_truncated_completions) == (0.02, True)


def test_a_step_is_shared_out_among_the_processes(tmp_path: Path) -> None:
    """A step's groups and replies stay as many, however many processes there are; else it is refused."""
    table = RlTable.model_validate({"steps": 4, "groups": 8, "samples": 4, "batch": 8})
    for processes in (1, 2, 4):
        told = grpo_config(table, tmp_path, 1, cpu=True, mixed=False, processes=processes)
        shares = told.per_device_train_batch_size * told.gradient_accumulation_steps
        assert shares * processes == 32
    with pytest.raises(ConfigError, match=r"groups \(8\) must be a multiple of the processes \(3\)"):
        grpo_config(table, tmp_path, 1, cpu=True, mixed=False, processes=3)
    with pytest.raises(ConfigError, match="a multiple of batch"):
        grpo_config(
            RlTable(steps=4, groups=6, samples=4, batch=8), tmp_path, 1, cpu=True, mixed=False, processes=2
        )

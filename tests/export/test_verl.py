"""verl's own code accepts the exports for it."""

from pathlib import Path

import pytest

from tests.export.conftest import Probe


def test_the_overrides_compose_with_verls_configuration(exported: Path, probe: Probe) -> None:
    """verl knows them all, its own checks pass, and each option has the run's value."""
    values = probe("probe_verl.py", exported)["rl"]["values"]
    expected = {
        "data.train_batch_size": 2,
        "data.max_response_length": 48,
        "data.shuffle": False,
        "algorithm.adv_estimator": "grpo",
        "algorithm.norm_adv_by_std_in_grpo": True,
        "algorithm.filter_groups.enable": True,
        "actor_rollout_ref.rollout.n": 4,
        "actor_rollout_ref.rollout.top_p": 1.0,
        "actor_rollout_ref.rollout.top_k": -1,
        "actor_rollout_ref.actor.ppo_epochs": 2,
        "actor_rollout_ref.actor.clip_ratio_low": 0.2,
        "actor_rollout_ref.actor.clip_ratio_high": 0.28,
        "actor_rollout_ref.actor.loss_agg_mode": "token-mean",
        "actor_rollout_ref.actor.use_kl_loss": True,
        "actor_rollout_ref.actor.kl_loss_coef": 0.01,
        "actor_rollout_ref.actor.optim.lr": 2e-4,
        "actor_rollout_ref.actor.optim.lr_warmup_steps": 2,
        "actor_rollout_ref.model.lora_rank": 4,
        "actor_rollout_ref.model.lora_alpha": 8,
        "trainer.total_training_steps": 3,
        "trainer.save_freq": 2,
        "trainer.n_gpus_per_node": 2,
    }
    assert {name: values[name] for name in expected} == expected


def test_verls_dataset_and_rollout_use_the_prompts_of_serving(exported: Path, probe: Probe) -> None:
    """verl's data set and the builder of its agent loop give the same tokens at every budget."""
    findings = probe("probe_verl.py", exported)["rl"]
    assert findings["prompts_agree"]
    assert findings["budgets"] == ["high", "none", "off"]
    assert findings["longest"] <= findings["values"]["data.max_prompt_length"]
    assert findings["held_out"]


@pytest.mark.parametrize(
    ("reply", "score", "right"),
    [("right", 1.25, 1), ("wrong", 0.25, 0), ("cut off", 0, 0), ("formless", 0, 0)],
)
def test_verls_reward_loop_scores_with_the_grader_of_serving(
    exported: Path, probe: Probe, reply: str, score: float, right: int
) -> None:
    """Its reward manager loads our file; a right answer in a truncated reply counts as wrong."""
    findings = probe("probe_verl.py", exported)["rl"]["scores"][reply]
    assert findings["reward_score"] == score
    assert findings["reward_extra_info"]["acc"] == right


def test_verls_fine_tuning_learns_exactly_the_tokens_of_the_replies(exported: Path, probe: Probe) -> None:
    """Its data set has the same tokens of prompt and reply, and the loss covers the reply alone."""
    findings = probe("probe_verl.py", exported)["sft"]
    assert findings["examples"] == len(findings["agree"]) > 0
    assert all(findings["agree"])
    assert findings["values"]["trainer.total_training_steps"] == 4
    assert findings["values"]["data.train_batch_size"] == 4

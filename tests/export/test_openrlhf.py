"""OpenRLHF's own code accepts the exports for it."""

from pathlib import Path

import pytest

from tests.export.conftest import Probe


def test_its_parser_accepts_the_command_with_the_runs_values(exported: Path, probe: Probe) -> None:
    """The program's parser and checks run up to the call that would start the training."""
    args = probe("probe_openrlhf.py", exported, "rl")["args"]
    assert (args["rollout"]["batch_size"], args["rollout"]["n_samples_per_prompt"]) == (2, 4)
    assert (args["rollout"]["max_new_tokens"], args["rollout"]["top_p"]) == (48, 1.0)
    assert (args["train"]["batch_size"], args["train"]["max_epochs"]) == (8, 2)
    assert (args["algo"]["kl"]["use_loss"], args["algo"]["kl"]["estimator"]) == (True, "k3")
    assert args["algo"]["kl"]["init_coef"] == 0.01
    assert args["algo"]["advantage"]["estimator"] == "group_norm"
    assert (args["algo"]["dynamic_filtering_enable"], args["algo"]["dynamic_filtering_range"]) == (
        True,
        [0, 1],
    )
    assert args["actor"]["eps_clip_low_high"] == [0.2, 0.28]
    assert args["actor"]["adam"]["lr"] == 2e-4
    assert args["ds"]["lora"]["rank"] == 4
    assert args["eval"]["temperature"] == 0


def test_its_dataset_uses_the_prompts_of_serving(exported: Path, probe: Probe) -> None:
    """Texts and tokens agree."""
    findings = probe("probe_openrlhf.py", exported, "rl")
    assert findings["prompts_agree"]
    assert findings["tokens_agree"]
    assert findings["held_out"] == 6
    assert findings["scheduler"]


@pytest.mark.parametrize(
    ("reply", "reward", "score"),
    [("right", 1.25, 1), ("wrong", 0.25, 0), ("cut off", 0, 0), ("formless", 0, 0)],
)
def test_its_rollout_scores_with_the_grader_of_serving(
    exported: Path, probe: Probe, reply: str, reward: float, score: int
) -> None:
    """Its single-turn executor loads our reward function; correctness alone filters groups."""
    findings = probe("probe_openrlhf.py", exported, "rl")["scores"][reply]
    assert findings == {"reward": reward, "score": score, "prompt": True}


def test_its_fine_tuning_learns_exactly_the_tokens_of_the_replies(exported: Path, probe: Probe) -> None:
    """No template wraps the rendered prompt, and the loss covers the reply alone."""
    findings = probe("probe_openrlhf.py", exported, "cold-start")
    assert findings["examples"] == len(findings["agree"]) > 0
    assert all(findings["agree"])
    assert findings["args"]["train"]["batch_size"] == 4
    assert findings["scheduler"]

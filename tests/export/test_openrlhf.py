"""OpenRLHF's own code takes what is exported for it."""

from pathlib import Path

import pytest

from tests.export.conftest import Probe


def test_its_own_parser_takes_the_launch_line_with_the_runs_values(exported: Path, probe: Probe) -> None:
    """The program's parser and its checks, up to the call that would start training."""
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


def test_its_dataset_asks_with_the_prompts_of_serving(exported: Path, probe: Probe) -> None:
    """Text for text and token for token."""
    found = probe("probe_openrlhf.py", exported, "rl")
    assert found["prompts_agree"]
    assert found["tokens_agree"]
    assert found["held_out"] == 6
    assert found["scheduler"]


@pytest.mark.parametrize(
    ("reply", "reward", "score"),
    [("right", 1.25, 1), ("wrong", 0.25, 0), ("cut off", 0, 0), ("formless", 0, 0)],
)
def test_its_rollout_scores_with_the_grader_of_serving(
    exported: Path, probe: Probe, reply: str, reward: float, score: int
) -> None:
    """Its single-turn executor loads our reward function; groups are filtered by being right alone."""
    found = probe("probe_openrlhf.py", exported, "rl")["scores"][reply]
    assert found == {"reward": reward, "score": score, "prompt": True}


def test_its_fine_tuning_learns_the_very_tokens_of_the_replies(exported: Path, probe: Probe) -> None:
    """No template is put around the rendered prompt, and the loss is taken on the reply alone."""
    found = probe("probe_openrlhf.py", exported, "cold-start")
    assert found["rows"] == len(found["agree"]) > 0
    assert all(found["agree"])
    assert found["args"]["train"]["batch_size"] == 4
    assert found["scheduler"]

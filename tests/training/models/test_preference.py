"""The preference model, which starts from a policy and learns from users' ratings."""

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
peft = pytest.importorskip("peft")

from tests.training.models.small import RL as STEPS  # noqa: E402
from tests.training.models.small import card, configured  # noqa: E402
from tests.training.traffic import record  # noqa: E402
from training.config import Lora, ModelSource, TrainConfig  # noqa: E402
from training.stages import run_stage  # noqa: E402
from training.stages.preference import preference_model  # noqa: E402
from training.stages.stage import Run  # noqa: E402
from training.trainer.models import classifier_of, load_model, load_tokenizer, save_model  # noqa: E402

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

LIKED, OTHER = "\\boxed{7} it is.", "\\boxed{8} it is, I think."
RL = STEPS | {
    "max_steps": 2,
    "groups": 2,
    "num_generations": 2,
    "max_completion_length": 8,
    "general": 0.5,
}


def rated(directory: Path) -> Path:
    """Write a gateway's recording in which users liked short sure answers, and no others."""
    path = directory / "traffic.jsonl"
    ratings = [(f"What is {a} and {7 - a}?", (LIKED, LIKED, OTHER), {"rating": 1}) for a in range(8)]
    ratings += [(f"What are {a} and {8 - a}?", (OTHER, OTHER, LIKED), {"correct": False}) for a in range(4)]
    record(path, ratings)
    return path


def adapter(config: TrainConfig, directory: Path) -> ModelSource:
    """Save a LoRA that changes the output, in PEFT's form."""
    source = config.model.model_copy(update={"lora": Lora(rank=4, alpha=8)})
    model = load_model(source)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    save_model(model, load_tokenizer(source), directory)
    return source.model_copy(update={"adapter": directory})


def test_it_starts_from_the_policys_weights_with_the_adapter(tmp_path: Path) -> None:
    """Below the new head every hidden state is the adapted policy's, and not the base model's."""
    config = configured(tmp_path)
    source = adapter(config, tmp_path / "adapter")
    ids = torch.tensor([[5, 6, 7, 8]])
    hidden = {}
    with torch.no_grad():
        for name, model in (("policy", load_model(source)), ("base", load_model(config.model))):
            hidden[name] = model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
        classifier = classifier_of(load_model(source))
        classifier_hidden = classifier.base_model(input_ids=ids).last_hidden_state
        assert classifier(input_ids=ids).logits.shape == (1, 1)
    assert torch.allclose(classifier_hidden, hidden["policy"], atol=1e-4)
    assert not torch.allclose(classifier_hidden, hidden["base"], atol=1e-1)


@pytest.mark.parametrize("lora", [False, True])
def test_recorded_feedback_trains_it_and_the_mixed_stage_uses_it(tmp_path: Path, lora: bool) -> None:
    """The settings name the gateway's own file; the model then prefers what the users liked."""
    general = [{"kind": "recorded", "path": str(rated(tmp_path)), "ratings": True}]
    more: dict[str, Any] = {}
    if lora:
        plain = configured(tmp_path)
        more = {"model": json.loads(adapter(plain, tmp_path / "adapter").model_dump_json())}
    config = configured(tmp_path, mixed=RL, general=general, **more)
    model = run_stage(config, "mixed")
    assert (model / "adapter_config.json").exists() == lora
    run_card = card(config, "mixed")
    assert run_card["ended"] == "all steps done"
    assert run_card["data"]["rows"] == 16
    weights = config.output / "mixed" / "preference" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    with Run(config) as run:
        stage = run.stage("mixed", config.table("mixed"))
        rated_problems = stage.general_problems(8)
        judge, centre = preference_model(stage, None, rated_problems)
    assert weights.stat().st_mtime_ns == before
    liked, other = judge(["What is 9 and 9?"] * 2, [LIKED, OTHER])
    assert liked > other
    assert centre > other

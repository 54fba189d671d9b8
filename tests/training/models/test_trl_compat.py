"""What training relies on in TRL, transformers and accelerate beyond their public interfaces.

Each test says what breaks if a release changes it, so that an upgrade fails here before it trains wrongly.
"""

import inspect
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

import trl.trainer.utils  # noqa: E402
from accelerate import Accelerator, PartialState  # noqa: E402
from datasets import Dataset  # noqa: E402
from transformers import DynamicCache, PreTrainedModel, Trainer  # noqa: E402
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer  # noqa: E402
from trl import GRPOConfig, GRPOTrainer, SFTTrainer  # noqa: E402
from trl.generation.vllm_generation import VLLMGeneration  # noqa: E402
from trl.models import utils as trl_models  # noqa: E402

from training.config import ModelSource, RlTable  # noqa: E402
from training.tiny.model import build  # noqa: E402
from training.trainer.grpo import advantage_reward, grpo_config  # noqa: E402
from training.trainer.models import load_model, load_tokenizer  # noqa: E402
from training.trainer.transformers_compat import attention_implementation  # noqa: E402
from training.trainer.trl_compat import OpenGRPOTrainer, fused_log_probs  # noqa: E402

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

CALLS: list[tuple[Any, str, list[str], str]] = [
    (
        GRPOTrainer,
        "_generate_and_score_completions",
        ["self", "inputs"],
        "the share of completions that count is added to its result: the loss of grpo and dr_grpo needs it",
    ),
    (
        GRPOTrainer,
        "_get_per_token_logps_and_entropies",
        [
            *("self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size"),
            "compute_entropy",
        ],
        "completions of one prompt are packed there",
    ),
    (
        GRPOTrainer,
        "_compute_loss",
        ["self", "model", "inputs"],
        "completions without advantage are dropped before it, and masked ones are taken out of its mean",
    ),
    (
        GRPOTrainer,
        "_generate_single_turn",
        ["self", "prompt_ids", "images", "multimodal_fields", "num_generations"],
        "the vLLM server samples by it, after the weights were sent",
    ),
    (
        GRPOTrainer,
        "__init__",
        ["self", "model", "reward_funcs", "args", "train_dataset"],
        "the trainer is made by it",
    ),
    (
        trl_models,
        "unwrap_model_for_generation",
        ["model", "accelerator"],
        "the training processes sample from the model that it returns",
    ),
    (
        trl.trainer.utils,
        "_use_triton",
        ["device"],
        "it is replaced, so that CPUs score completion tokens alone",
    ),
    (Trainer, "create_scheduler", ["self", "num_training_steps"], "the schedule by the clock overrides it"),
    (PreTrainedModel, "set_attn_implementation", ["self", "attn_implementation"], "sampling switches by it"),
    (DynamicCache, "batch_select_indices", ["self", "indices"], "ended completions leave the cache by it"),
]
"""Owner, name, first parameters, and what it is for."""


@pytest.mark.parametrize(("owner", "name", "parameters", "purpose"), CALLS, ids=lambda value: str(value)[:40])
def test_a_function_that_is_called_or_overridden_has_its_parameters(
    owner: Any, name: str, parameters: list[str], purpose: str
) -> None:
    """In this order, because most are passed by position."""
    function = getattr(owner, name, None)
    place = f"{owner.__name__}.{name}"
    assert function is not None, f"{place} is gone. What it is for: {purpose}"
    found = list(inspect.signature(function).parameters)
    assert found[: len(parameters)] == parameters, f"{place} has changed. What it is for: {purpose}"


@pytest.mark.parametrize("name", ["rollout_func", "reward_funcs", "processing_class", "callbacks"])
def test_the_grpo_trainer_accepts_our_arguments(name: str) -> None:
    """`rollout_func` is experimental in TRL: without it nothing of ours is trained on."""
    assert name in inspect.signature(GRPOTrainer.__init__).parameters, f"GRPOTrainer takes no {name}"


@pytest.mark.parametrize(
    ("owner", "text", "purpose"),
    [
        (GRPOTrainer, 'pop("env_mask"', "the rollout masks completions by it, out of loss and divisor"),
        (GRPOTrainer, "TRL_EXPERIMENTAL_SILENCE", "it turns off the warning about rollout_func"),
        (VLLMGeneration, "self.max_completion_length", "the growing length limit is set there"),
        (trl.trainer.utils, "compact = _use_triton(", "score_completions_only replaces what it returns"),
        (Trainer, "_created_lr_scheduler", "a schedule of ours is kept when training starts"),
    ],
    ids=["env_mask", "silence", "vllm limit", "compact", "scheduler"],
)
def test_the_source_still_reads_what_we_set(owner: Any, text: str, purpose: str) -> None:
    """For dependencies that have no name to look up."""
    assert text in inspect.getsource(owner), f"{owner.__name__} no longer has {text!r}: {purpose}"


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> OpenGRPOTrainer:
    """Return TRL's trainer, opened, on a model of a few thousand weights."""
    directory = tmp_path_factory.mktemp("model")
    build(directory, width=64, layers=1)
    source = ModelSource(path=str(directory))
    return OpenGRPOTrainer(
        model=load_model(source),
        reward_funcs=advantage_reward,
        args=grpo_config(RlTable(max_steps=1), Path(directory), 1, cpu=True, mixed=False),
        train_dataset=Dataset.from_dict({"prompt": ["0"]}),
        processing_class=load_tokenizer(source),
        rollout_func=lambda prompts, trainer: {},
    )


@pytest.mark.parametrize(
    ("name", "purpose"),
    [
        ("use_vllm", "who samples"),
        ("num_generations", "how often the server samples"),
        ("temperature", "the temperature of our own sampling"),
        ("model_wrapped", "the model that samples"),
        ("is_fsdp_enabled", "FSDP 1 is refused by it"),
        ("loss_type", "whether the loss is a mean over sequences"),
        ("beta", "whether completions without advantage may be dropped"),
        ("aux_loss_enabled", "whether completions without advantage may be dropped"),
        ("entropy_coef", "whether completions without advantage may be dropped"),
        ("use_adaptive_entropy", "whether completions without advantage may be dropped"),
        ("top_entropy_quantile", "whether completions without advantage may be dropped"),
    ],
)
def test_the_trainer_has_the_attributes_that_we_read(
    trainer: OpenGRPOTrainer, name: str, purpose: str
) -> None:
    """TRL's documentation does not list them."""
    assert hasattr(trainer, name), f"GRPOTrainer has no {name}, which says {purpose}"


def test_accelerate_has_the_attributes_that_we_read() -> None:
    """By them unsupported sharding is refused, and processes communicate."""
    assert hasattr(Accelerator, "is_fsdp2"), "FSDP 1 could not be told from FSDP 2"
    for name in ("process_index", "num_processes", "wait_for_everyone"):
        assert hasattr(PartialState(cpu=True), name), f"the process group has no {name}"


def test_the_fused_head_scores_labels_where_they_stand(trainer: OpenGRPOTrainer) -> None:
    """TRL adds this head to the model; it scores packed completions at positions of our own."""
    ids = torch.tensor([[5, 6, 7, 8]])
    labels = torch.tensor([[-100, 7, 8, -100]])
    mask = torch.zeros(1, 1, 4, 4).masked_fill(~torch.ones(4, 4, dtype=torch.bool).tril(), -1e9)
    with torch.no_grad():
        log_probs, entropy = fused_log_probs(trainer.model, ids, mask, torch.arange(4)[None], labels)
        logits = trainer.model(input_ids=ids).logits.log_softmax(-1)
    assert log_probs.shape == entropy.shape == (1, 4)
    expected = [logits[0, place, label].item() for place, label in ((1, 7), (2, 8))]
    assert log_probs[0, 1:3].tolist() == pytest.approx(expected, abs=1e-4)


def test_a_model_has_the_private_fields_that_we_read(trainer: OpenGRPOTrainer) -> None:
    """They say how attention is computed, and whether it can be computed otherwise."""
    model = trainer.model
    assert attention_implementation(model) in ("eager", "sdpa")
    assert hasattr(model, "_supports_sdpa"), "sampling would stay on the slow attention"
    assert hasattr(model, "all_tied_weights_keys"), "tied weights of a sharded model would be saved twice"
    assert hasattr(model.generation_config, "cache_implementation")


def test_a_cache_names_its_layers(trainer: OpenGRPOTrainer) -> None:
    """Their kind says whether a model sees everything before a token."""
    layers = DynamicCache(config=trainer.model.config).layers
    assert [type(layer) for layer in layers] == [DynamicLayer]
    assert DynamicSlidingWindowLayer is not DynamicLayer


def test_both_trainers_let_us_set_their_schedule() -> None:
    """The mixin's method must come before transformers'."""
    for kind in (GRPOTrainer, SFTTrainer):
        assert kind.create_scheduler is Trainer.create_scheduler, f"{kind.__name__} has one of its own"
    assert hasattr(GRPOConfig, "get_warmup_steps"), "the warmup of the schedule by the clock is read by it"

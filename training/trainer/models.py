"""Models from disk: Hugging Face directories, GGUF files (dequantized), and LoRA adapters on either."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from training.config import Lora, ModelSource
from training.data.problems import DataError
from training.trainer.distributed import process_group
from training.trainer.transformers_compat import mark_dequantized, shared_weight_names
from training.trainer.untyped import HFTokenizer, Model

__all__ = [
    "classifier_of",
    "device",
    "inner_model",
    "load_model",
    "load_tokenizer",
    "mixed_precision",
    "save_model",
]


def load_tokenizer(source: ModelSource) -> HFTokenizer:
    """Return the tokenizer, which pads on the left, as generation needs it."""
    arguments, options = _location(source)
    tokenizer = AutoTokenizer.from_pretrained(*arguments, **options)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(source: ModelSource, *, train: bool = True) -> Model:
    """Return the model in its precision, with its adapter, on this process's GPU if there is one.

    `source.lora` without `source.adapter` puts a fresh adapter on the base model.
    """
    arguments, options = _location(source)
    dtype = getattr(torch, source.dtype)
    if dtype is torch.bfloat16 and device().type == "cpu":
        # There torch's fused attention is slow: its backward alone takes a fifth of a step.
        options = {**options, "attn_implementation": "eager"}
    model = AutoModelForCausalLM.from_pretrained(*arguments, dtype=dtype, **options)
    mark_dequantized(model)
    if source.adapter is not None:
        model = PeftModel.from_pretrained(model, source.adapter, is_trainable=train)
    elif source.lora is not None:
        model = get_peft_model(model, _lora(source.lora))
    if (head := model.get_output_embeddings()) is not None:
        # Generation hands over a slice of the hidden states, for which torch copies the head for every row.
        head.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(), *inputs[1:]))
    return model.to(device())


def inner_model(model: Model) -> Model:
    """Return the causal model itself, with its adapter's layers in it, without PEFT's wrapper."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def mixed_precision(model: Model) -> bool:
    """Return whether the trainers compute in bfloat16: always on a GPU, on a CPU if the model's dtype is so.

    A CPU with matrix units for bfloat16 is three to four times faster so, one without three times slower.
    """
    return bool(model.device.type != "cpu" or model.dtype == torch.bfloat16)


def classifier_of(model: Model) -> Model:
    """Return a causal model's weights under a new scalar head, in float32, with an adapter merged into them.

    The given model must not be used any more. Raises DataError if its kind has no such form.
    """
    plain = model.merge_and_unload() if isinstance(model, PeftModel) else model
    config = copy.deepcopy(plain.config)
    config.num_labels = 1
    try:
        classifier = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    except ValueError as error:
        raise DataError(f"a {type(plain).__name__} can't be made into a reward model: {error}") from error
    classifier.base_model.load_state_dict(plain.base_model.state_dict())
    return classifier.to(plain.device)


def device() -> torch.device:
    """Return where models live: this process's own GPU, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def save_model(model: Model, tokenizer: HFTokenizer, directory: Path) -> None:
    """Save the tokenizer, and the weights (of an adapter only it) as safetensors in Hugging Face's form.

    The frozen copy of an adapter that the KL term compares with is not saved. Rank 0 writes. All processes
    must call this, because sharded weights are gathered.
    """
    group = process_group()
    options: dict[str, object] = {"selected_adapters": ["default"]} if isinstance(model, PeftModel) else {}
    if any(isinstance(weight, DTensor) for weight in model.parameters()):
        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = get_model_state_dict(model, options=whole)
        tied = shared_weight_names(model)  # gathered, they no longer are one tensor
        options["state_dict"] = {name: weight for name, weight in weights.items() if name not in tied}
    if group.rank == 0:
        directory.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(directory, **options)
        tokenizer.save_pretrained(directory)
    group.wait()


def _lora(settings: Lora) -> LoraConfig:
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,  # with dropout the policy would not be the one that sampled
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _location(source: ModelSource) -> tuple[tuple[str], dict[str, str]]:
    """Return the positional and named arguments by which transformers finds the model."""
    path = Path(source.path).expanduser()
    if path.suffix == ".gguf":
        return (str(path.parent),), {"gguf_file": path.name}
    return (str(path),), {}

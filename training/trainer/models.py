"""Models from disk: Hugging Face directories, GGUF files (dequantized), and LoRA adapters on either."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from training.config import Lora, ModelSource
from training.data.problems import DataError
from training.trainer.distributed import process_group

__all__ = [
    "classifier_of",
    "device",
    "inner_model",
    "load_model",
    "load_tokenizer",
    "mixed_precision",
    "save_model",
]


def load_tokenizer(source: ModelSource) -> Any:
    """The tokenizer, padding on the left, as generation needs it."""
    tokenizer = AutoTokenizer.from_pretrained(*_place(source)[0], **_place(source)[1])
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(source: ModelSource, *, train: bool = True) -> Any:
    """The model in its precision, with its adapter, if it has one, on this process's GPU where there is one.

    `source.lora` without `source.adapter` puts a fresh adapter on the base.
    """
    arguments, options = _place(source)
    dtype = getattr(torch, source.dtype)
    if dtype is torch.bfloat16 and device().type == "cpu":
        # There torch's fused attention is slow: its backward alone takes a fifth of a step.
        options = {**options, "attn_implementation": "eager"}
    model = AutoModelForCausalLM.from_pretrained(*arguments, dtype=dtype, **options)
    if getattr(model, "hf_quantizer", None) is not None:
        # A GGUF file's weights were dequantized while loading: the trainer may take them for plain ones.
        model.hf_quantizer, model.is_quantized = None, False
        del model.config.quantization_config
    if source.adapter is not None:
        model = PeftModel.from_pretrained(model, source.adapter, is_trainable=train)
    elif source.lora is not None:
        model = get_peft_model(model, _lora(source.lora))
    if (head := model.get_output_embeddings()) is not None:
        # A slice of the hidden states, as generation hands over, makes torch copy the head for every row.
        head.register_forward_pre_hook(lambda _, given: (given[0].contiguous(), *given[1:]))
    return model.to(device())


def inner_model(model: Any) -> Any:
    """The causal model itself, its adapter's layers in it, without PEFT's shell."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def mixed_precision(model: Any) -> bool:
    """Whether the trainers compute in bfloat16: always on a GPU, on a CPU where the model is held in it.

    A CPU with matrix units for bfloat16 is three to four times faster so, one without three times slower.
    """
    return bool(model.device.type != "cpu" or model.dtype == torch.bfloat16)


def classifier_of(model: Any) -> Any:
    """A new scalar head on a causal model's weights, in float32, an adapter merged into them.

    The model given is not to be used any more. Raises DataError where its kind has no such form.
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
    """Where models live: this process's own GPU, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def save_model(model: Any, tokenizer: Any, directory: Path) -> None:
    """Weights as safetensors in Hugging Face's form (of an adapter only it) and the tokenizer.

    The frozen copy of an adapter that the KL term is taken to stays behind. The first process writes;
    all must call this, for weights that are spread over them are gathered.
    """
    ranks = process_group()
    chosen: dict[str, Any] = {"selected_adapters": ["default"]} if isinstance(model, PeftModel) else {}
    if any(isinstance(weight, DTensor) for weight in model.parameters()):
        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = get_model_state_dict(model, options=whole)
        tied = getattr(model, "all_tied_weights_keys", {})  # gathered, they no longer are one tensor
        chosen["state_dict"] = {name: weight for name, weight in weights.items() if name not in tied}
    if ranks.index == 0:
        directory.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(directory, **chosen)
        tokenizer.save_pretrained(directory)
    ranks.wait()


def _lora(settings: Lora) -> LoraConfig:
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,  # a dropped-out policy would not be the one that drew the samples
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _place(source: ModelSource) -> tuple[tuple[str], dict[str, Any]]:
    """The positional and named arguments by which transformers finds the model."""
    path = Path(source.path).expanduser()
    if path.suffix == ".gguf":
        return (str(path.parent),), {"gguf_file": path.name}
    return (str(path),), {}

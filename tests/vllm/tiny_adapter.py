"""Build a LoRA for the model of `tiny_model.py`: `python tiny_adapter.py MODEL DIRECTORY SIZE`.

It writes PEFT's two files without PEFT. The weights of the attention's output are random; the model itself
has zeros there. SIZE 0 changes no reply, and a large SIZE spoils all. The script runs in vLLM's environment,
which has torch and safetensors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

RANK = 4


def build(model: Path, directory: Path, size: float) -> None:
    """Write adapter_config.json and adapter_model.safetensors."""
    base = json.loads((model / "config.json").read_text())
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": ["o_proj"],
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(0)
    inputs = base["num_attention_heads"] * base["head_dim"]
    tensors = {}
    for layer in range(base["num_hidden_layers"]):
        module = f"base_model.model.model.layers.{layer}.self_attn.o_proj"
        tensors[f"{module}.lora_A.weight"] = torch.randn(RANK, inputs, generator=generator)
        tensors[f"{module}.lora_B.weight"] = (
            torch.randn(base["hidden_size"], RANK, generator=generator) * size
        )
    save_file(tensors, directory / "adapter_model.safetensors")


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))

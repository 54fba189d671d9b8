"""What the check of weights reads of a server's reply; `models/test_adapters.py` has models."""

import pytest

from training.evaluation.client import RequestFailed
from training.evaluation.weight_check import parse_completion
from training.export.gguf_adapter import AdapterError, gguf_name, scaling


def test_both_engines_replies_are_read() -> None:
    """vLLM's token ids stand beside the log probabilities, llama.cpp's within; without ids, nothing."""
    vllm = {"token_ids": [5, 6], "logprobs": {"token_logprobs": [-0.1, -0.2]}}
    llama = {"logprobs": {"content": [{"id": 5, "logprob": -0.1}, {"id": 6, "logprob": -0.2}]}}
    assert parse_completion({"choices": [vllm]}) == parse_completion({"choices": [llama]})
    for reply in ({}, {"choices": []}, {"choices": [{"logprobs": None}]}):
        with pytest.raises(RequestFailed, match="no token ids"):
            parse_completion(reply)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("model.layers.0.self_attn.q_proj", "blk.0.attn_q.weight"),
        ("model.layers.11.mlp.down_proj", "blk.11.ffn_down.weight"),
    ],
)
def test_modules_have_llama_cpps_names(module: str, name: str) -> None:
    """By layer and kind."""
    assert gguf_name(module) == name


@pytest.mark.parametrize("module", ["model.embed_tokens", "lm_head", "model.layers.0.input_layernorm"])
def test_other_modules_are_refused(module: str) -> None:
    """Rather than left out in silence."""
    with pytest.raises(AdapterError, match=module):
        gguf_name(module)


def test_scaling_is_pefts() -> None:
    """alpha / r; over the root of r where rank-stabilised; a pattern names modules by their end."""
    plain = {"lora_alpha": 8}
    assert scaling(plain, "model.layers.0.mlp.up_proj", 4) == 2
    assert scaling({**plain, "use_rslora": True}, "x", 4) == 4
    patterned = {**plain, "alpha_pattern": {"up_proj": 2}}
    assert scaling(patterned, "model.layers.0.mlp.up_proj", 4) == 0.5
    assert scaling(patterned, "model.layers.0.mlp.gate_up_proj", 4) == 2

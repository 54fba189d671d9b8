"""The canary's arithmetic, and what it reads of a server's reply; `models/test_adapters.py` has models."""

import math

import pytest

from training.evaluation.client import RequestFailed
from training.evaluation.weight_check import agreement, drawn_from
from training.export.gguf_adapter import AdapterError, gguf_name, scaling


def test_agreement_is_the_distance_of_log_probabilities() -> None:
    """Mean and worst; within the tolerance both sides have the same weights."""
    found = agreement([-1.0, -2.0, -0.5], [-1.1, -2.0, -0.3])
    assert (found.tokens, found.mean, found.worst) == (3, pytest.approx(0.1), pytest.approx(0.2))
    assert found.holds(0.11)
    assert not found.holds(0.09)


def test_nothing_and_infinity_prove_nothing() -> None:
    """No tokens are no agreement, nor is a token that one side holds impossible."""
    assert not agreement([], []).holds()
    assert not agreement([-math.inf], [-1.0]).holds()
    assert not agreement([math.nan], [-1.0]).holds()
    with pytest.raises(ValueError, match="zip"):
        agreement([-1.0], [])


def test_both_engines_replies_are_read() -> None:
    """vLLM's token ids stand beside the log probabilities, llama.cpp's within; without ids, nothing."""
    vllm = {"token_ids": [5, 6], "logprobs": {"token_logprobs": [-0.1, -0.2]}}
    llama = {"logprobs": {"content": [{"id": 5, "logprob": -0.1}, {"id": 6, "logprob": -0.2}]}}
    assert drawn_from({"choices": [vllm]}) == drawn_from({"choices": [llama]})
    for reply in ({}, {"choices": []}, {"choices": [{"logprobs": None}]}):
        with pytest.raises(RequestFailed, match="no token ids"):
            drawn_from(reply)


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

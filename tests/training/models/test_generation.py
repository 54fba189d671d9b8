"""Completions sampled in a batch: each equals what it would be alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("trl")

from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Gemma2Config

from training.config import ModelSource
from training.tiny.model import build
from training.trainer.generation import generate_ids
from training.trainer.models import load_model

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

PROMPTS = [[7, 8, 9, 10], [11], [7, 8, 9, 10], [12, 13], [7, 8, 9, 10], [11]]
"""Of different lengths, some of them asked several times."""


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """Return a model of two small layers."""
    build(tmp_path, width=64, layers=2)
    return load_model(ModelSource(path=str(tmp_path)), train=False).eval()


def completions_of(
    model: Any,
    prompts: Sequence[Sequence[int]],
    temperature: float,
    first: int = 0,
    *,
    limit: int = 12,
    stop_ids: Sequence[int] = (2,),
) -> list[list[int]]:
    """Return a completion of each prompt, with seeds by their places."""
    seeds = [str(first + place) for place in range(len(prompts))]
    return generate_ids(model, prompts, temperature, limit, stop_ids, seeds=seeds)


@pytest.fixture
def passes(model: Any) -> list[tuple[int, int]]:
    """Return the rows and columns of every pass through the model."""
    shapes: list[tuple[int, int]] = []

    def note_shape(_: Any, args: Any, arguments: Any) -> None:
        shapes.append(tuple(arguments["input_ids"].shape))

    model.model.register_forward_pre_hook(note_shape, with_kwargs=True)
    return shapes


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_repeated_prompts_get_the_completions_they_get_alone(model: Any, temperature: float) -> None:
    """The shared pass over a prompt changes no completion, whatever else is in the batch."""
    in_batch = completions_of(model, PROMPTS, temperature)
    alone = [completions_of(model, [prompt], temperature, place)[0] for place, prompt in enumerate(PROMPTS)]
    assert in_batch == alone
    if temperature:
        assert in_batch[0] != in_batch[2], "samples of one prompt differ"


def test_repeated_prompts_are_passed_once(model: Any, passes: list[tuple[int, int]]) -> None:
    """All but the last token of three prompts, then the last one of each of the six."""
    completions_of(model, PROMPTS, 1.0)
    assert passes[:2] == [(3, 3), (6, 1)]


def test_different_prompts_are_passed_whole(model: Any, passes: list[tuple[int, int]]) -> None:
    """There is nothing to share."""
    completions_of(model, [[7, 8, 9, 10], [11]], 1.0)
    assert passes[0] == (2, 4)


def test_a_model_without_a_cache_gets_none(model: Any, passes: list[tuple[int, int]]) -> None:
    """The model's own settings for generation decide."""
    model.generation_config.use_cache = False
    completions_of(model, PROMPTS, 1.0)
    assert passes[0] == (6, 4)


def test_a_model_with_an_adapter_shares_prompts_too(model: Any) -> None:
    """The shared pass has the weights that the completions are sampled from."""
    adapted = get_peft_model(
        model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    ).eval()
    alone = [completions_of(adapted, [prompt], 1.0, place)[0] for place, prompt in enumerate(PROMPTS)]
    assert completions_of(adapted, PROMPTS, 1.0) == alone


def test_an_ended_completion_leaves_the_batch(model: Any, passes: list[tuple[int, int]]) -> None:
    """The others are what they would have been, up to the limit."""
    stop_ids = range(2, 14)  # so many that replies end after a few tokens, each after another number
    in_batch = completions_of(model, PROMPTS * 4, 1.0, limit=40, stop_ids=stop_ids)
    batch_sizes = [size for size, columns in passes if columns == 1]
    assert batch_sizes[0] == 24
    assert batch_sizes == sorted(batch_sizes, reverse=True)
    assert batch_sizes[-1] <= 12
    assert len(batch_sizes) == max(map(len, in_batch))
    assert all(reply[-1] in stop_ids or len(reply) == 40 for reply in in_batch)
    assert not any(token in stop_ids for reply in in_batch for token in reply[:-1])
    alone = [
        completions_of(model, [prompt], 1.0, place, limit=40, stop_ids=stop_ids)[0]
        for place, prompt in enumerate(PROMPTS * 4)
    ]
    assert in_batch == alone


def test_the_trainers_attention_is_back_after_sampling(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a failure. What is faster backward is slower forward."""
    implementations = []
    model.set_attn_implementation("eager")
    model.model.register_forward_pre_hook(
        lambda *_: implementations.append(model.config._attn_implementation)
    )
    completions_of(model, PROMPTS, 1.0)
    assert set(implementations) == {"sdpa"}
    assert model.config._attn_implementation == "eager"

    def broken(**_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(model, "generate", broken)
    with pytest.raises(MemoryError):
        completions_of(model, PROMPTS, 1.0)
    assert model.config._attn_implementation == "eager"


def test_a_model_without_fused_attention_keeps_its_own() -> None:
    """Gemma 2's attention has a cap that torch's fused one can't apply."""
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = Gemma2Config(**sizes, num_attention_heads=2, num_key_value_heads=1, head_dim=16)
    capped = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    assert len(completions_of(capped, PROMPTS, 1.0)) == len(PROMPTS)
    assert capped.config._attn_implementation == "eager"

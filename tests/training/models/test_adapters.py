"""Checks that the embedded engine computes with a converted LoRA what PEFT's own model computes."""

import asyncio
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")

import numpy as np  # noqa: E402
from gguf import GGMLQuantizationType, GGUFWriter  # noqa: E402
from gguf.quants import quantize  # noqa: E402

from gateway.demo.bundled import REASONER  # noqa: E402
from gateway.upstreams.embedded.engine import EmbeddedEngine, EmbeddedOptions  # noqa: E402
from gateway.upstreams.embedded.model_store import ensure_model  # noqa: E402
from training.evaluation.client import open_client  # noqa: E402
from training.evaluation.weight_check import ServedTokens, load, sample_from_server  # noqa: E402
from training.export.gguf_adapter import AdapterError, convert, restore  # noqa: E402
from training.trainer.weight_check import SERVED_TOLERANCE, WeightCheck, compare_logprobs, token_logprobs  # noqa: E402

pytestmark = [
    pytest.mark.training,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # in peft
]

PROMPTS = ("The capital of France is Paris, and the capital of Italy is", "def add(a, b):\n    return")
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the embedded model, dequantised, in Hugging Face's form."""
    model, tokenizer = load(ensure_model())
    directory = tmp_path_factory.mktemp("base")
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return Path(directory)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a PEFT LoRA over SmolLM2's every linear layer, scaled by patterns, with large weights."""
    model, _ = load(base)
    patterns = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"k_proj": 5, "up_proj": 9}}
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=LAYERS, use_rslora=True, **patterns)
    adapted = peft.get_peft_model(model, config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.04)
    directory = tmp_path_factory.mktemp("adapter")
    adapted.save_pretrained(directory)
    return Path(directory)


@pytest.fixture(scope="module")
def served(
    adapter: Path, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[list[int], ServedTokens]]:
    """Return prompts, and the engine's continuations of them with the converted adapter."""
    lora = tmp_path_factory.mktemp("gguf") / "taught.gguf"
    assert convert(adapter, ensure_model(), lora) == 30 * len(LAYERS)
    _, tokenizer = load(base)
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS]

    async def ask() -> list[ServedTokens]:
        engine = EmbeddedEngine(EmbeddedOptions(slots=1, context=256, loras=(lora,)))
        async with engine, open_client(engine.base_url, 60, key=engine.api_key) as client:
            assert await client.served_model() == "taught"
            return [await sample_from_server(client, "taught", prompt, tokens=24) for prompt in prompts]

    return list(zip(prompts, asyncio.run(ask()), strict=True))


def compare(
    served: list[tuple[list[int], ServedTokens]], base: Path, adapter: Path | None = None
) -> WeightCheck:
    """Compare the engine's log probabilities with those of Hugging Face's model with this adapter."""
    model, _ = load(base, adapter)
    ours = [value for prompt, tokens in served for value in token_logprobs(model, prompt, tokens.ids)]
    theirs = [value for _, tokens in served for value in tokens.logprobs]
    return compare_logprobs(ours, theirs, tolerance=SERVED_TOLERANCE)


def test_the_engine_agrees_with_peft(
    served: list[tuple[list[int], ServedTokens]], base: Path, adapter: Path
) -> None:
    """The same adapter agrees to within four-bit rounding; the base model without it is far off."""
    with_adapter, base_alone = compare(served, base, adapter), compare(served, base)
    print(f"\nwith the adapter {with_adapter}\nbase alone {base_alone}")
    assert with_adapter.tokens >= 24
    assert (with_adapter.verdict, base_alone.verdict) == ("agrees", "differs")
    assert base_alone.mean > 5 * with_adapter.mean


def test_a_base_in_either_form_gives_the_same_file(adapter: Path, base: Path, tmp_path: Path) -> None:
    """A GGUF file and a directory of the base model convert an adapter to equal bytes."""
    convert(adapter, base, tmp_path / "one.gguf")
    convert(adapter, ensure_model(), tmp_path / "two.gguf")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()


def test_an_adapter_without_a_gguf_form_is_refused(adapter: Path, tmp_path: Path) -> None:
    """llama.cpp's format has no DoRA; nothing is written."""
    for file in adapter.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((adapter / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    with pytest.raises(AdapterError, match="use_dora"):
        convert(tmp_path, ensure_model(), tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_converting_back_loses_nothing(adapter: Path, base: Path, tmp_path: Path) -> None:
    """A GGUF adapter becomes a PEFT adapter that PEFT loads and that converts to the same file."""
    convert(adapter, base, tmp_path / "there.gguf")
    assert restore(tmp_path / "there.gguf", base, tmp_path / "back") == 30 * len(LAYERS)
    convert(tmp_path / "back", base, tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "there.gguf").read_bytes()
    (one, tokenizer), (two, _) = load(base, adapter), load(base, tmp_path / "back")
    prompt, reply = tokenizer(PROMPTS[0])["input_ids"], tokenizer(" Rome, of course.")["input_ids"]
    scores = (token_logprobs(model, prompt, reply) for model in (one, two))
    with_adapter = compare_logprobs(*scores, tolerance=SERVED_TOLERANCE)
    assert with_adapter.mean < 0.001  # values have 16 bits in the file


def test_only_an_adapter_converts_back(base: Path, tmp_path: Path) -> None:
    """A model's GGUF file, half an adapter's, and a text file are refused in one sentence."""
    (tmp_path / "note.gguf").write_text("no adapter")
    (tmp_path / "half.gguf").write_bytes(REASONER.read_bytes()[:200])
    for wrong in (ensure_model(), tmp_path / "half.gguf", tmp_path / "note.gguf"):
        with pytest.raises(AdapterError, match="can't be read as a GGUF adapter"):
            restore(wrong, base, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_values_that_need_a_guess_are_refused(base: Path, tmp_path: Path) -> None:
    """So are quantized values, and those of an adapter for another architecture."""
    writer = GGUFWriter(tmp_path / "rough.gguf", "llama")
    writer.add_float32("adapter.lora.alpha", 8.0)
    for part, shape in (("a", (32, 64)), ("b", (64, 32))):
        raw = quantize(np.ones(shape, dtype=np.float32), GGMLQuantizationType.BF16)
        name = f"blk.0.attn_v.weight.lora_{part}"
        writer.add_tensor(name, raw, raw_dtype=GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(AdapterError, match="stored as BF16"):
        restore(tmp_path / "rough.gguf", base, tmp_path / "back")
    (tmp_path / "other").mkdir()
    config = json.loads((base / "config.json").read_text()) | {"model_type": "qwen3"}
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    with pytest.raises(AdapterError, match="is for llama"):
        restore(REASONER, tmp_path / "other", tmp_path / "back")
    assert not (tmp_path / "back").exists()

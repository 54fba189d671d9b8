"""A LoRA from PEFT, converted and served by the embedded engine, says what PEFT's own model says."""

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
from training.evaluation.weight_check import Agreement, Drawn, agreement, draw, load, token_logprobs  # noqa: E402
from training.export.gguf_adapter import AdapterError, convert, restore  # noqa: E402

pytestmark = [
    pytest.mark.training,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # in peft
]

PROMPTS = ("The capital of France is Paris, and the capital of Italy is", "def add(a, b):\n    return")
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model, dequantised, in Hugging Face's form."""
    model, tokenizer = load(ensure_model())
    directory = tmp_path_factory.mktemp("base")
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return Path(directory)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEFT LoRA over SmolLM2's every linear layer, scaled by patterns, with weights large enough to see."""
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
def drawn(
    adapter: Path, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[list[int], Drawn]]:
    """Prompts, and what the embedded engine with the converted adapter goes on with."""
    lora = tmp_path_factory.mktemp("gguf") / "taught.gguf"
    assert convert(adapter, ensure_model(), lora) == 30 * len(LAYERS)
    _, tokenizer = load(base)
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS]

    async def ask() -> list[Drawn]:
        engine = EmbeddedEngine(EmbeddedOptions(slots=1, context=256, loras=(lora,)))
        async with engine, open_client(engine.base_url, 60, key=engine.api_key) as client:
            assert await client.served_model() == "taught"
            return [await draw(client, "taught", prompt, tokens=24) for prompt in prompts]

    return list(zip(prompts, asyncio.run(ask()), strict=True))


def compared(drawn: list[tuple[list[int], Drawn]], base: Path, adapter: Path | None = None) -> Agreement:
    """The engine's log probabilities beside those of Hugging Face's model with this adapter."""
    model, _ = load(base, adapter)
    ours = [value for prompt, each in drawn for value in token_logprobs(model, prompt, each.ids)]
    return agreement(ours, [value for _, each in drawn for value in each.logprobs])


def test_the_engine_serves_what_peft_has(
    drawn: list[tuple[list[int], Drawn]], base: Path, adapter: Path
) -> None:
    """The same adapter agrees to within four-bit rounding; the base model without it is far off."""
    same, alone = compared(drawn, base, adapter), compared(drawn, base)
    print(f"\nwith the adapter {same}\nbase alone {alone}")
    assert same.tokens >= 24
    assert same.holds()
    assert not alone.holds()
    assert alone.mean > 5 * same.mean


def test_the_base_is_read_from_either_form(adapter: Path, base: Path, tmp_path: Path) -> None:
    """A GGUF file and a directory tell the same of the base, and so the same file comes out."""
    convert(adapter, base, tmp_path / "one.gguf")
    convert(adapter, ensure_model(), tmp_path / "two.gguf")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()


def test_what_cannot_be_said_is_refused(adapter: Path, tmp_path: Path) -> None:
    """DoRA and the like have no form in llama.cpp's format; nothing is written."""
    for file in adapter.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((adapter / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    with pytest.raises(AdapterError, match="use_dora"):
        convert(tmp_path, ensure_model(), tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_the_way_back_loses_nothing(adapter: Path, base: Path, tmp_path: Path) -> None:
    """A GGUF adapter becomes a PEFT adapter that converts to the same file, and that PEFT itself loads."""
    convert(adapter, base, tmp_path / "there.gguf")
    assert restore(tmp_path / "there.gguf", base, tmp_path / "back") == 30 * len(LAYERS)
    convert(tmp_path / "back", base, tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "there.gguf").read_bytes()
    (one, tokenizer), (two, _) = load(base, adapter), load(base, tmp_path / "back")
    prompt, reply = tokenizer(PROMPTS[0])["input_ids"], tokenizer(" Rome, of course.")["input_ids"]
    same = agreement(token_logprobs(one, prompt, reply), token_logprobs(two, prompt, reply))
    assert same.mean < 0.001  # values have 16 bits in the file


def test_only_an_adapter_is_taken_back(base: Path, tmp_path: Path) -> None:
    """A model's own GGUF file, half of an adapter's, and a file that is none, are refused in one sentence."""
    (tmp_path / "note.gguf").write_text("no adapter")
    (tmp_path / "half.gguf").write_bytes(REASONER.read_bytes()[:200])
    for wrong in (ensure_model(), tmp_path / "half.gguf", tmp_path / "note.gguf"):
        with pytest.raises(AdapterError, match="can't be read as a GGUF adapter"):
            restore(wrong, base, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_values_that_would_have_to_be_guessed_are_refused(base: Path, tmp_path: Path) -> None:
    """Quantized ones, and those of an adapter for another architecture."""
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

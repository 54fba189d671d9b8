"""Convert a LoRA adapter for the embedded engine, from PEFT's directory to llama.cpp's GGUF file, and back.

`thinkgate adapter DIRECTORY --base MODEL --out FILE` converts; `embedded_adapters = ["FILE"]` then makes the
gateway serve it. A judge's release gate comes along, bound to the new file.
`thinkgate adapter FILE --base MODEL --out DIRECTORY` converts back, to continue training from a GGUF adapter.
This needs the packages gguf and safetensors, and torch to read bfloat16.

The formats differ in three ways:
- Names: `...layers.3.self_attn.q_proj.lora_A.weight` is `blk.3.attn_q.weight.lora_a`.
- Row order: llama.cpp's Llama stores rotary pairs of Q and K side by side, as Meta's own weights do. The rows
  of B move in the same way.
- Scaling: a GGUF file has one alpha, and llama.cpp scales by alpha / rank. Whatever else PEFT scales by
  (rank-stabilised LoRA, ranks and alphas by pattern) is multiplied into B.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scorers.gate import GATE_FILE, model_digest, read_gate, write_gate

__all__ = [
    "AdapterError",
    "Base",
    "convert",
    "convert_gate",
    "gguf_name",
    "main",
    "read_base",
    "restore",
    "scaling",
]

_TARGETS: Mapping[str, str] = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_ARCHITECTURES: Mapping[str, str] = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""Hugging Face's `model_type` -> llama.cpp's name."""
_REORDERED = frozenset({"llama"})
"""Architectures whose rows of Q and K llama.cpp stores in another order."""
_TENSOR = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<part>[AB])(?:\.\w+)?\.weight")
_LAYER = re.compile(r"(?:.+\.)?layers\.(\d+)\.(.+)")


class AdapterError(Exception):
    """The adapter can't be converted; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Base:
    """The base model's properties that matter: llama.cpp's name of its architecture, and its heads."""

    architecture: str
    heads: int
    kv_heads: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 1 if the adapter can't be converted."""
    parser = argparse.ArgumentParser(prog="thinkgate adapter", description=__doc__.split("\n")[0])
    parser.add_argument("adapter", type=Path, help="directory with adapter_config.json, or a GGUF file")
    parser.add_argument("--base", type=Path, required=True, help="the base model: a GGUF file or a directory")
    parser.add_argument("--out", type=Path, required=True, help="the GGUF file, or the directory, to write")
    args = parser.parse_args(arguments)
    try:
        to_gguf = args.adapter.is_dir()
        count = (convert if to_gguf else restore)(args.adapter, args.base, args.out)
        print(f"{args.out}: {count} weights adapted, {_size(args.out) / 1e6:.1f} MB")
        if to_gguf and (gate := convert_gate(args.adapter, args.out)) is not None:
            print(f"{gate}: its release gate")
    except AdapterError as error:
        print(f"adapter: {error}", file=sys.stderr)
        return 1
    return 0


def convert(adapter: Path, base: Path, out: Path, *, half: bool = True) -> int:
    """Write the PEFT adapter in the directory `adapter` as `out`; return the number of adapted weights.

    `base` is the base model's GGUF file or Hugging Face directory. With `half`, values have
    16 bits. Raises AdapterError.
    """
    import numpy as np
    from gguf import GGUFWriter

    config = _config(adapter)
    model = read_base(base)
    pairs = _pairs(_tensors(adapter))
    alpha = float(config["lora_alpha"])
    # The file gets its own name only when it is complete.
    part = out.with_name(out.name + ".part")
    writer = GGUFWriter(part, model.architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for module, (a, b) in sorted(pairs.items()):
        name = gguf_name(module)
        rank = a.shape[0]
        if b.shape[1] != rank:
            raise AdapterError(f"{module}: A has rank {rank} and B {b.shape[1]}.")
        scaled = b * (scaling(config, module, rank) * rank / alpha)
        for suffix, values in (("lora_a", a), ("lora_b", _reorder_rows(scaled, name, model))):
            stored = np.ascontiguousarray(values, dtype=np.float16 if half else np.float32)
            if not np.isfinite(stored).all():
                raise AdapterError(f"{module}: has values that are not finite 16-bit numbers.")
            writer.add_tensor(f"{name}.{suffix}", stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(out)
    return len(pairs)


def convert_gate(adapter: Path, out: Path) -> Path | None:
    """Bind the release gate in the directory `adapter`, if there is one, to the converted file `out`.

    Returns the file written beside `out`: `judge.gate.json` for `judge.gguf`. Its data keep the digest of the
    original weights. Raises AdapterError for a gate of other weights.
    """
    path = adapter / GATE_FILE
    if not path.exists():
        return None
    try:
        gate = read_gate(path)
        original = model_digest(adapter)
        if gate.model_sha256 != original:
            raise AdapterError(f"{path} belongs to other weights, and was not copied.")
        data = {**gate.data, "converted_from": original}
        converted = out.with_suffix(".gate.json")
        write_gate(converted, replace(gate, model_sha256=model_digest(out), data=data))
    except (OSError, ValueError) as error:
        raise AdapterError(f"{path} was not copied: {error}.") from error
    return converted


def restore(adapter: Path, base: Path, out: Path) -> int:
    """Write the GGUF adapter as a PEFT adapter in the directory `out`; return the number of adapted weights.

    Ranks may differ by module; values keep their 16 or 32 bits. Raises AdapterError.
    """
    from gguf import GGUFReader
    from safetensors.numpy import save_file

    model = read_base(base)
    try:
        reader = GGUFReader(adapter)
        alpha = float(reader.fields["adapter.lora.alpha"].contents())
        architecture = str(reader.fields["general.architecture"].contents())
    except (OSError, ValueError, LookupError) as error:
        raise AdapterError(f"{adapter} can't be read as a GGUF adapter: {error}.") from error
    if architecture != model.architecture:
        raise AdapterError(f"{adapter} is for {architecture}, but {base} is {model.architecture}.")
    tensors, ranks = {}, {}
    for tensor in reader.tensors:
        name, _, part = tensor.name.rpartition(".")
        module = _module(name)
        if tensor.tensor_type.name not in ("F16", "F32"):
            raise AdapterError(f"{tensor.name} is stored as {tensor.tensor_type.name}, not F16 or F32.")
        values = tensor.data if part == "lora_a" else _reorder_rows(tensor.data, name, model, back=True)
        tensors[f"base_model.model.{module}.lora_{part[-1].upper()}.weight"] = values.copy()
        if part == "lora_a":
            ranks[module] = len(values)
    if 2 * len(ranks) != len(tensors) or not ranks:
        raise AdapterError(f"{adapter}: a LoRA has both an A and a B for each module.")
    rank = max(ranks.values())
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        # PEFT scales by alpha over a module's own rank, as llama.cpp does.
        "rank_pattern": {module: own for module, own in ranks.items() if own != rank},
        "target_modules": sorted(ranks),
    }
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "adapter_model.safetensors")
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return len(ranks)


def gguf_name(module: str) -> str:
    """Return llama.cpp's name for a module's weight. Raises AdapterError if llama.cpp can't adapt it."""
    match = _LAYER.fullmatch(module)
    target = _TARGETS.get(match[2]) if match else None
    if match is None or target is None:
        raise AdapterError(f"{module}: only {', '.join(_TARGETS)} of a layer can be adapted.")
    return f"blk.{match[1]}.{target}.weight"


def scaling(config: Mapping[str, Any], module: str, rank: int) -> float:
    """Return PEFT's factor before B A: alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA (rsLoRA).

    A module's own alpha comes from `alpha_pattern`, whose keys match the end of its name.
    """
    alpha = float(config["lora_alpha"])
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(?:.*\.)?{pattern}", module):
            alpha = float(value)
            break
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def reorder_heads(weight: Any, heads: int, *, back: bool = False) -> Any:
    """Return the rows in llama.cpp's order, where i and i + half of a head are neighbours; or back."""
    half = weight.shape[0] // heads // 2
    shape = (heads, half, 2) if back else (heads, 2, half)
    return weight.reshape(*shape, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def _reorder_rows(b: Any, name: str, base: Base, *, back: bool = False) -> Any:
    """Return B with its rows as llama.cpp stores them, or back."""
    heads = {"attn_q": base.heads, "attn_k": base.kv_heads}.get(name.split(".")[2])
    return b if heads is None or base.architecture not in _REORDERED else reorder_heads(b, heads, back=back)


def _module(name: str) -> str:
    """Return the module of a weight by llama.cpp's name. Raises AdapterError."""
    parts = name.split(".")
    module = {gguf: peft for peft, gguf in _TARGETS.items()}.get(parts[2] if len(parts) == 4 else "")
    if module is None:
        raise AdapterError(f"{name} is not a weight that can be adapted.")
    return f"model.layers.{parts[1]}.{module}"


def read_base(path: Path) -> Base:
    """Read the base model's properties from its GGUF file or its config.json. Raises AdapterError."""
    if path.is_dir():
        config = _json(path / "config.json")
        kind = str(config.get("model_type"))
        if kind not in _ARCHITECTURES:
            raise AdapterError(f"{path}: {kind} can't be converted; known: {', '.join(_ARCHITECTURES)}.")
        heads = int(config["num_attention_heads"])
        return Base(_ARCHITECTURES[kind], heads, int(config.get("num_key_value_heads") or heads))
    from gguf import GGUFReader

    try:
        fields = GGUFReader(path).fields
    except (OSError, ValueError) as error:
        raise AdapterError(f"{path} can't be read as GGUF: {error}.") from error
    architecture = str(fields["general.architecture"].contents())
    if architecture not in _ARCHITECTURES.values():
        raise AdapterError(f"{path}: {architecture} can't be converted.")
    heads = int(fields[f"{architecture}.attention.head_count"].contents())
    kv_heads = fields.get(f"{architecture}.attention.head_count_kv")
    return Base(architecture, heads, heads if kv_heads is None else int(kv_heads.contents()))


def _config(adapter: Path) -> Mapping[str, Any]:
    """Read the adapter's configuration. Raises AdapterError for what GGUF can't express."""
    config = _json(adapter / "adapter_config.json")
    if config.get("peft_type") != "LORA":
        raise AdapterError(f"{adapter} holds {config.get('peft_type')}, not LORA.")
    for field in ("use_dora", "modules_to_save", "lora_bias"):
        if config.get(field):
            raise AdapterError(f"{adapter}: a GGUF adapter can't hold {field}.")
    if config.get("bias", "none") != "none":
        raise AdapterError(f"{adapter}: a GGUF adapter can't hold trained biases.")
    if not config.get("lora_alpha"):
        raise AdapterError(f"{adapter}: lora_alpha is missing or 0.")
    return config


def _tensors(adapter: Path) -> Mapping[str, Any]:
    """Read the adapter's tensors as numpy arrays of 32-bit floats."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(adapter / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{adapter}/adapter_model.safetensors can't be read: {error}.") from error
    return {name: tensor.float().numpy() for name, tensor in tensors.items()}


def _pairs(tensors: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return (A, B) by module."""
    parts: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        match = _TENSOR.fullmatch(name)
        if match is None:
            raise AdapterError(f"{name} is not a LoRA weight.")
        parts.setdefault(match["module"], {})[match["part"]] = tensor
    if not parts or any(len(pair) < 2 for pair in parts.values()):
        raise AdapterError("a LoRA has both an A and a B for each module.")
    return {module: (pair["A"], pair["B"]) for module, pair in parts.items()}


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"{path} can't be read: {error}.") from error
    if not isinstance(content, dict):
        raise AdapterError(f"{path} is not a JSON object.")
    return content


def _size(path: Path) -> int:
    """Return the bytes in a file, or in a directory's files."""
    return sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))

"""What `thinkgate promote` touches: the aliases file, its state, the gateway's metrics, the engine."""

from __future__ import annotations

import json
import os
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from training.promotion.decisions import Targets, Traffic

__all__ = [
    "DeploymentFailed",
    "PromotionState",
    "load_adapter",
    "read_aliases",
    "read_state",
    "read_traffic",
    "replace_alias",
    "save_state",
    "write_aliases",
]

AliasTable = Mapping[str, Targets]


class DeploymentFailed(Exception):
    """A step can't be done; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class PromotionState:
    """How far a promotion has come. `before` is what the alias stood for, empty where it was none."""

    alias: str
    current: str
    candidate: str
    before: Targets
    share: float = 0.0
    status: Literal["moving", "done", "rolled back"] = "moving"
    reason: str = ""

    def moved(self, share: float) -> PromotionState:
        """The state with the candidate at this share, in percent."""
        return replace(self, share=share)


def read_aliases(path: Path) -> AliasTable:
    """The aliases of the gateway's file, none where there is no file yet. Raises DeploymentFailed."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise DeploymentFailed(f"{path} can't be read: {error}") from error
    try:
        held: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        return {name: tuple((t["model"], t.get("share", 1.0)) for t in held[name]) for name in held}
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise DeploymentFailed(f"{path} is no file of aliases: {error}") from error


def write_aliases(path: Path, table: AliasTable) -> None:
    """Replaces the file atomically, in the format that its name says. Raises OSError."""
    if path.suffix == ".json":
        held = {
            name: [{"model": m, "share": share} for m, share in targets] for name, targets in table.items()
        }
        text = json.dumps(held, indent=1) + "\n"
    else:
        lines = []
        for name, targets in table.items():
            told = ", ".join(f"{{model = {_quoted(m)}, share = {share!r}}}" for m, share in targets)
            lines.append(f"{_quoted(name)} = [{told}]\n")
        text = "".join(lines)
    _replace(path, text)


def replace_alias(table: AliasTable, alias: str, targets: Targets) -> AliasTable:
    """The table with this alias; without targets, the table without it."""
    others = {name: held for name, held in table.items() if name != alias}
    return {**others, alias: targets} if targets else others


def read_state(path: Path) -> PromotionState | None:
    """The state that was saved; None where none was. Raises DeploymentFailed."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return PromotionState(**{**held, "before": tuple((model, share) for model, share in held["before"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DeploymentFailed(f"{path} is no state of a promotion: {error}") from error


def save_state(path: Path, state: PromotionState) -> None:
    """Replaces the file atomically. Raises OSError."""
    _replace(path, json.dumps(asdict(state), indent=1) + "\n")


def read_traffic(metrics: str, alias: str, target: str) -> Traffic:
    """What the gateway's exposition says of one of an alias's targets."""
    requests: dict[str, float] = {}
    sums = dict.fromkeys(("seconds_sum", "seconds_count", "agreement_sum", "agreement_count"), 0.0)
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if (sample.labels.get("alias"), sample.labels.get("target")) != (alias, target):
                continue
            name = sample.name.removeprefix("thinkgate_target_")
            if name == "requests_total":
                requests[sample.labels["status"]] = sample.value
            elif name in sums:
                sums[name] = sample.value
    return Traffic(
        requests,
        sums["seconds_sum"],
        sums["seconds_count"],
        sums["agreement_sum"],
        sums["agreement_count"],
    )


async def load_adapter(http: aiohttp.ClientSession, engine: str, name: str, directory: str) -> None:
    """Has a running vLLM serve a LoRA under this name, unless it does. Raises DeploymentFailed.

    `engine` is its address without /v1, `directory` the adapter as that machine sees it. vLLM
    has to run with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.
    """
    root = engine.rstrip("/").removesuffix("/v1")
    try:
        async with http.get(f"{root}/v1/models") as reply:
            served = {model["id"] for model in (await reply.json())["data"]}
        if name in served:
            return
        body = {"lora_name": name, "lora_path": directory}
        async with http.post(f"{root}/v1/load_lora_adapter", json=body) as reply:
            told = (await reply.text())[:300]
            if reply.status == 404:
                needs = "--enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
                raise DeploymentFailed(f"{root} loads no adapters while it runs; vLLM needs {needs}")
            if reply.status >= 400:
                raise DeploymentFailed(f"{root} did not load {directory}: {reply.status} {told}")
    except (aiohttp.ClientError, TimeoutError, KeyError, ValueError) as error:
        raise DeploymentFailed(
            f"{root} does not answer as vLLM does ({error or type(error).__name__})"
        ) from error


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's, but for DEL, which TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _replace(path: Path, text: str) -> None:
    """Writes beside the file and renames over it, so that nobody ever reads half of it."""
    descriptor, part = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        os.chmod(part, path.stat().st_mode & 0o7777)
    else:
        os.chmod(part, 0o644)
    os.replace(part, path)

"""The outside world of `thinkgate promote`: aliases file, saved state, gateway metrics, engine."""

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
    """A step of the promotion failed; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class PromotionState:
    """The progress of a promotion; `before` holds the alias's original targets, empty if it is new."""

    alias: str
    current: str
    candidate: str
    before: Targets
    share: float = 0.0
    status: Literal["moving", "done", "rolled back"] = "moving"
    reason: str = ""

    def with_share(self, share: float) -> PromotionState:
        """Return the state with the candidate at this share, in percent."""
        return replace(self, share=share)


def read_aliases(path: Path) -> AliasTable:
    """Read the gateway's aliases file; a missing file has no aliases. Raises DeploymentFailed."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise DeploymentFailed(f"{path} can't be read: {error}") from error
    try:
        table: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        return {name: tuple((t["model"], t.get("share", 1.0)) for t in table[name]) for name in table}
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise DeploymentFailed(f"{path} is not a file of aliases: {error}") from error


def write_aliases(path: Path, table: AliasTable) -> None:
    """Replace the aliases file atomically, as JSON or TOML by its suffix. Raises OSError."""
    if path.suffix == ".json":
        content = {
            name: [{"model": model, "share": share} for model, share in targets]
            for name, targets in table.items()
        }
        text = json.dumps(content, indent=1) + "\n"
    else:
        lines = []
        for name, targets in table.items():
            entries = ", ".join(
                f"{{model = {_toml_string(model)}, share = {share!r}}}" for model, share in targets
            )
            lines.append(f"{_toml_string(name)} = [{entries}]\n")
        text = "".join(lines)
    _replace_file(path, text)


def replace_alias(table: AliasTable, alias: str, targets: Targets) -> AliasTable:
    """Return the table with this alias set to `targets`; without targets, the table without the alias."""
    others = {name: value for name, value in table.items() if name != alias}
    return {**others, alias: targets} if targets else others


def read_state(path: Path) -> PromotionState | None:
    """Read the saved state, None if there is none. Raises DeploymentFailed."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        before = tuple((model, share) for model, share in content["before"])
        return PromotionState(**{**content, "before": before})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DeploymentFailed(f"{path} is not the state of a promotion: {error}") from error


def save_state(path: Path, state: PromotionState) -> None:
    """Replace the state file atomically. Raises OSError."""
    _replace_file(path, json.dumps(asdict(state), indent=1) + "\n")


def read_traffic(metrics: str, alias: str, target: str) -> Traffic:
    """Return the traffic of one target of an alias, from the gateway's Prometheus metrics."""
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
    """Load a LoRA adapter into a running vLLM under this name, unless it is loaded already.

    `engine` is vLLM's address without /v1; `directory` is the adapter's path on that machine. vLLM needs
    --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True. Raises DeploymentFailed.
    """
    root = engine.rstrip("/").removesuffix("/v1")
    try:
        async with http.get(f"{root}/v1/models") as reply:
            models = {model["id"] for model in (await reply.json())["data"]}
        if name in models:
            return
        body = {"lora_name": name, "lora_path": directory}
        async with http.post(f"{root}/v1/load_lora_adapter", json=body) as reply:
            message = (await reply.text())[:300]
            if reply.status == 404:
                needs = "--enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
                raise DeploymentFailed(f"{root} can't load adapters while it runs; start vLLM with {needs}")
            if reply.status >= 400:
                raise DeploymentFailed(f"{root} did not load {directory}: {reply.status} {message}")
    except (aiohttp.ClientError, TimeoutError, KeyError, ValueError) as error:
        raise DeploymentFailed(
            f"{root} does not answer as vLLM does ({error or type(error).__name__})"
        ) from error


def _toml_string(text: str) -> str:
    """Return a TOML basic string: a JSON string, with DEL escaped as TOML requires."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _replace_file(path: Path, text: str) -> None:
    """Write beside the file and rename over it, so that no reader sees half of it."""
    descriptor, temporary = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        os.chmod(temporary, path.stat().st_mode & 0o7777)
    else:
        os.chmod(temporary, 0o644)
    os.replace(temporary, path)
